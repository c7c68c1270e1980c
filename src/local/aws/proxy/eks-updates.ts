/** EKS' updates, which neither emulator has: they begin, take their time, and are seen in what is described later. */
import { randomUUID } from 'node:crypto';
import { errorAnswer, jsonAnswer } from './answers.ts';
import type { Answer, AwsCall } from './call.ts';
import { keyOf, KINDS, mergeMembers, nameOf, type EksKind, type Members, type Tracked } from './eks-resources.ts';
import { isNextMinor, minorOf } from './eks-versions.ts';
import type { Course } from './pace.ts';

/** What the updates need of the resources that they change. */
export interface EksResources {
  describe(call: AwsCall, kind: EksKind): Promise<Members | Answer>;
  tracked(key: string): Tracked | undefined;
  begin(key: string, tracked: Tracked): void;
  /** A describe has passed. */
  tick(key: string): void;
  change(key: string, members: Members): void;
  course(kind: EksKind, resource: string): Course;
}

interface Update {
  readonly id: string;
  readonly key: string;
  readonly type: string;
  readonly params: readonly { readonly type: string; readonly value: string }[];
  readonly createdAt: number;
  status: 'InProgress' | 'Successful' | 'Failed';
  errors: readonly Members[];
}

/** What an update asks for: its type, and what is different when it has succeeded. */
interface Plan {
  readonly type: string;
  readonly params: Readonly<Record<string, unknown>>;
  readonly changes: Members;
}

/** Why EKS refuses an update: a code and a message. */
class Refused extends Error {
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

const PLANS: Readonly<
  Record<string, { kind: EksKind; plan: (params: Members, now: Members, cluster: Members) => Plan }>
> = {
  UpdateClusterVersion: { kind: 'cluster', plan: clusterVersion },
  UpdateClusterConfig: { kind: 'cluster', plan: clusterConfig },
  UpdateNodegroupConfig: { kind: 'nodegroup', plan: nodegroupConfig },
  UpdateNodegroupVersion: { kind: 'nodegroup', plan: nodegroupVersion },
  UpdateAddon: { kind: 'addon', plan: addon },
};

export class EksUpdates {
  readonly #resources: EksResources;
  readonly #updates = new Map<string, Update>();

  constructor(resources: EksResources) {
    this.#resources = resources;
  }

  clear(): void {
    this.#updates.clear();
  }

  /** The updates of a resource that is gone, and of all that was in it. */
  forget(resource: string): void {
    for (const [id, { key }] of this.#updates) {
      if (nameOf(key) === resource || nameOf(key).startsWith(`${resource}/`)) this.#updates.delete(id);
    }
  }

