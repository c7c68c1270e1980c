/**
 * What is read of a backup, guarded. A bucket is input: whoever can write to it may have written anything, so each
 * object is held against what was asked for (tenant, cluster, backup), and every key that it names lies below the data
 * of that backup, or below the data of one that its signed record names.
 */
import {
  BACKUP_STATES,
  INCREMENTAL_FORMAT,
  MANIFEST_FORMAT,
  type BackupManifest,
  type CollectionEntry,
  type CommitRecord,
  type ShardEntry,
} from './backup.ts';
import { LARGE_JSON } from './json-bounds.ts';
import { JsonGuard } from './json-guard.ts';
import { backupKeys, isBackupId, type BackupLocation, type BucketRef } from './naming.ts';
import type { ShardTask } from './topology.ts';

/** Bounds of what a backup holds. They are far above what Qdrant carries, and low enough to hold in memory. */
const BACKUP_BOUNDS = {
  collections: 100_000,
  shards: 100_000,
  /** Highest shard id. */
  shardId: 100_000,
  peers: 4096,
  aliases: 10_000,
  references: 64,
  /** Bytes of one shard: 1 PiB. */
  shardBytes: 2 ** 50,
  recipeBytes: 64 * 1024 * 1024,
  sampledPoints: 1024,
  nodes: 1000,
} as const;

const FORMATS = [MANIFEST_FORMAT, INCREMENTAL_FORMAT] as const;
const MAX = Number.MAX_SAFE_INTEGER;
/** Collection names of Qdrant, also of its older versions: anything without `/` and NUL. */
// oxlint-disable-next-line no-control-regex -- NUL is what is looked for
const COLLECTION = /^[^/\u0000]+$/;

type Fields = Readonly<Record<string, unknown>>;

/** Who makes a backup. */
export interface BackupIntent {
  readonly formatVersion: number;
  readonly backup: string;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly workflowId: string;
  readonly runId: string;
}

/** What the object of a sample holds. */
export interface ShardSample {
  readonly formatVersion: 1;
  /** Chooses the points; derived from the shard's bytes, so that an attempt that is repeated writes the same. */
  readonly seed: string;
  readonly points: readonly { readonly id: string; readonly sha256: string }[];
}

/**
 * `commit.json`, parsed.
 *
 * @throws FleetError `IntegrityMismatch` when it is not a record of this backup
 */
export function parseRecord(json: unknown, location: BackupLocation): CommitRecord {
  const guard = new JsonGuard(backupKeys(location).commit);
  const record = guard.own(json, 'it');
  guard.oneOf(record['formatVersion'], 'formatVersion', FORMATS);
  guard.same(record['backup'], 'backup', location.backup);
  guard.oneOf(record['state'], 'state', BACKUP_STATES);
  guard.segment(record['attempt'], 'attempt');
  guard.integer(record['revision'], 'revision', 1, MAX);
  guard.time(record['changedAt'], 'changedAt');
  if (record['was'] !== undefined) guard.oneOf(record['was'], 'was', BACKUP_STATES);
  if (record['purgeAfter'] !== undefined) guard.time(record['purgeAfter'], 'purgeAfter');
  if (record['mark'] !== undefined) guard.text(record['mark'], 'mark', 64);
  if (record['manifest'] !== undefined) {
    const { sha256, size } = guard.object(record['manifest'], 'manifest');
    guard.sha256(sha256, 'manifest.sha256');
    guard.integer(size, 'manifest.size', 1, LARGE_JSON.bytes);
  }
  if (record['totals'] !== undefined) {
    const totals = guard.object(record['totals'], 'totals');
    for (const name of ['collections', 'shards', 'bytes', 'points']) {
      guard.integer(totals[name], `totals.${name}`, 0, MAX);
    }
    if (totals['written'] !== undefined) guard.integer(totals['written'], 'totals.written', 0, MAX);
  }
  if (record['references'] !== undefined) {
    for (const id of guard.list(record['references'], 'references', BACKUP_BOUNDS.references)) {
      if (typeof id !== 'string' || !isBackupId(id)) guard.bad('references', 'names no backup');
    }
  }
  return record as unknown as CommitRecord;
}

/**
 * `manifest.json`, parsed.
 *
 * @param references the backups that its record names
 * @throws FleetError `IntegrityMismatch` when it is not a manifest of this backup, or of a format that this version
 *   does not read
 */
