/** What a verification found, in the records of the backups: by compare-and-set, as every other change of them. */
import type { BackupState } from '../src/domain/backup.ts';
import { FleetError } from '../src/domain/errors.ts';
import type { BackupLocation } from '../src/domain/naming.ts';
import type { BackupStore } from '../src/clients/s3.ts';
import { move, readRecord, touch, type RecordAt } from './backup-records.ts';

/** Times that a record is looked at again because somebody else changed it meanwhile. */
const MAX_TRIES = 5;

/**
 * COMMITTED -> CORRUPT. A backup that is being removed stays so, and is CORRUPT when that is taken back.
 *
 * @returns the state that stands; `undefined` when the backup has no record
 */
export async function markDamaged(store: BackupStore, location: BackupLocation): Promise<BackupState | undefined> {
  return settle(store, location, async (found) => {
    const { state, was } = found.record;
    if (state === 'COMMITTED') return (await move(store, location, found, 'CORRUPT')).state;
    if (state !== 'DELETING' || was === 'CORRUPT') return state;
    return (await touch(store, location, found, { was: 'CORRUPT' })) ? state : undefined;
  });
}

/** CORRUPT -> COMMITTED: every byte was read again and is what was committed. @returns the state that stands */
export async function markSound(store: BackupStore, location: BackupLocation): Promise<BackupState | undefined> {
  return settle(store, location, async (found) => {
    const { state, was } = found.record;
    if (state === 'CORRUPT') return (await move(store, location, found, 'COMMITTED')).state;
    if (state !== 'DELETING' || was !== 'CORRUPT') return state;
    return (await touch(store, location, found, { was: 'COMMITTED' })) ? state : undefined;
  });
}

/**
 * Take a removal back: DELETING -> what the backup was. A backup that is listed is left as it is.
 *
 * @throws FleetError `BackupNotFound`; `UndeleteRefused` when its data is going or was never complete
 */
export async function takeBack(store: BackupStore, location: BackupLocation): Promise<BackupState> {
  const reached = await settle(store, location, async (found) => {
    const { state, was = 'COMMITTED' } = found.record;
    return state === 'DELETING' ? (await move(store, location, found, was)).state : state;
  });
  const { backup, tenant, cluster } = location;
  if (reached === undefined) {
    throw new FleetError('BackupNotFound', `${tenant}/${cluster} has no backup "${backup}" that was ever complete.`);
  }
  if (reached === 'COMMITTED' || reached === 'CORRUPT') return reached;
  const why = reached === 'ABORTED' ? 'was never complete' : 'is past the time in which its removal can be taken back';
  throw new FleetError('UndeleteRefused', `Backup "${backup}" is ${reached}: it ${why}. Its data cannot be kept.`);
}

/** Change a record until nobody changed it in between. @param change its answer; `undefined` or a conflict: look again */
async function settle(
  store: BackupStore,
  location: BackupLocation,
  change: (found: RecordAt) => Promise<BackupState | undefined>,
): Promise<BackupState | undefined> {
  for (let tries = 0; tries < MAX_TRIES; tries += 1) {
    const found = await readRecord(store, location);
    if (found === undefined) return undefined;
    try {
      const state = await change(found);
      if (state !== undefined) return state;
    } catch (error) {
      if (!FleetError.is(error, 'CommitConflict')) throw error;
    }
  }
  throw new FleetError('StoreUnavailable', `The record of backup ${location.backup} keeps changing.`);
}