  /** The answer, where the call is about updates. */
  async handle(call: AwsCall): Promise<Answer | undefined> {
    if (call.operation === 'DescribeUpdate') return this.#describe(call);
    if (call.operation === 'ListUpdates') {
      return jsonAnswer({ updateIds: [...this.#updates.values()].filter(about(call)).map(({ id }) => id) });
    }
    const planner = PLANS[call.operation];
    return planner === undefined ? undefined : this.#begin(call, planner.kind, planner.plan);
  }

  async #begin(call: AwsCall, kind: EksKind, planOf: (typeof PLANS)[string]['plan']): Promise<Answer> {
    const now = await this.#resources.describe(call, kind);
    if ('body' in now) return now as Answer;
    const cluster = await this.#resources.describe(call, 'cluster');
    const key = keyOf(call, kind);
    if (this.#resources.tracked(key) !== undefined) {
      const message = `${KINDS[kind].noun} ${nameOf(key)} cannot be updated as it currently has an update in progress`;
      return errorAnswer(call, 409, 'ResourceInUseException', message);
    }
    let plan: Plan;
    try {
      plan = planOf(call.params, now, cluster as Members);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      return errorAnswer(call, 400, error.code, error.message);
    }
    const update: Update = {
      id: randomUUID(),
      key,
      type: plan.type,
      params: paramsOf(plan.params),
      createdAt: Date.now() / 1000,
      status: 'InProgress',
      errors: [],
    };
    this.#updates.set(update.id, update);
    const course = this.#resources.course(kind, nameOf(key));
    const settle = () => {
      update.status = course.fails === undefined ? 'Successful' : 'Failed';
      update.errors = (course.fails ?? []).map(({ code, message, resourceIds = [] }) => ({
        errorCode: code,
        errorMessage: message,
        resourceIds,
      }));
      if (course.fails !== undefined) return;
      const { degrades } = course;
      const health = { status: degrades === undefined ? 'ACTIVE' : 'DEGRADED', health: { issues: degrades ?? [] } };
      this.#resources.change(key, { ...plan.changes, ...(kind === 'nodegroup' && health) });
    };
    if (course.describes === 0) settle();
    else this.#resources.begin(key, { ...course, phase: 'update', left: course.describes, settle });
    return jsonAnswer({ update: view(update) });
  }

  #describe(call: AwsCall): Answer {
    const update = this.#updates.get(String(call.params['updateId']));
    if (update === undefined || !about(call)(update)) {
      const message = `No update found for ID: ${String(call.params['updateId'])}`;
      return errorAnswer(call, 404, 'ResourceNotFoundException', message);
    }
    const answer = jsonAnswer({ update: view(update) });
    if (update.status === 'InProgress') this.#resources.tick(update.key);
    return answer;
  }
}

function about({ params }: AwsCall): (update: Update) => boolean {
  const name = String(params['name']);
  const inner = [params['nodegroupName'], params['addonName']].filter((one) => typeof one === 'string');
  const resource = [name, ...inner].join('/');
  return ({ key }) => nameOf(key) === resource;
}

function view({ key: _, ...update }: Update): Members {
  return update;
}

function paramsOf(params: Readonly<Record<string, unknown>>): Update['params'] {
  return Object.entries(params).flatMap(([type, value]) =>
    value === undefined ? [] : [{ type, value: typeof value === 'string' ? value : JSON.stringify(value) }],
  );
}

function clusterVersion(params: Members, now: Members): Plan {
  const [from, to] = [String(now['version']), String(params['version'])];
  if (from === to) throw new Refused('InvalidParameterException', `Cluster is already at version ${to}`);
  if (!isNextMinor(from, to)) {
    throw new Refused('InvalidParameterException', `Unsupported Kubernetes minor version update from ${from} to ${to}`);
  }
  return {
    type: 'VersionUpdate',
    params: { Version: to, PlatformVersion: 'eks.9' },
    changes: { version: to, platformVersion: 'eks.9' },
  };
}

/** One kind of change a call. https://docs.aws.amazon.com/eks/latest/APIReference/API_UpdateClusterConfig.html */
function clusterConfig(params: Members, now: Members): Plan {
  const kinds = {
    resourcesVpcConfig: vpcUpdateType(params['resourcesVpcConfig']),
    logging: 'LoggingUpdate',
    accessConfig: 'AccessConfigUpdate',
    upgradePolicy: 'UpgradePolicyUpdate',
    deletionProtection: 'DeletionProtectionUpdate',
    zonalShiftConfig: 'ZonalShiftConfigUpdate',
  };
  const asked = (Object.keys(kinds) as (keyof typeof kinds)[]).filter((name) => params[name] !== undefined);
  const [name] = asked;
  if (name === undefined || asked.length > 1) {
    throw new Refused('InvalidParameterException', 'Only one type of update can be allowed.');
  }
  const changes = { [name]: params[name] };
  if (JSON.stringify(mergeMembers(now, changes)) === JSON.stringify(now)) {
    throw new Refused('InvalidParameterException', 'Cluster is already at the desired configuration');
  }
  return { type: kinds[name], params: { [name]: params[name] }, changes };
}

function vpcUpdateType(config: unknown): string {
  const members = (config ?? {}) as Members;
  return 'subnetIds' in members || 'securityGroupIds' in members ? 'VpcConfigUpdate' : 'EndpointAccessUpdate';
}

interface Taint {
  readonly key: string;
  readonly value?: string;
  readonly effect: string;
}

function nodegroupConfig(params: Members, now: Members): Plan {
  const { scalingConfig, updateConfig, labels, taints } = params as {
    scalingConfig?: { minSize?: number; maxSize?: number; desiredSize?: number };
    updateConfig?: Members;
    labels?: { addOrUpdateLabels?: Record<string, string>; removeLabels?: string[] };
    taints?: { addOrUpdateTaints?: Taint[]; removeTaints?: Taint[] };
  };
  const size = { ...(now['scalingConfig'] as typeof scalingConfig), ...scalingConfig };
  const { minSize = 0, maxSize = 0, desiredSize = 0 } = size;
  if (desiredSize < minSize || desiredSize > maxSize) {
    const message = `desired capacity ${desiredSize} can't be outside of min size ${minSize} and max size ${maxSize}`;
    throw new Refused('InvalidParameterException', message);
  }
  const changes: Record<string, unknown> = {};
  if (scalingConfig !== undefined) changes['scalingConfig'] = size;
  if (updateConfig !== undefined) changes['updateConfig'] = updateConfig;
  if (labels !== undefined) {
    const kept = Object.entries((now['labels'] ?? {}) as Record<string, string>).filter(
      ([name]) => !labels.removeLabels?.includes(name),
    );
    changes['labels'] = { ...Object.fromEntries(kept), ...labels.addOrUpdateLabels };
  }
  if (taints !== undefined) {
    const same = (a: Taint) => (b: Taint) => a.key === b.key && a.effect === b.effect;
    const gone = [...(taints.removeTaints ?? []), ...(taints.addOrUpdateTaints ?? [])];
    const kept = ((now['taints'] ?? []) as Taint[]).filter((taint) => !gone.some(same(taint)));
    changes['taints'] = [...kept, ...(taints.addOrUpdateTaints ?? [])];
  }
  const described = {
    MinSize: scalingConfig?.minSize,
    MaxSize: scalingConfig?.maxSize,
    DesiredSize: scalingConfig?.desiredSize,
    LabelsToAdd: labels?.addOrUpdateLabels,
    LabelsToRemove: labels?.removeLabels,
    TaintsToAdd: taints?.addOrUpdateTaints,
    TaintsToRemove: taints?.removeTaints,
  };
  return { type: 'ConfigUpdate', params: described, changes };
}

function nodegroupVersion(params: Members, now: Members, cluster: Members): Plan {
  const version = String(params['version'] ?? cluster['version']);
  const [of, to] = [String(cluster['version']), version];
  if (minorOf(to) > minorOf(of)) {
    throw new Refused(
      'InvalidParameterException',
      `Nodegroup Kubernetes version should be equal to or lower than the cluster's: ${to} is newer than ${of}`,
    );
  }
  if (minorOf(to) < minorOf(String(now['version']))) {
    throw new Refused('InvalidParameterException', `Nodegroup cannot be downgraded from ${String(now['version'])}`);
  }
  const releaseVersion = params['releaseVersion'] ?? `${version}.2-20260110`;
  return {
    type: 'VersionUpdate',
    params: { Version: version, ReleaseVersion: releaseVersion, LaunchTemplateVersion: params['launchTemplate'] },
    changes: {
      version,
      releaseVersion,
      ...(params['launchTemplate'] !== undefined && { launchTemplate: params['launchTemplate'] }),
    },
  };
}

function addon(params: Members): Plan {
  const names = ['addonVersion', 'serviceAccountRoleArn', 'configurationValues', 'podIdentityAssociations'] as const;
  const changes = Object.fromEntries(
    names.flatMap((name) => (params[name] === undefined ? [] : [[name, params[name]]])),
  );
  const described = { AddonVersion: params['addonVersion'], ResolveConflicts: params['resolveConflicts'] };
  return { type: 'AddonUpdate', params: described, changes };
}
