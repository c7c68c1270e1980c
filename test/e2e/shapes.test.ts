/**
 * Collections of every shape through every topology: backed up on three nodes with two replicas, restored on one node
 * with one, backed up again, restored on five nodes with three. Digests are equal at each stage.
 *
 * What the local node cannot do here: it never optimises, so quantised vectors are configured and not built, and all
 * indexes of vectors are plain. A real Qdrant takes the same path, its shards being copied as they are.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { BackupManifest } from '../../src/domain/backup.ts';
import { backupKeys } from '../../src/domain/naming.ts';
import type { ClusterAccess, Digest } from '../../src/local/demo/cluster-access.ts';
import { Fleet } from '../support/fleet.ts';

const ODD = '..%2F ü 🦀 [0] &?'.replace('?', '');
const path = (name: string) => `/collections/${encodeURIComponent(name)}`;
const wave = (id: number, size: number) => Array.from({ length: size }, (_, axis) => Math.sin(id * 7 + axis * 3) + 1.5);
const uuid = (id: number) => `550e8400-e29b-41d4-a716-${String(id).padStart(12, '0')}`;

const SHAPES: Record<string, object> = {
  many: {
    ...{ shard_number: 2, replication_factor: 2 },
    vectors: {
      image: { size: 4, distance: 'Cosine' },
      bytes: { size: 3, distance: 'Dot', datatype: 'uint8' },
      halves: { size: 3, distance: 'Euclid', datatype: 'float16' },
      tokens: { size: 4, distance: 'Dot', multivector_config: { comparator: 'max_sim' } },
    },
    sparse_vectors: { words: { modifier: 'idf' } },
  },
  [ODD]: {
    ...{ shard_number: 1, replication_factor: 2, vectors: { size: 4, distance: 'Manhattan' } },
    quantization_config: { scalar: { type: 'int8', quantile: 0.99, always_ram: true } },
    hnsw_config: { m: 8, ef_construct: 50 },
  },
  empty: { shard_number: 2, replication_factor: 2, vectors: { size: 4, distance: 'Dot' } },
  tenants: {
    ...{ shard_number: 1, replication_factor: 2, sharding_method: 'custom', vectors: { size: 4, distance: 'Dot' } },
  },
};
const NAMES = Object.keys(SHAPES);

let fleet: Fleet;
let digests: Record<string, Digest>;

async function digestsOf(cluster: ClusterAccess, peer = 0): Promise<Record<string, Digest>> {
  const found = await Promise.all(NAMES.map(async (name) => [name, await cluster.digest(name, peer)] as const));
  return Object.fromEntries(found);
}

/** Shard keys by shard id. */
async function keysOf(cluster: ClusterAccess): Promise<Record<string, string | number>> {
  interface Shard {
    shard_id: number;
    shard_key: string | number;
  }
  const { local_shards: local, remote_shards: remote } = await cluster.call<{
    local_shards: Shard[];
    remote_shards: Shard[];
  }>('GET', '/collections/tenants/cluster');
  return Object.fromEntries([...local, ...remote].map(({ shard_id: id, shard_key: key }) => [id, key]));
}

const count = async (cluster: ClusterAccess, shardKey: string | number) =>
  (
    await cluster.call<{ count: number }>('POST', '/collections/tenants/points/count', {
      exact: true,
      shard_key: shardKey,
    })
  ).count;

async function expectAll(cluster: ClusterAccess): Promise<void> {
  for (const peer of cluster.peers.keys()) expect(await digestsOf(cluster, peer)).toEqual(digests);
  // The shard of the key that was dropped is not there, and the others have the ids they had.
  expect(await keysOf(cluster)).toEqual({ 1: 'a', 4: 7, 5: 'b' });
  for (const [key, points] of [
    ['a', 10],
    [7, 20],
    ['b', 0],
  ] as const)
    expect(await count(cluster, key)).toBe(points);
  expect(await cluster.indexes('many')).toEqual({ group: 'keyword' });
  const { config } = await cluster.call<{ config: Record<string, unknown> }>('GET', path(ODD));
  expect(config).toMatchObject({
    quantization_config: { scalar: { type: 'int8', quantile: 0.99 } },
    hnsw_config: { m: 8 },
  });
  expect(await cluster.aliases()).toEqual({ current: 'many' });
}

