/**
 * The webhook by which the local API server accepts EKS tokens, as EKS' own does: who signed it, for which cluster, and
 * what the cluster's access entries make of that identity. One API server stands for all EKS clusters here: a token
 * for any cluster that exists opens it, as what the entry of that cluster says.
 */
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { RbacAuthorizationV1Api, type KubeConfig } from '@kubernetes/client-node';
import { Agent, request } from 'undici';
import { ignoring } from '../kubelet/api.ts';
import { isSignedFor, principalOf, readToken, TokenRefused } from './eks-token.ts';
import { Upstream, type Caller, type Routes } from './proxy/upstream.ts';

interface Options {
  /** The emulators: EKS for clusters and access entries, STS for identities. */
  readonly routes: Routes;
  /** Hosts that tokens may name as STS besides Amazon's, such as that of the proxy. */
  readonly stsHosts?: readonly string[];
  /** Secret of an access key; tokens of others are refused. */
  readonly secretOf: (accessKeyId: string) => string | undefined;
  readonly port?: number;
  readonly now?: () => number;
  readonly log?: (line: string) => void;
}

/** A user as Kubernetes' TokenReview names one. */
export interface KubernetesUser {
  readonly username: string;
  readonly uid: string;
  readonly groups: readonly string[];
}

/** EKS authorises its access policies beside RBAC; here each is a group that is bound to the like of it. */
const POLICY_ROLES: Readonly<Record<string, string>> = {
  AmazonEKSClusterAdminPolicy: 'cluster-admin',
  AmazonEKSAdminPolicy: 'admin',
  AmazonEKSEditPolicy: 'edit',
  AmazonEKSViewPolicy: 'view',
};
const groupOf = (policy: string) => `eks-access-policy:${policy}`;

export class TokenWebhook {
  readonly #options: Options;
  readonly #server: Server;
  readonly #agent = new Agent({ keepAliveTimeout: 1000 });
  readonly #upstream: Upstream;

  private constructor(options: Options) {
    this.#options = options;
    this.#upstream = new Upstream(options.routes, this.#agent);
    this.#server = createServer((incoming, outgoing) => {
      this.#answer(incoming).then(
        (status) => {
          outgoing.writeHead(200, { 'content-type': 'application/json' });
          outgoing.end(JSON.stringify({ apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', status }));
        },
        (error: unknown) => {
          options.log?.(`token review failed: ${String(error)}`);
          outgoing.writeHead(500).end();
        },
      );
    });
  }

  /** Listens on loopback; the API server is told the port when it starts. */
  static async listen(options: Options): Promise<TokenWebhook> {
    const webhook = new TokenWebhook(options);
    await new Promise<void>((resolve, reject) => {
      webhook.#server.once('error', reject);
      webhook.#server.listen(options.port ?? 0, '127.0.0.1', resolve);
    });
    return webhook;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /**
   * Who a token speaks for.
   *
   * @throws TokenRefused
   */
  async authenticate(token: string): Promise<KubernetesUser> {
    const { stsHosts, now = Date.now, secretOf } = this.#options;
    const identity = readToken(token, stsHosts, now());
    const secret = secretOf(identity.accessKeyId);
    if (secret === undefined) throw new TokenRefused('nobody has its access key');
    const cluster = (await this.#clusters(identity)).find((name) => isSignedFor(identity, name, secret));
    if (cluster === undefined) throw new TokenRefused('it is signed for no cluster that there is');
    const caller = await this.#callerIdentity(identity.url, cluster);
    const entry = await this.#accessEntry(identity, cluster, principalOf(caller.arn));
    if (entry === undefined) throw new TokenRefused(`cluster ${cluster} has no access entry for ${caller.arn}`);
    return { username: entry.username, uid: caller.id, groups: ['system:authenticated', ...entry.groups] };
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
    await this.#agent.close();
  }

  async #answer(incoming: IncomingMessage): Promise<Record<string, unknown>> {
    const chunks: Buffer[] = [];
    for await (const chunk of incoming) chunks.push(chunk as Buffer);
    const review = JSON.parse(Buffer.concat(chunks).toString('utf8')) as { spec?: { token?: string } };
    try {
      return { authenticated: true, user: await this.authenticate(review.spec?.token ?? '') };
    } catch (error) {
      if (!(error instanceof TokenRefused)) throw error;
      this.#options.log?.(`token refused: ${error.message}`);
      return { authenticated: false };
    }
  }

  async #clusters(caller: Caller): Promise<string[]> {
    return ((await this.#eks(caller, '/clusters'))?.['clusters'] as string[] | undefined) ?? [];
  }

  /** The presigned question, asked at the emulator in place of Amazon. */
  async #callerIdentity({ search }: URL, cluster: string): Promise<{ arn: string; id: string }> {
    const sts = this.#options.routes['sts'] ?? this.#options.routes['*'];
    const { statusCode, body } = await request(`${sts}/${search}`, {
      headers: { 'x-k8s-aws-id': cluster },
      dispatcher: this.#agent,
    });
    const text = await body.text();
    const element = (name: string) => new RegExp(`<${name}>([^<]+)<`).exec(text)?.[1];
    const arn = element('Arn');
    if (statusCode !== 200 || arn === undefined) throw new TokenRefused(`STS answers ${statusCode} to it`);
    return { arn, id: element('UserId') ?? arn };
  }

  /** Sessions do not tell the path of their role: an entry of the same role with a path is the one. */
  async #accessEntry(
    caller: Caller,
    cluster: string,
    principal: string,
  ): Promise<{ username: string; groups: readonly string[] } | undefined> {
    const entries = `/clusters/${cluster}/access-entries`;
    const known = ((await this.#eks(caller, entries))?.['accessEntries'] as string[] | undefined) ?? [];
    const found = known.find((arn) => arn === principal || withoutPath(arn) === principal);
    if (found === undefined) return undefined;
    const path = `${entries}/${encodeURIComponent(found)}`;
    const entry = (await this.#eks(caller, path))?.['accessEntry'] as
      { username?: string; kubernetesGroups?: string[] } | undefined;
    const policies = (await this.#eks(caller, `${path}/access-policies`))?.['associatedAccessPolicies'] as
      { policyArn: string; accessScope?: { type?: string } }[] | undefined;
    const groups = (policies ?? [])
      // One for some namespaces only grants nothing here.
      .filter(({ accessScope }) => accessScope?.type === 'cluster')
      .map(({ policyArn }) => groupOf(policyArn.slice(policyArn.lastIndexOf('/') + 1)));
    return { username: entry?.username || found, groups: [...(entry?.kubernetesGroups ?? []), ...groups] };
  }

  async #eks(caller: Caller, path: string): Promise<Record<string, unknown> | undefined> {
    const answer = await this.#upstream.eks(caller, 'GET', path);
    return answer.status === 200 ? (JSON.parse(answer.body) as Record<string, unknown>) : undefined;
  }
}

/** Binds the groups that stand for EKS' access policies to Kubernetes' own roles. May be repeated. */
export async function bindAccessPolicies(config: KubeConfig): Promise<void> {
  const rbac = config.makeApiClient(RbacAuthorizationV1Api);
  for (const [policy, role] of Object.entries(POLICY_ROLES)) {
    const body = {
      metadata: { name: `eks-access-policy-${role}` },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role },
      subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'Group', name: groupOf(policy) }],
    };
    await ignoring([409], rbac.createClusterRoleBinding({ body }));
  }
}

function withoutPath(arn: string): string {
  return arn.replace(/:role\/.*\/([^/]+)$/, ':role/$1');
}
