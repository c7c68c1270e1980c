/** More nodes or fewer: which steps it takes, whether the disks hold it, and what an earlier attempt has left. Pure. */
import type { ClusterSpec } from './cluster.ts';
import { bytesOf } from './quantities.ts';
import { tellLost } from './lost-disk.ts';
import { planMoves, type ShardMove } from './rebalance.ts';
import { missingPeers, noMajority, REPAIR, repairProblem } from './repair-plan.ts';
import type { CollectionPlacement } from './topology.ts';
import type { ObservedCluster, ObservedPod, Refuse, UpdateRequest, UpdateStep } from './update-plan.ts';

/** Part of a volume that must stay free for what Qdrant writes while it optimises and takes snapshots. */
const USABLE = 0.8;

/**
 * What leads to another number of nodes, in the order that loses nothing: wait for who is away, add, move, remove.
 *
 * @param refuse told why it cannot be, by the field `nodes`
 */
export function planScaling(
  spec: ClusterSpec,
  { nodes }: UpdateRequest,
  observed: ObservedCluster,
  refuse: Refuse,
): UpdateStep[] {
  if (nodes === undefined) return [];
  const { placements, pods, peers, claims, replicas = spec.nodes, lost = [] } = observed;
  const scales = nodes !== replicas;
  const stuck = scales ? noMajority(observed) : undefined;
  // What is only suspected may be mended by what else is asked for, such as other settings.
  const hopeless = lost.filter(({ certain }) => certain || scales);
  if (stuck !== undefined || hopeless.length > 0) {
    const problem = repairProblem(observed);
    const told = hopeless.map(tellLost).join(' ') || `${stuck}.`;
    refuse('nodes', `${told} ${problem === undefined ? REPAIR : `It cannot be repaired: ${problem}`}`);
    return [];
  }
  const widest = placements.flatMap(({ collection, shards }) =>
    shards.map(({ replicas: of }) => ({ collection, count: of.length })),
  );
  const tooWide = widest.filter(({ count }) => count > nodes);
  if (tooWide.length > 0) {
    const names = [...new Set(tooWide.map(({ collection }) => `"${collection}"`))].slice(0, 5).join(', ');
    refuse(
      'nodes',
      `${names} keep ${Math.max(...tooWide.map(({ count }) => count))} replicas of a shard, which need as many nodes. Lower their replication factor and drop replicas first`,
    );
    return [];
  }
  const away = pods.filter(({ peer }) => peer === undefined);
  const missing = missingPeers(observed);
  const holders = new Set(placements.flatMap(({ shards }) => shards.flatMap(({ replicas: of }) => of.map(peerOf))));
  if (away.length === 0 && missing.some((peer) => holders.has(peer) || nodes > replicas)) {
    refuse(
      'nodes',
      `peer ${missing.join(', ')} is in consensus but no pod answers as it; bring its pod back, or send "repair": true, which removes it`,
    );
    return [];
  }
  // What a scale-in that did not come to its end has left: a pod that comes back finds an old disk, and no consensus.
  const surplus = new Set(
    [...pods, ...claims.filter(({ ofSet }) => ofSet)].map(({ name }) => ordinalOf(name)).filter((at) => at >= replicas),
  ).size;
  const cleared: UpdateStep[] = surplus > 0 ? [{ kind: 'remove-nodes', nodes: replicas, removed: surplus }] : [];
  if (nodes > replicas || peers.length < nodes) {
    const added = Math.max(nodes - replicas, 0);
    const moves = countMoves(placements, [...peers, ...newPeers(nodes - peers.length)]);
    return [...cleared, { kind: 'add-nodes', nodes, added }, { kind: 'move-shards', nodes, ...moves }];
  }
  // Shards can be given and taken by peers that are there. How those that are away will be found is not known yet.
  const needed = away.some(({ name }) => ordinalOf(name) < nodes) || missing.some((peer) => holders.has(peer));
  const wait: UpdateStep[] = away.length > 0 && needed ? [{ kind: 'add-nodes', nodes: replicas, added: 0 }] : [];
  const expected = away.filter(({ name }) => ordinalOf(name) < nodes).length;
  const staying = [...stayingPeers(pods, nodes), ...missing.slice(0, expected)];
  const moves = countMoves(away.length > 0 ? healed(placements) : placements, staying);
  const some = moves.moves > 0 || moves.copies !== undefined;
  const move: UpdateStep[] = some ? [{ kind: 'move-shards', nodes, ...moves }] : [];
  if (nodes === replicas && peers.length === nodes) return [...cleared, ...wait, ...move];
  const problem = diskProblem(observed, spec, nodes);
  if (problem !== undefined) {
    refuse('nodes', problem);
    return [];
  }
  const removed = Math.max(replicas - nodes, peers.length - nodes, surplus);
  return [...wait, ...move, { kind: 'remove-nodes', nodes, removed }];
}

