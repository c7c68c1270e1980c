/** Reading and changing the small JSON objects of a backup. The commit protocol lives in these few functions. */
import { createHash, randomUUID } from 'node:crypto';
import {
  advance,
  LISTED_STATES,
  READABLE_STATES,
  type BackupManifest,
  type BackupState,
  type CommitRecord,
} from '../src/domain/backup.ts';
import { parseManifest, parseRecord } from '../src/domain/backup-parse.ts';
import { FleetError } from '../src/domain/errors.ts';
import { LARGE_JSON } from '../src/domain/json-bounds.ts';
import { backupKeys, type BackupLocation } from '../src/domain/naming.ts';
import { doubtOf, isTrusted, requireTrusted, type Seal } from '../src/clients/backup-mac.ts';
import { parseJson, type BackupStore } from '../src/clients/s3.ts';

/** What a change of the record may set besides its state. */
type RecordChange = Pick<CommitRecord, 'was' | 'purgeAfter'>;

/** The commit record and what a compare-and-set on it needs. */
export interface RecordAt {
  readonly record: CommitRecord;
  /** What its MAC says. Whoever acts on the record has to look. */
  readonly seal: Seal;
  readonly etag: string;
  readonly storeTime: number;
}

/** @throws FleetError `IntegrityMismatch` when it is not a record of this backup */
export async function readRecord(store: BackupStore, location: BackupLocation): Promise<RecordAt | undefined> {
  const found = await store.getJson(backupKeys(location).commit);
  if (found === undefined) return undefined;
  const record = parseRecord(found.body, location);
  const seal = store.mac.check('record', location, record);
  return { record, seal, etag: found.etag, storeTime: found.storeTime };
}

/** What is known of a record: that there is none, what it says, or why it is not believed. */
export type LookedAt = Partial<RecordAt> & { readonly doubt?: string };

/** The same for whoever goes through many backups: one that is not believed is no reason to leave the others alone. */
export async function lookAtRecord(store: BackupStore, location: BackupLocation): Promise<LookedAt> {
  try {
    const found = await readRecord(store, location);
    if (found === undefined) return {};
    return isTrusted(found.seal) ? found : { ...found, doubt: doubtOf(found.seal) };
  } catch (error) {
    if (!FleetError.is(error, 'IntegrityMismatch')) throw error;
    return { doubt: error.message };
  }
}

/** The text of a record, signed. */
function sealed(store: BackupStore, location: BackupLocation, record: CommitRecord): string {
  return JSON.stringify(store.mac.seal('record', location, record));
}

/**
 * Claim the record's key: the first writer decides whether the backup is COMMITTED or ABORTED.
 *
 * @returns the record that stands, ours or another's
 * @throws FleetError `BackupNotTrusted` when the one that stands is not signed by the fleet
 */
export async function claim(store: BackupStore, location: BackupLocation, record: CommitRecord): Promise<CommitRecord> {
  const outcome = await store.putIf(backupKeys(location).commit, sealed(store, location, record), { absent: true });
  if (outcome === 'written') return record;
  const standing = await readRecord(store, location);
  if (standing === undefined) throw new FleetError('StoreUnavailable', `The record of ${location.backup} flickers.`);
  requireTrusted(standing.seal, bare(location), 'The record');
  return standing.record;
}

/**
 * Take the record one state further, if nobody changed it meanwhile. A write that is repeated after its answer was lost
 * finds its own work by its mark. What the fleet has not signed is not moved: it would carry our MAC afterwards.
 */
export async function move(
  store: BackupStore,
  location: BackupLocation,
  from: RecordAt,
  to: BackupState,
  change: RecordChange = {},
): Promise<CommitRecord> {
  requireTrusted(from.seal, bare(location), 'The record');
  const next = { ...advance(from.record, to, new Date().toISOString()), ...change, mark: randomUUID() };
  const outcome = await store.putIf(backupKeys(location).commit, sealed(store, location, next), { etag: from.etag });
  if (outcome === 'written') return next;
  const standing = await readRecord(store, location);
  if (standing?.record.mark === next.mark) return next;
  throw new FleetError('CommitConflict', `The record of backup ${location.backup} changed while it was being moved.`);
}

/**
 * Change the record without changing its state, so that whoever looked at it before has to look again.
 *
 * @returns false when it was changed by someone else meanwhile
 */
export async function touch(
  store: BackupStore,
  location: BackupLocation,
  from: RecordAt,
  change: RecordChange = {},
): Promise<boolean> {
  requireTrusted(from.seal, bare(location), 'The record');
  const next = { ...from.record, ...change, revision: from.record.revision + 1, mark: randomUUID() };
  const outcome = await store.putIf(backupKeys(location).commit, sealed(store, location, next), { etag: from.etag });
  if (outcome === 'written') return true;
  return (await readRecord(store, location))?.record.mark === next.mark;
}

/**
 * The manifest of a backup that is listed, proven to be the one that was committed. Of a damaged one, too: whoever opens
 * a backup decides whether it may be.
 *
 * @throws FleetError `BackupNotFound`, `BackupNotCommitted`, `IntegrityMismatch` when the manifest was altered, or
 *   `BackupNotTrusted` when record or manifest are not signed by the fleet
 */
export async function readCommitted(store: BackupStore, location: BackupLocation): Promise<BackupManifest> {
  return readManifest(store, location, LISTED_STATES);
}

