/** Which peer each shard is backed up from, and whether a cluster's topology is still enough to begin. */
import { FleetError } from './errors.ts';

export interface Replica {
  readonly peer: string;
  readonly state: string;
}

export interface ShardPlacement {
  readonly shard: number;
  readonly shardKey?: string | number;
  readonly replicas: readonly Replica[];
}

export interface CollectionPlacement {
  readonly collection: string;
  /** Replicas of each shard that the collection's configuration asks for; absent where nobody asked. */
  readonly replicationFactor?: number;
  readonly shards: readonly ShardPlacement[];
  readonly transfers: number;
  readonly resharding: number;
}

/** One shard to copy from one peer. */
export interface ShardTask {
  readonly collection: string;
  readonly shard: number;
  readonly shardKey?: string | number;
  readonly peer: string;
  /** Peers whose replica was not Active when it was to be cut. */
  readonly tried?: readonly string[];
  /** A guess at its size by its points and their vectors, see `bytesPerPoint`; absent where nobody asked. */
  readonly bytes?: number;
}

/**
 * One Active replica per logical shard, spread evenly over the peers. Deterministic: the same topology gives the same
 * plan.
 *
 * @throws FleetError `TopologyUnstable` naming every collection with transfers, resharding or a shard without an
 *   Active replica: a snapshot of a moving shard may hold part of it
 */
export function planShards(placements: readonly CollectionPlacement[]): ShardTask[] {
  const problems = placements.flatMap(unstable);
  if (problems.length > 0) {
    throw new FleetError(
      'TopologyUnstable',
      `${problems.join('; ')}. Wait until the cluster has settled and try again.`,
    );
  }
  const load = new Map<string, number>();
  return placements.flatMap(({ collection, shards }) =>
    shards.map((placement) => {
      const active = placement.replicas
        .filter(isActive)
        .map(({ peer }) => peer)
        .sort();
      const peer = active.reduce((best, next) => ((load.get(next) ?? 0) < (load.get(best) ?? 0) ? next : best));
      load.set(peer, (load.get(peer) ?? 0) + 1);
      return {
        collection,
        shard: placement.shard,
        ...(placement.shardKey !== undefined && { shardKey: placement.shardKey }),
        peer,
      };
    }),
  );
}

/**
 * Another Active replica for each shard whose own was not Active when it was to be cut; one that is Active again where
 * there is no other.
 *
 * @returns the tasks, and in words which shards have no Active replica now, or are on the move
 */
export function replaceSources(
  tasks: readonly ShardTask[],
  placements: readonly CollectionPlacement[],
): { tasks: ShardTask[]; waiting: string[] } {
  const waiting = placements.filter(({ transfers, resharding }) => transfers > 0 || resharding > 0).flatMap(unstable);
  const byCollection = new Map(placements.map((placement) => [placement.collection, placement.shards]));
  const load = new Map<string, number>();
  const replaced = tasks.flatMap((task): ShardTask[] => {
    const tried = [...(task.tried ?? []), task.peer];
    const { replicas = [] } = byCollection.get(task.collection)?.find(({ shard }) => shard === task.shard) ?? {};
    const active = replicas.filter(isActive).map(({ peer }) => peer);
    const others = active.filter((peer) => !tried.includes(peer));
    const choice = (others.length > 0 ? others : active).sort();
    if (choice.length === 0) {
      const states = replicas.map(({ state }) => state).join(', ') || 'none';
      waiting.push(`collection "${task.collection}" shard ${task.shard} has no Active replica (${states})`);
      return [];
    }
    const peer = choice.reduce((best, next) => ((load.get(next) ?? 0) < (load.get(best) ?? 0) ? next : best));
    load.set(peer, (load.get(peer) ?? 0) + 1);
    return [{ ...task, peer, tried }];
  });
  return { tasks: replaced, waiting };
}

function unstable({ collection, shards, transfers, resharding }: CollectionPlacement): string[] {
  const name = `collection "${collection}"`;
  return [
    ...(transfers > 0 ? [`${name} has ${transfers} shard transfers running`] : []),
    ...(resharding > 0 ? [`${name} is being resharded`] : []),
    ...shards
      .filter(({ replicas }) => !replicas.some(isActive))
      .map(
        ({ shard, replicas }) =>
          `${name} shard ${shard} has no Active replica (${replicas.map(({ state }) => state).join(', ') || 'none'})`,
      ),
  ];
}

function isActive({ state }: Replica): boolean {
  return state === 'Active';
}

/** Tasks by peer, in plan order: each peer makes one snapshot at a time. */
export function byPeer(tasks: readonly ShardTask[]): Map<string, ShardTask[]> {
  return Map.groupBy(tasks, ({ peer }) => peer);
}
