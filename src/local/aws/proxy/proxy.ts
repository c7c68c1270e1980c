/**
 * An HTTP proxy in front of the AWS emulators that adds what AWS does and they do not: operations take their time, are
 * throttled, lose their answers, run into quotas, are not seen at once, honour client tokens. Every call is logged.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Agent } from 'undici';
import { errorCodeOf } from './answers.ts';
import { AutoScalingLayer } from './auto-scaling.ts';
import { BucketLayer, type BucketStore } from './buckets.ts';
import { readCall, type Answer, type AwsCall, type Layer, type RawRequest } from './call.ts';
import { Ec2Layer } from './ec2.ts';
import { autoScalingGroupOf, EksLayer, type ClusterAccessPoint, type Nodegroup } from './eks.ts';
import { ConnectionLost, Faults, type FaultRule } from './faults.ts';
import { Lag, type LagRule } from './lag.ts';
import { Pace, type Hold, type PaceDefaults } from './pace.ts';
import { resultResource } from './resources.ts';
import { ClientTokens } from './tokens.ts';
import { childText, elements, parseXml } from './xml.ts';
import { Upstream, type Caller, type Routes } from './upstream.ts';

export interface ProxyOptions {
  /** Which emulator answers for a service: `{eks: 'http://…', '*': 'http://…'}`. */
  readonly routes: Routes;
  /** Port to listen on; default one that is free. */
  readonly port?: number;
  /** How many describes a creation, deletion or update takes where no hold says otherwise; default one each. */
  readonly pace?: Partial<PaceDefaults>;
  /** What DescribeCluster answers as endpoint and certificate authority instead of the emulator's. */
  readonly clusterAccess?: ClusterAccessPoint;
  /** Where buckets are made, too; what is in them is asked there. */
  readonly bucketStore?: BucketStore;
  /** Called after each call. */
  readonly onCall?: (call: LoggedCall) => void;
}

/** Where the proxy itself answers: what was called how often, as JSON `{"ec2:CreateVpc": 1}`. */
export const CALLS_PATH = '/_fleet/calls';

/** A call as it went. Holds no key and no signature. */
export interface LoggedCall {
  readonly service: string;
  readonly operation: string;
  readonly resource: string | undefined;
  /** What the client got; 0 where its connection was reset. */
  readonly status: number;
  readonly errorCode: string | undefined;
  readonly at: Date;
}

export class AwsProxy {
  readonly log: LoggedCall[] = [];
  /** Called with each call that was answered, whole. */
  watch: ((call: AwsCall, answer: Answer) => void) | undefined;
  readonly #server: Server;
  readonly #agent = new Agent({ keepAliveTimeout: 1000 });
  readonly #faults = new Faults();
  readonly #tokens = new ClientTokens();
  readonly #pace: Pace;
  readonly #lag: Lag;
  readonly #eks: EksLayer;
  readonly #ec2: Ec2Layer;
  readonly #autoScaling: AutoScalingLayer;
  readonly #upstream: Upstream;
  readonly #layers: readonly Layer[];

  readonly #onCall: ((call: LoggedCall) => void) | undefined;
  /** The latest caller of each region. */
  readonly #callers = new Map<string, Caller>();

  readonly #buckets: BucketLayer | undefined;

  private constructor({ routes, pace = {}, clusterAccess, bucketStore, onCall }: ProxyOptions) {
    this.#buckets = bucketStore && new BucketLayer(bucketStore);
    this.#onCall = onCall;
    this.#upstream = new Upstream(routes, this.#agent);
    this.#pace = new Pace(pace);
    this.#lag = new Lag();
    this.#eks = new EksLayer(this.#upstream, this.#pace, clusterAccess);
    this.#ec2 = new Ec2Layer(this.#upstream, this.#pace);
    this.#autoScaling = new AutoScalingLayer(async (caller, name) =>
      (await this.#eks.nodegroups(caller)).some(
        ({ clusterName, nodegroupName }) => autoScalingGroupOf(`${clusterName}/${nodegroupName}`) === name,
      ),
    );
    const own = [this.#eks, this.#autoScaling, this.#ec2, ...(this.#buckets === undefined ? [] : [this.#buckets])];
    this.#layers = [this.#faults, this.#tokens, this.#lag, ...own];
    this.#server = createServer((incoming, outgoing) => void this.#serve(incoming, outgoing));
  }

