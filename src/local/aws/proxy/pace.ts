/** How long what AWS does takes, counted in describes, and how it ends. */

export type ResourceKind = 'cluster' | 'nodegroup' | 'addon' | 'nat-gateway' | 'vpc-endpoint';
export type Phase = 'create' | 'delete' | 'update';

/** Why something is not well: a member of `health.issues`, or of an update's `errors`. */
export interface Issue {
  readonly code: string;
  readonly message: string;
  readonly resourceIds?: readonly string[];
}

export interface Hold {
  readonly kind: ResourceKind;
  readonly during: Phase;
  /** `cluster`, `cluster/node-group`, the id of a NAT gateway; default: the next of its kind. */
  readonly resource?: string | RegExp;
  /** Describes that still show it on its way; default those of the pace. Infinity: for ever. */
  readonly describes?: number;
  /** It fails then, for these reasons: CREATE_FAILED, DELETE_FAILED, FAILED, or an update that ends in Failed. */
  readonly fails?: readonly Issue[];
  /** An update of a node group succeeds, and the group is DEGRADED for these reasons until the next one. */
  readonly degrades?: readonly Issue[];
}

export type PaceDefaults = Readonly<Record<Phase, number>>;

/** What is ahead of one resource. */
export interface Course {
  readonly describes: number;
  readonly fails?: readonly Issue[];
  readonly degrades?: readonly Issue[];
}

/** Reasons for a failed node group, as EKS words them. */
export const nodegroupIssues = {
  insufficientCapacity: (type = 'm6i.large', zone = 'us-east-1a'): Issue => ({
    code: 'AsgInstanceLaunchFailures',
    message:
      `Could not launch On-Demand Instances. InsufficientInstanceCapacity - We currently do not have sufficient ` +
      `${type} capacity in the Availability Zone you requested (${zone}). Launching EC2 instance failed.`,
    resourceIds: ['eks-node-group-asg'],
  }),
  vcpuQuota: (limit = 32): Issue => ({
    code: 'AsgInstanceLaunchFailures',
    message:
      `Could not launch On-Demand Instances. VcpuLimitExceeded - You have requested more vCPU capacity than your ` +
      `current vCPU limit of ${limit} allows for the instance bucket that the specified instance type belongs to.`,
    resourceIds: ['eks-node-group-asg'],
  }),
  subnetConfiguration: (subnet = 'subnet-0a'): Issue => ({
    code: 'Ec2SubnetInvalidConfiguration',
    message:
      'One or more Amazon EC2 Subnets for the node group does not automatically assign public IP addresses to instances launched into it.',
    resourceIds: [subnet],
  }),
  nodesDoNotJoin: (instance = 'i-0a'): Issue => ({
    code: 'NodeCreationFailure',
    message: 'Instances failed to join the kubernetes cluster',
    resourceIds: [instance],
  }),
} as const;

export class Pace {
  readonly #defaults: PaceDefaults;
  #holds: Hold[] = [];

  constructor(defaults: Partial<PaceDefaults>) {
    this.#defaults = { create: 1, delete: 1, update: 1, ...defaults };
  }

  add(...holds: readonly Hold[]): void {
    this.#holds.push(...holds);
  }

  clear(): void {
    this.#holds = [];
  }

  /** What will happen to a resource; a hold serves once. */
  next(kind: ResourceKind, during: Phase, resource: string): Course {
    const index = this.#holds.findIndex(
      (hold) => hold.kind === kind && hold.during === during && applies(hold.resource, resource),
    );
    const [hold] = index < 0 ? [] : this.#holds.splice(index, 1);
    return {
      describes: hold?.describes ?? this.#defaults[during],
      ...(hold?.fails !== undefined && { fails: hold.fails }),
      ...(hold?.degrades !== undefined && { degrades: hold.degrades }),
    };
  }
}

function applies(pattern: Hold['resource'], resource: string): boolean {
  if (pattern === undefined) return true;
  return typeof pattern === 'string' ? pattern === resource : pattern.test(resource);
}