export function parseManifest(
  json: unknown,
  location: BackupLocation,
  references: readonly string[] = [],
): BackupManifest {
  const guard = new JsonGuard(backupKeys(location).manifest);
  const manifest = guard.verbatim(json, 'it', LARGE_JSON.values);
  const format = guard.oneOf(manifest['formatVersion'], 'formatVersion', FORMATS);
  for (const name of ['tenant', 'cluster', 'backup'] as const) guard.same(manifest[name], name, location[name]);
  guard.segment(manifest['attempt'], 'attempt');
  for (const name of ['startedAt', 'completedAt']) guard.time(manifest[name], name);
  guard.text(manifest['qdrantVersion'], 'qdrantVersion', 64, /^[\w.+-]+$/);
  const { nodes } = guard.own(manifest['spec'], 'spec');
  guard.integer(nodes, 'spec.nodes', 1, BACKUP_BOUNDS.nodes);
  for (const [index, peer] of guard.list(manifest['peers'], 'peers', BACKUP_BOUNDS.peers).entries()) {
    const { id, name } = guard.object(peer, `peers[${index}]`);
    guard.segment(id, `peers[${index}].id`);
    guard.text(name, `peers[${index}].name`, 255);
  }
  const isIncremental = format === INCREMENTAL_FORMAT;
  const names = new Set<string>();
  let shards = 0;
  const collections = guard.list(manifest['collections'], 'collections', BACKUP_BOUNDS.collections);
  for (const [index, json] of collections.entries()) {
    const path = `collections[${index}]`;
    const { name } = collection(guard, json, path, location, isIncremental);
    if (names.has(name)) guard.bad(`${path}.name`, 'is there twice');
    names.add(name);
    shards += (json as CollectionEntry).shards.length;
    if (shards > BACKUP_BOUNDS.shards) guard.bad('collections', `have more than ${BACKUP_BOUNDS.shards} shards`);
  }
  for (const [index, entry] of guard.list(manifest['aliases'], 'aliases', BACKUP_BOUNDS.aliases).entries()) {
    const { alias, collection: of } = guard.object(entry, `aliases[${index}]`);
    guard.text(alias, `aliases[${index}].alias`, 1024, COLLECTION);
    guard.text(of, `aliases[${index}].collection`, 1024, COLLECTION);
  }
  if (manifest['blocks'] !== undefined) {
    if (!isIncremental) guard.bad('blocks', 'are in a manifest that is not incremental');
    const known = new Set([location.backup, ...references]);
    for (const [index, block] of guard.list(manifest['blocks'], 'blocks', BACKUP_BOUNDS.references).entries()) {
      const { backup, bytes } = guard.object(block, `blocks[${index}]`);
      const id = guard.text(backup, `blocks[${index}].backup`, 64);
      if (!isBackupId(id) || !known.has(id)) guard.bad(`blocks[${index}].backup`, 'is not named by the record');
      guard.integer(bytes, `blocks[${index}].bytes`, 0, MAX);
    }
  }
  return manifest as unknown as BackupManifest;
}

/** What was seen before the first snapshot, as far as the manifest is made of it. */
export function parsePlan(json: unknown, where: string): Fields {
  const guard = new JsonGuard(where);
  const plan = guard.verbatim(json, 'it', LARGE_JSON.values);
  guard.text(plan['qdrantVersion'], 'qdrantVersion', 64, /^[\w.+-]+$/);
  const names = guard.list(plan['names'], 'names', BACKUP_BOUNDS.collections);
  for (const name of names) guard.text(name, 'names', 1024, COLLECTION);
  if (new Set(names).size !== names.length) guard.bad('names', 'hold one twice');
  const collections = guard.list(plan['collections'], 'collections', BACKUP_BOUNDS.collections);
  if (collections.length !== names.length) guard.bad('collections', 'are not as many as the names');
  for (const entry of collections) {
    const { config, payload_schema: schema } = guard.object(entry, 'collections');
    guard.object(config, 'collections.config');
    guard.object(schema, 'collections.payload_schema');
  }
  if (plan['ids'] !== undefined) {
    const ids = guard.list(plan['ids'], 'ids', BACKUP_BOUNDS.collections);
    if (ids.length !== names.length) guard.bad('ids', 'are not as many as the names');
    for (const id of ids) if (id !== null) guard.text(id, 'ids', 64);
  }
  for (const entry of guard.list(plan['peers'], 'peers', BACKUP_BOUNDS.peers)) {
    const { id, name } = guard.object(entry, 'peers');
    guard.segment(id, 'peers.id');
    guard.text(name, 'peers.name', 255);
  }
  for (const entry of guard.list(plan['placements'], 'placements', BACKUP_BOUNDS.collections)) {
    const { collection: of, shards } = guard.object(entry, 'placements');
    guard.text(of, 'placements.collection', 1024, COLLECTION);
    for (const item of guard.list(shards, 'placements.shards', BACKUP_BOUNDS.shards)) {
      const placed = guard.object(item, 'placements.shards');
      guard.integer(placed['shard'], 'placements.shards.shard', 0, BACKUP_BOUNDS.shardId);
      guard.list(placed['replicas'], 'placements.shards.replicas', BACKUP_BOUNDS.peers);
    }
  }
  for (const entry of guard.list(plan['aliases'], 'aliases', BACKUP_BOUNDS.aliases)) {
    const { alias_name: alias, collection_name: of } = guard.object(entry, 'aliases');
    guard.text(alias, 'aliases.alias_name', 1024, COLLECTION);
    guard.text(of, 'aliases.collection_name', 1024, COLLECTION);
  }
  return plan;
}

