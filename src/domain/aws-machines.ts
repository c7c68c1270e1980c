/** How many machines a cluster on AWS has, when they come and go, and which of them must stay. Pure. */
import { canonicalJson } from './canonical-json.ts';
import { KUBERNETES_EFFECTS, type AwsRequest, type AwsSpec, type NodeTaint } from './aws.ts';
import type { ClusterSpec, Toleration } from './cluster.ts';

/** What an update does about the machines. */
export type MachineStep =
  | { readonly kind: 'configure-machines'; readonly labels: AwsSpec['labels']; readonly taints: readonly NodeTaint[] }
  | { readonly kind: 'add-machines'; readonly machines: number; readonly added: number; readonly follow: boolean }
  | { readonly kind: 'remove-machines'; readonly machines: number; readonly removed: number; readonly follow: boolean };

interface Request {
  readonly nodes?: number;
  readonly aws?: AwsRequest;
}

type Refuse = (field: string, detail: string) => void;

/** Fields that a node group takes while it runs. */
const CHANGEABLE = ['nodeCount', 'labels', 'taints'] as const satisfies readonly (keyof AwsRequest)[];

/**
 * What a change of a cluster comes to for its machines. They follow the number of Qdrant nodes unless a number of
 * their own was asked for.
 */
export function planMachines(
  spec: ClusterSpec,
  { nodes, aws: request }: Request,
  refuse: Refuse,
): { before: MachineStep[]; after: MachineStep[] } {
  const { aws } = spec;
  const none = { before: [], after: [] };
  if (aws === undefined) {
    if (request !== undefined) refuse('aws', 'is for clusters with "provider": "aws" only');
    return none;
  }
  if (request !== undefined) refuseFixed(aws, request, refuse);
  if (!aws.create.nodeGroups) {
    for (const field of CHANGEABLE) {
      if (request?.[field] === undefined) continue;
      refuse(`aws.${field}`, 'is not ours to change: the cluster was made with "create.nodeGroups": false');
    }
    return none;
  }
  const configure = planLabels(spec, aws, request, refuse);
  if (nodes === undefined && request?.nodeCount === undefined) return { before: configure, after: [] };
  const follow = request?.nodeCount === undefined && aws.followNodes === true;
  const machines = request?.nodeCount ?? (follow ? (nodes ?? spec.nodes) : aws.nodeCount);
  const change = { machines, follow };
  if (machines < aws.nodeCount) {
    return { before: configure, after: [{ kind: 'remove-machines', removed: aws.nodeCount - machines, ...change }] };
  }
  // A number that is asked for stays, even where it is the one that there is.
  if (machines === aws.nodeCount && follow === (aws.followNodes ?? false)) return { before: configure, after: [] };
  const added = machines - aws.nodeCount;
  return { before: [...configure, { kind: 'add-machines', added, ...change }], after: [] };
}

/** What else was given has to be as it is. */
function refuseFixed(aws: AwsSpec, request: AwsRequest, refuse: Refuse): void {
  for (const [field, wanted] of Object.entries(request)) {
    if (CHANGEABLE.some((name) => name === field)) continue;
    const is: unknown = aws[field as keyof AwsSpec];
    if (holds(is, wanted)) continue;
    refuse(
      `aws.${field}`,
      `is ${is === undefined ? 'not set' : JSON.stringify(is)} for good; make another cluster with it and restore a backup into that`,
    );
  }
}

/** Whether `is` has all that is wanted; what an object does not name may be anything. */
function holds(is: unknown, wanted: unknown): boolean {
  if (typeof wanted !== 'object' || wanted === null || Array.isArray(wanted)) {
    return JSON.stringify(is) === JSON.stringify(wanted);
  }
  return Object.entries(wanted).every(([key, value]) =>
    holds((is as Record<string, unknown> | undefined)?.[key], value),
  );
}

function planLabels(spec: ClusterSpec, aws: AwsSpec, request: AwsRequest | undefined, refuse: Refuse): MachineStep[] {
  const { labels = aws.labels, taints = aws.taints } = request ?? {};
  if (canonicalJson(labels) === canonicalJson(aws.labels) && JSON.stringify(taints) === JSON.stringify(aws.taints))
    return [];
  const tolerations = spec.placement?.tolerations ?? [];
  for (const [index, taint] of taints.entries()) {
    if (taint.effect === 'PREFER_NO_SCHEDULE' || tolerations.some((toleration) => tolerates(toleration, taint)))
      continue;
    refuse(
      `aws.taints[${index}]`,
      `no toleration of the cluster's "placement" matches ${taint.key}, so its own pods would have nowhere to run`,
    );
  }
  const selected = Object.entries(spec.placement?.nodeSelector ?? {});
  for (const [key, value] of selected) {
    if (aws.labels[key] !== value || labels[key] === value) continue;
    refuse(`aws.labels.${key}`, `is what the cluster's "placement.nodeSelector" looks for; it has to stay "${value}"`);
  }
  return [{ kind: 'configure-machines', labels, taints }];
}

/** As Kubernetes matches them (`ToleratesTaint`). */
function tolerates({ key, operator = 'Equal', value = '', effect }: Toleration, taint: NodeTaint): boolean {
  if (effect !== undefined && effect !== KUBERNETES_EFFECTS[taint.effect]) return false;
  if (key !== undefined && key !== taint.key) return false;
  return operator === 'Exists' || (key !== undefined && value === (taint.value ?? ''));
}

/**
 * How many machines to start so that each zone has as many as its volumes need. A volume is of one zone, and the group
 * spreads its machines evenly over all of its zones, whichever these volumes are in. What is too many goes when the
 * peers run.
 *
 * @param count machines that the cluster is to have
 * @param volumes peers whose volume is in a zone, by zone; empty where that is not known
 * @param zones zones of the node group
 */
export function machinesToStart(count: number, volumes: Readonly<Record<string, number>>, zones: number): number {
  const peers = Object.values(volumes);
  if (peers.length === 0) return count;
  const total = peers.reduce((sum, each) => sum + each, 0);
  const each = count >= total ? Math.max(...peers) : Math.ceil(count / peers.length);
  return Math.max(count, zones * each);
}

/** The least number that a group can shrink to without taking a machine with a peer on it. */
export function machinesToKeep(wanted: number, busy: number): number {
  return wanted === 0 ? 0 : Math.max(wanted, busy);
}
