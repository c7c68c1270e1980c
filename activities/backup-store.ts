/** The life of a backup in the bucket: begun, committed, given up. */
import { createHash } from 'node:crypto';
import type { Alias, CollectionInfo, QdrantClient } from '../src/clients/qdrant.ts';
import { requireTrusted } from '../src/clients/backup-mac.ts';
import { requireConditionalWrites } from '../src/clients/conditional-writes.ts';
import { parseJson } from '../src/clients/s3.ts';
import { LARGE_JSON } from '../src/domain/json-bounds.ts';
import {
  INCREMENTAL_FORMAT,
  MANIFEST_FORMAT,
  totalsOf,
  type BackupFormat,
  type BackupManifest,
  type BackupTotals,
  type ShardEntry,
} from '../src/domain/backup.ts';
import type { ClusterSpec } from '../src/domain/cluster.ts';
import { parseManifest, parsePlan } from '../src/domain/backup-parse.ts';
import { collectionChanges } from '../src/domain/collection-change.ts';
import { FleetError } from '../src/domain/errors.ts';
import { checkSnapshotDisk } from '../src/domain/disk.ts';
import { backupIdOf, backupKeys, type BackupLocation, type ClusterRef } from '../src/domain/naming.ts';
import {
  byPeer,
  planShards,
  replaceSources,
  type CollectionPlacement,
  type ShardTask,
} from '../src/domain/topology.ts';
import { bucketForBackup } from './backup-buckets.ts';
import { writeIntent } from './backup-intent.ts';
import { claim, removeData, removeLoser, sha256 } from './backup-records.ts';
import { removeStraysOf } from './backup-strays.ts';
import { chooseBases, release, settle, type BlockShard } from './block-references.ts';
import { signal, workflowRun } from './context.ts';
import type { ActivityDeps } from './deps.ts';
import { readCopied, writeList } from './backup-lanes.ts';
import { freeDisk } from './disk.ts';
import { LANES, mapInLanes } from './lanes.ts';
import { reachablePeers, requireAwake, type Peer } from './peers.ts';
import { weigh } from './shard-sizes.ts';
import { removeLeft } from './snapshots-left.ts';

/** What a backup is going to copy. */
export interface BackupPlan {
  readonly location: BackupLocation;
  readonly attempt: string;
  readonly transferQueue: string;
  /** What each peer gives; which shards those are is beside the data, see `nextShards`. */
  readonly lanes: readonly { readonly peer: string; readonly shards: number }[];
  /** Shards of up to so many bytes, by a guess, are copied many in one activity. */
  readonly smallBytes?: number;
  readonly startedAt: string;
  /** Shards up to this size are opened by Qdrant's engine before the commit; 0 where no engine is configured. */
  readonly engineMaxBytes?: number;
  /** Snapshots of earlier backups that were removed from the nodes first. */
  readonly removed?: number;
  /** Why it is not known whether the nodes have enough free disk; absent where it is. */
  readonly diskUnknown?: string;
}

/** A copied shard, as the commit needs it. */
export interface CopiedShard extends ShardEntry {
  readonly collection: string;
}

/** `data/<attempt>/plan.json`: what was seen before the first snapshot, for the manifest. */
interface StoredPlan {
  readonly qdrantVersion: string;
  readonly peers: readonly { id: string; name: string }[];
  readonly collections: readonly Pick<CollectionInfo, 'config' | 'payload_schema'>[];
  readonly names: readonly string[];
  readonly placements: readonly CollectionPlacement[];
  readonly aliases: readonly Alias[];
  /** Qdrant's own id of each collection, in the order of `names`; null where it does not tell. Absent in older plans. */
  readonly ids?: readonly (string | null)[];
}

interface CommitInput {
  readonly location: BackupLocation;
  readonly attempt: string;
  readonly startedAt: string;
  readonly spec: ClusterSpec;
  readonly shards: readonly CopiedShard[];
  /** Keys of lists of further shards. */
  readonly lists?: readonly string[];
}

