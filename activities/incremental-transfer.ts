/** A shard from a Qdrant node into the bucket, block by block: only what no earlier backup holds is sent. */
import { createHash } from 'node:crypto';
import { fetchRecipe } from '../src/clients/incremental-shard.ts';
import { copyIncrementally } from '../src/clients/incremental-copy.ts';
import { READABLE_STATES, type IncrementalShardEntry } from '../src/domain/backup.ts';
import { blockSizeFor } from '../src/domain/block-cutter.ts';
import { parseBases } from '../src/domain/backup-parse.ts';
import { FleetError } from '../src/domain/errors.ts';
import { backupKeys, clusterPrefix, type BackupLocation } from '../src/domain/naming.ts';
import { backupOfPack, type Recipe } from '../src/domain/shard-recipe.ts';
import type { ShardTask } from '../src/domain/topology.ts';
import { readManifest } from './backup-records.ts';
import { recipeOf, renew, type Bases } from './block-references.ts';
import { heartbeats, signal } from './context.ts';
import type { ActivityDeps } from './deps.ts';
import { mismatch, openSnapshot } from './open-snapshot.ts';
import { transferBudget } from './transfer-budget.ts';

export interface IncrementalTransferInput {
  readonly location: BackupLocation;
  readonly attempt: string;
  readonly task: ShardTask;
  readonly snapshot: { readonly name: string; readonly size: number; readonly sha256: string };
}

export interface IncrementalTransferResult {
  readonly key: string;
  readonly size: number;
  readonly sha256: string;
  readonly crc32: string;
  readonly incremental: IncrementalShardEntry;
  /** Bytes that this attempt sent. */
  readonly sent: number;
}

/** Milliseconds between two renewals of the leases; a lease counts for an hour. */
const RENEWAL = 300_000;

/** Why a base is none. */
const NO_BASE: ReadonlySet<string> = new Set(['IntegrityMismatch', 'BackupNotCommitted', 'BackupNotTrusted']);

export function createIncrementalTransferActivities(deps: ActivityDeps) {
  const { stores, config } = deps;
  const budget = transferBudget(config);
  /** When the leases of an attempt were last written by this process. */
  const renewed = new Map<string, number>();

  return {
    /**
     * Copy one stored shard snapshot into the bucket as blocks and a recipe, and prove that the bytes are the ones Qdrant
     * hashed. Packs that an earlier attempt finished are used, and not sent again.
     *
     * Memory does not grow with the shard: two parts, FLEET_TRANSFER_LANES chunks of 1 MiB, the table of known blocks.
     *
     * @throws FleetError `SnapshotVanished` when the node no longer has the file, `IntegrityMismatch` when the bytes are
     *   not those that Qdrant announced
     */
    async transferIncrementalShard(input: IncrementalTransferInput): Promise<IncrementalTransferResult> {
      const { location, attempt, task, snapshot } = input;
      const beat = heartbeats();
      const { source, where } = await openSnapshot(deps, location, task, snapshot);
      const bases = await basesOf(location, attempt);
      await renewIfDue(location, attempt, bases);
      const store = stores.of(location);
      const base = await baseRecipe(location, bases, task);
      const root = clusterPrefix(location);
      const folder = backupKeys(location).blocks(attempt, task.collection, task.shard);
      let moved = 0;
      const copy = await copyIncrementally({
        source,
        store,
        root,
        folder: folder.slice(root.length),
        known: base?.packs.filter((pack) => pack.used > 0 && bases.allowed.includes(backupOfPack(pack))) ?? [],
        blockSize: blockSizeFor(snapshot.size, base?.blockSize),
        partSize: config.FLEET_TRANSFER_PART_BYTES,
        lanes: config.FLEET_TRANSFER_LANES,
        ...budget,
        signal: signal(),
        onProgress: (bytes) => {
          moved += bytes;
          beat({ moved, size: snapshot.size });
          // One that fails is made good by the commit, which takes all leases again before it relies on them.
          renewIfDue(location, attempt, bases).catch(() => undefined);
        },
      });
      if (copy.sha256 !== snapshot.sha256) {
        throw mismatch(`${where} hashed to ${copy.sha256}, Qdrant announced ${snapshot.sha256}`);
      }
      const recipeSha256 = createHash('sha256').update(copy.recipe).digest('hex');
      // Named by its content: an attempt that was taken for dead cannot write another recipe under this name.
      const key = `${folder}${recipeSha256.slice(0, 32)}.recipe`;
      await store.putBytes(key, copy.recipe);
      const { size, sha256 } = snapshot;
      const written = copy.written + copy.recipe.length;
      const incremental = { recipeBytes: copy.recipe.length, recipeSha256, written };
      return { key, size, sha256, crc32: copy.crc32, incremental, sent: copy.sent };
    },
  };

  async function basesOf(location: BackupLocation, attempt: string): Promise<Bases> {
    const stored = await stores.of(location).getJson(backupKeys(location).bases(attempt));
    if (stored === undefined) throw mismatch(`the list of backups that ${location.backup} may refer to is gone`);
    return parseBases(stored.body, backupKeys(location).bases(attempt));
  }

  async function renewIfDue(location: BackupLocation, attempt: string, { allowed }: Bases): Promise<void> {
    const now = Date.now();
    if (now - (renewed.get(attempt) ?? 0) < RENEWAL) return;
    for (const [other, at] of renewed) if (now - at > 2 * RENEWAL) renewed.delete(other);
    renewed.set(attempt, now);
    await renew(stores.of(location), location, attempt, allowed);
  }

  /** The recipe of this shard in the newest backup that has one. */
  async function baseRecipe(
    location: BackupLocation,
    { bases }: Bases,
    { collection, shard }: ShardTask,
  ): Promise<Recipe | undefined> {
    const store = stores.of(location);
    for (const backup of bases) {
      try {
        const manifest = await readManifest(store, { ...location, backup }, READABLE_STATES);
        const entry = manifest.collections
          .find(({ name }) => name === collection)
          ?.shards.find((candidate) => candidate.shard === shard);
        if (entry?.incremental === undefined) continue;
        const scope = manifest.blocks?.map(({ backup: id }) => id) ?? [];
        return await fetchRecipe(store, recipeOf({ ...entry, incremental: entry.incremental }), signal(), scope);
      } catch (error) {
        // A base that is damaged, gone or not the fleet's is none: everything is written anew.
        if (!FleetError.is(error) || !NO_BASE.has(error.code)) throw error;
      }
    }
    return undefined;
  }
}