/** The same for a reader that has a lease: a backup that was marked for removal meanwhile keeps its data until it lets go. */
export async function readLeased(store: BackupStore, location: BackupLocation): Promise<BackupManifest> {
  return readManifest(store, location, READABLE_STATES);
}

/** The same for a backup in any of these states. */
export async function readManifest(
  store: BackupStore,
  location: BackupLocation,
  states: readonly BackupState[],
): Promise<BackupManifest> {
  const keys = backupKeys(location);
  const { manifest, references } = await requireRecord(store, location, states);
  // Proven by the record before it is parsed: a forged one costs no more than its bytes.
  const stored = await store.getText(keys.manifest, manifest.size);
  if (stored === undefined || sha256(stored.text) !== manifest.sha256) {
    throw new FleetError('IntegrityMismatch', `${keys.manifest} is not the manifest that was committed.`);
  }
  const id = manifestId(keys.manifest, manifest.sha256, references);
  if (latest?.store !== store || latest.id !== id) {
    const parsed = parseManifest(parseJson(stored.text, keys.manifest, LARGE_JSON.values), location, references);
    latest = { store, id, manifest: parsed, seal: manifestSeal(store, location, parsed, manifest.sha256) };
  }
  const { manifest: found, seal } = latest;
  requireTrusted(seal, location, 'The manifest');
  return found;
}

/** The manifest that was read last: each shard of a restore or a verification asks for the same one. */
let latest:
  | { readonly store: BackupStore; readonly id: string; readonly manifest: BackupManifest; readonly seal: Seal }
  | undefined;

/**
 * The record of a backup that was complete once and is in one of these states.
 *
 * @throws FleetError `BackupNotFound`, `BackupNotCommitted`, `BackupNotTrusted`
 */
export async function requireRecord(
  store: BackupStore,
  location: BackupLocation,
  states: readonly BackupState[],
): Promise<CommitRecord & Required<Pick<CommitRecord, 'manifest'>>> {
  const found = await readRecord(store, location);
  if (found === undefined) {
    const where = `${location.tenant}/${location.cluster}`;
    if ((await store.getJson(backupKeys(location).intent)) === undefined) {
      throw new FleetError('BackupNotFound', `${where} has no backup "${location.backup}".`);
    }
    throw new FleetError('BackupNotCommitted', `Backup "${location.backup}" of ${where} was begun and never finished.`);
  }
  const { state, manifest } = found.record;
  if (!states.includes(state) || manifest === undefined) {
    throw new FleetError('BackupNotCommitted', `Backup "${location.backup}" is ${state} and cannot be restored.`);
  }
  requireTrusted(found.seal, location, 'The record');
  return { ...found.record, manifest };
}

function manifestId(key: string, digest: string, references: readonly string[] = []): string {
  return JSON.stringify([key, digest, references]);
}

/** Manifests whose MAC was found valid, by key and digest: every shard of a restore reads the manifest again. */
const proven = new WeakMap<BackupStore, Set<string>>();
const MAX_PROVEN = 1000;

function manifestSeal(store: BackupStore, location: BackupLocation, manifest: BackupManifest, digest: string): Seal {
  const id = `${backupKeys(location).manifest} ${digest}`;
  const known = proven.get(store) ?? new Set();
  if (known.has(id)) return 'valid';
  const seal = store.mac.check('manifest', location, manifest);
  if (seal !== 'valid') return seal;
  if (known.size >= MAX_PROVEN) known.clear();
  proven.set(store, known.add(id));
  return seal;
}

/** What the MACs of record and manifest say together: the worse of the two. */
export async function sealOf(store: BackupStore, location: BackupLocation): Promise<Seal> {
  const found = await readRecord(store, location);
  if (found?.record.manifest === undefined || !isTrusted(found.seal)) return found?.seal ?? 'missing';
  const { manifest: key } = backupKeys(location);
  const { manifest, references } = found.record;
  if (latest?.store === store && latest.id === manifestId(key, manifest.sha256, references)) return latest.seal;
  const bounds = { bytes: manifest.size, values: LARGE_JSON.values };
  return store.mac.check('manifest', location, (await store.getJson(key, bounds))?.body ?? {});
}

/** The same place for whoever changes something: there nobody takes what the fleet has not signed. */
function bare({ acceptUnsigned: _, ...location }: BackupLocation): BackupLocation {
  return location;
}

export function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** Remove everything below a prefix, newest first, and the uploads that are open there. */
export async function removeData(store: BackupStore, prefix: string): Promise<{ objects: number }> {
  for (const upload of await store.openUploads(prefix)) await store.abortUpload(upload);
  const found: { key: string; modified: Date }[] = [];
  for await (const object of store.list(prefix)) found.push(object);
  found.sort((a, b) => b.modified.getTime() - a.modified.getTime());
  await store.deleteKeys(found.map(({ key }) => key));
  return { objects: found.length };
}

/**
 * Remove what an attempt copied of a backup that another attempt decided.
 *
 * @returns false when the backup that stands refers to it
 */
export async function removeLoser(store: BackupStore, location: BackupLocation, attempt: string): Promise<boolean> {
  const own = `${backupKeys(location).data}${attempt}/`;
  const standing = await readRecord(store, location);
  if (READABLE_STATES.some((state) => state === standing?.record.state)) {
    const { collections } = await readLeased(store, location);
    const keys = collections.flatMap(({ shards }) => shards.flatMap(({ key, sample }) => [key, sample?.key]));
    if (keys.some((key) => key?.startsWith(own))) return false;
  }
  await removeData(store, own);
  return true;
}
