/** What restores read of a backup, and the lease that keeps it from being removed meanwhile. */
import { log } from '@temporalio/activity';
import { BucketShard } from '../src/clients/bucket-shard.ts';
import { IncrementalShard } from '../src/clients/incremental-shard.ts';
import type { BackupStore } from '../src/clients/s3.ts';
import type { ShardBytes } from '../src/clients/shard-relay.ts';
import type { CollectionEntry, ShardEntry } from '../src/domain/backup.ts';
import { FleetError, messageOf } from '../src/domain/errors.ts';
import {
  backupKeys,
  clusterPrefix,
  type BackupLocation,
  type ClusterRef,
  type InBucket,
} from '../src/domain/naming.ts';
import { readLeased, readRecord } from './backup-records.ts';
import { recipeOf } from './block-references.ts';
import { workflowRun } from './context.ts';
import type { ActivityDeps } from './deps.ts';
import { transferBudget } from './transfer-budget.ts';

export async function renewLease(store: BackupStore, location: BackupLocation): Promise<void> {
  const { workflowId, runId } = workflowRun();
  const body = JSON.stringify({ holder: workflowId, runId, renewedAt: new Date().toISOString() });
  await store.putJson(backupKeys(location).lease(workflowId), body);
}

/** Milliseconds between two renewals: a lease counts for an hour, so that a dozen may fail in a row. */
const RENEWAL = 300_000;

/**
 * Renew the lease on a backup as long as something is read of it, however long one shard takes. A renewal that fails is
 * made good by the next one.
 */
export async function withLease<T>(
  store: BackupStore,
  location: BackupLocation,
  run: () => Promise<T>,
  every: number = RENEWAL,
): Promise<T> {
  await renewLease(store, location);
  let renewing: Promise<void> | undefined;
  const renew = async (): Promise<void> => {
    try {
      await renewLease(store, location);
    } catch (error) {
      log.warn(`could not renew the lease on backup ${location.backup}`, { reason: messageOf(error) });
    }
  };
  const timer = setInterval(() => {
    renewing = renew();
  }, every);
  try {
    return await run();
  } finally {
    clearInterval(timer);
    // One that comes after the lease was let go of would bring it back.
    await renewing;
  }
}

/** @throws FleetError `RestoreRefused` when the backup holds no such collection */
export async function readEntry(
  store: BackupStore,
  location: BackupLocation,
  collection: string,
): Promise<CollectionEntry> {
  const manifest = await readLeased(store, location);
  const entry = manifest.collections.find(({ name }) => name === collection);
  if (entry === undefined) {
    throw new FleetError('RestoreRefused', `Backup ${location.backup} holds no collection "${collection}".`);
  }
  return entry;
}

/** @throws FleetError `RestoreRefused` when the collection has no such shard */
export function shardEntry(entry: CollectionEntry, shard: number): ShardEntry {
  const found = entry.shards.find((candidate) => candidate.shard === shard);
  if (found === undefined) {
    throw new FleetError('RestoreRefused', `Collection "${entry.name}" has no shard ${shard} in the backup.`);
  }
  return found;
}

/** The backups whose packs the recipes of one may refer to: itself, and those that its record names. */
export async function packScope(store: BackupStore, location: BackupLocation): Promise<readonly string[] | undefined> {
  const found = await readRecord(store, location);
  // Before the commit there is no record; the recipe was made by this very run then.
  return found && [location.backup, ...(found.record.references ?? [])];
}

/**
 * The snapshot of one shard as a stream, for nodes that cannot read it from the bucket themselves.
 *
 * @param backups see {@link packScope}
 */
export function shardBytes(
  { stores, config }: Pick<ActivityDeps, 'stores' | 'config'>,
  location: ClusterRef & InBucket & { readonly prefix: string },
  entry: Pick<ShardEntry, 'key' | 'size' | 'incremental'>,
  backups?: readonly string[],
): ShardBytes {
  const { incremental } = entry;
  const store = stores.of(location);
  if (incremental !== undefined) {
    return new IncrementalShard({
      store,
      root: clusterPrefix(location),
      recipe: recipeOf({ ...entry, incremental }),
      backups,
      size: entry.size,
      lanes: config.FLEET_TRANSFER_LANES,
      ...transferBudget(config),
    });
  }
  return new BucketShard({
    store,
    key: entry.key,
    size: entry.size,
    rangeSize: config.FLEET_TRANSFER_PART_BYTES,
    lanes: config.FLEET_TRANSFER_LANES,
    ...transferBudget(config),
  });
}