beforeAll(async () => {
  fleet = await Fleet.open();
  await fleet.worker();
  await fleet.run('ProvisionCluster', { tenant: fleet.tenant, cluster: 'three', nodes: 3, collections: [] });
  const cluster = await fleet.access('three');
  for (const [name, body] of Object.entries(SHAPES)) await cluster.call('PUT', path(name), body);
  await cluster.call('PUT', `${path('many')}/index?wait=true`, { field_name: 'group', field_schema: 'keyword' });
  const points = Array.from({ length: 60 }, (_, id) => ({
    id: id % 2 === 0 ? id : uuid(id),
    payload: {
      group: `g${id % 3}`,
      price: id / 7,
      big: 2 ** 53 + id * 2,
      text: 'ß\u0000"🦀',
      deep: [{ ü: null }, -0.0, true],
    },
    // Not every point has every vector.
    vector: {
      image: wave(id, 4),
      bytes: [id, 255 - id, 7],
      ...(id % 3 === 0 && { halves: wave(id, 3) }),
      ...(id % 4 !== 0 && { tokens: [wave(id, 4), wave(id + 1, 4)] }),
      ...(id % 5 !== 0 && { words: { indices: [id + 100, 4_000_000_000, 3], values: [0.1, 0.2, id + 0.5] } }),
    },
  }));
  await cluster.call('PUT', `${path('many')}/points?wait=true`, { points });
  const plain = (ids: number[]) => ids.map((id) => ({ id, vector: wave(id, 4), payload: { id } }));
  await cluster.call('PUT', `${path(ODD)}/points?wait=true`, { points: plain([...Array(30).keys()]) });
  for (const [key, shards] of [
    ['a', 1],
    ['gone', 2],
    [7, 1],
    ['b', 1],
  ] as const) {
    await cluster.call('PUT', `${path('tenants')}/shards`, { shard_key: key, shards_number: shards });
  }
  const keyed = (shardKey: string | number, from: number, many: number) =>
    cluster.call('PUT', `${path('tenants')}/points?wait=true`, {
      ...{ shard_key: shardKey, points: plain(Array.from({ length: many }, (_, id) => from + id)) },
    });
  await keyed('a', 0, 10);
  await keyed(7, 100, 20);
  await cluster.call('POST', `${path('tenants')}/shards/delete`, { shard_key: 'gone' });
  await cluster.call('POST', '/collections/aliases', {
    actions: [{ create_alias: { collection_name: 'many', alias_name: 'current' } }],
  });
  digests = await digestsOf(cluster);
  expect(digests).toMatchObject({
    many: { points: 60 },
    [ODD]: { points: 30 },
    empty: { points: 0 },
    tenants: { points: 30 },
  });
  await expectAll(cluster);
});
afterAll(() => fleet.close());

describe('three nodes, one, five', () => {
  let first = '';
  let second = '';

  test('three nodes with two replicas are backed up, a sample of every shard beside it', async () => {
    const result = await fleet.run('BackupCluster', { tenant: fleet.tenant, cluster: 'three' });
    expect(result).toMatchObject({ collections: 4, shards: 8, points: 120 });
    first = String(result['backup']);
    const keys = backupKeys({ prefix: '', tenant: fleet.tenant, cluster: 'three', backup: first });
    const manifest = (await fleet.store.getJson(keys.manifest))?.body as BackupManifest;
    const shards = manifest.collections.flatMap((collection) => collection.shards);
    if (fleet.env['FLEET_ENGINE_PYTHON'] === undefined) return;
    for (const { points, sample } of shards) expect(sample?.points).toBe(Math.min(64, points.exact ?? Number.NaN));
  });

  test('restored on one node with one replica', async () => {
    const input = {
      tenant: fleet.tenant,
      source: 'three',
      backup: first,
      cluster: 'one',
      nodes: 1,
      replicationFactor: 1,
    };
    const handle = await fleet.start('RestoreCluster', input);
    expect(await handle.result()).toMatchObject({ collections: 4, points: 120, aliases: 1 });
    const { steps } = await fleet.progress(handle);
    if (fleet.env['FLEET_ENGINE_PYTHON'] !== undefined) {
      expect(steps.find(({ name }) => name === 'Restore the collections')?.message).toBe(
        '120 points, counted on every replica; 120 of them compared',
      );
    }
    await expectAll(await fleet.access('one'));
  });

  test('backed up again, and proven without the cluster', async () => {
    second = String((await fleet.run('BackupCluster', { tenant: fleet.tenant, cluster: 'one' }))['backup']);
    expect(await fleet.run('VerifyBackup', { tenant: fleet.tenant, cluster: 'one', backup: second })).toMatchObject({
      shards: 8,
    });
  });

  test('restored on five nodes with three replicas', async () => {
    const input = {
      tenant: fleet.tenant,
      source: 'one',
      backup: second,
      cluster: 'five',
      nodes: 5,
      replicationFactor: 3,
    };
    expect(await fleet.run('RestoreCluster', input)).toMatchObject({ collections: 4, points: 120, aliases: 1 });
    const cluster = await fleet.access('five');
    expect(cluster.peers).toHaveLength(5);
    await expectAll(cluster);
  });

  test('an altered sample is told, by a restore and by a verification', async () => {
    if (fleet.env['FLEET_ENGINE_PYTHON'] === undefined) return;
    const keys = backupKeys({ prefix: '', tenant: fleet.tenant, cluster: 'three', backup: first });
    const manifest = (await fleet.store.getJson(keys.manifest))?.body as BackupManifest;
    const sample = manifest.collections.find(({ name }) => name === 'many')?.shards[0]?.sample;
    await fleet.store.putJson(sample?.key ?? '', '{"seed":"0","points":[]}');
    const ref = { tenant: fleet.tenant, backup: first };
    await expect(fleet.run('VerifyBackup', { ...ref, cluster: 'three' })).rejects.toMatchObject({
      cause: { type: 'IntegrityMismatch', message: expect.stringContaining('.sample.json is not the sample') },
    });
    const rename = { many: 'again' };
    const input = { ...ref, source: 'three', cluster: 'one', collections: ['many'], rename, aliases: false };
    await expect(fleet.run('RestoreCluster', input)).rejects.toMatchObject({ cause: { type: 'BackupDamaged' } });
    await expect(fleet.run('RestoreCluster', { ...input, acceptDamaged: true })).rejects.toMatchObject({
      cause: { type: 'IntegrityMismatch', message: expect.stringContaining('.sample.json is not the sample') },
    });
  });
});
