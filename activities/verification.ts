/** Proving that a committed backup is still what was committed: re-read, re-hashed, opened by Qdrant's own engine. */
import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { isTrusted, type Seal } from '../src/clients/backup-mac.ts';
import { openShard, withScratch } from '../src/clients/engine.ts';
import {
  LISTED_STATES,
  pointRange,
  type BackupState,
  type CollectionEntry,
  type ShardEntry,
} from '../src/domain/backup.ts';
import { FleetError } from '../src/domain/errors.ts';
import { attestationKey, backupOfKey, isBackupId, type BackupLocation, type ClusterRef } from '../src/domain/naming.ts';
import { locate } from './backup-buckets.ts';
import { markDamaged, markSound } from './backup-damage.ts';
import { readLeased, readRecord, requireRecord, sealOf } from './backup-records.ts';
import { heartbeats, signal } from './context.ts';
import type { ActivityDeps } from './deps.ts';
import { packScope, renewLease, shardBytes, withLease } from './restore-source.ts';
import { readSample, SAMPLE_POINTS, sampleSeed, writeSample } from './sample.ts';

export interface ShardRef {
  readonly collection: string;
  readonly shard: number;
  /** Bytes. */
  readonly size: number;
}

/** What is known of one shard after it was read again. */
export interface ShardVerdict {
  readonly bytes: number;
  /** Whether the engine opened it; it does so below a size that the configuration sets. */
  readonly opened: boolean;
  /** What is wrong with it. */
  readonly problem?: string;
  /** The backup whose object it is that is damaged, where that is another one: an incremental shard refers to packs. */
  readonly damagedIn?: string;
}

/** What one look at the bytes found wrong. */
type Problem = Pick<ShardVerdict, 'damagedIn'> & { readonly problem: string };

/** A statement about a backup, kept beside it: `attest/<time>-<kind>.json`. */
export interface Attestation {
  readonly kind: 'verified' | 'corrupt';
  readonly shards: number;
  readonly bytes: number;
  /** Shards that the engine opened. */
  readonly opened: number;
  readonly problems: readonly string[];
  /** Other backups whose objects are damaged. */
  readonly damagedIn?: readonly string[];
}