/** Which earlier backups an incremental one may refer to. */
export function parseBases(json: unknown, where: string): { bases: readonly string[]; allowed: readonly string[] } {
  const guard = new JsonGuard(where);
  const { bases, allowed } = guard.object(json, 'it');
  const ids = (value: unknown, path: string) => {
    const found = guard.list(value, path, BACKUP_BOUNDS.references);
    for (const id of found) if (typeof id !== 'string' || !isBackupId(id)) guard.bad(path, 'name no backup');
    return found as readonly string[];
  };
  return { bases: ids(bases, 'bases'), allowed: ids(allowed, 'allowed') };
}

/** `buckets.json`: the buckets of its own that a cluster has had, as it says. */
export function parseBuckets(json: unknown, where: string): { buckets: readonly BucketRef[] } {
  const guard = new JsonGuard(where);
  const buckets = guard.list(guard.object(json, 'it')['buckets'], 'buckets', BACKUP_BOUNDS.references);
  return {
    buckets: buckets.map((entry) => {
      const { name, region } = guard.object(entry, 'buckets');
      return {
        name: guard.text(name, 'buckets.name', 63, /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/),
        region: guard.text(region, 'buckets.region', 32, /^[a-z0-9-]+$/),
      };
    }),
  };
}

/** `intent.json`: who makes the backup. */
export function parseIntent(json: unknown, location: BackupLocation): BackupIntent {
  const guard = new JsonGuard(backupKeys(location).intent);
  const intent = guard.object(json, 'it');
  guard.same(intent['backup'], 'backup', location.backup);
  guard.time(intent['startedAt'], 'startedAt');
  guard.text(intent['workflowId'], 'workflowId', 1000);
  guard.segment(intent['runId'], 'runId');
  return intent as unknown as BackupIntent;
}

/** The points of a shard that are compared after a restore. */
export function parseSample(json: unknown, where: string): ShardSample {
  const guard = new JsonGuard(where);
  const sample = guard.object(json, 'it');
  guard.oneOf(sample['formatVersion'], 'formatVersion', [1]);
  guard.text(sample['seed'], 'seed', 64, /^[0-9a-f]+$/);
  for (const point of guard.list(sample['points'], 'points', BACKUP_BOUNDS.sampledPoints)) {
    const { id, sha256 } = guard.object(point, 'points');
    guard.text(id, 'points.id', 64, /^(?:\d{1,20}|[0-9a-f-]{32,36})$/);
    guard.sha256(sha256, 'points.sha256');
  }
  return sample as unknown as ShardSample;
}

/** One shard that was copied, from a list beside the data, with the collection that it is of. */
export function parseCopied(
  json: unknown,
  where: string,
  location: BackupLocation,
): readonly (ShardEntry & { readonly collection: string })[] {
  const guard = new JsonGuard(where);
  const shards = guard.list(json, 'it', BACKUP_BOUNDS.shards);
  for (const [index, entry] of shards.entries()) {
    const path = `[${index}]`;
    const fields = guard.own(entry, path);
    guard.text(fields['collection'], `${path}.collection`, 1024, COLLECTION);
    shard(guard, fields, path, location, true);
  }
  return shards as readonly (ShardEntry & { readonly collection: string })[];
}

