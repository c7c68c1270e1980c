/** Removing backups: by the commit record's state machine, data last. */
import { requireConditionalWrites } from '../src/clients/conditional-writes.ts';
import {
  isDamaged,
  LISTED_STATES,
  MANIFEST_FORMAT,
  refersTo,
  type BackupState,
  type CommitRecord,
} from '../src/domain/backup.ts';
import { requireTrusted } from '../src/clients/backup-mac.ts';
import type { BackupStore } from '../src/clients/s3.ts';
import { parseIntent, type BackupIntent } from '../src/domain/backup-parse.ts';
import { FleetError } from '../src/domain/errors.ts';
import {
  backupKeys,
  backupTimeOf,
  clusterPrefix,
  inBucket,
  isBackupId,
  type BackupLocation,
  type BucketRef,
  type ClusterRef,
  type InBucket,
} from '../src/domain/naming.ts';
import type { RetentionCandidate } from '../src/domain/retention.ts';
import { claim, lookAtRecord, move, readRecord, removeData } from './backup-records.ts';
import { bucketsOf, locate } from './backup-buckets.ts';
import { takeBack } from './backup-damage.ts';
import { release, siblings } from './block-references.ts';
import type { ActivityDeps } from './deps.ts';

/** A backup of a cluster, and its bucket where that is not the fleet's. */
type BackupRef = ClusterRef & InBucket & { readonly backup: string };

/** What a sweep finds in the buckets. Times are milliseconds since the epoch. */
export interface SweepFindings {
  readonly prefix: string;
  /** By the store's clock. */
  readonly now: number;
  /** All that are listed, damaged ones among them. */
  readonly committed: readonly RetentionCandidate[];
  /** Marked for removal, with the time of the mark. */
  readonly deleting: readonly { readonly id: string; readonly since: number }[];
  /** Past the point of no return. */
  readonly purging: readonly string[];
  /** Begun more than a day ago, never finished, and nobody works on them any more. */
  readonly abandoned: readonly string[];
  /**
   * Whose record the fleet did not sign, or cannot read. They count for nothing and nothing of them is removed: whoever
   * wrote the record may want just that.
   */
  readonly untrusted?: readonly { readonly id: string; readonly reason: string }[];
  /** Those of all these that are not in the fleet's bucket. */
  readonly elsewhere?: readonly { readonly bucket: BucketRef; readonly backups: readonly string[] }[];
}

/** How far the removal of a backup came. */
export interface PurgeOutcome {
  readonly state: BackupState;
  /** That were removed. */
  readonly objects: number;
  /** Backups that refer to its blocks. */
  readonly heldBy?: readonly string[];
}

/** A lease that was not renewed for this long counts no more. */
const LEASE_LIFETIME = 3_600_000;
/** An unfinished backup is left alone for this long. */
const UNFINISHED_AGE = 86_400_000;
/** Clocks that disagree by more than this decide nothing about age. */
const MAX_SKEW = 300_000;

