/** From the bucket back into a cluster. */
import { backupKeys, type BackupLocation, type ClusterRef } from '../src/domain/naming.ts';
import { pointRange, type CollectionEntry } from '../src/domain/backup.ts';
import type { RestoreVia } from '../src/domain/restore-via.ts';
import type { ClusterSpec } from '../src/domain/cluster.ts';
import {
  createRequestOf,
  indexSchemaOf,
  laterParamsOf,
  replicasOf,
  usesCustomSharding,
} from '../src/domain/collection-config.ts';
import { restoreRefusals, wantedAliases, type Refusal } from '../src/domain/compatibility.ts';
import { FleetError } from '../src/domain/errors.ts';
import { readCommitted } from './backup-records.ts';
import { signal, workflowRun } from './context.ts';
import type { ActivityDeps } from './deps.ts';
import { reachablePeers } from './peers.ts';
import { relayNotConfigured, type ReplicaTask } from './recovery.ts';
import { readEntry, renewLease } from './restore-source.ts';

/** What a restore is going to do. */
export interface RestorePlan {
  readonly location: BackupLocation;
  readonly collections: readonly { readonly name: string; readonly shards: number; readonly bytes: number }[];
  readonly spec: ClusterSpec;
  readonly qdrantVersion: string;
  /** How the bytes get to the nodes, where the restore does not say. */
  readonly via?: RestoreVia;
  /** Queue of the workers that serve shards. */
  readonly transferQueue?: string;
}

interface CollectionTarget {
  readonly target: ClusterRef;
  readonly location: BackupLocation;
  readonly collection: string;
  /** Replicas of each shard; default: as backed up, at most the number of peers. */
  readonly replicationFactor?: number;
}

interface GateInput {
  readonly target: ClusterRef;
  readonly location: BackupLocation;
  readonly collections: readonly string[];
  readonly replicationFactor?: number;
}

/** What a restore would do. */
export interface RestorePreview {
  readonly allowed: boolean;
  readonly refusals: readonly Refusal[];
  readonly peers: number;
  readonly collections: number;
  /** Shards times replicas. */
  readonly shardReplicas: number;
  /** Over all replicas. */
  readonly bytesToPull: number;
}

/** A cluster that does not exist yet; it would run the version of the chart, which is taken to be the right one. */
const EMPTY_TARGET = { qdrantVersion: undefined, collections: [], aliases: [] };

