/** EKS as its callers meet it: clusters, node groups and add-ons come and go in their time, and can fail. */
import { createHash } from 'node:crypto';
import { errorAnswer, jsonAnswer, withJson } from './answers.ts';
import type { Answer, AwsCall, Layer } from './call.ts';
import { removeContents } from './eks-contents.ts';
import { clusterNetwork, removeClusterSecurityGroup } from './eks-network.ts';
import {
  isObject,
  keyOf,
  KINDS,
  mergeMembers,
  nameOf,
  ON_ITS_WAY,
  type EksKind,
  type Members,
  type Tracked,
} from './eks-resources.ts';
import { EksUpdates } from './eks-updates.ts';
import { describeAddonVersions, describeClusterVersions, versionProblem, DEFAULT_VERSION } from './eks-versions.ts';
import type { Pace, Phase } from './pace.ts';
import type { Caller, Upstream } from './upstream.ts';

/** A Kubernetes API server that stands for the control plane of every cluster. */
export interface ClusterAccessPoint {
  readonly endpoint: string;
  /** PEM in Base64, as in a kubeconfig. */
  readonly certificateAuthority: string;
}

/** As much of a node group as its machines need. */
export interface Nodegroup {
  readonly region: string;
  readonly clusterName: string;
  readonly nodegroupName: string;
  readonly status: string;
  readonly scalingConfig?: { readonly desiredSize?: number };
  readonly subnets?: readonly string[];
  readonly instanceTypes?: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  readonly taints?: readonly { readonly key: string; readonly value?: string; readonly effect: string }[];
}

export class EksLayer implements Layer {
  readonly #upstream: Upstream;
  readonly #pace: Pace;
  readonly #access: ClusterAccessPoint | undefined;
  readonly #updates: EksUpdates;
  /** By `kind:cluster/name`. */
  readonly #tracked = new Map<string, Tracked>();
  /** What the emulators do not keep, laid over what they answer. */
  readonly #changes = new Map<string, Members>();