/** The shards that a peer is to give. */
export function parseLane(json: unknown, where: string, peer: string): readonly ShardTask[] {
  const guard = new JsonGuard(where);
  const tasks = guard.list(json, 'it', BACKUP_BOUNDS.shards);
  for (const [index, entry] of tasks.entries()) {
    const path = `[${index}]`;
    const task = guard.object(entry, path);
    guard.text(task['collection'], `${path}.collection`, 1024, COLLECTION);
    guard.integer(task['shard'], `${path}.shard`, 0, BACKUP_BOUNDS.shardId);
    guard.same(task['peer'], `${path}.peer`, peer);
    shardKey(guard, task, path);
    if (task['bytes'] !== undefined && typeof task['bytes'] !== 'number') guard.bad(`${path}.bytes`, 'is no number');
    if (task['tried'] !== undefined) {
      for (const id of guard.list(task['tried'], `${path}.tried`, BACKUP_BOUNDS.peers)) {
        guard.segment(id, `${path}.tried`);
      }
    }
  }
  return tasks as readonly ShardTask[];
}

function collection(
  guard: JsonGuard,
  json: unknown,
  path: string,
  location: BackupLocation,
  isIncremental: boolean,
): { name: string } {
  const entry = guard.object(json, path);
  const name = guard.text(entry['name'], `${path}.name`, 1024, COLLECTION);
  const params = guard.object(guard.object(entry['config'], `${path}.config`)['params'], `${path}.config.params`);
  if (params['replication_factor'] != null) {
    guard.integer(params['replication_factor'], `${path}.config.params.replication_factor`, 1, BACKUP_BOUNDS.nodes);
  }
  const schema = guard.object(entry['payloadSchema'], `${path}.payloadSchema`);
  for (const field of Object.values(schema)) {
    const { data_type: type, params: more } = guard.object(field, `${path}.payloadSchema`);
    guard.text(type, `${path}.payloadSchema`, 64, /^[\w-]+$/);
    if (more != null) guard.object(more, `${path}.payloadSchema`);
  }
  const ids = new Set<number>();
  for (const [index, json] of guard.list(entry['shards'], `${path}.shards`, BACKUP_BOUNDS.shards).entries()) {
    const at = `${path}.shards[${index}]`;
    const id = shard(guard, guard.object(json, at), at, location, isIncremental);
    if (ids.has(id)) guard.bad(`${at}.shard`, 'is there twice');
    ids.add(id);
  }
  return { name };
}

/** @returns its id */
function shard(guard: JsonGuard, entry: Fields, path: string, location: BackupLocation, mayBeBlocks: boolean): number {
  const { data } = backupKeys(location);
  const id = guard.integer(entry['shard'], `${path}.shard`, 0, BACKUP_BOUNDS.shardId);
  guard.keyBelow(entry['key'], `${path}.key`, data);
  guard.integer(entry['size'], `${path}.size`, 0, BACKUP_BOUNDS.shardBytes);
  guard.sha256(entry['sha256'], `${path}.sha256`);
  guard.text(entry['crc32'], `${path}.crc32`, 8, /^[A-Za-z0-9+/]{6}==$/);
  guard.segment(entry['sourcePeer'], `${path}.sourcePeer`);
  guard.time(entry['cutAt'], `${path}.cutAt`);
  shardKey(guard, entry, path);
  const points = guard.object(entry['points'], `${path}.points`);
  guard.integer(points['before'], `${path}.points.before`, 0, MAX);
  guard.integer(points['after'], `${path}.points.after`, 0, MAX);
  if (points['exact'] !== undefined) guard.integer(points['exact'], `${path}.points.exact`, 0, MAX);
  if (entry['sample'] !== undefined) {
    const sample = guard.object(entry['sample'], `${path}.sample`);
    guard.keyBelow(sample['key'], `${path}.sample.key`, data);
    guard.sha256(sample['sha256'], `${path}.sample.sha256`);
    guard.integer(sample['points'], `${path}.sample.points`, 0, BACKUP_BOUNDS.sampledPoints);
  }
  if (entry['incremental'] !== undefined) {
    if (!mayBeBlocks) guard.bad(`${path}.incremental`, 'is in a manifest that is not incremental');
    const blocks = guard.object(entry['incremental'], `${path}.incremental`);
    guard.integer(blocks['recipeBytes'], `${path}.incremental.recipeBytes`, 1, BACKUP_BOUNDS.recipeBytes);
    guard.sha256(blocks['recipeSha256'], `${path}.incremental.recipeSha256`);
    guard.integer(blocks['written'], `${path}.incremental.written`, 0, MAX);
  }
  return id;
}

function shardKey(guard: JsonGuard, entry: Fields, path: string): void {
  const { shardKey: key } = entry;
  if (typeof key === 'string') guard.text(key, `${path}.shardKey`, 1024);
  else if (key !== undefined) guard.integer(key, `${path}.shardKey`, 0, MAX);
}
