/** How large the shards of a cluster may be, by what the peers say of their points. */
import { bytesPerPoint } from '../src/domain/collection-config.ts';
import type { SourcePeer } from '../src/domain/disk.ts';
import type { CollectionPlacement, ShardTask } from '../src/domain/topology.ts';
import { LANES, mapInLanes } from './lanes.ts';
import type { Peer } from './peers.ts';

/**
 * Ask for the points of every shard, each at one of the peers that have it; a backup's source where it is backed up.
 * Of each collection a peer is asked at most once.
 *
 * @param placements of all collections of the cluster, since all of them share the peers' disks
 * @param configs `params` of each collection
 * @returns the tasks with a guess at their bytes, and the weight of what each source holds altogether
 */
export async function weigh(
  peers: readonly Peer[],
  tasks: readonly ShardTask[],
  placements: readonly CollectionPlacement[],
  configs: ReadonlyMap<string, Readonly<Record<string, unknown>>>,
): Promise<{ tasks: ShardTask[]; sources: SourcePeer[] }> {
  const keyOf = (collection: string, shard: number) => JSON.stringify([collection, shard]);
  const sourceOf = new Map(tasks.map(({ collection, shard, peer }) => [keyOf(collection, shard), peer]));
  const questions = placements.flatMap(({ collection, shards }) => {
    const asked = shards.flatMap(({ shard, replicas }) => {
      const peer = sourceOf.get(keyOf(collection, shard)) ?? replicas[0]?.peer;
      return peer === undefined ? [] : [peer];
    });
    return [...new Set(asked)].map((peer) => ({ collection, peer }));
  });
  const bytes = new Map<string, number>();
  await mapInLanes(questions, LANES, async ({ collection, peer: id }) => {
    const peer = peers.find((candidate) => candidate.id === id);
    const each = bytesPerPoint(configs.get(collection) ?? {});
    for (const found of (await peer?.client.collectionCluster(collection))?.local ?? []) {
      bytes.set(keyOf(collection, found.shard_id), found.points_count * each);
    }
  });

  const weights = new Map<string, number>();
  for (const { collection, shards } of placements) {
    for (const { shard, replicas } of shards) {
      const weight = bytes.get(keyOf(collection, shard)) ?? 0;
      for (const { peer } of replicas) weights.set(peer, (weights.get(peer) ?? 0) + weight);
    }
  }
  const giving = new Set(tasks.map(({ peer }) => peer));
  return {
    tasks: tasks.map((task) => ({ ...task, bytes: bytes.get(keyOf(task.collection, task.shard)) ?? 0 })),
    sources: peers
      .filter(({ id }) => giving.has(id))
      .map(({ id, name }) => ({ pod: name, peer: id, weight: weights.get(id) ?? 0 })),
  };
}