  constructor(upstream: Upstream, pace: Pace, access: ClusterAccessPoint | undefined) {
    this.#upstream = upstream;
    this.#pace = pace;
    this.#access = access;
    this.#updates = new EksUpdates({
      describe: (call, kind) => this.#describeNow(call, kind),
      tracked: (key) => this.#tracked.get(key),
      begin: (key, tracked) => this.#tracked.set(key, tracked),
      tick: (key) => this.#tick(key),
      change: (key, members) => this.#changes.set(key, { ...this.#changes.get(key), ...members }),
      course: (kind, resource) => this.#pace.next(kind, 'update', resource),
    });
  }

  clear(): void {
    this.#tracked.clear();
    this.#changes.clear();
    this.#updates.clear();
  }

  async handle(call: AwsCall, next: () => Promise<Answer>): Promise<Answer> {
    if (call.service !== 'eks') return next();
    if (call.operation === 'DescribeClusterVersions') return describeClusterVersions(call.params);
    if (call.operation === 'DescribeAddonVersions') return describeAddonVersions(call.params);
    const updated = await this.#updates.handle(call);
    if (updated !== undefined) return updated;
    for (const kind of Object.keys(KINDS) as EksKind[]) {
      const { noun } = KINDS[kind];
      if (call.operation === `Create${noun}`) return this.#create(call, kind, next);
      if (call.operation === `Describe${noun}`) return this.#describe(call, kind, next);
      if (call.operation === `Delete${noun}`) return this.#delete(call, kind, next);
      if (call.operation === `List${noun}s`) return this.#list(call, kind, next);
    }
    return next();
  }

  /** All node groups of a region as they are now. */
  async nodegroups(caller: Caller): Promise<Nodegroup[]> {
    const found: Nodegroup[] = [];
    for (const name of await this.#names(caller, '/clusters', 'clusters')) {
      for (const group of await this.#names(caller, `/clusters/${name}/node-groups`, 'nodegroups')) {
        const params = { name, nodegroupName: group };
        const now = await this.#describeNow({ ...caller, params }, 'nodegroup');
        if (!('body' in now)) found.push({ ...(now as unknown as Nodegroup), region: caller.region });
      }
    }
    return found;
  }

  async #names(caller: Caller, path: string, member: string): Promise<string[]> {
    const answer = await this.#upstream.eks(caller, 'GET', path);
    return answer.status === 200 ? ((JSON.parse(answer.body) as Record<string, string[]>)[member] ?? []) : [];
  }

  async #create(call: AwsCall, kind: EksKind, next: () => Promise<Answer>): Promise<Answer> {
    const key = keyOf(call, kind);
    const taken = this.#tracked.get(key);
    if (taken?.phase === 'delete') {
      return errorAnswer(call, 409, 'ResourceInUseException', `${KINDS[kind].noun} already exists: ${nameOf(key)}`);
    }
    const changes = kind === 'cluster' ? await this.#checkCluster(call) : this.#checkParent(call);
    if ('status' in changes) return changes as Answer;
    const answer = await next();
    if (answer.status >= 300) {
      if (kind === 'cluster') await removeClusterSecurityGroup(this.#upstream, call, changes);
      return answer;
    }
    this.#changes.set(key, changes);
    this.#track(key, kind, 'create');
    return this.#show(answer, kind, key);
  }

  /** What AWS checks before it makes a cluster, and what it answers beyond the emulators. */
  async #checkCluster(call: AwsCall): Promise<Members | Answer> {
    const { version = DEFAULT_VERSION, accessConfig, upgradePolicy, deletionProtection, name } = call.params;
    const problem = versionProblem(String(version));
    if (problem !== undefined) return errorAnswer(call, 400, 'InvalidParameterException', problem);
    // One that exists is refused by the emulator: nothing must be made for it here.
    const existing = await this.#upstream.eks(call, 'GET', `/clusters/${String(name)}`);
    const network = existing.status === 200 ? {} : await clusterNetwork(this.#upstream, call);
    if ('status' in network) return network;
    return {
      version,
      upgradePolicy: upgradePolicy ?? { supportType: 'EXTENDED' },
      accessConfig: {
        bootstrapClusterCreatorAdminPermissions: true,
        authenticationMode: 'CONFIG_MAP',
        ...objectOf(accessConfig),
      },
      deletionProtection: deletionProtection ?? false,
      ...network,
    };
  }

  #checkParent(call: AwsCall): Members | Answer {
    const parent = this.#tracked.get(`cluster:${String(call.params['name'])}`);
    if (parent === undefined || parent.phase === 'update') return {};
    const message = `Cluster '${String(call.params['name'])}' is not in ACTIVE status`;
    return errorAnswer(call, 400, 'InvalidRequestException', message);
  }

  async #describe(call: AwsCall, kind: EksKind, next: () => Promise<Answer>): Promise<Answer> {
    const key = keyOf(call, kind);
    const tracked = this.#tracked.get(key);
    if (tracked?.last !== undefined) {
      if (tracked.left > 0) {
        tracked.left -= 1;
        return jsonAnswer({ [kind]: { ...tracked.last, status: 'DELETING' } });
      }
      this.#forget(key);
    }
    const answer = await next();
    if (answer.status >= 300) return answer;
    const shown = this.#show(answer, kind, key);
    this.#tick(key);
    return shown;
  }

  async #delete(call: AwsCall, kind: EksKind, next: () => Promise<Answer>): Promise<Answer> {
    const key = keyOf(call, kind);
    const tracked = this.#tracked.get(key);
    const busy = (message: string) => errorAnswer(call, 409, 'ResourceInUseException', message);
    if (tracked?.last !== undefined && tracked.left > 0) {
      return busy(`${KINDS[kind].noun} is being deleted already: ${nameOf(key)}`);
    }
    if (kind === 'cluster') {
      if (tracked !== undefined && tracked.left > 0) {
        return busy(`Cannot delete cluster ${nameOf(key)}: it is ${ON_ITS_WAY[tracked.phase]}`);
      }
      if (this.#changes.get(key)?.['deletionProtection'] === true) {
        const message = `Cannot delete cluster ${nameOf(key)}: deletion protection is enabled`;
        return errorAnswer(call, 400, 'InvalidRequestException', message);
      }
      if ((await this.#nodegroupsOf(call)).length > 0) return busy('Cluster has nodegroups attached');
    }
    const last = await this.#describeNow(call, kind);
    if ('status' in last && 'body' in last) return last as Answer;
    const course = this.#pace.next(kind, 'delete', nameOf(key));
    if (course.fails !== undefined) {
      // It stays at the emulator: a deletion that failed has deleted nothing that can be seen.
      this.#tracked.set(key, { ...course, phase: 'delete', left: course.describes });
      return jsonAnswer({ [kind]: { ...last, status: 'DELETING' } });
    }
    if (kind === 'cluster') await removeContents(this.#upstream, call, nameOf(key));
    const answer = await next();
    if (answer.status >= 300) return answer;
    if (kind === 'cluster') await removeClusterSecurityGroup(this.#upstream, call, last);
    this.#forget(key);
    if (course.describes > 0) this.#tracked.set(key, { ...course, phase: 'delete', left: course.describes, last });
    return jsonAnswer({ [kind]: { ...last, status: 'DELETING' } });
  }

  async #list(call: AwsCall, kind: EksKind, next: () => Promise<Answer>): Promise<Answer> {
    const answer = await next();
    const going = this.#going(kind, String(call.params['name']));
    if (answer.status >= 300 || going.length === 0) return answer;
    const body = JSON.parse(answer.body) as Members;
    const names = body[KINDS[kind].plural] as string[];
    return withJson(answer, { ...body, [KINDS[kind].plural]: [...new Set([...names, ...going])] });
  }

  /** Names of those that the emulator has deleted and the caller still sees. */
  #going(kind: EksKind, cluster: string): string[] {
    const prefix = kind === 'cluster' ? 'cluster:' : `${kind}:${cluster}/`;
    return [...this.#tracked].flatMap(([key, { last, left }]) =>
      key.startsWith(prefix) && last !== undefined && left > 0 ? [key.slice(prefix.length)] : [],
    );
  }

  async #nodegroupsOf(call: AwsCall): Promise<readonly string[]> {
    const cluster = String(call.params['name']);
    const there = await this.#names(call, `/clusters/${cluster}/node-groups`, 'nodegroups');
    return [...there, ...this.#going('nodegroup', cluster)];
  }

  /** A resource as it is now, without moving its time on; or the error of the emulator. */
  async #describeNow(call: Caller & Pick<AwsCall, 'params'>, kind: EksKind): Promise<Members | Answer> {
    const { path, name } = KINDS[kind];
    const cluster = `/clusters/${encodeURIComponent(String(call.params['name']))}`;
    const rest = path === '' ? '' : `/${path}/${encodeURIComponent(String(call.params[name]))}`;
    const answer = await this.#upstream.eks(call, 'GET', cluster + rest);
    if (answer.status >= 300) return answer;
    return memberOf(this.#show(answer, kind, keyOf(call, kind)), kind);
  }

  /** An answer of the emulator with what was changed since, and with the state that the caller is to see. */
  #show(answer: Answer, kind: EksKind, key: string): Answer {
    const resource = mergeMembers(memberOf(answer, kind), this.#changes.get(key) ?? {});
    const tracked = this.#tracked.get(key);
    const failed = tracked?.fails !== undefined && tracked.left <= 0 && tracked.phase !== 'update';
    const arrived = kind === 'cluster' && resource['status'] === 'CREATING' ? 'ACTIVE' : resource['status'];
    const status =
      tracked === undefined
        ? arrived
        : failed
          ? KINDS[kind].failed[tracked.phase]
          : tracked.left > 0
            ? ON_ITS_WAY[tracked.phase]
            : arrived;
    const shown: Record<string, unknown> = {
      ...resource,
      status,
      ...(failed && { health: { issues: tracked.fails } }),
    };
    if (kind === 'cluster') Object.assign(shown, this.#accessOf(status));
    if (kind === 'nodegroup') shown['resources'] = { autoScalingGroups: [{ name: autoScalingGroupOf(nameOf(key)) }] };
    return withJson(answer, { [kind]: shown });
  }

  /** A cluster that is being made has no endpoint yet. */
  #accessOf(status: unknown): Members {
    if (status === 'CREATING') return { endpoint: undefined, certificateAuthority: undefined };
    if (this.#access === undefined) return {};
    return { endpoint: this.#access.endpoint, certificateAuthority: { data: this.#access.certificateAuthority } };
  }

  #track(key: string, kind: EksKind, phase: Phase): void {
    const course = this.#pace.next(kind, phase, nameOf(key));
    if (course.describes > 0 || course.fails !== undefined) {
      this.#tracked.set(key, { ...course, phase, left: course.describes });
    }
  }

  /** One describe has passed. What failed stays as it is until it is deleted. */
  #tick(key: string): void {
    const tracked = this.#tracked.get(key);
    if (tracked === undefined) return;
    tracked.left = Math.max(0, tracked.left - 1);
    if (tracked.left > 0) return;
    tracked.settle?.();
    if (tracked.fails === undefined || tracked.phase === 'update') this.#tracked.delete(key);
  }

  #forget(key: string): void {
    this.#tracked.delete(key);
    this.#changes.delete(key);
    this.#updates.forget(nameOf(key));
  }
}

/** @param nodegroup `cluster/name` */
export function autoScalingGroupOf(nodegroup: string): string {
  const id = createHash('sha256').update(nodegroup).digest('hex').slice(0, 12);
  return `eks-${nodegroup.slice(nodegroup.indexOf('/') + 1)}-${id}`;
}

function memberOf(answer: Answer, kind: EksKind): Members {
  return (JSON.parse(answer.body) as Record<string, Members>)[kind] ?? {};
}

function objectOf(value: unknown): Members {
  return isObject(value) ? value : {};
}
