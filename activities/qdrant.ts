/** Qdrant itself, outside backup and restore: peers, collections, stored shard snapshots. */
import type { QdrantClient, SnapshotDescription } from '../src/clients/qdrant.ts';
import { watched } from '../src/clients/watched-call.ts';
import type { CollectionSpec } from '../src/domain/cluster.ts';
import { FleetError } from '../src/domain/errors.ts';
import type { ClusterRef } from '../src/domain/naming.ts';
import type { ShardTask } from '../src/domain/topology.ts';
import { tellAbsent } from './absence.ts';
import { attempt, signal } from './context.ts';
import type { ActivityDeps } from './deps.ts';
import { peerById, reachablePeers, survey } from './peers.ts';
import { SourceReplica } from './replica-state.ts';

/** A shard snapshot on its node, ready to be read. */
export interface NodeSnapshot {
  readonly name: string;
  readonly size: number;
  /** SHA-256 in hex, by Qdrant. */
  readonly sha256: string;
  readonly points: { readonly before: number; readonly after: number };
  readonly cutAt: string;
}

export function createQdrantActivities(deps: ActivityDeps) {
  return {
    /**
     * Whether every peer is up and all of them know each other.
     *
     * @throws FleetError `ClusterNotReady` that says what is missing; repeat until it is not. `PodCannotStart` when a pod
     *   never will
     */
    async awaitPeers({ nodes, ...ref }: ClusterRef & { nodes: number }): Promise<{ qdrantVersion: string }> {
      const { peers, unreachable } = await survey(deps, ref, signal());
      const [first] = peers;
      if (first === undefined || peers.length < nodes) {
        const stuck = unreachable.flatMap(({ trouble }) => trouble ?? []);
        if (stuck.length > 0) throw new FleetError('PodCannotStart', stuck.join(' '));
        const why = unreachable.length === 0 ? 'no pods yet' : await tellAbsent(deps, ref, unreachable);
        throw new FleetError('ClusterNotReady', `${peers.length} of ${nodes} peers answer (${why}).`);
      }
      for (const { name, view } of peers) {
        const known = Object.keys(view.peers).length;
        if (known !== nodes) {
          throw new FleetError('ClusterNotReady', `${name} knows ${known} peers of ${nodes} in consensus.`);
        }
      }
      return { qdrantVersion: await first.client.version() };
    },

    /** Create a collection with its payload indexes; adopt it when it is there with the same vectors. */
    async ensureCollection({ spec, ...ref }: ClusterRef & { spec: CollectionSpec }): Promise<void> {
      const [{ client }] = await reachablePeers(deps, ref, signal());
      const vectors = { size: spec.vectorSize, distance: spec.distance };
      const created = await client.createCollection(spec.name, {
        vectors,
        replication_factor: spec.replicationFactor,
        ...(spec.shardNumber !== undefined && { shard_number: spec.shardNumber }),
        on_disk_payload: spec.onDiskPayload,
        hnsw_config: {
          m: spec.hnsw.m,
          ef_construct: spec.hnsw.efConstruct,
          ...(spec.hnsw.onDisk !== undefined && { on_disk: spec.hnsw.onDisk }),
        },
      });
      const info = await client.collection(spec.name);
      if (!created) {
        const found = info.config.params['vectors'] as { size?: number; distance?: string } | undefined;
        if (found?.size !== vectors.size || found.distance !== vectors.distance) {
          throw new FleetError(
            'QdrantRejected',
            `Collection "${spec.name}" exists with vectors ${JSON.stringify(found)}, wanted ${JSON.stringify(vectors)}.`,
          );
        }
      }
      for (const [field, schema] of Object.entries(spec.indexes)) {
        if (!Object.hasOwn(info.payload_schema, field)) await client.createPayloadIndex(spec.name, field, schema);
      }
    },

    /**
     * Make one stored snapshot of one shard, of a replica that is Active before and after the cut: before it and after it in
     * its own eyes, and after it in another peer's. Qdrant finishes a snapshot whose client went away, so a later attempt
     * first waits for the node to be idle and adopts what an earlier one left. It may take as long as the node works.
     *
     * @param input `known`: snapshots that were there before the operation began
     * @throws FleetError `QdrantUnavailable` when the node neither works on it nor answers; `ReplicaNotActive` when the
     *   replica may lack writes: what was cut of it is of no use
     */
    async createShardSnapshot({
      task,
      known,
      ...ref
    }: ClusterRef & { task: ShardTask; known: readonly string[] }): Promise<NodeSnapshot> {
      const { collection, shard } = task;
      const source = await SourceReplica.find(deps, ref, task);
      const { client, name: pod } = source.peer;
      const before = await source.requireActive('before the cut');
      if (attempt() > 1 && (await client.gauge('snapshot_creation_running', collection)) > 0) {
        throw new FleetError('ClusterNotReady', `${pod} is still making a snapshot of "${collection}".`);
      }
      const leftOver =
        attempt() > 1
          ? (await client.shardSnapshots(collection, shard)).findLast(({ name }) => !known.includes(name))
          : undefined;
      const made = leftOver ?? (await makeSnapshot(client, pod, task, known));
      const after = await source.requireActive('after the cut');
      await source.requireActiveElsewhere('after the cut');
      if (made.checksum === undefined) {
        throw new FleetError(
          'QdrantRejected',
          `${pod} gives no checksum for its snapshots; set storage.snapshots_config.snapshots_storage to local.`,
        );
      }
      return {
        name: made.name,
        size: made.size,
        sha256: made.checksum,
        points: { before, after },
        cutAt: made.creation_time === undefined ? new Date().toISOString() : `${made.creation_time}Z`,
      };
    },

    /** Remove a shard snapshot from its node. Succeeds when it is gone, or its whole collection. */
    async deleteShardSnapshot({ task, name, ...ref }: ClusterRef & { task: ShardTask; name: string }): Promise<void> {
      const { client } = await peerById(deps, ref, task.peer, signal());
      await client.deleteShardSnapshot(task.collection, task.shard, name);
    },

    /**
     * Remove every snapshot of the shards that was not there before the operation began: what an attempt left whose
     * worker died before it could report a name.
     */
    async sweepShardSnapshots({
      peer,
      tasks,
      known,
      ...ref
    }: ClusterRef & { peer: string; tasks: readonly ShardTask[]; known: readonly string[] }): Promise<void> {
      const { client, name: pod } = await peerById(deps, ref, peer, signal());
      for (const { collection, shard } of tasks) {
        if ((await client.gauge('snapshot_creation_running', collection)) > 0) {
          throw new FleetError('ClusterNotReady', `${pod} is still making a snapshot of "${collection}".`);
        }
        for (const { name } of await client.shardSnapshots(collection, shard)) {
          if (!known.includes(name)) await client.deleteShardSnapshot(collection, shard, name);
        }
      }
    },
  };
}

/** A new snapshot; adopted from the list, when the node made it and only its answer was lost. */
async function makeSnapshot(
  client: QdrantClient,
  pod: string,
  { collection, shard }: ShardTask,
  known: readonly string[],
): Promise<SnapshotDescription> {
  const outcome = await watched((ending) => client.until(ending).createShardSnapshot(collection, shard), {
    running: async (ending) => (await client.until(ending).gauge('snapshot_creation_running', collection)) > 0,
    signal: signal(),
  });
  if ('answer' in outcome) return outcome.answer;
  const made = (await client.shardSnapshots(collection, shard)).findLast(({ name }) => !known.includes(name));
  if (made !== undefined) return made;
  throw new FleetError(
    'QdrantUnavailable',
    `${pod} was asked for a snapshot of "${collection}" shard ${shard}; ${outcome.lost}, and there is no snapshot.`,
  );
}
