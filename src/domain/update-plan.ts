/**
 * What an update of a cluster comes to: the steps, in order, or why not. Pure. It compares what is asked for with what is
 * observed, so that the same update, repeated after a failure, goes on where it stopped.
 */
import { planMachines, type MachineStep } from './aws-machines.ts';
import type { AwsRequest } from './aws.ts';
import { canonicalJson } from './canonical-json.ts';
import type { ClusterSpec, NetworkAccess, Placement, ProviderName, QdrantSettings } from './cluster.ts';
import type { FreeDisk } from './disk.ts';
import { FleetError, type FieldError } from './errors.ts';
import { memberPath } from './input/names.ts';
import type { LostDisk } from './lost-disk.ts';
import { settingProblem } from './qdrant-settings.ts';
import { bytesOf } from './quantities.ts';
import { compareVersions, parseVersion, sameVersion, upgradePath } from './releases.ts';
import { planRepair } from './repair-plan.ts';
import { diskNotes, planCopies, planScaling } from './scaling-plan.ts';
import type { CollectionPlacement } from './topology.ts';

/** What may be changed of a running cluster, and what somebody may try to change. */
export interface UpdateRequest {
  readonly nodes?: number;
  /** Qdrant image tag such as `v1.19.0`. */
  readonly version?: string;
  /** Data volume of each node; it can only grow. */
  readonly storage?: string;
  /** Replaces what was there. */
  readonly resources?: { readonly cpu?: string; readonly memory?: string };
  /** Replaces what was there. */
  readonly config?: QdrantSettings;
  /** Replaces what was there. The policies are applied anew even when nothing differs. */
  readonly network?: NetworkAccess;
  /** Replaces what was there. */
  readonly placement?: Placement;
  /** Restart pods although collections without a second replica cannot be reached meanwhile. */
  readonly allowDowntime?: boolean;
  /** Restart every pod, whatever else is asked for. */
  readonly restart?: boolean;
  /** Give up the peers that do not answer, with what is on their volumes, and make new ones in their place. */
  readonly repair?: boolean;
  readonly provider?: ProviderName;
  readonly replicationFactor?: number;
  /** Of its infrastructure on AWS `nodeCount`, `labels` and `taints` can be changed. */
  readonly aws?: AwsRequest;
}

export interface ObservedPod {
  /** Such as `qdrant-2`; the number is its ordinal. */
  readonly name: string;
  readonly uid?: string;
  readonly ready: boolean;
  /** Made from the StatefulSet's present template. */
  readonly current: boolean;
  /** Peer id and version, when it answers. */
  readonly peer?: string;
  readonly version?: string;
}

export interface ObservedClaim {
  readonly name: string;
  readonly uid?: string;
  /** Bytes that it asks for. */
  readonly bytes: number;
  /** The StorageClass of the claim, and whether it lets claims grow. */
  readonly className: string;
  readonly expandable: boolean;
  /** Made by the StatefulSet, and not by somebody who wants the pod to come to find it. */
  readonly ofSet?: boolean;
}

/** A cluster as it is. */
export interface ObservedCluster {
  /** Pods that the StatefulSet wants; absent when there is none. */
  readonly replicas?: number;
  readonly pods: readonly ObservedPod[];
  /** Ids of all peers in consensus. */
  readonly peers: readonly string[];
  readonly placements: readonly CollectionPlacement[];
  readonly claims: readonly ObservedClaim[];
  /** Bytes of vectors and payload by peer, as far as the peers tell. */
  readonly dataBytes?: Readonly<Record<string, number>>;
  /** Pods whose old peer is in consensus and never comes back. */
  readonly lost?: readonly LostDisk[];
  /** Volumes by pod, as far as the kubelets tell and somebody asked them. */
  readonly disks?: FreeDisk;
}

export type UpdateStep =
  | MachineStep
  | { readonly kind: 'backup' }
  | { readonly kind: 'grow-volumes'; readonly storage: string; readonly claims: number }
  | { readonly kind: 'surroundings' }
  | { readonly kind: 'configure'; readonly restarts: number }
  | { readonly kind: 'upgrade'; readonly version: string; readonly restarts: number }
  | { readonly kind: 'add-nodes'; readonly nodes: number; readonly added: number }
  | {
      readonly kind: 'move-shards';
      readonly moves: number;
      readonly nodes: number;
      /** Missing replicas that are made as well. */
      readonly copies?: number;
    }
  | { readonly kind: 'copy-shards'; readonly copies: number; readonly nodes: number }
  | { readonly kind: 'replace-peers'; readonly peers: readonly string[]; readonly pods: readonly LostPod[] }
  | { readonly kind: 'remove-nodes'; readonly nodes: number; readonly removed: number };

