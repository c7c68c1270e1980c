/** Names and tags of what a cluster has on AWS. All derive from the cluster, so that a repeated attempt finds them. */
import { clusterKey, fnv1a, namespaceOf, type ClusterRef } from './naming.ts';

/** Tags by which we know our own resources. IAM policies go by them too. */
export const AWS_TAGS = {
  managedBy: 'managed-by',
  /** Which catalogue: two fleets in one account leave each other's resources alone. */
  installation: 'qdrant-fleet/installation',
  tenant: 'qdrant-fleet/tenant',
  cluster: 'qdrant-fleet/cluster',
  /** The operation that made it. */
  operation: 'qdrant-fleet/operation',
  /** What it is to the cluster, such as `subnet/private/us-east-1a`. */
  slot: 'qdrant-fleet/slot',
} as const;

/** Of all tags of fleets but one. */
const TAG_PREFIX = 'qdrant-fleet/';

export const MANAGED_BY_TAG = 'qdrant-fleet';

/** Path of all our IAM roles: the worker's own policy is limited to it. */
export const IAM_PATH = '/qdrant-fleet/';

export type Tags = Readonly<Record<string, string>>;

/** Whose a resource is. */
export interface Owner extends ClusterRef {
  readonly installation: string;
  /** Workflow id. */
  readonly operation: string;
}

export function ownerTags(owner: Owner): Tags {
  return { ...clusterTags(owner), [AWS_TAGS.operation]: operationTag(owner.operation) };
}

/** The tags of everything that a cluster has, whichever operation made it. */
export function clusterTags({ installation, tenant, cluster }: Omit<Owner, 'operation'>): Tags {
  return {
    [AWS_TAGS.managedBy]: MANAGED_BY_TAG,
    [AWS_TAGS.installation]: installation,
    [AWS_TAGS.tenant]: tenant,
    [AWS_TAGS.cluster]: cluster,
  };
}

/** Whether every one of `wanted` is among `found`. One that differs makes a resource somebody else's. */
export function carries(found: Tags, wanted: Tags): boolean {
  return Object.entries(wanted).every(([key, value]) => found[key] === value);
}

/**
 * Whether tags are those of a fleet, and not of this cluster. One tag of a fleet is enough, and all of the cluster's are
 * needed: what lacks one, or has a part of them, is another's.
 */
export function isOfAnother(found: Tags, cluster: Omit<Owner, 'operation'>): boolean {
  const ofAFleet =
    found[AWS_TAGS.managedBy] === MANAGED_BY_TAG || Object.keys(found).some((key) => key.startsWith(TAG_PREFIX));
  return ofAFleet && !carries(found, clusterTags(cluster));
}

/** Tag values are 256 characters of a small alphabet; workflow ids typed by hand may be anything. */
export function operationTag(workflowId: string): string {
  if (/^[\w .:/=+@-]{1,256}$/.test(workflowId)) return workflowId;
  return `${workflowId.replaceAll(/[^\w .:/=+@-]/g, '_').slice(0, 230)}~${fnv1a(workflowId)}`;
}

/** The EKS cluster, and the name tag of the network. */
export function eksNameOf(ref: ClusterRef): string {
  return namespaceOf(ref);
}

export const NODE_GROUP = 'workers';

/** Roles have 64 characters and one name space for all regions of an account. */
export function roleNameOf(ref: ClusterRef, region: string, role: 'cluster' | 'node' | 'volumes' | 'backup'): string {
  const unique = fnv1a(`${clusterKey(ref)}/${region}`).slice(0, 8);
  return `fleet-${clusterKey(ref).slice(0, 40)}-${unique}-${role}`;
}

/** Bucket names are unique over all of AWS, hence the account in it. */
export function bucketNameOf(ref: ClusterRef, region: string, account: string): string {
  const unique = fnv1a(`${clusterKey(ref)}/${region}/${account}`).slice(0, 12);
  return `fleet-${clusterKey(ref).slice(0, 40)}-${unique}`;
}

/** Whether {@link bucketNameOf} may have named this cluster's bucket so, in whichever region and account. */
export function isBucketNameOf(name: string, ref: ClusterRef): boolean {
  const head = `fleet-${clusterKey(ref).slice(0, 40)}-`;
  return name.startsWith(head) && /^[0-9a-f]{12}$/.test(name.slice(head.length));
}

/** What {@link bucketNameOf} names, as a pattern of IAM: the key of a cluster has two hyphens early in it. */
export const BUCKET_PATTERN = 'fleet-*--*';

/** A client token: the same for every attempt of one operation at one thing, another for everything else. */
export function clientToken(runId: string, slot: string): string {
  return `fleet-${runId}-${fnv1a(slot)}`.slice(0, 64);
}