export function createBackupStoreActivities(deps: ActivityDeps) {
  const { stores, config } = deps;

  return {
    /**
     * Look at the whole cluster, choose a source for each shard, and write down the intent.
     *
     * @param input `nominalTime`: ISO 8601; a scheduled run is named by its slot, so that its retries share one id
     * @throws FleetError `ClusterSuspended`, `TopologyUnstable`, `QdrantUnavailable`, `StoreDenied`, `StoreUnavailable`,
     *   `DiskFull`, `InvalidInput` for a collection that does not exist, or `InfrastructureNotReady` where the cluster is
     *   to have a bucket of its own and none is recorded
     */
    async planBackup(
      input: ClusterRef & { nominalTime: string; collections?: readonly string[]; format?: BackupFormat },
    ): Promise<BackupPlan> {
      const { tenant, cluster, nominalTime } = input;
      const { workflowId, runId } = workflowRun();
      await requireAwake(deps, input);
      const bucket = await bucketForBackup(deps, input);
      const store = stores.of(bucket);
      await store.check(signal());
      await requireConditionalWrites(store, config.FLEET_BACKUP_PREFIX);
      const peers = await reachablePeers(deps, input, signal());
      const [{ client }] = peers;
      const { removed } = await removeLeft(deps, input);
      const names = await wantedCollections(client, input.collections);
      const versions = new Set(await Promise.all(peers.map((peer) => peer.client.version())));
      const [qdrantVersion = ''] = versions;
      if (versions.size > 1) {
        const mixed = [...versions].sort().join(', ');
        throw new FleetError(
          'TopologyUnstable',
          `The peers run different versions (${mixed}); finish the upgrade first.`,
        );
      }
      const placements = await readPlacements(client, peers, names);
      const collections = await mapInLanes(names, LANES, (name) => client.collection(name));
      const ids = await client.collectionIds();
      const configs = new Map(names.map((name, index) => [name, collections[index]?.config.params ?? {}]));
      const others = (await client.collections()).filter((name) => !configs.has(name));
      const all = [...placements, ...(await readPlacements(client, peers, others))];
      await mapInLanes(others, LANES, async (name) => configs.set(name, (await client.collection(name)).config.params));
      const { tasks, sources } = await weigh(peers, planShards(placements), all, configs);
      const { disks, unknown } = await freeDisk(deps, input);
      const unmeasured = checkSnapshotDisk(tasks, sources, disks);

      const location: BackupLocation = {
        tenant,
        cluster,
        ...bucket,
        prefix: config.FLEET_BACKUP_PREFIX,
        backup: backupIdOf(new Date(nominalTime), createHash('sha256').update(workflowId).digest('hex')),
      };
      const startedAt = new Date().toISOString();
      const plan: StoredPlan = {
        qdrantVersion,
        names,
        placements,
        peers: peers.map(({ id, name }) => ({
          id,
          name,
        })),
        collections,
        aliases: await client.aliases(),
        ids: names.map((name) => ids.get(name) ?? null),
      };
      const keys = backupKeys(location);
      const intent = { formatVersion: MANIFEST_FORMAT, backup: location.backup, startedAt, workflowId, runId };
      await writeIntent(store, location, intent);
      await store.putJson(keys.plan(runId), JSON.stringify(store.mac.seal('plan', location, plan)));
      if (input.format === 'incremental') {
        const bases = await chooseBases(store, location, runId, names);
        await store.putJson(keys.bases(runId), JSON.stringify(bases));
      }
      const lanes = byPeer(tasks);
      await mapInLanes([...lanes], LANES, ([peer, ofPeer]) =>
        writeList(store, location, keys.lane(runId, peer), ofPeer),
      );
      const transferQueue = `${config.FLEET_TASK_QUEUE}-transfer-${config.FLEET_REGION}`;
      const engineMaxBytes = config.FLEET_ENGINE_PYTHON === undefined ? 0 : config.FLEET_ENGINE_MAX_BYTES;
      return {
        location,
        attempt: runId,
        transferQueue,
        lanes: [...lanes].map(([peer, ofPeer]) => ({ peer, shards: ofPeer.length })),
        smallBytes: config.FLEET_SMALL_SHARD_BYTES,
        startedAt,
        engineMaxBytes,
        removed,
        ...diskNote(unmeasured, unknown),
      };
    },

    /**
     * Choose another Active replica for shards whose own was not Active when it was to be cut.
     *
     * @param input `round`: of lanes, from 2 on
     * @throws FleetError `ClusterNotReady` while one of them has no Active replica, or shards are on the move;
     *   `TopologyUnstable` when a collection is gone
     */
    async replanShards(input: {
      location: BackupLocation;
      attempt: string;
      round: number;
      tasks: readonly ShardTask[];
    }): Promise<{ lanes: { peer: string; shards: number }[] }> {
      const { location, attempt, round } = input;
      const peers = await reachablePeers(deps, location, signal());
      const [{ client }] = peers;
      const names = [...new Set(input.tasks.map(({ collection }) => collection))];
      const now = new Set(await client.collections());
      const gone = names.filter((name) => !now.has(name)).map((name) => `"${name}"`);
      if (gone.length > 0) {
        throw new FleetError(
          'TopologyUnstable',
          `During the backup collection ${gone.join(', ')} was deleted. Run it again.`,
        );
      }
      const { tasks, waiting } = replaceSources(input.tasks, await readPlacements(client, peers, names));
      if (waiting.length > 0) throw new FleetError('ClusterNotReady', `${waiting.slice(0, 10).join('; ')}.`);
      const store = stores.of(location);
      const lanes = [...byPeer(tasks)];
      await mapInLanes(lanes, LANES, ([peer, ofPeer]) =>
        writeList(store, location, backupKeys(location).lane(attempt, peer, round), ofPeer),
      );
      return { lanes: lanes.map(([peer, ofPeer]) => ({ peer, shards: ofPeer.length })) };
    },

    /**
     * Check that every collection is still the one that was planned, write the manifest, and then the record that makes
     * the backup exist.
     *
     * @throws FleetError `TopologyUnstable` when a collection changed or went during the run, `CommitConflict` when another run or a
     *   collector has decided otherwise
     * @returns `untidied`: why uploads and copies that the backup does not need are still there
     */
    async commitBackup(input: CommitInput): Promise<BackupTotals & { untidied?: string }> {
      const { location, attempt, startedAt, spec, lists = [] } = input;
      const store = stores.of(location);
      const shards = [...input.shards, ...(await readCopied(store, location, lists))];
      const keys = backupKeys(location);
      const stored = await store.getJson(keys.plan(attempt), LARGE_JSON);
      if (stored === undefined) throw new FleetError('IntegrityMismatch', `The plan of ${location.backup} is gone.`);
      requireTrusted(store.mac.check('plan', location, stored.body), location, 'The plan');
      const plan = parsePlan(stored.body, keys.plan(attempt)) as unknown as StoredPlan;
      await recheck(deps, location, plan);

      const blockShards = shards.filter((shard): shard is CopiedShard & BlockShard => shard.incremental !== undefined);
      const isIncremental = (await store.getJson(keys.bases(attempt))) !== undefined;
      const formatVersion = isIncremental ? INCREMENTAL_FORMAT : MANIFEST_FORMAT;
      const blocks = isIncremental ? await settle(store, location, attempt, blockShards, signal()) : undefined;

      const names = new Set(plan.names);
      const byCollection = Map.groupBy(shards, ({ collection }) => collection);
      const manifest: BackupManifest = {
        formatVersion,
        ...(blocks !== undefined && { blocks }),
        tenant: location.tenant,
        cluster: location.cluster,
        backup: location.backup,
        attempt,
        startedAt,
        spec,
        completedAt: new Date().toISOString(),
        qdrantVersion: plan.qdrantVersion,
        peers: plan.peers,
        collections: plan.names.map((name, index) => ({
          name,
          config: plan.collections[index]?.config ?? {},
          payloadSchema: plan.collections[index]?.payload_schema ?? {},
          shards: (byCollection.get(name) ?? [])
            .map(({ collection: _, ...entry }) => entry)
            .sort((a, b) => a.shard - b.shard),
        })),
        aliases: plan.aliases
          .filter(({ collection_name: collection }) => names.has(collection))
          .map(({ alias_name: alias, collection_name: collection }) => ({
            alias,
            collection,
          })),
      };
      complete(plan, manifest);

      const totals = totalsOf(manifest);
      const references = blocks?.map(({ backup }) => backup).filter((backup) => backup !== location.backup);
      let text = JSON.stringify(store.mac.seal('manifest', location, manifest));
      // What could not be read again must not be committed.
      parseManifest(parseJson(text, keys.manifest, LARGE_JSON.values), location, references);
      if ((await store.putIf(keys.manifest, text, { absent: true })) === 'refused') {
        // Written once: an earlier try of this very run is as good, another run's is not ours to commit.
        const there = await store.getJson(keys.manifest, LARGE_JSON);
        if (there === undefined) throw new FleetError('StoreUnavailable', `${keys.manifest} flickers.`);
        const standing = parseManifest(there.body, location, references);
        requireTrusted(store.mac.check('manifest', location, standing), location, 'The manifest');
        if (standing.attempt !== attempt) {
          throw new FleetError('CommitConflict', `Another run wrote the manifest of backup ${location.backup}.`);
        }
        text = there.text;
      }
      const standing = await claim(store, location, {
        formatVersion,
        ...(references !== undefined && { references }),
        backup: location.backup,
        state: 'COMMITTED',
        revision: 1,
        attempt,
        totals,
        changedAt: manifest.completedAt,
        manifest: {
          sha256: sha256(text),
          size: Buffer.byteLength(text),
        },
      });
      if (standing.state !== 'COMMITTED' || standing.attempt !== attempt) {
        throw new FleetError(
          'CommitConflict',
          `Backup ${location.backup} was ${standing.state} by run ${standing.attempt} before this run could commit it.`,
        );
      }
      // The record speaks for what is referred to from now on.
      const untidied = await failureOf(async () => {
        if (isIncremental) await release(store, location, attempt);
        await removeStraysOf(store, location, attempt, shards);
      });
      return { ...totals, ...(untidied !== undefined && { untidied }) };
    },

    /**
     * Give an unfinished backup up: claim its record so that nobody can commit it any more, then remove its data.
     * Leaves a backup alone that this attempt committed after all. Where another attempt decided, only what this one
     * copied goes.
     *
     * @returns `committed`: what this very attempt committed, when it did
     */
    async abandonBackup({
      location,
      attempt,
    }: {
      location: BackupLocation;
      attempt: string;
    }): Promise<{ removed: boolean; committed?: BackupTotals }> {
      const store = stores.of(location);
      const standing = await claim(store, location, {
        formatVersion: MANIFEST_FORMAT,
        backup: location.backup,
        state: 'ABORTED',
        revision: 1,
        attempt,
        changedAt: new Date().toISOString(),
      });
      await release(store, location, attempt);
      if (standing.attempt !== attempt) return { removed: await removeLoser(store, location, attempt) };
      if (standing.state !== 'ABORTED') {
        // Whatever became of it since: a retention sweep may have marked it already.
        const { totals } = standing;
        return { removed: false, ...(totals !== undefined && { committed: totals }) };
      }
      await removeData(store, `${backupKeys(location).data}${attempt}/`);
      return { removed: true };
    },
  };
}

