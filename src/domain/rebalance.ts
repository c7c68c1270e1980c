/**
 * Which shards move where when peers come or go, and which replicas are made again that are missing. Pure: it looks at a
 * placement and lists moves, one after the other.
 */
import { FleetError } from './errors.ts';
import type { CollectionPlacement } from './topology.ts';

/** One replica of a shard leaves `from` for `to`, or is copied from there. */
export interface ShardMove {
  readonly collection: string;
  readonly shard: number;
  readonly from: string;
  readonly to: string;
  /** The replica on `from` stays, and `to` gets another one. */
  readonly copy?: true;
}

/** What a placement lacks: `all` empties peers, makes missing replicas and evens the load, `copies` makes replicas only. */
export type Wanted = 'all' | 'copies';

interface ShardState {
  readonly shard: number;
  /** Peers that hold a replica. */
  readonly holders: Set<string>;
  /** Those of them whose replica is Active, so that it can be a source. */
  readonly active: Set<string>;
}

/**
 * The moves that empty every peer outside of `keep`, then copy each shard until it has as many replicas as its
 * collection asks for, and then even the load out: over the peers of each collection first, over all collections second.
 * Meant to be run in order; applied to the placement that they were planned for, no move ever puts two replicas of a
 * shard on one peer, every move begins at an Active replica, and no shard ever has fewer replicas than before.
 *
 * Deterministic, and empty exactly when nothing is left to do. A replica that is not Active counts: Qdrant heals it by
 * itself while its peer answers.
 *
 * @param keep ids of the peers that may hold shards
 * @throws FleetError `UpdateRefused` when a shard has more replicas than there are peers to keep, `TopologyUnstable`
 *   when a replica that has to move is not Active
 */
export function planMoves(
  placements: readonly CollectionPlacement[],
  keep: readonly string[],
  wanted: Wanted = 'all',
): ShardMove[] {
  const total = new Load(keep);
  const collections = placements.map(({ collection, shards, replicationFactor = 1 }) => ({
    collection,
    // More replicas than peers cannot be.
    replicas: Math.min(replicationFactor, keep.length),
    load: new Load(keep),
    shards: shards.map(({ shard, replicas }): ShardState => ({
      shard,
      holders: new Set(replicas.map(({ peer }) => peer)),
      active: new Set(replicas.filter(({ state }) => state === 'Active').map(({ peer }) => peer)),
    })),
  }));
  for (const { load, shards } of collections) {
    for (const { holders } of shards) {
      for (const peer of holders) {
        load.add(peer, 1);
        total.add(peer, 1);
      }
    }
  }
  const moves: ShardMove[] = [];
  if (wanted === 'all') for (const item of collections) evacuate(item);
  for (const item of collections) complete(item);
  if (wanted === 'copies') return moves;
  for (const item of collections) even(item, (from, to) => item.load.of(from) - item.load.of(to) > 1);
  // Now every collection is even in itself; with many small ones a peer may still hold more than its part.
  for (const item of collections) {
    even(item, (from, to) => item.load.of(from) - item.load.of(to) === 1 && total.of(from) - total.of(to) > 1);
  }
  return moves;

  function evacuate(item: (typeof collections)[number]): void {
    const { collection, load } = item;
    for (const state of item.shards) {
      for (const from of [...state.holders].filter((peer) => !keep.includes(peer)).sort()) {
        const [to] = keep
          .filter((peer) => !state.holders.has(peer))
          .sort((a, b) => load.of(a) - load.of(b) || total.of(a) - total.of(b));
        if (to === undefined) throw noRoom(collection, state, keep.length);
        if (!state.active.has(from)) throw notActive(collection, state.shard, from);
        move(item, state, from, to);
      }
    }
  }

  /** A shard without any Active replica has no source; that is for others to tell. */
  function complete(item: (typeof collections)[number]): void {
    const { load } = item;
    for (const state of item.shards) {
      const staying = () => [...state.holders].filter((peer) => keep.includes(peer)).length;
      while (staying() < item.replicas) {
        const byLoad = (a: string, b: string) => load.of(a) - load.of(b) || total.of(a) - total.of(b);
        const [to] = keep.filter((peer) => !state.holders.has(peer)).sort(byLoad);
        const [from] = [...state.active].sort();
        if (to === undefined || from === undefined) break;
        copy(item, state, from, to);
      }
    }
  }

  function even(item: (typeof collections)[number], worthwhile: (from: string, to: string) => boolean): void {
    for (let found = next(); found !== undefined; found = next()) move(item, ...found);

    function next(): [ShardState, string, string] | undefined {
      const byLoad = keep.toSorted((a, b) => item.load.of(a) - item.load.of(b) || total.of(a) - total.of(b));
      for (const from of byLoad.toReversed()) {
        for (const to of byLoad) {
          if (!worthwhile(from, to)) continue;
          const state = item.shards.find(({ holders, active }) => active.has(from) && !holders.has(to));
          if (state !== undefined) return [state, from, to];
        }
      }
      return undefined;
    }
  }

  function move(item: (typeof collections)[number], state: ShardState, from: string, to: string): void {
    state.holders.delete(from);
    state.active.delete(from);
    state.holders.add(to);
    state.active.add(to);
    for (const load of [item.load, total]) {
      load.add(from, -1);
      load.add(to, 1);
    }
    moves.push({ collection: item.collection, shard: state.shard, from, to });
  }

  function copy(item: (typeof collections)[number], state: ShardState, from: string, to: string): void {
    state.holders.add(to);
    state.active.add(to);
    for (const load of [item.load, total]) load.add(to, 1);
    moves.push({ collection: item.collection, shard: state.shard, from, to, copy: true });
  }
}

/** Replicas by peer. */
class Load {
  readonly #byPeer: Map<string, number>;

  constructor(peers: readonly string[]) {
    this.#byPeer = new Map(peers.map((peer) => [peer, 0]));
  }

  of(peer: string): number {
    return this.#byPeer.get(peer) ?? 0;
  }

  add(peer: string, change: number): void {
    this.#byPeer.set(peer, this.of(peer) + change);
  }
}

function noRoom(collection: string, { shard, holders }: ShardState, peers: number): FleetError {
  return new FleetError(
    'UpdateRefused',
    `Shard ${shard} of "${collection}" has ${holders.size} replicas, which need as many peers; ${peers} would be left. ` +
      "Lower the collection's replication factor and drop replicas first, or keep more nodes.",
  );
}

function notActive(collection: string, shard: number, peer: string): FleetError {
  return new FleetError(
    'TopologyUnstable',
    `Shard ${shard} of "${collection}" has to leave peer ${peer}, where its replica is not Active. Wait until it has healed.`,
  );
}
