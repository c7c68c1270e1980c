/** A cluster's infrastructure on AWS: what may be asked for, and its defaults. */

/** Regions where EKS and Pod Identity are offered; those that an account has to opt into are included. */
export const AWS_REGIONS = (
  'us-east-1 us-east-2 us-west-1 us-west-2 ca-central-1 ca-west-1 mx-central-1 sa-east-1 eu-central-1 eu-central-2 ' +
  'eu-west-1 eu-west-2 eu-west-3 eu-north-1 eu-south-1 eu-south-2 il-central-1 me-central-1 me-south-1 af-south-1 ' +
  'ap-east-1 ap-south-1 ap-south-2 ap-northeast-1 ap-northeast-2 ap-northeast-3 ap-southeast-1 ap-southeast-2 ' +
  'ap-southeast-3 ap-southeast-4 ap-southeast-5 ap-southeast-7'
).split(' ');

/** Where a request names none. */
export const DEFAULT_REGION = 'us-east-1';

/** Control plane logs that EKS can send to CloudWatch. */
export const EKS_LOG_TYPES = ['api', 'audit', 'authenticator', 'controllerManager', 'scheduler'] as const;
export type EksLogType = (typeof EKS_LOG_TYPES)[number];

export const TAINT_EFFECTS = ['NO_SCHEDULE', 'PREFER_NO_SCHEDULE', 'NO_EXECUTE'] as const;

/** EKS' words for the effects of taints, in those of Kubernetes. */
export const KUBERNETES_EFFECTS = {
  NO_SCHEDULE: 'NoSchedule',
  PREFER_NO_SCHEDULE: 'PreferNoSchedule',
  NO_EXECUTE: 'NoExecute',
} as const satisfies Record<(typeof TAINT_EFFECTS)[number], string>;

/** The parts of the infrastructure. Each may be left to somebody else, who names what to use instead. */
export const AWS_ROOMS = ['network', 'controlPlane', 'nodeGroups', 'access', 'backupBucket'] as const;
export type AwsRoom = (typeof AWS_ROOMS)[number];

export const NAT_MODES = ['one', 'perZone'] as const;

export interface NodeTaint {
  readonly key: string;
  readonly value?: string;
  readonly effect: (typeof TAINT_EFFECTS)[number];
}

/** Infrastructure as a user asks for it; everything has a default. */
export interface AwsRequest {
  /** Default `us-east-1`. */
  readonly region?: string;
  /** Use this VPC, which is never changed, instead of making one. Needs `subnetIds`. */
  readonly vpcId?: string;
  /** Subnets of `vpcId` for nodes and control plane, in two or more zones. */
  readonly subnetIds?: readonly string[];
  /** Block of the VPC to make; default `10.64.0.0/16`. */
  readonly cidr?: string;
  /** Default: three zones of the region that offer the instance type, or two where there are no more. */
  readonly availabilityZones?: readonly string[];
  /** One NAT gateway for all zones (default), or one in each, which outlives the loss of a zone and costs more. */
  readonly natGateways?: (typeof NAT_MODES)[number];
  /** Name of an EKS cluster to use where `create.controlPlane` is false. */
  readonly eksCluster?: string;
  /** Default `1.34`. */
  readonly kubernetesVersion?: string;
  /** Default `m6i.large`. */
  readonly instanceType?: string;
  /** Virtual machines; default: as many as Qdrant nodes, and then they grow and shrink with those. */
  readonly nodeCount?: number;
  readonly labels?: Readonly<Record<string, string>>;
  readonly taints?: readonly NodeTaint[];
  /** Root volume of each machine in GiB; default 20. */
  readonly machineVolumeGiB?: number;
  /** Of Qdrant's volumes (gp3): 3000 to 80000; default 3000. */
  readonly volumeIops?: number;
  /** Of Qdrant's volumes, MiB/s: 125 to 2000; default 125. */
  readonly volumeThroughput?: number;
  readonly endpointAccess?: {
    /**
     * Whether the Kubernetes API is reachable from outside of the VPC, from `publicCidrs` and the addresses of the
     * fleet's workers only. Default: where there are such addresses.
     */
    readonly public?: boolean;
    /** Callers still need IAM credentials that the cluster knows. */
    readonly publicCidrs?: readonly string[];
  };
  /** KMS key for Kubernetes Secrets; default: EKS' own encryption. */
  readonly secretsEncryptionKeyArn?: string;
  /** Default none. CloudWatch keeps the log group when the cluster goes. */
  readonly logging?: readonly EksLogType[];
  /**
   * IAM users and roles who become administrators, besides the worker itself: of the EKS cluster that is made, or of the
   * cluster's namespace where `eksCluster` is given.
   */
  readonly adminPrincipalArns?: readonly string[];
  /** Roles to use where `create.access` is false. */
  readonly roles?: { readonly cluster?: string; readonly node?: string };
  /** All true but `backupBucket`; `network` is false where `vpcId` is given. */
  readonly create?: Partial<Readonly<Record<AwsRoom, boolean>>>;
}