function diskNote(pods: readonly string[], reasons: readonly string[]): { diskUnknown?: string } {
  if (pods.length === 0) return {};
  const why = reasons[0] === undefined ? '' : `: ${reasons[0]}`;
  return { diskUnknown: `${pods.join(', ')}${why}`.slice(0, 300) };
}

async function wantedCollections(client: QdrantClient, wanted: readonly string[] | undefined): Promise<string[]> {
  const names = await client.collections();
  if (wanted === undefined) return names;
  const present = new Set(names);
  const missing = wanted.filter((name) => !present.has(name));
  if (missing.length > 0) {
    throw new FleetError('InvalidInput', `collections: the cluster has no collection ${missing.join(', ')}`);
  }
  const chosen = new Set(wanted);
  return names.filter((name) => chosen.has(name));
}

/** Replicas by shard; those on peers that do not answer are left out, since nothing can be read from them. */
async function readPlacements(
  client: QdrantClient,
  peers: readonly Peer[],
  names: readonly string[],
): Promise<CollectionPlacement[]> {
  const reachable = new Set(peers.map(({ id }) => id));
  return mapInLanes(names, LANES, async (collection) => {
    const view = await client.collectionCluster(collection);
    const replicas = [...view.local.map((shard) => ({ ...shard, peerId: view.peerId })), ...view.remote];
    const shards = [...Map.groupBy(replicas, ({ shard_id: shard }) => shard)]
      .sort(([a], [b]) => a - b)
      .map(([shard, found]) => {
        const shardKey = found.find(({ shard_key: key }) => key !== undefined && key !== null)?.shard_key;
        return {
          shard,
          ...(shardKey !== undefined && { shardKey }),
          replicas: found
            .filter(({ peerId }) => reachable.has(peerId))
            .map(({ peerId, state }) => ({ peer: peerId, state }))
            .sort((a, b) => a.peer.localeCompare(b.peer)),
        };
      });
    return { collection, shards, transfers: view.transfers, resharding: view.resharding };
  });
}

