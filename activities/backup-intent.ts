/** `intent.json`: who makes a backup. It is written before anything else of it. */
import { parseIntent, type BackupIntent } from '../src/domain/backup-parse.ts';
import { FleetError } from '../src/domain/errors.ts';
import { backupKeys, type BackupLocation } from '../src/domain/naming.ts';
import type { BackupStore } from '../src/clients/s3.ts';
import { readRecord } from './backup-records.ts';

/** Times that the intent of an earlier run is taken over while others change it. */
const TRIES = 5;

/**
 * Write down who makes this backup. A later run of the same workflow takes over what an earlier one began and never
 * decided, so that a sweep asks for the run that works on it.
 *
 * @throws FleetError `CommitConflict` when the backup is another workflow's, or an earlier run has decided what becomes
 *   of it
 */
export async function writeIntent(store: BackupStore, location: BackupLocation, intent: BackupIntent): Promise<void> {
  const { intent: key } = backupKeys(location);
  const text = JSON.stringify(intent);
  if ((await store.putIf(key, text, { absent: true })) === 'written') return;
  for (let tries = 0; tries < TRIES; tries += 1) {
    const found = await store.getJson(key);
    if (found === undefined) throw new FleetError('StoreUnavailable', `${key} was there and is gone again.`);
    const standing = parseIntent(found.body, location);
    if (standing.workflowId !== intent.workflowId) {
      throw new FleetError('CommitConflict', `Backup ${location.backup} is made by another workflow already.`);
    }
    if (standing.runId === intent.runId) return;
    const decided = (await readRecord(store, location))?.record;
    if (decided !== undefined) {
      throw new FleetError(
        'CommitConflict',
        `Backup ${location.backup} was ${decided.state} by run ${decided.attempt}. Start a new backup instead of this run.`,
      );
    }
    if ((await store.putIf(key, text, { etag: found.etag })) === 'written') return;
  }
  throw new FleetError('StoreUnavailable', `${key} keeps changing.`);
}
