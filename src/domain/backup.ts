/** A backup at rest: the manifest, the commit record, and the record's state machine. */
import type { ClusterSpec } from './cluster.ts';
import { FleetError } from './errors.ts';

export const MANIFEST_FORMAT = 1;
/** Of backups whose shards are stored as blocks; versions that know only format 1 must not take them for their own. */
export const INCREMENTAL_FORMAT = 2;

/** How the shards of a backup are stored: each as one object, or as blocks that backups share. */
export const BACKUP_FORMATS = ['full', 'incremental'] as const;
export type BackupFormat = (typeof BACKUP_FORMATS)[number];

/** One logical shard of a backup. */
export interface ShardEntry {
  readonly shard: number;
  /** Custom shard key, where the collection uses them. */
  readonly shardKey?: string | number;
  /** S3 key of the snapshot, or of its recipe. */
  readonly key: string;
  /** Bytes, equal to Qdrant's `size`. */
  readonly size: number;
  /** Hex, computed on the way and equal to Qdrant's `checksum`. */
  readonly sha256: string;
  /** CRC32 over the whole snapshot, base64; of a full one it is the store's, too. */
  readonly crc32: string;
  /** Of a shard that is stored as blocks: `key` is its recipe, and the snapshot is put together from it. */
  readonly incremental?: IncrementalShardEntry;
  /**
   * Points that the source peer reported for this shard right before and right after the cut. Equal on an idle shard;
   * under writes the snapshot holds a number between the two.
   */
  readonly points: {
    readonly before: number;
    readonly after: number;
    /** Counted by Qdrant's engine in the very snapshot, where it was opened before the commit. */
    readonly exact?: number;
  };
  /** Points to compare after a restore; absent where the engine did not open the shard. */
  readonly sample?: {
    /** S3 key of the sample. */
    readonly key: string;
    /** Hex, of the object. */
    readonly sha256: string;
    /** How many there are. */
    readonly points: number;
  };
  readonly sourcePeer: string;
  /** ISO 8601: when Qdrant made the snapshot. Shards are not cut at one moment. */
  readonly cutAt: string;
}

export interface IncrementalShardEntry {
  /** Bytes of the recipe. */
  readonly recipeBytes: number;
  /** Hex, of the recipe. */
  readonly recipeSha256: string;
  /** Bytes that this backup added to the bucket for the shard. */
  readonly written: number;
}

/** How much of a backup lies in the packs of one backup, itself or an earlier one. */
export interface BlockReference {
  readonly backup: string;
  readonly bytes: number;
}

export interface CollectionEntry {
  readonly name: string;
  /** `config` of `GET /collections/{c}`, verbatim. */
  readonly config: Readonly<Record<string, unknown>>;
  /** `payload_schema` of `GET /collections/{c}`, verbatim. */
  readonly payloadSchema: Readonly<Record<string, unknown>>;
  readonly shards: readonly ShardEntry[];
}

/** `manifest.json`: everything that a restore needs, besides the data. Written once. */
export interface BackupManifest {
  readonly formatVersion: typeof MANIFEST_FORMAT | typeof INCREMENTAL_FORMAT;
  readonly tenant: string;
  readonly cluster: string;
  readonly backup: string;
  /** The run that wrote the data; its objects lie under `data/<attempt>/`. */
  readonly attempt: string;
  readonly startedAt: string;
  readonly completedAt: string;
  readonly qdrantVersion: string;
  readonly spec: ClusterSpec;
  readonly peers: readonly { readonly id: string; readonly name: string }[];
  readonly collections: readonly CollectionEntry[];
  readonly aliases: readonly { readonly alias: string; readonly collection: string }[];
  /** Of an incremental backup: where its blocks lie, its own packs included. */
  readonly blocks?: readonly BlockReference[];
}

/** Bytes, points and shards of a backup, for lists. */
export interface BackupTotals {
  readonly collections: number;
  readonly shards: number;
  readonly bytes: number;
  readonly points: number;
  /** Bytes that an incremental backup added to the bucket. */
  readonly written?: number;
}

/** How many points a shard may hold: one number where it was counted exactly or idle, a range where it was written to. */
export function pointRange({ before, after, exact }: ShardEntry['points']): { low: number; high: number } {
  return exact === undefined
    ? { low: Math.min(before, after), high: Math.max(before, after) }
    : { low: exact, high: exact };
}

export function totalsOf(manifest: BackupManifest): BackupTotals {
  const shards = manifest.collections.flatMap((collection) => collection.shards);
  return {
    collections: manifest.collections.length,
    shards: shards.length,
    bytes: shards.reduce((sum, shard) => sum + shard.size, 0),
    points: shards.reduce((sum, { points }) => sum + (points.exact ?? points.after), 0),
    ...(manifest.blocks !== undefined && {
      written: shards.reduce((sum, { incremental }) => sum + (incremental?.written ?? 0), 0),
    }),
  };
}

