/** The lists that a backup works through: too long for a workflow's payloads, they lie beside the data. */
import { requireTrusted } from '../src/clients/backup-mac.ts';
import { parseCopied, parseLane } from '../src/domain/backup-parse.ts';
import { FleetError } from '../src/domain/errors.ts';
import { LARGE_JSON } from '../src/domain/json-bounds.ts';
import { isKeyBelow } from '../src/domain/json-guard.ts';
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
  /** 1, the default: as planned. Later ones take what was not Active elsewhere. */
  readonly round?: number;
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
    async nextShards({ location, attempt, peer, round, from }: LaneRef & { from: number }): Promise<ShardChunk> {
      const key = backupKeys(location).lane(attempt, peer, round);
      const lane = await readList(deps.stores.of(location), location, key);
      const tasks = parseLane(lane, key, peer).slice(from, from + CHUNK);
      if (tasks.length === 0) return { tasks, known: [] };
      const { client } = await peerById(deps, location, peer, signal());
      const found = await mapInLanes(tasks, LANES, ({ collection, shard }) => client.shardSnapshots(collection, shard));
      return { tasks, known: found.flat().map(({ name }) => name) };
    },

    /** Lay down what was copied of a lane, where it is too much to carry along. @returns the key of the list */
    async storeCopied(input: LaneRef & { from: number; shards: readonly CopiedShard[] }): Promise<{ key: string }> {
      const { location, attempt, peer, round, from, shards } = input;
      const key = backupKeys(location).copied(attempt, peer, from, round);
      await writeList(deps.stores.of(location), location, key, shards);
      return { key };
    },
  };
}

/** Read back what {@link createBackupLaneActivities}'s `storeCopied` laid down. */
export async function readCopied(
  store: BackupStore,
  location: BackupLocation,
  keys: readonly string[],
): Promise<CopiedShard[]> {
  const { data } = backupKeys(location);
  const lists = await mapInLanes(keys, LANES, async (key) => {
    if (!isKeyBelow(key, data)) throw new FleetError('IntegrityMismatch', `${key} is no list of ${location.backup}.`);
    return parseCopied(await readList(store, location, key), key, location);
  });
  return lists.flat();
}

/** Lay a list down beside the data, signed together with its key. */
export async function writeList(
  store: BackupStore,
  location: BackupLocation,
  key: string,
  items: readonly unknown[],
): Promise<void> {
  await store.putJson(key, JSON.stringify(store.mac.seal('list', location, { key, items })));
}

/** @throws FleetError `IntegrityMismatch` when it is gone or another one, `BackupNotTrusted` when it is not signed */
async function readList(store: BackupStore, location: BackupLocation, key: string): Promise<unknown> {
  const found = await store.getJson(key, LARGE_JSON);
  if (found === undefined) throw new FleetError('IntegrityMismatch', `${key}, a list of ${location.backup}, is gone.`);
  // Earlier versions wrote the bare list; with a key it is not believed.
  const list = Array.isArray(found.body) ? { key, items: found.body } : (found.body as { key?: unknown } | null);
  if (list?.key !== key) throw new FleetError('IntegrityMismatch', `${key} is not the list that was written there.`);
  requireTrusted(store.mac.check('list', location, list), location, 'A list');
  return (list as { items?: unknown }).items;
}