export function createRetentionActivities(deps: ActivityDeps) {
  const { stores, config, temporal, catalog } = deps;
  const at = ({ tenant, cluster, backup, ...where }: BackupRef): BackupLocation => ({
    tenant,
    cluster,
    ...inBucket(where),
    prefix: config.FLEET_BACKUP_PREFIX,
    backup,
  });

  return {
    /** @throws FleetError `ClockSkew` when the store's clock and ours are more than 5 minutes apart */
    async surveyBackups(ref: ClusterRef): Promise<SweepFindings> {
      const found: BackupLocation[] = [];
      for (const bucket of await bucketsOf(deps, ref)) {
        // What was in one that somebody has removed since is gone; the fleet's has to be there.
        if (bucket.bucket !== undefined && !(await stores.of(bucket).bucketExists())) continue;
        const prefix = clusterPrefix({ ...ref, prefix: config.FLEET_BACKUP_PREFIX });
        for await (const name of stores.of(bucket).folders(prefix)) {
          if (isBackupId(name)) found.push(at({ ...ref, ...bucket, backup: name }));
        }
      }
      let now = Date.now();
      const committed: RetentionCandidate[] = [];
      const deleting: { id: string; since: number }[] = [];
      const purging: string[] = [];
      const abandoned: string[] = [];
      const untrusted: { id: string; reason: string }[] = [];
      const indexed = await indexedStates(ref);
      const records = new Map<BackupLocation, CommitRecord | undefined>();
      for (const location of found) {
        const id = location.backup;
        const { record, doubt, storeTime } = await lookAtRecord(stores.of(location), location);
        if (storeTime !== undefined) now = checkedClock(storeTime);
        if (doubt !== undefined) untrusted.push({ id, reason: doubt });
        else if (record === undefined && LISTED_STATES.some((state) => state === indexed.get(id))) {
          untrusted.push({ id, reason: 'its record is gone, and the catalogue lists it' });
        } else records.set(location, record);
      }
      const damaged = new Set(
        [...records.values()].flatMap((record) => (record && isDamaged(record) ? record.backup : [])),
      );
      for (const [location, record] of records) {
        const id = location.backup;
        const state = record?.state;
        if (record !== undefined && isListed(record)) {
          const leased = await isLeased(location, now);
          committed.push({ id, time: backupTimeOf(id).getTime(), leased, ...damageOf(record, damaged) });
        } else if (state === 'DELETING') {
          deleting.push({ id, since: Date.parse(record?.changedAt ?? '') });
        } else if (state === 'PURGING') {
          purging.push(id);
        } else if (state === undefined && (await isAbandoned(location))) {
          abandoned.push(id);
        }
      }
      const elsewhere = [...Map.groupBy(found, ({ bucket }) => bucket)].flatMap(([bucket, there]) =>
        bucket === undefined ? [] : [{ bucket, backups: there.map(({ backup }) => backup) }],
      );
      return {
        ...{ prefix: config.FLEET_BACKUP_PREFIX, now, committed, deleting, purging, abandoned },
        ...(elsewhere.length > 0 && { elsewhere }),
        ...(untrusted.length > 0 && { untrusted }),
      };
    },

    /**
     * COMMITTED or CORRUPT -> DELETING: from here on the backup is listed no more, and can still be taken back.
     *
     * @param input `purgeAfter`: ISO 8601; until then its data stays whatever a later policy says
     */
    async markBackupDeleting(input: BackupRef & { purgeAfter?: string }): Promise<BackupState> {
      const { purgeAfter } = input;
      const location = at(input);
      const store = await writable(location);
      const found = await readRecord(store, location);
      if (found === undefined) throw new FleetError('BackupNotFound', `Backup "${input.backup}" has no record.`);
      requireTrusted(found.seal, location, 'The record');
      if (!isListed(found.record)) return found.record.state;
      const change = purgeAfter === undefined ? {} : { purgeAfter };
      return (await move(store, location, found, 'DELETING', change)).state;
    },

    /**
     * Take the removal of a backup back, as long as its data has not begun to go.
     *
     * @returns the state that it is in again: COMMITTED, or CORRUPT
     * @throws FleetError `BackupNotFound`, `UndeleteRefused`
     */
    async undeleteBackup({ backup, ...ref }: ClusterRef & { backup: string }): Promise<{
      location: BackupLocation;
      state: BackupState;
    }> {
      const location = await locate(deps, { ...ref, backup });
      return { location, state: await takeBack(await writable(location), location) };
    },

    /**
     * DELETING -> PURGING -> data removed -> DELETED. Leases are looked at after the backup was marked: a restore that
     * came first is waited for, one that comes later sees the mark. The records of the other backups are read after the
     * leases: a backup that refers to this one either still has its lease, or has its record by then.
     *
     * @returns the state that was reached; DELETING when the backup is still needed: `heldBy` names the backups that
     *   refer to its blocks, and is absent when somebody has a lease on it, or was promised more time to take it back
     */
    async purgeBackup(input: BackupRef): Promise<PurgeOutcome> {
      const location = at(input);
      const store = await writable(location);
      let found = await readRecord(store, location);
      if (found === undefined) throw new FleetError('BackupNotFound', `Backup "${input.backup}" has no record.`);
      requireTrusted(found.seal, location, 'The record');
      if (found.record.state === 'DELETING') {
        const { purgeAfter } = found.record;
        if (purgeAfter !== undefined && found.storeTime < Date.parse(purgeAfter))
          return { state: 'DELETING', objects: 0 };
        if (await isLeased(location, found.storeTime)) return { state: 'DELETING', objects: 0 };
        const heldBy = await dependants(location);
        if (heldBy.length > 0) return { state: 'DELETING', objects: 0, heldBy };
        try {
          await move(store, location, found, 'PURGING');
        } catch (error) {
          if (!FleetError.is(error, 'CommitConflict')) throw error;
          // Taken back, or held by a backup that is being made: the next sweep looks again.
          return { state: (await readRecord(store, location))?.record.state ?? 'DELETING', objects: 0 };
        }
        found = await readRecord(store, location);
      }
      if (found !== undefined) requireTrusted(found.seal, location, 'The record');
      if (found?.record.state !== 'PURGING') return { state: found?.record.state ?? 'DELETED', objects: 0 };
      const { objects } = await removeData(store, backupKeys(location).data);
      return { state: (await move(store, location, found, 'DELETED')).state, objects };
    },

    /** Claim an unfinished backup's record, so that a late uploader cannot commit it, and remove its data. */
    async collectUnfinished(input: BackupRef): Promise<{ state: BackupState; objects: number }> {
      const location = at(input);
      const store = await writable(location);
      const standing = await claim(store, location, {
        formatVersion: MANIFEST_FORMAT,
        backup: location.backup,
        state: 'ABORTED',
        revision: 1,
        attempt: 'retention-sweep',
        changedAt: new Date().toISOString(),
      });
      const intent = await intentOf(location);
      // What its run held on other backups.
      if (intent !== undefined) await release(store, location, intent.runId);
      if (standing.state !== 'ABORTED') return { state: standing.state, objects: 0 };
      const { objects } = await removeData(store, backupKeys(location).data);
      return { state: 'ABORTED', objects };
    },
  };

  async function isLeased(location: BackupLocation, now: number): Promise<boolean> {
    for await (const { modified } of stores.of(location).list(backupKeys(location).leases)) {
      if (now - modified.getTime() < LEASE_LIFETIME) return true;
    }
    return false;
  }

  /**
   * Backups whose record says that they need blocks of this one. Where the record is not believed, the catalogue and the
   * data speak for the backup: a forged record must not set free what it needs.
   */
  async function dependants(location: BackupLocation): Promise<string[]> {
    const held: string[] = [];
    const store = stores.of(location);
    const indexed = await indexedStates(location);
    for (const backup of await siblings(store, location)) {
      if (backup === location.backup) continue;
      const other = { ...location, backup };
      const { record, doubt } = await lookAtRecord(store, other);
      if (record !== undefined && refersTo(record, location.backup)) held.push(backup);
      else if (doubt !== undefined && !isOver(indexed.get(backup)) && (await isIncremental(other))) held.push(backup);
    }
    return held;
  }

  /** Whether there is a recipe in the data of a backup. */
  async function isIncremental(location: BackupLocation): Promise<boolean> {
    for await (const { key } of stores.of(location).list(backupKeys(location).data)) {
      if (key.endsWith('.recipe')) return true;
    }
    return false;
  }

  /** What the catalogue knows of the backups of a cluster: a witness beside the bucket. */
  async function indexedStates({ tenant, cluster }: ClusterRef): Promise<ReadonlyMap<string, BackupState>> {
    const rows = await catalog.run('read the states of the backups', (db) =>
      db
        .selectFrom('backups')
        .select(['backup', 'state'])
        .where('tenant', '=', tenant)
        .where('cluster', '=', cluster)
        .execute(),
    );
    return new Map(rows.map(({ backup, state }) => [backup, state]));
  }

  /** The store of a backup whose record is about to be changed. */
  async function writable(location: BackupLocation): Promise<BackupStore> {
    const store = stores.of(location);
    await requireConditionalWrites(store, config.FLEET_BACKUP_PREFIX);
    return store;
  }

  /** `undefined` when there is none that can be read. */
  async function intentOf(location: BackupLocation): Promise<(BackupIntent & { storeTime: number }) | undefined> {
    try {
      const found = await stores.of(location).getJson(backupKeys(location).intent);
      return found && { ...parseIntent(found.body, location), storeTime: found.storeTime };
    } catch (error) {
      if (FleetError.is(error, 'IntegrityMismatch')) return undefined;
      throw error;
    }
  }

  async function isAbandoned(location: BackupLocation): Promise<boolean> {
    const intent = await intentOf(location);
    if (intent === undefined) return false;
    const { startedAt, workflowId, runId } = intent;
    const age = checkedClock(intent.storeTime) - Date.parse(startedAt);
    return age > UNFINISHED_AGE && !(await temporal.isOpen(workflowId, runId));
  }
}

/** Whether the catalogue says that nothing of a backup is needed any more. */
function isOver(state: BackupState | undefined): boolean {
  return state === 'DELETED' || state === 'ABORTED';
}

function isListed({ state }: CommitRecord): boolean {
  return LISTED_STATES.some((listed) => listed === state);
}

/** Why a backup does not count as good. A damaged pack damages every backup that may refer to it. */
function damageOf(record: CommitRecord, damaged: ReadonlySet<string>): Pick<RetentionCandidate, 'damage'> {
  if (isDamaged(record)) return { damage: 'it is damaged' };
  const base = record.references?.find((backup) => damaged.has(backup));
  return base === undefined ? {} : { damage: `it refers to ${base}, which is damaged` };
}

/** The store's clock, if it can be believed. */
function checkedClock(storeTime: number): number {
  const skew = Math.abs(storeTime - Date.now());
  if (!(skew <= MAX_SKEW)) {
    throw new FleetError(
      'ClockSkew',
      `The store's clock differs from the worker's by ${Math.round(skew / 1000)} s; ages cannot be told. Set the clocks right.`,
    );
  }
  return storeTime;
}
