/** Which earlier backups an incremental backup may refer to, and the leases that keep their data meanwhile. */
import {
  isDamaged,
  READABLE_STATES,
  type BackupManifest,
  type BlockReference,
  type IncrementalShardEntry,
  type ShardEntry,
} from '../src/domain/backup.ts';
import { FleetError } from '../src/domain/errors.ts';
import { backupKeys, clusterPrefix, isBackupId, type BackupLocation } from '../src/domain/naming.ts';
import { fetchRecipe, type RecipeRef } from '../src/clients/incremental-shard.ts';
import type { BackupStore } from '../src/clients/s3.ts';
import { backupOfPack } from '../src/domain/shard-recipe.ts';
import { lookAtRecord, readManifest, touch, type RecordAt } from './backup-records.ts';

/** `data/<attempt>/bases.json`: decided once, before the first shard. */
export interface Bases {
  /** Backups whose recipes tell which blocks are known, the newest first. */
  readonly bases: readonly string[];
  /** Backups whose packs may be referred to; on each of them there is a lease. */
  readonly allowed: readonly string[];
}

/** Backups that one may refer to. The blocks of others are written anew, so that no backup depends on ever more. */
const MAX_REFERENCES = 16;
/** Earlier incremental backups whose recipes are used: the newest, and others where it lacks a collection. */
const MAX_BASES = 3;
/** Backups that are looked at, from the newest on. */
const LOOK_BACK = 50;

/** A shard that is stored as blocks. */
export type BlockShard = Pick<ShardEntry, 'key' | 'size'> & { readonly incremental: IncrementalShardEntry };

export function recipeOf({ key, incremental }: BlockShard): RecipeRef {
  return { key, size: incremental.recipeBytes, sha256: incremental.recipeSha256 };
}

/** Backups of the cluster, the newest first. */
export async function siblings(store: BackupStore, location: BackupLocation): Promise<string[]> {
  const ids: string[] = [];
  for await (const name of store.folders(clusterPrefix(location))) if (isBackupId(name)) ids.push(name);
  return ids.sort().reverse();
}

/**
 * Choose what to refer to, and take a lease on each of it. Nothing of a damaged backup is referred to, neither directly nor
 * by way of one that refers to it: a damaged pack would damage every later backup.
 *
 * @param names the collections that are backed up
 */
export async function chooseBases(
  store: BackupStore,
  location: BackupLocation,
  attempt: string,
  names: readonly string[],
): Promise<Bases> {
  const missing = new Set(names);
  const bases: string[] = [];
  const used = new Map<string, number>();
  for (const backup of (await siblings(store, location)).slice(0, LOOK_BACK)) {
    if (missing.size === 0 || bases.length === MAX_BASES) break;
    const base = { ...location, backup };
    const { record, doubt } = await lookAtRecord(store, base);
    if (doubt !== undefined || record?.state !== 'COMMITTED' || record.references === undefined) continue;
    if (!(await hold(store, base, location.backup, attempt))) continue;
    const manifest = await manifestOf(store, base);
    const useful = manifest?.collections.filter(({ name }) => missing.has(name)) ?? [];
    if (manifest === undefined || useful.length === 0) {
      await release(store, location, attempt, [backup]);
      continue;
    }
    bases.push(backup);
    for (const { name } of useful) missing.delete(name);
    for (const { backup: id, bytes } of manifest.blocks ?? []) used.set(id, (used.get(id) ?? 0) + bytes);
  }
  const allowed: string[] = [];
  for (const id of mostUsed(used)) {
    if (bases.includes(id) || (await hold(store, { ...location, backup: id }, location.backup, attempt))) {
      allowed.push(id);
    }
  }
  // A base whose own packs are used too little is read, not referred to; its lease goes with the others.
  return { bases, allowed };
}

/** The manifest of a base; none where it is damaged: everything is written anew then. */
async function manifestOf(store: BackupStore, base: BackupLocation): Promise<BackupManifest | undefined> {
  try {
    return await readManifest(store, base, READABLE_STATES);
  } catch (error) {
    if (FleetError.is(error, 'IntegrityMismatch') || FleetError.is(error, 'BackupNotTrusted')) return undefined;
    throw error;
  }
}

/** The backups that give most of the blocks, at most as many as a backup may refer to. */
function mostUsed(used: ReadonlyMap<string, number>): string[] {
  return [...used]
    .sort(([a, bytesA], [b, bytesB]) => bytesB - bytesA || b.localeCompare(a))
    .slice(0, MAX_REFERENCES)
    .map(([id]) => id);
}