export function createRestoreActivities(deps: ActivityDeps) {
  const { store, config } = deps;

  return {
    /**
     * Take a lease on the backup, so that no sweep removes it under our feet, and read what is in it. The lease is
     * written first and the record read after it: a deleter does it the other way round, so one of the two sees the
     * other.
     *
     * @throws FleetError `BackupNotFound`, `BackupNotCommitted`, `RestoreRefused` for collections it does not hold
     */
    async openBackup(input: {
      tenant: string;
      source: string;
      backup: string;
      collections?: readonly string[];
      via?: RestoreVia;
    }): Promise<RestorePlan> {
      const { tenant, source, backup, collections, via = config.FLEET_RESTORE_VIA } = input;
      if (via === 'worker' && config.FLEET_RELAY_HOST === undefined) throw relayNotConfigured();
      const location = { tenant, cluster: source, backup, prefix: config.FLEET_BACKUP_PREFIX };
      await store.check(signal());
      await renewLease(store, location);
      const manifest = await readCommitted(store, location);
      const missing = collections?.filter((name) => manifest.collections.every((entry) => entry.name !== name)) ?? [];
      if (missing.length > 0) {
        throw new FleetError('RestoreRefused', `Backup ${backup} holds no collection ${missing.join(', ')}.`);
      }
      return {
        location,
        spec: manifest.spec,
        qdrantVersion: manifest.qdrantVersion,
        via,
        transferQueue: `${config.FLEET_TASK_QUEUE}-transfer-${config.FLEET_REGION}`,
        collections: manifest.collections
          .filter(({ name }) => collections?.includes(name) ?? true)
          .map(({ name, shards }) => ({
            name,
            shards: shards.length,
            bytes: shards.reduce((sum, { size }) => sum + size, 0),
          })),
      };
    },

    /** Let go of the backup. */
    async closeBackup({ tenant, source, backup }: { tenant: string; source: string; backup: string }): Promise<void> {
      const location = { tenant, cluster: source, backup, prefix: config.FLEET_BACKUP_PREFIX };
      await store.deleteKeys([backupKeys(location).lease(workflowRun().workflowId)]);
    },

    /** @throws FleetError `RestoreRefused` with every reason, before anything is written */
    async checkRestoreGates(input: GateInput): Promise<void> {
      const { target, location } = input;
      const { refusals } = await judge(input);
      if (refusals.length > 0) {
        const reasons = refusals.map(({ detail }) => detail).join('; ');
        throw new FleetError(
          'RestoreRefused',
          `${location.backup} cannot be restored into ${target.tenant}/${target.cluster}: ${reasons}.`,
        );
      }
    },

    /**
     * What a restore would do, and which gates would not let it through. Writes nothing.
     *
     * @param input `nodes`: of the cluster that would be made, when the target does not exist
     */
    async previewRestore(input: GateInput & { nodes?: number }): Promise<RestorePreview> {
      const { refusals, peers, wanted } = await judge(input);
      const replicas = wanted.flatMap(({ config: recorded, shards }) => {
        const count = replicasOf(recorded, peers, input.replicationFactor);
        return shards.map(({ size }) => ({ count, bytes: count * size }));
      });
      return {
        allowed: refusals.length === 0,
        refusals,
        peers,
        collections: wanted.length,
        shardReplicas: replicas.reduce((sum, { count }) => sum + count, 0),
        bytesToPull: replicas.reduce((sum, { bytes }) => sum + bytes, 0),
      };
    },

    /**
     * Make an empty collection like the one backed up: shards of the same number and ids, and the payload indexes
     * before any data, since a shard that is loaded drops the indexes that its collection does not have.
     *
     * @throws FleetError `RestoreRefused` when the collection holds points: it is not the one that we made
     */
    async createRestoredCollection({
      target,
      location,
      collection,
      replicationFactor,
    }: CollectionTarget): Promise<void> {
      const entry = await readEntry(store, location, collection);
      const peers = await reachablePeers(deps, target, signal());
      const [{ client }] = peers;
      const replicas = replicasOf(entry.config, peers.length, replicationFactor);
      const body = createRequestOf(entry.config, { shards: entry.shards.length, replicationFactor: replicas });
      const created = await client.createCollection(collection, body);
      if (!created && (await client.count(collection)) > 0) {
        throw new FleetError('RestoreRefused', `Collection "${collection}" appeared in the target and holds points.`);
      }
      if (usesCustomSharding(entry.config)) {
        const existing = new Set(await shardKeysOf(client, collection));
        for (const [key, shards] of shardKeys(entry)) {
          if (existing.has(key)) continue;
          await client.createShardKey(collection, {
            shard_key: key,
            shards_number: shards,
            replication_factor: replicas,
          });
        }
      }
      const { payload_schema: present } = await client.collection(collection);
      for (const [field, schema] of Object.entries(entry.payloadSchema)) {
        if (present[field] === undefined) await client.createPayloadIndex(collection, field, indexSchemaOf(schema));
      }
      const later = laterParamsOf(entry.config);
      if (later !== undefined) await client.updateCollection(collection, later);
    },

    /**
     * Where the replicas of a new collection are.
     *
     * @throws FleetError `ClusterNotReady` until every shard has all its replicas, Active
     */
    async placeReplicas(input: CollectionTarget): Promise<ReplicaTask[]> {
      const { entry, replicas, wanted } = await readReplicas(input);
      for (const { shard, shardKey } of entry.shards) {
        const found = replicas.filter((replica) => replica.shard === shard);
        const active = found.filter(({ state }) => state === 'Active').length;
        if (found.length !== wanted || active !== wanted) {
          throw new FleetError(
            'ClusterNotReady',
            `Shard ${shard} of "${input.collection}" has ${active} Active of ${wanted} replicas.`,
          );
        }
        const key = found[0]?.shardKey;
        if (key !== shardKey) {
          throw new FleetError(
            'RestoreRefused',
            `Shard ${shard} of "${input.collection}" has shard key ${String(key)}, backed up was ${String(shardKey)}.`,
          );
        }
      }
      return replicas.map(({ shard, peer }) => ({ shard, peer }));
    },

    /**
     * Prove that each replica of each shard holds what was backed up.
     *
     * @returns points in the collection
     * @throws FleetError `ClusterNotReady` while a replica is not Active, `IntegrityMismatch` when counts or indexes differ
     */
    async verifyRestoredCollection(input: CollectionTarget): Promise<{ points: number }> {
      const { entry, replicas, wanted, client } = await readReplicas(input);
      let total = 0;
      for (const { shard, points } of entry.shards) {
        const found = replicas.filter((replica) => replica.shard === shard);
        const pending = found.find(({ state }) => state !== 'Active');
        if (pending !== undefined || found.length !== wanted) {
          throw new FleetError(
            'ClusterNotReady',
            `Shard ${shard} of "${input.collection}" has ${found.length} of ${wanted} replicas, ${found.map(({ state }) => state).join(', ')}.`,
          );
        }
        const { low, high } = pointRange(points);
        const counts = found.map((replica) => replica.points);
        const [first = 0] = counts;
        if (counts.some((count) => count !== first || count < low || count > high)) {
          throw new FleetError(
            'IntegrityMismatch',
            `Shard ${shard} of "${input.collection}" was backed up with ${low === high ? low : `${low} to ${high}`} points, its replicas hold ${counts.join(', ')}.`,
          );
        }
        total += first;
      }
      const { payload_schema: present } = await client.collection(input.collection);
      const lost = Object.keys(entry.payloadSchema).filter((field) => present[field] === undefined);
      if (lost.length > 0) {
        throw new FleetError(
          'IntegrityMismatch',
          `"${input.collection}" lacks the payload indexes ${lost.join(', ')}.`,
        );
      }
      return { points: total };
    },

    /** Point the aliases at the restored collections, all in one call. */
    async restoreAliases(input: {
      target: ClusterRef;
      location: BackupLocation;
      collections: readonly string[];
    }): Promise<{ aliases: number }> {
      const manifest = await readCommitted(store, input.location);
      const wanted = manifest.collections.filter(({ name }) => input.collections.includes(name));
      const aliases = wantedAliases(manifest, wanted).map(({ alias, collection }) => ({
        alias_name: alias,
        collection_name: collection,
      }));
      if (aliases.length > 0) {
        const [{ client }] = await reachablePeers(deps, input.target, signal());
        await client.createAliases(aliases);
      }
      return { aliases: aliases.length };
    },
  };

  /** All gates, against the target as it is or, where a number of nodes is given, as it would be made. */
  async function judge({ target, location, collections, replicationFactor, nodes }: GateInput & { nodes?: number }) {
    const manifest = await readCommitted(store, location);
    const wanted = manifest.collections.filter(({ name }) => collections.includes(name));
    const found = nodes === undefined ? await lookAt(target) : { ...EMPTY_TARGET, peers: nodes };
    const qdrantVersion = found.qdrantVersion ?? manifest.qdrantVersion;
    const refusals = restoreRefusals(manifest, wanted, { ...found, qdrantVersion }, replicationFactor);
    return { refusals, wanted, peers: found.peers };
  }

  async function lookAt(target: ClusterRef) {
    const peers = await reachablePeers(deps, target, signal());
    const [{ client }] = peers;
    return {
      qdrantVersion: await client.version(),
      peers: peers.length,
      collections: await client.collections(),
      aliases: (await client.aliases()).map(({ alias_name: alias }) => alias),
    };
  }

  /** All replicas of the collection, each as its own peer sees it. */
  async function readReplicas({ target, location, collection, replicationFactor }: CollectionTarget) {
    const entry = await readEntry(store, location, collection);
    const peers = await reachablePeers(deps, target, signal());
    const views = await Promise.all(peers.map((peer) => peer.client.collectionCluster(collection)));
    const replicas = views.flatMap((view) =>
      view.local.map(({ shard_id: shard, state, points_count: points, shard_key: shardKey }) => ({
        shard,
        state,
        points,
        peer: view.peerId,
        shardKey: shardKey ?? undefined,
      })),
    );
    const [{ client }] = peers;
    return { entry, replicas, wanted: replicasOf(entry.config, peers.length, replicationFactor), client };
  }
}

/** Shard keys with their number of shards, in the order of the shard ids they were given. */
function shardKeys(entry: CollectionEntry): Map<string | number, number> {
  const counts = new Map<string | number, number>();
  for (const { shardKey } of entry.shards) {
    if (shardKey !== undefined) counts.set(shardKey, (counts.get(shardKey) ?? 0) + 1);
  }
  return counts;
}

async function shardKeysOf(
  client: {
    collectionCluster(name: string): Promise<{
      local: readonly { shard_key?: string | number }[];
      remote: readonly { shard_key?: string | number }[];
    }>;
  },
  collection: string,
): Promise<(string | number)[]> {
  const { local, remote } = await client.collectionCluster(collection);
  return [...local, ...remote].flatMap(({ shard_key: key }) => (key === undefined || key === null ? [] : [key]));
}
