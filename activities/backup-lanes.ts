/** The lists that a backup works through: too long for a workflow's payloads, they lie beside the data. */
import { FleetError } from '../src/domain/errors.ts';
import { backupKeys, type BackupLocation } from '../src/domain/naming.ts';
import type { BackupStore } from '../src/clients/s3.ts';
import type { ShardTask } from '../src/domain/topology.ts';
import type { CopiedShard } from './backup-store.ts';
import { signal } from './context.ts';
import type { ActivityDeps } from './deps.ts';
import { LANES, mapInLanes } from './lanes.ts';
import { peerById } from './peers.ts';

/** The shards that one peer gives, in a run of a backup. */
export interface LaneRef {
  readonly location: BackupLocation;
  readonly attempt: string;
  readonly peer: string;
}

/** Some shards to copy next. */
export interface ShardChunk {
  readonly tasks: readonly ShardTask[];
  /** Snapshots that they have on the node already: none of them is ours to adopt or to delete. */
  readonly known: readonly string[];
}

/** Shards of one chunk. With the longest names Qdrant allows a chunk stays below a tenth of a payload's 2 MB. */
const CHUNK = 200;

export function createBackupLaneActivities(deps: ActivityDeps) {
  return {
    /** The shards of the lane from a place on, none when it is at its end, and what their node has of them. */
    async nextShards({ location, attempt, peer, from }: LaneRef & { from: number }): Promise<ShardChunk> {
      const key = backupKeys(location).lane(attempt, peer);
      const lane = await deps.stores.of(location).getJson(key);
      if (lane === undefined)
        throw new FleetError('IntegrityMismatch', `The plan of ${location.backup} is gone: ${key}.`);
      const tasks = (lane.body as ShardTask[]).slice(from, from + CHUNK);
      if (tasks.length === 0) return { tasks, known: [] };
      const { client } = await peerById(deps, location, peer, signal());
      const found = await mapInLanes(tasks, LANES, ({ collection, shard }) => client.shardSnapshots(collection, shard));
      return { tasks, known: found.flat().map(({ name }) => name) };
    },

    /** Lay down what was copied of a lane, where it is too much to carry along. @returns the key of the list */
    async storeCopied(input: LaneRef & { from: number; shards: readonly CopiedShard[] }): Promise<{ key: string }> {
      const { location, attempt, peer, from, shards } = input;
      const key = backupKeys(location).copied(attempt, peer, from);
      await deps.stores.of(location).putJson(key, JSON.stringify(shards));
      return { key };
    },
  };
}

/** Read back what {@link createBackupLaneActivities}'s `storeCopied` laid down. */
export async function readCopied(store: BackupStore, keys: readonly string[]): Promise<CopiedShard[]> {
  const lists = await mapInLanes(keys, LANES, async (key) => {
    const list = await store.getJson(key);
    if (list === undefined) throw new FleetError('IntegrityMismatch', `The list ${key} of copied shards is gone.`);
    return list.body as CopiedShard[];
  });
  return lists.flat();
}