/** The same with every default filled in. */
export interface AwsSpec {
  readonly region: string;
  readonly vpcId?: string;
  readonly subnetIds: readonly string[];
  readonly cidr: string;
  readonly availabilityZones: readonly string[];
  readonly natGateways: (typeof NAT_MODES)[number];
  readonly eksCluster?: string;
  readonly kubernetesVersion: string;
  readonly instanceType: string;
  readonly nodeCount: number;
  /** `nodeCount` was not asked for: it is the number of Qdrant nodes, also after that has changed. */
  readonly followNodes?: boolean;
  readonly labels: Readonly<Record<string, string>>;
  readonly taints: readonly NodeTaint[];
  readonly machineVolumeGiB: number;
  readonly volumeIops: number;
  readonly volumeThroughput: number;
  /** `public` is absent where nobody asked: the plan decides. */
  readonly endpointAccess: { readonly public?: boolean; readonly publicCidrs: readonly string[] };
  readonly secretsEncryptionKeyArn?: string;
  readonly logging: readonly EksLogType[];
  readonly adminPrincipalArns: readonly string[];
  readonly roles: { readonly cluster?: string; readonly node?: string };
  readonly create: Readonly<Record<AwsRoom, boolean>>;
}

/** Versions of Kubernetes that EKS has in standard or extended support; AWS is asked again before anything is made. */
export const KUBERNETES_VERSION = /^1\.(?:2[89]|3[0-9])$/;

/** Fill in the defaults. @param nodes Qdrant nodes */
export function resolveAws(request: AwsRequest, nodes: number): AwsSpec {
  const { vpcId, eksCluster, secretsEncryptionKeyArn, endpointAccess } = request;
  return {
    region: request.region ?? DEFAULT_REGION,
    ...(vpcId !== undefined && { vpcId }),
    subnetIds: request.subnetIds ?? [],
    cidr: request.cidr ?? '10.64.0.0/16',
    availabilityZones: request.availabilityZones ?? [],
    natGateways: request.natGateways ?? 'one',
    ...(eksCluster !== undefined && { eksCluster }),
    kubernetesVersion: request.kubernetesVersion ?? '1.34',
    instanceType: request.instanceType ?? 'm6i.large',
    nodeCount: request.nodeCount ?? nodes,
    ...(request.nodeCount === undefined && { followNodes: true }),
    labels: request.labels ?? {},
    taints: request.taints ?? [],
    machineVolumeGiB: request.machineVolumeGiB ?? 20,
    volumeIops: request.volumeIops ?? 3000,
    volumeThroughput: request.volumeThroughput ?? 125,
    endpointAccess: {
      ...(endpointAccess?.public !== undefined && { public: endpointAccess.public }),
      publicCidrs: endpointAccess?.publicCidrs ?? [],
    },
    ...(secretsEncryptionKeyArn !== undefined && { secretsEncryptionKeyArn }),
    logging: request.logging ?? [],
    adminPrincipalArns: request.adminPrincipalArns ?? [],
    roles: request.roles ?? {},
    create: {
      network: request.create?.network ?? vpcId === undefined,
      controlPlane: request.create?.controlPlane ?? eksCluster === undefined,
      nodeGroups: request.create?.nodeGroups ?? true,
      access: request.create?.access ?? true,
      backupBucket: request.create?.backupBucket ?? false,
    },
  };
}

/**
 * A request that resolves to the same again, also for another number of Qdrant nodes. What is no specification stays as it
 * is, for the guard of requests to refuse.
 */
export function awsRequestOf(whole: AwsSpec): AwsRequest {
  if (!isObject(whole)) return whole;
  const { followNodes, nodeCount, endpointAccess, ...spec } = whole;
  const said = Object.entries(spec).filter(([, value]) => !Array.isArray(value) || value.length > 0);
  return {
    ...(Object.fromEntries(said) as AwsRequest),
    ...(endpointAccess !== undefined && endpointRequestOf(endpointAccess)),
    ...(followNodes !== true && nodeCount !== undefined && { nodeCount }),
  };
}

/** Clusters of earlier versions were open to everybody where nobody had asked; those that are made of them are not. */
function endpointRequestOf(access: AwsSpec['endpointAccess']): Pick<AwsRequest, 'endpointAccess'> {
  if (!isObject(access) || !Array.isArray(access.publicCidrs)) return { endpointAccess: access };
  const { public: open, publicCidrs } = access;
  const wasDefault = open === true && publicCidrs.length === 1 && publicCidrs[0] === '0.0.0.0/0';
  if (wasDefault || (open === undefined && publicCidrs.length === 0)) return {};
  return {
    endpointAccess: { ...(open !== undefined && { public: open }), ...(publicCidrs.length > 0 && { publicCidrs }) },
  };
}

function isObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
