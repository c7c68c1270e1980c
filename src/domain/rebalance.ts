/** Which shards move where when peers come or go. Pure: it looks at a placement and lists moves, one after the other. */
import { FleetError } from './errors.ts';
import type { CollectionPlacement } from './topology.ts';

/** One replica of a shard leaves `from` for `to`. */
export interface ShardMove {
  readonly collection: string;
  readonly shard: number;
  readonly from: string;
  readonly to: string;
}

interface ShardState {
  readonly shard: number;
  /** Peers that hold a replica. */
  readonly holders: Set<string>;
  /** Those of them whose replica is Active, so that it can be a source. */
  readonly active: Set<string>;
}

/**
 * The moves that empty every peer outside of `keep` and then even the load out: over the peers of each collection
 * first, over all collections second. Meant to be run in order; applied to the placement that they were planned for,
 * no move ever puts two replicas of a shard on one peer, and every move begins at an Active replica.
 *
 * Deterministic, and empty exactly when nothing is left to do.
 *
 * @param keep ids of the peers that may hold shards
 * @throws FleetError `UpdateRefused` when a shard has more replicas than there are peers to keep, `TopologyUnstable`
 *   when a replica that has to move is not Active
 */
export function planMoves(placements: readonly CollectionPlacement[], keep: readonly string[]): ShardMove[] {
  const total = new Load(keep);
  const collections = placements.map(({ collection, shards }) => ({
    collection,
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
  for (const item of collections) evacuate(item);
  for (const item of collections) even(item, (from, to) => item.load.of(from) - item.load.of(to) > 1);
  // Now every collection is even in itself; with many small ones a peer may still hold more than its part.
  for (const item of collections) {
    even(item, (from, to) => item.load.of(from) - item.load.of(to) === 1 && total.of(from) - total.of(to) > 1);
  }
  return moves;

  function evacuate({ collection, load, shards }: (typeof collections)[number]): void {
    for (const state of shards) {
      for (const from of [...state.holders].filter((peer) => !keep.includes(peer)).sort()) {
        const [to] = keep
          .filter((peer) => !state.holders.has(peer))
          .sort((a, b) => load.of(a) - load.of(b) || total.of(a) - total.of(b));
        if (to === undefined) throw noRoom(collection, state, keep.length);
        if (!state.active.has(from)) throw notActive(collection, state.shard, from);
        move({ collection, load, shards }, state, from, to);
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
