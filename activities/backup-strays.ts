/** What the attempts of a backup left in its folder and the committed backup does not need. */
import type { ShardEntry } from '../src/domain/backup.ts';
import type { BackupStore } from '../src/clients/s3.ts';
import { FleetError } from '../src/domain/errors.ts';
import { backupKeys, isShardCopy, type BackupLocation } from '../src/domain/naming.ts';
import { readCommitted } from './backup-records.ts';
import { release } from './block-references.ts';

type Referred = Pick<ShardEntry, 'key' | 'sample'>;

/** Tidy up after a backup that was committed earlier; nothing happens when it is not, or was committed by another run. */
export async function removeStrays(store: BackupStore, location: BackupLocation, attempt: string): Promise<void> {
  try {
    const manifest = await readCommitted(store, location);
    if (manifest.attempt !== attempt) return;
    const shards = manifest.collections.flatMap((collection) => collection.shards);
    await release(store, location, attempt);
    await removeStraysOf(store, location, attempt, shards);
  } catch (error) {
    // Where it is being removed, what is in its folder goes with it.
    if (!FleetError.is(error, 'BackupNotCommitted') && !FleetError.is(error, 'BackupNotFound')) throw error;
  }
}

/**
 * Uploads that were begun twice because an answer was lost, or by an attempt that was taken for dead: nobody would
 * complete them. Finished copies of snapshots that were made anew, because a worker died before it could tell of them.
 *
 * @param shards those of the committed backup
 */
export async function removeStraysOf(
  store: BackupStore,
  location: BackupLocation,
  attempt: string,
  shards: readonly Referred[],
): Promise<void> {
  const folder = `${backupKeys(location).data}${attempt}/`;
  for (const upload of await store.openUploads(folder)) await store.abortUpload(upload);
  const referred = new Set(shards.flatMap(({ key, sample }) => [key, sample?.key]));
  const stray: string[] = [];
  for await (const { key } of store.list(folder)) if (isShardCopy(key) && !referred.has(key)) stray.push(key);
  await store.deleteKeys(stray);
}