/** A pod that is made anew with empty volumes; the uids tell it from the one that is made in its place. */
export interface LostPod {
  readonly name: string;
  readonly uid: string;
  readonly claims: readonly { readonly name: string; readonly uid: string }[];
}

export interface UpdatePlan {
  readonly steps: readonly UpdateStep[];
  /** Collections that cannot be reached in part while pods restart. */
  readonly downtime: readonly string[];
  /** What could not be known, and what was gone by instead. */
  readonly notes?: readonly string[];
}

/**
 * @param spec what the catalogue says, which is what the chart was applied with last
 * @param releases image tags that an upgrade may pass through
 * @throws FleetError `UpdateRefused` listing every reason by its field, `TopologyUnstable`
 */
export function planUpdate(
  spec: ClusterSpec,
  request: UpdateRequest,
  observed: ObservedCluster,
  releases: readonly string[],
): UpdatePlan {
  const refusals: FieldError[] = [];
  const refuse = (field: string, detail: string) => void refusals.push({ field, detail });
  refuseImmutable(spec, request, refuse);
  refuseSettings(spec, request, refuse);

  const repair = planRepair(request, observed, refuse);
  const volumes = planVolumes(spec, request, observed, refuse);
  const upgrades = planUpgrade(spec, request, observed, releases, refuse);
  const configure = planConfigure(spec, request, observed, upgrades.length > 0);
  const restarting = upgrades.length > 0 || configure.length > 0;
  const downtime = restarting ? singleReplicas(observed) : [];
  if (downtime.length > 0 && request.allowDowntime !== true) {
    const names = downtime.slice(0, 5).map((name) => `"${name}"`);
    refuse(
      'allowDowntime',
      `${names.join(', ')}${downtime.length > 5 ? ` and ${downtime.length - 5} more` : ''} ` +
        'keep one replica of a shard, which cannot be reached while its pod restarts. Send allowDowntime: true, or make more replicas first: an update without changes makes those that are missing',
    );
  }
  const scaling = planScaling(spec, request, repair.after, refuse);
  const machines = planMachines(spec, request, refuse);
  if (refusals.length > 0) {
    const text = refusals.map(({ field, detail }) => `${field}: ${detail}`).join('; ');
    throw new FleetError('UpdateRefused', `${text}.`, { fields: refusals });
  }
  // Peers of different versions: an upgrade was interrupted, which began with a backup; another would be refused now.
  const versions = new Set(observed.pods.flatMap(({ version }) => version ?? []));
  const backup: UpdateStep[] = upgrades.length > 0 && versions.size <= 1 ? [{ kind: 'backup' }] : [];
  // Machines come before pods and go after them. They come first of all: what there is no room for changes nothing.
  const changes: UpdateStep[] = [
    ...(request.network === undefined ? [] : [{ kind: 'surroundings' } as const]),
    ...[...machines.before, ...backup, ...volumes, ...configure, ...upgrades, ...scaling, ...machines.after],
  ];
  // A change of nodes makes missing replicas by itself.
  const alone = changes.length === 0 || (repair.steps.length > 0 && scaling.length === 0);
  const steps = [...repair.steps, ...(alone ? planCopies(repair.after, spec.nodes) : []), ...changes];
  const notes = scaling.some(({ kind }) => kind === 'remove-nodes') ? diskNotes(observed) : [];
  return { steps, downtime, ...(notes.length > 0 && { notes }) };
}

/** Notes one reason against the request, by its field. */
export type Refuse = (field: string, detail: string) => void;

/** The guard knows the version only where the request names it; here the cluster's own is known. */
function refuseSettings(
  spec: ClusterSpec,
  { config = {}, version = spec.version }: UpdateRequest,
  refuse: Refuse,
): void {
  for (const [name, value] of Object.entries(config)) {
    const problem = settingProblem(name, value, version);
    if (typeof problem === 'object') refuse(memberPath('config', name), problem.conflict);
  }
}

