/**
 * Users of a cluster, for the demo and the tests: they write and read all the time, notice which pods a Service would send
 * them to, and count what fails. Nothing is sent twice: a request that fails is a failed request.
 */
import { CoreV1Api, KubeConfig, type V1Pod } from '@kubernetes/client-node';
import { Agent, request } from 'undici';
import { Kubernetes } from '../../clients/kubernetes.ts';
import { agentFor } from '../../clients/server-trust.ts';
import { API_KEY_SECRET, namespaceOf, type ClusterRef } from '../../domain/naming.ts';
import { serverNameOf, TRUST_SECRET } from '../../domain/tls.ts';
import { Reflector } from '../kubelet/reflector.ts';
import { pause } from '../wait.ts';

export interface TrafficOptions {
  readonly kubeconfig: string;
  readonly ref: ClusterRef;
  readonly collection: string;
  readonly dimensions: number;
  /** Ids of the points that are written begin here. */
  readonly firstId: number;
  /** Each writes five points at a time, respectively reads one that was acknowledged. */
  readonly writers?: number;
  readonly readers?: number;
  /** Milliseconds between two requests of one user; default 10. */
  readonly pace?: number;
}

export interface TrafficReport {
  readonly sent: number;
  readonly failed: number;
  /** The first few failures, in words. */
  readonly failures: readonly string[];
  /** Points whose write was acknowledged. */
  readonly acknowledged: number;
  /** API keys that were used: a rotation makes two of one. */
  readonly keys: number;
}

/** Milliseconds between two looks at the key's Secret, as a user's mounted Secret is refreshed (in reality slower). */
const KEY_PACE = 200;

const CONNECTIONS = { headersTimeout: 60_000, bodyTimeout: 60_000, connections: 8 } as const;

export class Traffic {
  readonly #options: TrafficOptions;
  readonly #agent = new Agent(CONNECTIONS);
  readonly #pods: Reflector<V1Pod>;
  readonly #ready = new Map<string, string>();
  readonly #ended = new AbortController();
  readonly #keys = new Set<string>();
  readonly #lanes: Promise<void>[] = [];
  readonly #failures: string[] = [];
  readonly #acknowledged: number[] = [];
  #key = '';
  /** Authorities, where the cluster has TLS. */
  #ca: string | undefined;
  #sent = 0;
  #failed = 0;
  #next: number;
  #turn = 0;