export const BACKUP_STATES = ['COMMITTED', 'CORRUPT', 'DELETING', 'PURGING', 'DELETED', 'ABORTED'] as const;
export type BackupState = (typeof BACKUP_STATES)[number];

/** States of a backup that exists: it is listed, and its data is there or was found damaged. */
export const LISTED_STATES = ['COMMITTED', 'CORRUPT'] as const satisfies readonly BackupState[];
/** What a list of backups may be asked for. */
export const SHOWN_STATES = [...LISTED_STATES, 'DELETING'] as const satisfies readonly BackupState[];
export type ShownState = (typeof SHOWN_STATES)[number];
/** What reads that a lease covers may meet: data goes only after the leases, whatever the mark says. */
export const READABLE_STATES = ['DELETING', ...LISTED_STATES] as const satisfies readonly BackupState[];

/**
 * `commit.json`: the only key of a backup that ever changes, by compare-and-set, and never disappears while an attempt
 * could live. A backup exists when its record says COMMITTED, and then only.
 */
export interface CommitRecord {
  readonly formatVersion: typeof MANIFEST_FORMAT | typeof INCREMENTAL_FORMAT;
  readonly backup: string;
  readonly state: BackupState;
  /** The attempt that won the key. */
  readonly attempt: string;
  /** Counts the changes, so that no two records of one key ever have the same bytes, and with them the same ETag. */
  readonly revision: number;
  /** ISO 8601 of the last change. */
  readonly changedAt: string;
  /** Random, of the last change: whoever made it knows it again. Absent in the first record. */
  readonly mark?: string;
  /** Absent when ABORTED was written first. */
  readonly manifest?: { readonly sha256: string; readonly size: number };
  readonly totals?: BackupTotals;
  /** Of an incremental backup: the others whose packs it needs. Their data stays while this record is not DELETED. */
  readonly references?: readonly string[];
  /** While DELETING: the state that a removal which is taken back returns to; absent means COMMITTED. */
  readonly was?: (typeof LISTED_STATES)[number];
  /** While DELETING: ISO 8601 of the time until which the removal can be taken back. */
  readonly purgeAfter?: string;
}

/**
 * Which state may follow which. `undefined` stands for the absent record.
 *
 * - absent -> ABORTED: a collector claims the key before it removes the data of an unfinished backup, so that a slow
 *   uploader can no longer commit.
 * - COMMITTED -> CORRUPT: a verification found damage. CORRUPT -> COMMITTED: a later one found every byte as committed.
 * - DELETING -> COMMITTED or CORRUPT, whichever it was: taken back in time. DELETING -> PURGING is the point of no return;
 *   data goes only after it.
 */
const TRANSITIONS: Readonly<Record<BackupState | 'absent', readonly BackupState[]>> = {
  absent: ['COMMITTED', 'ABORTED'],
  COMMITTED: ['CORRUPT', 'DELETING'],
  CORRUPT: ['COMMITTED', 'DELETING'],
  DELETING: ['PURGING', 'COMMITTED', 'CORRUPT'],
  PURGING: ['DELETED'],
  DELETED: [],
  ABORTED: [],
};

export function mayFollow(from: BackupState | undefined, to: BackupState): boolean {
  return TRANSITIONS[from ?? 'absent'].includes(to);
}

/** Whether the data of a backup is still needed by one with this record. PURGING counts: a purge may be interrupted. */
export function refersTo({ state, references = [] }: CommitRecord, backup: string): boolean {
  return state !== 'DELETED' && state !== 'ABORTED' && references.includes(backup);
}

/** Whether a verification found the backup damaged and none has found it whole since, also while it is being removed. */
export function isDamaged({ state, was }: Pick<CommitRecord, 'state' | 'was'>): boolean {
  return state === 'CORRUPT' || (state === 'DELETING' && was === 'CORRUPT');
}

/** @throws FleetError `CommitConflict` when the state machine does not allow the step */
export function advance(record: CommitRecord, to: BackupState, changedAt: string): CommitRecord {
  if (!mayFollow(record.state, to)) {
    throw new FleetError('CommitConflict', `Backup ${record.backup} is ${record.state} and cannot become ${to}.`);
  }
  const { was: _was, purgeAfter: _until, ...rest } = record;
  const from = record.state === 'CORRUPT' || record.was === 'CORRUPT' ? ({ was: 'CORRUPT' } as const) : {};
  return { ...rest, state: to, revision: record.revision + 1, changedAt, ...(to === 'DELETING' && from) };
}