/** Replicas that are missing, where all pods answer and nothing else is to be done about the placement. */
export function planCopies({ pods, peers, placements }: ObservedCluster, nodes: number): UpdateStep[] {
  if (missingPeers({ pods, peers }).length > 0 || pods.some(({ peer }) => peer === undefined)) return [];
  const copies = planMoves(placements, stayingPeers(pods, nodes), 'copies').length;
  return copies === 0 ? [] : [{ kind: 'copy-shards', nodes, copies }];
}

function peerOf({ peer }: { readonly peer: string }): string {
  return peer;
}

/** The same placement with every replica Active. */
function healed(placements: readonly CollectionPlacement[]): CollectionPlacement[] {
  return placements.map((placement) => ({
    ...placement,
    shards: placement.shards.map((shard) => ({
      ...shard,
      replicas: shard.replicas.map(({ peer }) => ({ peer, state: 'Active' })),
    })),
  }));
}

/** Peers of the pods whose ordinal stays below `nodes`. */
export function stayingPeers(pods: readonly ObservedPod[], nodes: number): string[] {
  return pods.flatMap(({ name, peer }) => (peer !== undefined && ordinalOf(name) < nodes ? [peer] : []));
}

/** The number at the end of a StatefulSet's pod or claim. */
export function ordinalOf(name: string): number {
  return Number(/-(\d+)$/.exec(name)?.[1] ?? Number.NaN);
}

function countMoves(
  placements: readonly CollectionPlacement[],
  keep: readonly string[],
): { moves: number; copies?: number } {
  const planned: readonly ShardMove[] = planMoves(placements, keep);
  const copies = planned.filter(({ copy }) => copy === true).length;
  return { moves: planned.length - copies, ...(copies > 0 && { copies }) };
}

function newPeers(count: number): string[] {
  return Array.from({ length: Math.max(count, 0) }, (_, index) => `new-${index}`);
}

/**
 * Whether what the leaving peers hold fits on those that stay: by what the kubelets measured, and where one did not, by
 * the vectors and payload that all peers told.
 */
function diskProblem(observed: ObservedCluster, spec: ClusterSpec, nodes: number): string | undefined {
  const { dataBytes, peers, pods, disks = {} } = observed;
  const remedy = 'Grow the volumes first ("storage"), or keep more nodes';
  if (pods.every(({ name }) => disks[name] !== undefined)) {
    const used = pods.reduce((sum, { name }) => sum + (disks[name]?.storage.used ?? 0), 0);
    const each = used / nodes;
    const short = pods.flatMap(({ name }) => {
      const volume = disks[name]?.storage;
      if (volume === undefined || ordinalOf(name) >= nodes) return [];
      // The fifth of a volume stays free, also where something else than its size is the limit.
      const room = volume.free - (1 - USABLE) * volume.capacity;
      const more = each - volume.used;
      return more <= Math.max(room, 0)
        ? []
        : [`pod ${name} would get ${size(more)} more, and of ${size(volume.free)} free ${size(room)} may be used`];
    });
    return short.length === 0
      ? undefined
      : `the volumes hold ${size(used)}, which comes to ${size(each)} on each of ${nodes} nodes: ${short.join('; ')}. ${remedy}`;
  }
  if (dataBytes === undefined || peers.some((peer) => dataBytes[peer] === undefined)) return undefined;
  const each = Object.values(dataBytes).reduce((sum, bytes) => sum + bytes, 0) / nodes;
  const usable = bytesOf(spec.storage) * USABLE;
  if (each <= usable) return undefined;
  return `the data would come to ${size(each)} on each of ${nodes} nodes, and of ${spec.storage} at most ${size(usable)} may be used. ${remedy}`;
}

/** Who could not be asked how much of its volume is free, when that matters. */
export function diskNotes({ pods, dataBytes, peers, disks = {} }: ObservedCluster): string[] {
  const unknown = pods.filter(({ name }) => disks[name] === undefined).map(({ name }) => name);
  if (unknown.length === 0) return [];
  const told = dataBytes !== undefined && peers.every((peer) => dataBytes[peer] !== undefined);
  const instead = told ? 'what the peers say of their vectors and payload was taken' : 'it was not checked';
  return [`free disk is unknown of ${unknown.join(', ')}, so ${instead}`];
}

function size(bytes: number): string {
  const atLeast = Math.max(bytes, 0);
  return atLeast < 2 ** 30 / 10 ? `${(atLeast / 2 ** 20).toFixed(1)} MiB` : `${(atLeast / 2 ** 30).toFixed(1)} GiB`;
}