function refuseImmutable(spec: ClusterSpec, request: UpdateRequest, refuse: Refuse): void {
  if (request.provider !== undefined && request.provider !== spec.provider) {
    refuse('provider', `is "${spec.provider}" for good; back the cluster up and restore it into a new one elsewhere`);
  }
  if (request.replicationFactor !== undefined && request.replicationFactor !== spec.replicationFactor) {
    refuse(
      'replicationFactor',
      "belongs to each collection once it is made; change it with Qdrant's PATCH /collections/{name} and replicate_shard",
    );
  }
}

function planVolumes(
  spec: ClusterSpec,
  { storage }: UpdateRequest,
  { claims, replicas }: ObservedCluster,
  refuse: Refuse,
): UpdateStep[] {
  if (storage === undefined) return [];
  const wanted = bytesOf(storage);
  if (wanted < bytesOf(spec.storage)) {
    refuse('storage', `is ${spec.storage} and a volume cannot shrink; restore a backup into a new cluster with less`);
    return [];
  }
  const smaller = claims.filter(({ bytes }) => bytes < wanted);
  const fixed = smaller.find(({ expandable }) => !expandable);
  if (fixed !== undefined) {
    refuse(
      'storage',
      `StorageClass "${fixed.className}" of claim ${fixed.name} does not let claims grow; set its allowVolumeExpansion, or restore a backup into a new cluster`,
    );
  }
  // A StatefulSet that is missing is made again by the same step that has to remove it.
  const told = smaller.length > 0 || wanted > bytesOf(spec.storage) || replicas === undefined;
  return told ? [{ kind: 'grow-volumes', storage, claims: smaller.length }] : [];
}

function planUpgrade(
  spec: ClusterSpec,
  { version }: UpdateRequest,
  { pods }: ObservedCluster,
  releases: readonly string[],
  refuse: Refuse,
): UpdateStep[] {
  if (version === undefined) return [];
  const reported = pods.flatMap((pod) => (pod.version === undefined ? [] : [pod.version])).sort(byVersion);
  const [oldest, newest] = [reported[0] ?? spec.version, reported.at(-1) ?? spec.version];
  if (oldest === undefined || newest === undefined) {
    refuse('version', 'no peer says which version it runs; wait until one answers');
    return [];
  }
  const path = upgradePath(oldest, newest, version, releases);
  if ('problem' in path) {
    refuse('version', path.problem);
    return [];
  }
  if (path.tags.length === 0 && spec.version !== undefined && !sameVersion(spec.version, version)) {
    // The peers run it, but the chart was told something else.
    return [{ kind: 'upgrade', version, restarts: 0 }];
  }
  return path.tags.map((tag): UpdateStep => ({
    kind: 'upgrade',
    version: tag,
    restarts: pods.filter((pod) => !sameVersion(pod.version, tag)).length,
  }));
}

function byVersion(a: string, b: string): number {
  const [left, right] = [parseVersion(a), parseVersion(b)];
  return left === undefined || right === undefined ? a.localeCompare(b) : compareVersions(left, right);
}

function planConfigure(
  spec: ClusterSpec,
  { resources, config, placement, version, restart }: UpdateRequest,
  { pods }: ObservedCluster,
  upgrading: boolean,
): UpdateStep[] {
  const changed =
    restart === true ||
    (resources !== undefined && canonicalJson(resources) !== canonicalJson(spec.resources ?? {})) ||
    (config !== undefined && canonicalJson(config) !== canonicalJson(spec.config ?? {})) ||
    (placement !== undefined && canonicalJson(placement) !== canonicalJson(spec.placement ?? {}));
  if (changed) return [{ kind: 'configure', restarts: pods.length }];
  // A change of the pods that was interrupted; an upgrade brings it to its end as well.
  const outdated = pods.filter(({ current }) => !current).length;
  const asked = [resources, config, placement, version].some((part) => part !== undefined);
  return asked && outdated > 0 && !upgrading ? [{ kind: 'configure', restarts: outdated }] : [];
}

/** Collections with a shard that has one replica only. */
function singleReplicas({ placements }: ObservedCluster): string[] {
  return placements
    .filter(({ shards }) => shards.some(({ replicas }) => replicas.length < 2))
    .map(({ collection }) => collection);
}
