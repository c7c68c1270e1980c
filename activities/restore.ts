/** From the bucket back into a cluster. */
import { backupKeys, type BackupLocation, type ClusterRef } from '../src/domain/naming.ts';
import { isDamaged, LISTED_STATES, pointRange, type CollectionEntry } from '../src/domain/backup.ts';
import type { RestoreVia } from '../src/domain/restore-via.ts';
import { requestOf, type ClusterSpec } from '../src/domain/cluster.ts';
import { parseProvisionInput } from '../src/domain/input.ts';
import { DEFAULT_POLICY, requireAllowed } from '../src/domain/tenant-policy.ts';
import {
  createRequestOf,
  indexSchemaOf,
  laterParamsOf,
  replicasOf,
  usesCustomSharding,
  missingIndexes,
} from '../src/domain/collection-config.ts';
import {
  besideProblem,
  neededSpace,
  replacedCollections,
  restoreItems,
  restoreRefusals,
  wantedAliases,
  type Refusal,
  type RestoreSelection,
  type RestoreTarget,
  type RestoreWish,
} from '../src/domain/compatibility.ts';
import { remainingKeySteps, shardKeyPlan } from '../src/domain/shard-keys.ts';
import type { QdrantClient } from '../src/clients/qdrant.ts';
import type { BackupStore } from '../src/clients/s3.ts';
import { unprotectedBy } from '../src/clients/backup-mac.ts';
import { FleetError } from '../src/domain/errors.ts';
import { locate } from './backup-buckets.ts';
import { readLeased, readManifest, readRecord, sealOf } from './backup-records.ts';
import { signal, workflowRun } from './context.ts';
import type { ActivityDeps } from './deps.ts';
import { freeDisk } from './disk.ts';
import { reachablePeers } from './peers.ts';
import { relayNotConfigured, type ReplicaTask } from './recovery.ts';
import { readEntry, renewLease } from './restore-source.ts';
import { compareSample, readSample } from './sample.ts';

/** What a restore is going to do. */
export interface RestorePlan {
  readonly location: BackupLocation;
  readonly collections: readonly { readonly name: string; readonly shards: number; readonly bytes: number }[];
  readonly spec: ClusterSpec;
  readonly qdrantVersion: string;
  /** Who wrote the backup is not proven, and why; absent where it is. */
  readonly unprotected?: string;
  /** How the bytes get to the nodes, where the restore does not say. */
  readonly via?: RestoreVia;
  /** Queue of the workers that serve shards. */
  readonly transferQueue?: string;
}

interface CollectionTarget {
  readonly target: ClusterRef;
  readonly location: BackupLocation;
  /** Its name in the backup. */
  readonly collection: string;
  /** Its name in the target, where that is another one. */
  readonly as?: string;
  /** Replicas of each shard; default: as backed up, at most the number of peers. */
  readonly replicationFactor?: number;
}

interface GateInput extends RestoreSelection {
  readonly target: ClusterRef;
  readonly location: BackupLocation;
  readonly replicationFactor?: number;
  readonly inPlace?: boolean;
  readonly aliases?: boolean;
  /** Number of nodes of a cluster that would be made; absent where the target exists. */
  readonly nodes?: number;
}

/** What a restore would do. */
export interface RestorePreview {
  readonly allowed: boolean;
  readonly refusals: readonly Refusal[];
  /** What could not be looked at. */
  readonly unknown: readonly string[];
  readonly peers: number;
  readonly collections: number;
  /** Collections of the target that would be dropped. */
  readonly replaced: readonly string[];
  /** Shards times replicas. */
  readonly shardReplicas: number;
  /** Over all replicas. */
  readonly bytesToPull: number;
  /** Free bytes that each node needs, at most. */
  readonly bytesNeededPerNode: number;
}