/**
 * Keep a backup's data from being removed until this backup is committed. The lease is written first and the record read
 * after it; a deleter marks the record first and lists the leases after it. A backup that is marked already may still be
 * referred to, if its record can be changed: a deleter that did not see the lease then has to begin again.
 *
 * @returns false when its data may be going, is damaged, or is not the fleet's
 */
async function hold(store: BackupStore, base: BackupLocation, holder: string, attempt: string): Promise<boolean> {
  const key = backupKeys(base).holder(holder, attempt);
  await store.putJson(key, JSON.stringify({ holder, attempt, renewedAt: new Date().toISOString() }));
  for (let tries = 0; tries < 5; tries += 1) {
    const looked = await lookAtRecord(store, base);
    if (looked.doubt !== undefined || looked.record === undefined) break;
    const found = looked as RecordAt;
    const { state } = found.record;
    if (state === 'COMMITTED') return true;
    // Of a damaged one it is not known which of its blocks can still be read.
    if (state !== 'DELETING' || isDamaged(found.record)) break;
    if (await touch(store, base, found)) return true;
  }
  await store.deleteKeys([key]);
  return false;
}

/** Write the leases again, which count for an hour. */
export async function renew(store: BackupStore, location: BackupLocation, attempt: string, held: readonly string[]) {
  const body = JSON.stringify({ holder: location.backup, attempt, renewedAt: new Date().toISOString() });
  for (const backup of held) {
    await store.putJson(backupKeys({ ...location, backup }).holder(location.backup, attempt), body);
  }
}

/**
 * Let go of what this attempt held. Only once its record stands, whatever it says: from then on the record speaks for
 * what is referred to, or nobody can commit a reference any more.
 *
 * @param held default: all backups of the cluster
 */
export async function release(
  store: BackupStore,
  location: BackupLocation,
  attempt: string,
  held?: readonly string[],
): Promise<void> {
  const from = held ?? (await siblings(store, location));
  const keys = from.map((backup) => backupKeys({ ...location, backup }).holder(location.backup, attempt));
  await store.deleteKeys(keys);
}

/**
 * Right before the commit: all that the recipes refer to is there and stays there, and what no recipe refers to goes.
 *
 * @returns where the blocks lie
 * @throws FleetError `CommitConflict` when a backup that is referred to was removed meanwhile, `IntegrityMismatch` when a
 *   pack is missing
 */
export async function settle(
  store: BackupStore,
  location: BackupLocation,
  attempt: string,
  shards: readonly BlockShard[],
  signal: AbortSignal,
): Promise<BlockReference[]> {
  const root = clusterPrefix(location);
  const bytes = new Map<string, number>([[location.backup, 0]]);
  const wanted = new Map<string, Map<string, number>>([[location.backup, new Map()]]);
  for (const shard of shards) {
    const { packs } = await fetchRecipe(store, recipeOf(shard), signal);
    for (const pack of packs) {
      if (pack.used === 0) continue;
      const backup = backupOfPack(pack);
      bytes.set(backup, (bytes.get(backup) ?? 0) + pack.used);
      const ofBackup = wanted.get(backup) ?? new Map<string, number>();
      wanted.set(backup, ofBackup.set(`${root}${pack.path}`, pack.size));
    }
  }
  const own = `${backupKeys(location).data}${attempt}/`;
  for (const [backup, packs] of wanted) {
    const isOwn = backup === location.backup;
    const at = { ...location, backup };
    if (!isOwn && !(await hold(store, at, location.backup, attempt))) {
      throw new FleetError(
        'CommitConflict',
        `Backup ${backup}, whose blocks this one refers to, was removed or found damaged while it was made. Run it again.`,
      );
    }
    const stray: string[] = [];
    const keep = new Set(shards.map(({ key }) => key));
    for await (const { key, size } of store.list(backupKeys(at).data)) {
      if (packs.get(key) === size) packs.delete(key);
      else if (key.startsWith(own) && /\.(?:pack|recipe)$/.test(key) && !keep.has(key)) stray.push(key);
    }
    const [lost] = packs.keys();
    if (lost !== undefined) throw new FleetError('IntegrityMismatch', `${lost} is not there. Nothing was committed.`);
    await store.deleteKeys(stray);
  }
  return [...bytes].map(([backup, count]) => ({ backup, bytes: count }));
}