/**
 * A shard that was moved or split while it was copied may be copied in part, and a collection that was made anew is
 * another one. One that was deleted fails the backup too: nobody can tell whether its shards were cut before or while it
 * went, and a backup that lists it would bring back what its owner has dropped.
 *
 * @throws FleetError `TopologyUnstable` naming each collection and what differs
 */
async function recheck(deps: ActivityDeps, ref: ClusterRef, plan: StoredPlan): Promise<void> {
  const peers = await reachablePeers(deps, ref, signal());
  const [{ client }] = peers;
  const now = new Set(await client.collections());
  const problems = plan.names.filter((name) => !now.has(name)).map((name) => `collection "${name}" was deleted`);
  const names = plan.names.filter((name) => now.has(name));
  const placements = await readPlacements(client, peers, names);
  const infos = await mapInLanes(names, LANES, (name) => client.collection(name));
  const ids = await client.collectionIds();
  const planned = new Map(plan.placements.map((placement) => [placement.collection, placement]));
  names.forEach((name, index) => {
    const at = plan.names.indexOf(name);
    const [before, after] = [plan.collections[at], infos[index]];
    const [placed, placement] = [planned.get(name), placements[index]];
    if (before === undefined || after === undefined || placed === undefined || placement === undefined) return;
    const changes = collectionChanges(
      { ...before, placement: placed, id: plan.ids?.[at] ?? undefined },
      { ...after, placement, id: ids.get(name) },
    );
    if (changes.length > 0) problems.push(`collection "${name}" changed: ${changes.join(', ')}`);
    if (placement.transfers > 0)
      problems.push(`collection "${name}" has ${placement.transfers} shard transfers running`);
    if (placement.resharding > 0) problems.push(`collection "${name}" is being resharded`);
  });
  if (problems.length === 0) return;
  const told = [...problems.slice(0, 10), ...(problems.length > 10 ? [`and ${problems.length - 10} more`] : [])];
  throw new FleetError(
    'TopologyUnstable',
    `During the backup ${told.join('; ')}. Run it again when the cluster has settled.`,
  );
}

/** Every planned shard is in the manifest exactly once. A gap here would be a silently partial backup. */
function complete(plan: StoredPlan, manifest: BackupManifest): void {
  const byName = new Map(manifest.collections.map((entry) => [entry.name, entry.shards]));
  for (const { collection, shards } of plan.placements) {
    const entries = byName.get(collection) ?? [];
    const wanted = shards.map(({ shard }) => shard).join(',');
    const found = entries.map(({ shard }) => shard).join(',');
    if (wanted !== found) {
      throw new FleetError(
        'IntegrityMismatch',
        `Collection "${collection}" has shards ${wanted}, copied were ${found}.`,
      );
    }
  }
}

/** Run what the committed backup does not depend on. @returns why it failed */
async function failureOf(tidy: () => Promise<void>): Promise<string | undefined> {
  try {
    await tidy();
    return undefined;
  } catch (error) {
    if (!FleetError.is(error)) throw error;
    return error.message;
  }
}