  private constructor(options: TrafficOptions) {
    this.#options = options;
    this.#next = options.firstId;
    const namespace = namespaceOf(options.ref);
    const config = new KubeConfig();
    config.loadFromFile(options.kubeconfig);
    const core = config.makeApiClient(CoreV1Api);
    this.#pods = new Reflector<V1Pod>({
      config,
      path: `/api/v1/namespaces/${namespace}/pods`,
      list: () => core.listNamespacedPod({ namespace }),
      onChange: (pod) => this.#see(pod),
      onGone: ({ metadata }) => void this.#ready.delete(metadata?.name ?? ''),
      log: () => undefined,
    });
  }

  /** Begin, and come back when the first write was acknowledged. */
  static async start(options: TrafficOptions): Promise<Traffic> {
    const traffic = new Traffic(options);
    await traffic.#readKey();
    await traffic.#pods.start();
    const { writers = 2, readers = 2, pace = 10 } = options;
    const { signal } = traffic.#ended;
    const lane = async (step: () => Promise<void>, every: number): Promise<void> => {
      while (!signal.aborted) {
        await step();
        await pause(every, signal);
      }
    };
    traffic.#lanes.push(lane(() => traffic.#readKey(), KEY_PACE));
    for (let writer = 0; writer < writers; writer += 1) traffic.#lanes.push(lane(() => traffic.#write(), pace));
    for (let reader = 0; reader < readers; reader += 1) traffic.#lanes.push(lane(() => traffic.#read(), pace));
    while (traffic.#acknowledged.length === 0 && traffic.#failed === 0) await pause(10);
    return traffic;
  }

  get report(): TrafficReport {
    return {
      sent: this.#sent,
      failed: this.#failed,
      failures: this.#failures,
      acknowledged: this.#acknowledged.length,
      keys: this.#keys.size,
    };
  }

  async stop(): Promise<TrafficReport> {
    this.#ended.abort();
    await Promise.all(this.#lanes);
    return this.report;
  }

  /** Ids of acknowledged points that are not there, through any one node. Ends the traffic for good. */
  async lost(): Promise<number[]> {
    const found = new Set<number>();
    for (let at = 0; at < this.#acknowledged.length; at += 500) {
      const ids = this.#acknowledged.slice(at, at + 500);
      const points = await this.#call<{ id: number; payload: { written?: number } }[]>('POST', '/points', { ids });
      for (const { id, payload } of points) if (payload.written === id) found.add(id);
    }
    await this.#pods.stop();
    await this.#agent.close();
    return this.#acknowledged.filter((id) => !found.has(id));
  }

  /** What a Service does: pods that are ready and not about to go. */
  #see({ metadata, status }: V1Pod): void {
    const name = metadata?.name ?? '';
    const ready = status?.conditions?.some(({ type, status: holds }) => type === 'Ready' && holds === 'True') === true;
    if (ready && metadata?.deletionTimestamp === undefined && status?.podIP !== undefined) {
      this.#ready.set(name, status.podIP);
    } else {
      this.#ready.delete(name);
    }
  }

  async #readKey(): Promise<void> {
    const { kubeconfig, ref } = this.#options;
    const kubernetes = new Kubernetes(kubeconfig);
    const key = await kubernetes.secretValue(namespaceOf(ref), API_KEY_SECRET.name, API_KEY_SECRET.key);
    this.#key = key ?? this.#key;
    this.#ca = await kubernetes.secretValue(namespaceOf(ref), TRUST_SECRET.name, TRUST_SECRET.ca);
  }

  async #write(): Promise<void> {
    const ids = Array.from({ length: 5 }, () => this.#next++);
    const points = ids.map((id) => ({ id, vector: this.#vector(id), payload: { written: id } }));
    if (await this.#try(() => this.#call('PUT', '/points?wait=true', { points }))) this.#acknowledged.push(...ids);
  }

  async #read(): Promise<void> {
    const id = this.#acknowledged[Math.floor(Math.random() * this.#acknowledged.length)];
    if (id === undefined) return;
    await this.#try(async () => {
      const points = await this.#call<unknown[]>('POST', '/points', { ids: [id] });
      if (points.length !== 1) throw new Error(`Point ${id} was acknowledged and is not there.`);
    });
  }

  #vector(id: number): number[] {
    return Array.from({ length: this.#options.dimensions }, (_, axis) => Math.sin(id * 7 + axis * 3) + 1.5);
  }

  async #try(send: () => Promise<unknown>): Promise<boolean> {
    this.#sent += 1;
    try {
      await send();
      return true;
    } catch (error) {
      this.#failed += 1;
      if (this.#failures.length < 5) this.#failures.push(String(error));
      return false;
    }
  }

  /** To the pods in turn. */
  async #call<T>(method: 'PUT' | 'POST', path: string, body: unknown): Promise<T> {
    const pods = [...this.#ready];
    const [pod, host] = pods[this.#turn++ % Math.max(pods.length, 1)] ?? [];
    if (pod === undefined) throw new Error('No pod is ready.');
    const [key, ca] = [this.#key, this.#ca];
    const trust = ca === undefined ? undefined : { ca, servername: serverNameOf(this.#options.ref, pod), source: '' };
    const { statusCode, body: answer } = await request(
      `${ca === undefined ? 'http' : 'https'}://${host}:6333/collections/${encodeURIComponent(this.#options.collection)}${path}`,
      {
        method,
        dispatcher: trust === undefined ? this.#agent : agentFor(trust, CONNECTIONS, {}),
        headers: { 'api-key': key, 'content-type': 'application/json' },
        body: JSON.stringify(body),
      },
    );
    const text = await answer.text();
    if (statusCode >= 300)
      throw new Error(`${method} ${path} on ${host} answered ${statusCode}: ${text.slice(0, 200)}`);
    this.#keys.add(key);
    return (JSON.parse(text) as { result: T }).result;
  }
}