export function createVerificationActivities(deps: ActivityDeps) {
  const { stores, config } = deps;
  return {
    /**
     * Take a lease on a backup in order to look at it, whatever its manifest says.
     *
     * @throws FleetError `BackupNotFound`; `BackupNotCommitted` for one that was never complete or is being removed
     */
    async leaseBackup({ backup, ...ref }: ClusterRef & { backup: string }): Promise<{ location: BackupLocation }> {
      // Looking is allowed at what the fleet did not sign, too: the outcome says so.
      const location = { ...(await locate(deps, { ...ref, backup })), acceptUnsigned: true } as const;
      const store = stores.of(location);
      await store.check(signal());
      await renewLease(store, location);
      await requireRecord(store, location, LISTED_STATES);
      return { location };
    },

    /** What there is to verify. A manifest that is not the one that was committed is an answer: `problem`. */
    async listBackupShards({
      location,
    }: {
      location: BackupLocation;
    }): Promise<{ shards: ShardRef[]; transferQueue: string; problem?: string; seal?: Seal }> {
      const transferQueue = `${config.FLEET_TASK_QUEUE}-transfer-${config.FLEET_REGION}`;
      try {
        const { collections } = await readLeased(stores.of(location), location);
        const shards = collections.flatMap(({ name, shards: entries }) =>
          entries.map(({ shard, size }) => ({ collection: name, shard, size })),
        );
        return { shards, transferQueue, seal: await sealOf(stores.of(location), location) };
      } catch (error) {
        if (!FleetError.is(error, 'IntegrityMismatch')) throw error;
        return { shards: [], transferQueue, problem: error.message };
      }
    },

    /** Read one object again. What is wrong with the bytes is an answer; a store that does not answer is a failure. */
    async verifyShard(input: { location: BackupLocation; collection: string; shard: number }): Promise<ShardVerdict> {
      const { location } = input;
      const { collections } = await readLeased(stores.of(location), location);
      const collection = collections.find(({ name }) => name === input.collection);
      const entry = collection?.shards.find(({ shard }) => shard === input.shard);
      if (collection === undefined || entry === undefined) {
        throw new FleetError('BackupNotFound', `The backup holds no shard ${input.shard} of "${input.collection}".`);
      }
      const python = config.FLEET_ENGINE_PYTHON;
      const opened = python !== undefined && entry.size <= config.FLEET_ENGINE_MAX_BYTES;
      const problem = await withLease(stores.of(location), location, () =>
        opened
          ? withScratch((scratch) => readAndOpen(location, collection, entry, python, scratch))
          : reread(location, entry),
      );
      return { bytes: entry.size, opened, ...problem };
    },

    /**
     * Read back what was just uploaded, hash it, and let Qdrant's engine open and count it: a backup is not committed
     * before its shards have been seen to load. Some of its points are written down beside it, to be compared when it
     * was restored.
     *
     * @param input `location`: absent in calls of earlier versions, which knew one bucket only
     * @throws FleetError `IntegrityMismatch` when it is not what was sent, or does not open
     */
    async openCopiedShard(
      input: Pick<ShardEntry, 'key' | 'size' | 'sha256' | 'incremental'> & { location?: BackupLocation },
    ): Promise<{ points: number; sample: NonNullable<ShardEntry['sample']> }> {
      const python = config.FLEET_ENGINE_PYTHON;
      if (python === undefined) throw new FleetError('Internal', 'FLEET_ENGINE_PYTHON is not set on this worker.');
      return withScratch(async (scratch) => {
        const file = join(scratch, 'shard.snapshot');
        const wrong = await reread(input.location, input, file);
        if (wrong !== undefined) throw new FleetError('IntegrityMismatch', `${input.key} ${wrong.problem}.`);
        const wanted = { seed: sampleSeed(input), points: SAMPLE_POINTS };
        const { points, sample = [] } = await openShard(python, file, scratch, signal(), wanted);
        return { points, sample: await writeSample(stores.of(input.location ?? {}), input, sample) };
      });
    },

    /**
     * Write down what a verification found, beside the backup and in its record: COMMITTED -> CORRUPT, or back again. A
     * damaged pack damages the backup that it belongs to as well, which may be another one.
     *
     * @returns what the records say now, of this backup and of the others
     */
    async attestBackup(input: {
      location: BackupLocation;
      attestation: Attestation;
    }): Promise<{ records: { backup: string; state: BackupState }[] }> {
      const { location, attestation } = input;
      const store = stores.of(location);
      const key = attestationKey(location, new Date(), attestation.kind);
      await store.putJson(key, JSON.stringify({ ...attestation, at: new Date().toISOString() }));
      const others = (attestation.damagedIn ?? []).filter((backup) => isBackupId(backup) && backup !== location.backup);
      const records: { backup: string; state: BackupState }[] = [];
      // What the fleet did not sign is not signed now, and says nothing about other backups.
      const found = await readRecord(store, location);
      if (found !== undefined && !isTrusted(found.seal)) return { records };
      for (const backup of [location.backup, ...others]) {
        const at = { ...location, backup };
        const state = attestation.kind === 'corrupt' ? await markDamaged(store, at) : await markSound(store, at);
        if (state !== undefined) records.push({ backup, state });
      }
      return { records };
    },
  };

  async function readAndOpen(
    location: BackupLocation,
    collection: CollectionEntry,
    entry: ShardEntry,
    python: string,
    scratch: string,
  ): Promise<Problem | undefined> {
    const file = join(scratch, 'shard.snapshot');
    const wrong = await reread(location, entry, file);
    if (wrong !== undefined) return wrong;
    try {
      const kept = await readSample(stores.of(location), entry);
      const wanted = kept && { seed: kept.seed, points: kept.points.length };
      const { points, indexes, sample } = await openShard(python, file, scratch, signal(), wanted);
      const { low, high } = pointRange(entry.points);
      if (points < low || points > high) {
        return { problem: `holds ${points} points, the manifest says ${low === high ? low : `${low} to ${high}`}` };
      }
      const missing = Object.keys(collection.payloadSchema).filter((field) => !indexes.includes(field));
      if (missing.length > 0) return { problem: `lacks the payload indexes ${missing.join(', ')}` };
      const other = kept?.points.find(({ id, sha256 }) =>
        sample?.every((point) => point.id !== id || point.sha256 !== sha256),
      );
      return other === undefined ? undefined : { problem: `has another point ${other.id} than its sample says` };
    } catch (error) {
      if (FleetError.is(error, 'IntegrityMismatch')) return { problem: error.message };
      throw error;
    }
  }

  /** Hash the object, and keep its bytes in `file` when one is given. */
  async function reread(
    location: BackupLocation | undefined,
    entry: Pick<ShardEntry, 'key' | 'size' | 'sha256' | 'incremental'>,
    file?: string,
  ): Promise<Problem | undefined> {
    const { key, size, sha256 } = entry;
    const isIncremental = entry.incremental !== undefined && location !== undefined;
    const body = isIncremental
      ? shardBytes(deps, location, entry, await packScope(stores.of(location), location)).stream(signal())
      : await stores.of(location ?? {}).read(key, signal());
    if (body === undefined) return { problem: 'is gone from the bucket' };
    const beat = heartbeats();
    const hash = createHash('sha256');
    let bytes = 0;
    const handle = file === undefined ? undefined : await open(file, 'wx', 0o600);
    try {
      for await (const chunk of body) {
        hash.update(chunk);
        await handle?.write(chunk);
        bytes += chunk.length;
        beat({ bytes, size });
      }
    } catch (error) {
      // A pack or the recipe: which one, and what is wrong with it.
      if (!isIncremental || !FleetError.is(error, 'IntegrityMismatch')) throw error;
      const owner = error.object === undefined ? undefined : backupOfKey(location, error.object);
      const isOther = owner !== undefined && owner !== location.backup;
      return { problem: `cannot be put together: ${error.message}`, ...(isOther && { damagedIn: owner }) };
    } finally {
      await handle?.close();
    }
    if (bytes !== size) return { problem: `has ${bytes} bytes, committed were ${size}` };
    const found = hash.digest('hex');
    return found === sha256 ? undefined : { problem: `hashes to ${found}, committed was ${sha256}` };
  }
}