export function createRestoreActivities(deps: ActivityDeps) {
  const { stores, config } = deps;

  return {
    /**
     * Take a lease on the backup, so that no sweep removes it under our feet, and read what is in it. The lease is
     * written first and the record read after it: a deleter does it the other way round, so one of the two sees the
     * other.
     *
     * @param input `acceptDamaged`: open a backup that a verification found damaged, too. `acceptUnsigned`: open one that
     *   the fleet has not signed, too. `dryRun`: write no lease
     * @throws FleetError `BackupNotFound`, `BackupNotCommitted`, `BackupDamaged`, `BackupNotTrusted`, `RestoreRefused` for collections it does
     *   not hold
     */
    async openBackup(input: {
      tenant: string;
      source: string;
      backup: string;
      collections?: readonly string[];
      rename?: Readonly<Record<string, string>>;
      via?: RestoreVia;
      acceptDamaged?: boolean;
      acceptUnsigned?: boolean;
      dryRun?: boolean;
    }): Promise<RestorePlan> {
      const { tenant, source, backup, collections, rename = {}, acceptDamaged = false, dryRun = false } = input;
      // Whoever only reads the backup again says nothing, and needs no relay.
      if (input.via === 'worker' && config.FLEET_RELAY_HOST === undefined) throw relayNotConfigured();
      const place = await locate(deps, { tenant, cluster: source, backup });
      const location = input.acceptUnsigned === true ? { ...place, acceptUnsigned: true as const } : place;
      const store = stores.of(location);
      await store.check(signal());
      if (!dryRun) await renewLease(store, location);
      await refuseDamaged(store, location, acceptDamaged);
      const manifest = await readManifest(store, location, LISTED_STATES);
      const unprotected = unprotectedBy(await sealOf(store, location));
      // Blocks are put together by a worker; no node could read them.
      const via = manifest.blocks === undefined ? (input.via ?? config.FLEET_RESTORE_VIA) : 'worker';
      const named = new Set([...(collections ?? []), ...Object.keys(rename)]);
      const held = new Set(manifest.collections.map(({ name }) => name));
      const missing = [...named].filter((name) => !held.has(name));
      if (missing.length > 0) {
        throw new FleetError('RestoreRefused', `Backup ${backup} holds no collection ${missing.join(', ')}.`);
      }
      const chosen = collections === undefined ? held : new Set(collections);
      return {
        location,
        ...(unprotected !== undefined && { unprotected }),
        spec: manifest.spec,
        qdrantVersion: manifest.qdrantVersion,
        via,
        transferQueue: `${config.FLEET_TASK_QUEUE}-transfer-${config.FLEET_REGION}`,
        collections: manifest.collections
          .filter(({ name }) => chosen.has(name))
          .map(({ name, shards }) => ({
            name,
            shards: shards.length,
            bytes: shards.reduce((sum, { size }) => sum + size, 0),
          })),
      };
    },

    /** Write the lease on a backup again: one that was not renewed for an hour counts no more. */
    async renewBackupLease({
      tenant,
      source,
      backup,
    }: {
      tenant: string;
      source: string;
      backup: string;
    }): Promise<void> {
      const location = await locate(deps, { tenant, cluster: source, backup });
      await renewLease(stores.of(location), location);
    },

    /** Let go of the backup. */
    async closeBackup({ tenant, source, backup }: { tenant: string; source: string; backup: string }): Promise<void> {
      const location = await locate(deps, { tenant, cluster: source, backup });
      await stores.of(location).deleteKeys([backupKeys(location).lease(workflowRun().workflowId)]);
    },

    /**
     * @returns the collections of the target that an in-place restore replaces, what could not be looked at, and why the
     *   new ones cannot stand beside the old for a while; absent where they can
     * @throws FleetError `RestoreRefused` with every reason and its remedy, before anything is written
     */
    async checkRestoreGates(input: GateInput): Promise<{ replaced: string[]; unknown: string[]; notBeside?: string }> {
      const { target, location } = input;
      const { refusals, wish, found, unknown } = await judge(input);
      if (refusals.length > 0) {
        const reasons = refusals.map(({ gate, detail, remedy }) => `${detail} (gate ${gate}: ${remedy})`).join('; ');
        throw new FleetError(
          'RestoreRefused',
          `${location.backup} cannot be restored into ${target.tenant}/${target.cluster}: ${reasons}.`,
        );
      }
      const notBeside = besideProblem(wish, found);
      return { replaced: replacedCollections(wish, found), unknown, ...(notBeside !== undefined && { notBeside }) };
    },

    /** What a restore would do, and which gates would not let it through. Writes nothing. */
    async previewRestore(input: GateInput): Promise<RestorePreview> {
      const { refusals, wish, found, unknown } = await judge(input);
      const replicas = wish.items.flatMap(({ entry }) => {
        const count = replicasOf(entry.config, found.peers, input.replicationFactor);
        return entry.shards.map(({ size }) => ({ count, bytes: count * size }));
      });
      return {
        allowed: refusals.length === 0,
        refusals,
        unknown,
        peers: found.peers,
        collections: wish.items.length,
        replaced: replacedCollections(wish, found),
        shardReplicas: replicas.reduce((sum, { count }) => sum + count, 0),
        bytesToPull: replicas.reduce((sum, { bytes }) => sum + bytes, 0),
        bytesNeededPerNode: neededSpace(wish, found),
      };
    },

    /**
     * Make an empty collection like the one backed up: shards of the same number and ids, and the payload indexes
     * before any data, since a shard that is loaded drops the indexes that its collection does not have.
     *
     * @throws FleetError `RestoreRefused` when the collection holds points: it is not the one that we made
     */
    async createRestoredCollection(input: CollectionTarget): Promise<void> {
      const { target, location, collection, as: name = collection, replicationFactor } = input;
      const entry = await readEntry(stores.of(location), location, collection);
      const peers = await reachablePeers(deps, target, signal());
      const [{ client }] = peers;
      const replicas = replicasOf(entry.config, peers.length, replicationFactor);
      const body = createRequestOf(entry.config, { shards: entry.shards.length, replicationFactor: replicas });
      const created = await client.createCollection(name, body);
      if (!created && (await client.count(name)) > 0) {
        throw new FleetError('RestoreRefused', `Collection "${name}" appeared in the target and holds points.`);
      }
      if (usesCustomSharding(entry.config)) await createShardKeys(client, name, entry, replicas);
      const { payload_schema: present } = await client.collection(name);
      for (const field of missingIndexes(entry.payloadSchema, present)) {
        await client.createPayloadIndex(name, field, indexSchemaOf(entry.payloadSchema[field]));
      }
      const later = laterParamsOf(entry.config);
      if (later !== undefined) await client.updateCollection(name, later);
    },

    /**
     * Where the replicas of a new collection are.
     *
     * @throws FleetError `ClusterNotReady` until every shard has all its replicas, Active
     */
    async placeReplicas(input: CollectionTarget): Promise<ReplicaTask[]> {
      const { entry, name, replicas, wanted } = await readReplicas(input);
      const extra = replicas.find(({ shard }) => entry.shards.every((other) => other.shard !== shard));
      if (extra !== undefined) {
        throw new FleetError('ClusterNotReady', `"${name}" still has shard ${extra.shard}, which the backup has not.`);
      }
      for (const { shard, shardKey } of entry.shards) {
        const found = replicas.filter((replica) => replica.shard === shard);
        const active = found.filter(({ state }) => state === 'Active').length;
        if (found.length !== wanted || active !== wanted) {
          throw new FleetError(
            'ClusterNotReady',
            `Shard ${shard} of "${name}" has ${active} Active of ${wanted} replicas.`,
          );
        }
        const key = found[0]?.shardKey;
        if (key !== shardKey) {
          throw new FleetError(
            'RestoreRefused',
            `Shard ${shard} of "${name}" has shard key ${String(key)}, backed up was ${String(shardKey)}.`,
          );
        }
      }
      return replicas.map(({ shard, peer }) => ({ shard, peer }));
    },

    /**
     * Prove that each replica of each shard holds what was backed up: its number of points, the payload indexes, and the
     * points of its sample, read through the node that holds the replica.
     *
     * @returns points in the collection, how many of them were compared, and shards that have no sample
     * @throws FleetError `ClusterNotReady` while a replica is not Active, `IntegrityMismatch` when counts or indexes differ
     */
    async verifyRestoredCollection(
      input: CollectionTarget,
    ): Promise<{ points: number; compared: number; unsampled: number }> {
      const { entry, name, replicas, wanted, client, peers } = await readReplicas(input);
      let total = 0;
      for (const { shard, points } of entry.shards) {
        const found = replicas.filter((replica) => replica.shard === shard);
        const pending = found.find(({ state }) => state !== 'Active');
        if (pending !== undefined || found.length !== wanted) {
          throw new FleetError(
            'ClusterNotReady',
            `Shard ${shard} of "${name}" has ${found.length} of ${wanted} replicas, ${found.map(({ state }) => state).join(', ')}.`,
          );
        }
        const { low, high } = pointRange(points);
        const counts = found.map((replica) => replica.points);
        const [first = 0] = counts;
        if (counts.some((count) => count !== first || count < low || count > high)) {
          throw new FleetError(
            'IntegrityMismatch',
            `Shard ${shard} of "${name}" was backed up with ${low === high ? low : `${low} to ${high}`} points, its replicas hold ${counts.join(', ')}.`,
          );
        }
        total += first;
      }
      const { payload_schema: present } = await client.collection(name);
      const lost = missingIndexes(entry.payloadSchema, present);
      if (lost.length > 0) {
        throw new FleetError('IntegrityMismatch', `"${name}" lacks the payload indexes ${lost.join(', ')}.`);
      }
      let compared = 0;
      for (const shard of entry.shards) {
        const sample = await readSample(stores.of(input.location), shard);
        if (sample === undefined) continue;
        for (const { peer } of replicas.filter((replica) => replica.shard === shard.shard)) {
          const node = peers.find(({ id }) => id === peer);
          if (node === undefined) throw new FleetError('ClusterNotReady', `Peer ${peer} has gone.`);
          const what = `Collection "${name}", shard ${shard.shard} on ${node.name}`;
          await compareSample(node.client, name, shard, sample, what);
        }
        compared += sample.points.length;
      }
      const unsampled = entry.shards.filter(({ sample }) => sample === undefined).length;
      return { points: total, compared, unsampled };
    },

    /** Point the aliases at the restored collections, all in one call. */
    async restoreAliases(
      input: RestoreSelection & { target: ClusterRef; location: BackupLocation },
    ): Promise<{ aliases: number }> {
      const manifest = await readLeased(stores.of(input.location), input.location);
      const aliases = wantedAliases(manifest, restoreItems(manifest, input)).map(({ alias, collection }) => ({
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
  async function judge(input: GateInput) {
    const { target, location, nodes, replicationFactor, inPlace, aliases } = input;
    const manifest = await readLeased(stores.of(location), location);
    // Both for the plan and for its preview: without a relay not one shard of such a backup gets to a node.
    if (manifest.blocks !== undefined && config.FLEET_RELAY_HOST === undefined) throw relayNotConfigured(true);
    const wish: RestoreWish = {
      items: restoreItems(manifest, input),
      ...(replicationFactor !== undefined && { replicationFactor }),
      ...(inPlace !== undefined && { inPlace }),
      ...(aliases !== undefined && { aliases }),
    };
    // The chart's version is taken to be the right one.
    const found =
      nodes === undefined
        ? await lookAt(target)
        : { qdrantVersion: manifest.qdrantVersion, peers: nodes, collections: [], aliases: [], unknown: [] };
    const made = nodes === undefined ? [] : whyNotMade(target, manifest.spec, nodes);
    return { refusals: [...made, ...restoreRefusals(manifest, wish, found)], wish, found, unknown: found.unknown };
  }

  /** Why no cluster like the one backed up can be made: what a backup says of it is a request like any other. */
  function whyNotMade(target: ClusterRef, spec: ClusterSpec, nodes: number): Refusal[] {
    try {
      const request = parseProvisionInput({ ...requestOf(spec), nodes, ...target });
      requireAllowed(config.FLEET_TENANT_POLICY ?? DEFAULT_POLICY, target.tenant, request);
      return [];
    } catch (error) {
      if (!FleetError.is(error, 'InvalidInput') && !FleetError.is(error, 'NotAllowed')) throw error;
      const remedy = 'make a cluster with other settings, and restore into that';
      return [{ gate: 'cluster', detail: error.message.replace(/\.$/, ''), remedy }];
    }
  }

  async function lookAt(target: ClusterRef): Promise<RestoreTarget & { unknown: string[] }> {
    const peers = await reachablePeers(deps, target, signal());
    const { disks, unknown } = await freeDisk(deps, target);
    const [{ client }] = peers;
    return {
      qdrantVersion: await client.version(),
      peers: peers.length,
      collections: await client.collections(),
      aliases: (await client.aliases()).map(({ alias_name: alias, collection_name: collection }) => ({
        alias,
        collection,
      })),
      space: Object.entries(disks).flatMap(([node, volumes]) =>
        Object.entries(volumes).map(([volume, { free }]) => ({ node, volume, free })),
      ),
      unknown: unknown.map((why) => `free disk: ${why}`),
    };
  }

  /** All replicas of the collection, each as its own peer sees it. */
  async function readReplicas(input: CollectionTarget) {
    const { target, location, collection, as: name = collection, replicationFactor } = input;
    const entry = await readEntry(stores.of(location), location, collection);
    const peers = await reachablePeers(deps, target, signal());
    const views = await Promise.all(peers.map((peer) => peer.client.collectionCluster(name)));
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
    return { entry, name, replicas, wanted: replicasOf(entry.config, peers.length, replicationFactor), client, peers };
  }
}

/** @throws FleetError `BackupDamaged` */
async function refuseDamaged(store: BackupStore, location: BackupLocation, accept: boolean): Promise<void> {
  if (accept) return;
  const found = await readRecord(store, location);
  if (found === undefined || !isDamaged(found.record)) return;
  throw new FleetError(
    'BackupDamaged',
    `A verification found backup "${location.backup}" damaged. Restore from another one, or say "acceptDamaged": true to restore what is left of it; verify it again (VerifyBackup) once its objects have been put back.`,
  );
}

/** The keys with the shards that they had, in the order that gives each shard its old id. */
async function createShardKeys(
  client: QdrantClient,
  name: string,
  entry: CollectionEntry,
  replicas: number,
): Promise<void> {
  const plan = shardKeyPlan(entry.shards);
  if ('problem' in plan) throw new FleetError('RestoreRefused', `Collection "${entry.name}": ${plan.problem}.`);
  const { local, remote } = await client.collectionCluster(name);
  const existing = [...local, ...remote].flatMap(({ shard_key: key }) =>
    key === undefined || key === null ? [] : [key],
  );
  const { create, drop } = remainingKeySteps(plan, new Set(existing));
  for (const { key, shards } of create) {
    await client.createShardKey(name, { shard_key: key, shards_number: shards, replication_factor: replicas });
  }
  for (const key of drop) await client.deleteShardKey(name, key);
}