  static async listen(options: ProxyOptions): Promise<AwsProxy> {
    const proxy = new AwsProxy(options);
    await new Promise<void>((resolve, reject) => {
      proxy.#server.once('error', reject);
      proxy.#server.listen(options.port ?? 0, '127.0.0.1', resolve);
    });
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** The variables by which the AWS SDKs use the proxy. */
  get env(): Record<string, string> {
    return sdkEndpoints(this.url);
  }

  /** Breaks calls. Rules are tried in the order in which they were given; the first that applies is taken. */
  inject(...rules: readonly FaultRule[]): void {
    this.#faults.add(...rules);
  }

  /** Keeps a resource in a state, or lets what happens to it fail. */
  hold(...holds: readonly Hold[]): void {
    this.#pace.add(...holds);
  }

  /** Hides what is created next from the describes that follow. */
  lag(...rules: readonly LagRule[]): void {
    this.#lag.add(...rules);
  }

  /** Forgets rules, holds, tokens, states and log: for an emulator that was reset. */
  reset(): void {
    const parts = [this.#faults, this.#tokens, this.#pace, this.#lag, this.#eks, this.#autoScaling, this.#ec2];
    for (const part of parts) part.clear();
    this.log.length = 0;
  }

  /** No faults, holds or lags from now on; what was created stays known. */
  lift(): void {
    this.#faults.clear();
    this.#pace.clear();
    this.#lag.clear();
  }

  /** Calls per `service:operation`, in the order of their names. */
  counts(): Map<string, number> {
    const counts = new Map<string, number>();
    for (const { service, operation } of this.log) {
      const name = `${service}:${operation}`;
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    return new Map([...counts].sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  /** The node groups of every region that was called, as a describe would show them now. */
  async nodegroups(): Promise<Nodegroup[]> {
    const callers = [...this.#callers.values()];
    return (await Promise.all(callers.map((caller) => this.#eks.nodegroups(caller)))).flat();
  }

  /** Whether a scale-in must leave an instance alone. */
  isProtected(instance: string): boolean {
    return this.#autoScaling.isProtected(instance);
  }

  /** The zone of each of the subnets that there are. */
  async zones({ region }: Pick<Nodegroup, 'region'>): Promise<Map<string, string>> {
    const caller = this.#callers.get(region);
    if (caller === undefined) return new Map();
    const answer = await this.#upstream.ec2(caller, { Action: 'DescribeSubnets' });
    const subnets = elements(parseXml(answer.body), 'item').map(
      (item) => [childText(item, 'subnetId') ?? '', childText(item, 'availabilityZone') ?? ''] as const,
    );
    return new Map(subnets);
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#buckets?.close();
    await this.#agent.close();
  }

  async #serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const at = new Date();
    try {
      if (incoming.url === CALLS_PATH) {
        outgoing.writeHead(200, { 'content-type': 'application/json' });
        outgoing.end(JSON.stringify(Object.fromEntries(this.counts())));
        return;
      }
      const call = readCall(await readRequest(incoming));
      if (call.region !== '' && call.accessKeyId !== '') this.#callers.set(call.region, call);
      const record = (status: number, answer?: Answer) => {
        const { service, operation } = call;
        const resource = call.resource ?? (answer && resultResource(call, answer));
        const logged = { service, operation, resource, status, errorCode: answer && errorCodeOf(answer), at };
        this.log.push(logged);
        this.#onCall?.(logged);
      };
      try {
        const answer = await this.#answer(call);
        record(answer.status, answer);
        this.watch?.(call, answer);
        outgoing.writeHead(answer.status, { ...answer.headers } as Record<string, string>);
        outgoing.end(answer.body);
      } catch (error) {
        if (!(error instanceof ConnectionLost)) throw error;
        record(0);
        incoming.socket.resetAndDestroy();
      }
    } catch (error) {
      // The emulator is gone or the request is none: the client sees which, as of a gateway.
      if (!outgoing.headersSent) outgoing.writeHead(502, { 'content-type': 'text/plain' });
      outgoing.end(error instanceof Error ? error.message : String(error));
    }
  }

  #answer(call: AwsCall): Promise<Answer> {
    const from = (index: number): Promise<Answer> => {
      const layer = this.#layers[index];
      return layer === undefined ? this.#upstream.send(call) : layer.handle(call, () => from(index + 1));
    };
    return from(0);
  }
}

async function readRequest(incoming: IncomingMessage): Promise<RawRequest> {
  const chunks: Buffer[] = [];
  for await (const chunk of incoming) chunks.push(chunk as Buffer);
  const { method = 'GET', url: path = '/', headers } = incoming;
  return { method, path, headers, body: Buffer.concat(chunks) };
}

/** The variables by which the AWS SDKs use an address. S3 is not among them. */
export function sdkEndpoints(url: string): Record<string, string> {
  const names = ['EKS', 'EC2', 'IAM', 'STS', 'AUTO_SCALING'].map((service) => `AWS_ENDPOINT_URL_${service}`);
  return Object.fromEntries(names.map((name) => [name, url]));
}
