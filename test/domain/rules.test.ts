import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  advance,
  BACKUP_STATES,
  mayFollow,
  parseManifest,
  type BackupManifest,
  type CommitRecord,
} from '../../src/domain/backup.ts';
import { chartValues } from '../../src/domain/chart-values.ts';
import { DEFAULT_PRESETS, resolveSpec } from '../../src/domain/cluster.ts';
import { createRequestOf, indexSchemaOf, laterParamsOf, replicasOf } from '../../src/domain/collection-config.ts';
import { restoreRefusals, type RestoreTarget } from '../../src/domain/compatibility.ts';
import { ERROR_CODES, FleetError, isErrorCode, isRetryable } from '../../src/domain/errors.ts';
import { stepTable } from '../../src/domain/operation.ts';
import { byPeer, planShards, type CollectionPlacement } from '../../src/domain/topology.ts';

describe('shard plan', () => {
  const placements = fc
    .tuple(fc.integer({ min: 1, max: 5 }), fc.array(fc.integer({ min: 1, max: 8 }), { maxLength: 5 }))
    .chain(([peers, collections]) =>
      fc.tuple(
        ...collections.map((shards, index) =>
          fc
            .tuple(
              ...Array.from({ length: shards }, () =>
                fc.subarray(
                  Array.from({ length: peers }, (_, peer) => `p${peer}`),
                  { minLength: 1 },
                ),
              ),
            )
            .map((owners): CollectionPlacement => ({
              collection: `c${index}`,
              transfers: 0,
              resharding: 0,
              shards: owners.map((replicas, shard) => ({
                shard,
                replicas: replicas.map((peer) => ({ peer, state: 'Active' })),
              })),
            })),
        ),
      ),
    );

  test('every logical shard is copied once, from a peer that has it Active', () => {
    fc.assert(
      fc.property(placements, (list) => {
        const plan = planShards(list);
        const wanted = list.flatMap(({ collection, shards }) => shards.map(({ shard }) => `${collection}/${shard}`));
        expect(plan.map(({ collection, shard }) => `${collection}/${shard}`)).toEqual(wanted);
        for (const { collection, shard, peer } of plan) {
          const replicas = list.find((item) => item.collection === collection)?.shards[shard]?.replicas ?? [];
          expect(replicas).toContainEqual({ peer, state: 'Active' });
        }
      }),
    );
  });

  test('with every peer holding every shard, no peer gives two more than another', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 20 }), (peers, shards) => {
        const replicas = Array.from({ length: peers }, (_, peer) => ({ peer: `p${peer}`, state: 'Active' }));
        const plan = planShards([
          {
            collection: 'c',
            transfers: 0,
            resharding: 0,
            shards: Array.from({ length: shards }, (_, shard) => ({ shard, replicas })),
          },
        ]);
        const loads = [...byPeer(plan).values()].map((tasks) => tasks.length);
        expect(Math.max(...loads) - (loads.length < peers ? 0 : Math.min(...loads))).toBeLessThanOrEqual(1);
      }),
    );
  });

  test('says everything that is in the way', () => {
    const shard = (state: string) => ({ shard: 0, replicas: [{ peer: 'p', state }] });
    const plan = () =>
      planShards([
        { collection: 'a', shards: [shard('Active')], transfers: 2, resharding: 0 },
        { collection: 'b', shards: [shard('Dead')], transfers: 0, resharding: 1 },
      ]);
    expect(plan).toThrow(
      expect.objectContaining({
        code: 'TopologyUnstable',
        message: expect.stringMatching(/"a" has 2 shard transfers.*"b" is being resharded.*shard 0 has no Active/),
      }),
    );
  });
});

describe('commit record', () => {
  const record: CommitRecord = {
    formatVersion: 1,
    backup: 'b',
    state: 'COMMITTED',
    revision: 1,
    attempt: 'r',
    changedAt: 't',
  };

  test('data may go only after PURGING, and nothing leaves DELETED or ABORTED', () => {
    expect(BACKUP_STATES.filter((to) => mayFollow(undefined, to))).toEqual(['COMMITTED', 'ABORTED']);
    expect(BACKUP_STATES.filter((to) => mayFollow('COMMITTED', to))).toEqual(['DELETING']);
    expect(BACKUP_STATES.filter((to) => mayFollow('DELETING', to))).toEqual(['COMMITTED', 'PURGING']);
    expect(BACKUP_STATES.filter((to) => mayFollow('PURGING', to))).toEqual(['DELETED']);
    for (const end of ['DELETED', 'ABORTED'] as const) {
      expect(BACKUP_STATES.filter((to) => mayFollow(end, to))).toEqual([]);
    }
  });

  test('a forbidden step is a conflict', () => {
    expect(advance(record, 'DELETING', 'now')).toEqual({ ...record, state: 'DELETING', revision: 2, changedAt: 'now' });
    expect(() => advance(record, 'DELETED', 'now')).toThrow(expect.objectContaining({ code: 'CommitConflict' }));
  });

  test('only manifests of a known format are read', () => {
    expect(() => parseManifest({ formatVersion: 2, collections: [] }, 'm')).toThrow(/format 2; this version reads/);
    expect(() => parseManifest([], 'm')).toThrow(/not a backup manifest/);
    expect(() => parseManifest(null, 'm')).toThrow(/not a backup manifest/);
  });
});

describe('restore gates', () => {
  const manifest = {
    qdrantVersion: '1.18.3',
    collections: [{ name: 'docs', config: {}, payloadSchema: {}, shards: [{ shard: 0 }, { shard: 1 }] }],
    aliases: [{ alias: 'live', collection: 'docs' }],
  } as unknown as BackupManifest;
  const target: RestoreTarget = { qdrantVersion: '1.18.3', peers: 2, collections: [], aliases: [] };
  const gates = (change: Partial<RestoreTarget>, factor?: number) =>
    restoreRefusals(manifest, manifest.collections, { ...target, ...change }, factor).map(({ gate }) => gate);

  test.each([
    ['1.18.3', true],
    ['1.18.9', true],
    ['1.19.0', true],
    ['1.18.2', false],
    ['1.17.9', false],
    ['1.20.0', false],
    ['2.18.3', false],
    ['nightly', false],
  ])('1.18.3 into %s: %s', (qdrantVersion, allowed) => {
    expect(gates({ qdrantVersion })).toEqual(allowed ? [] : ['version']);
  });

  test('existing names, too few peers and gaps in shard ids are refused', () => {
    expect(gates({ collections: ['docs'], aliases: ['live'] }, 3)).toEqual(['existing', 'replication', 'aliases']);
    expect(gates({ collections: ['live'] })).toEqual(['aliases']);
    const gap = [{ ...manifest.collections[0], shards: [{ shard: 0 }, { shard: 2 }] }];
    expect(restoreRefusals(manifest, gap as never, target, undefined).map(({ gate }) => gate)).toEqual(['shard-keys']);
    const keyed = [{ ...manifest.collections[0], shards: [{ shard: 1 }, { shard: 2 }] }];
    expect(restoreRefusals(manifest, keyed as never, target, undefined)).toEqual([]);
    const late = [{ ...manifest.collections[0], shards: [{ shard: 2 }, { shard: 3 }] }];
    expect(restoreRefusals(manifest, late as never, target, undefined).map(({ gate }) => gate)).toEqual(['shard-keys']);
    expect(restoreRefusals(manifest, [], target, undefined).map(({ gate }) => gate)).toEqual(['collections']);
  });
});

describe('cluster specification', () => {
  test('defaults: three nodes, both presets, two replicas', () => {
    const spec = resolveSpec({}, DEFAULT_PRESETS);
    expect(spec).toMatchObject({ provider: 'kubernetes', nodes: 3, storage: '10Gi', replicationFactor: 2 });
    expect(spec.collections.map(({ name, vectorSize, distance }) => [name, vectorSize, distance])).toEqual([
      ['documents', 1536, 'Cosine'],
      ['conversations', 1536, 'Cosine'],
    ]);
    expect(spec.collections[0]?.indexes).toEqual({
      document_id: 'keyword',
      filename: 'keyword',
      content_type: 'keyword',
      customer_id: 'keyword',
      tags: 'keyword',
      upload_timestamp: 'datetime',
    });
  });

  test('one node gets one replica; a preset can be renamed and resized', () => {
    const spec = resolveSpec(
      { nodes: 1, collections: [{ preset: 'documents', name: 'small', vectorSize: 4, shardNumber: 2 }] },
      DEFAULT_PRESETS,
    );
    expect(spec.collections[0]).toMatchObject({ name: 'small', vectorSize: 4, shardNumber: 2, replicationFactor: 1 });
  });

  test.each([
    [{ preset: 'nope' }, /collections\[0\].preset: "nope" is not configured; known: documents, conversations/],
    [{ name: 'x' }, /collections\[0\].vectorSize: is needed/],
    [{}, /collections\[0\]: needs a "preset" or a "name"/],
    [{ preset: 'constructor' }, /not configured/],
  ])('%j is refused', (request, message) => {
    expect(() => resolveSpec({ collections: [request] }, DEFAULT_PRESETS)).toThrow(message);
  });

  test('chart values hold the name of the secret and no key', () => {
    const spec = resolveSpec({ resources: { cpu: '500m', memory: '1Gi' }, version: 'v1.18.3' }, DEFAULT_PRESETS);
    const values = chartValues({ tenant: 'acme', cluster: 'docs' }, spec);
    expect(values).toMatchObject({
      replicaCount: 3,
      image: { tag: 'v1.18.3' },
      env: [{ name: 'QDRANT__SERVICE__API_KEY', valueFrom: { secretKeyRef: { name: 'qdrant-api-key' } } }],
      snapshotPersistence: { enabled: true },
      resources: { requests: { cpu: '500m', memory: '1Gi' }, limits: { memory: '1Gi' } },
    });
    expect(values).not.toHaveProperty('apiKey');
  });
});

describe('collection configuration', () => {
  const config = {
    params: {
      vectors: { size: 4, distance: 'Dot' },
      shard_number: 3,
      replication_factor: 2,
      write_consistency_factor: 2,
      on_disk_payload: true,
      read_fan_out_factor: 2,
    },
    hnsw_config: { m: 16, ef_construct: 100, max_indexing_threads: 0 },
    optimizer_config: { deleted_threshold: 0.2, max_segment_size: null },
    quantization_config: null,
  };

  test('what was reported can be created again', () => {
    expect(createRequestOf(config, { shards: 6, replicationFactor: 1 })).toEqual({
      vectors: { size: 4, distance: 'Dot' },
      shard_number: 6,
      replication_factor: 1,
      write_consistency_factor: 1,
      on_disk_payload: true,
      hnsw_config: { m: 16, ef_construct: 100, max_indexing_threads: 0 },
      optimizers_config: { deleted_threshold: 0.2 },
    });
    expect(laterParamsOf(config)).toEqual({ params: { read_fan_out_factor: 2 } });
    expect(replicasOf(config, 1)).toBe(1);
    expect(replicasOf(config, 5)).toBe(2);
    expect(replicasOf(config, 5, 3)).toBe(3);
  });

  test('custom sharding keeps the number of shards per key', () => {
    const custom = { ...config, params: { ...config.params, sharding_method: 'custom', shard_number: 1 } };
    expect(createRequestOf(custom, { shards: 6, replicationFactor: 1 })).toMatchObject({
      shard_number: 1,
      sharding_method: 'custom',
    });
  });

  test('index parameters are kept', () => {
    expect(indexSchemaOf({ data_type: 'keyword', points: 3 })).toBe('keyword');
    expect(indexSchemaOf({ data_type: 'keyword', params: { is_tenant: true } })).toEqual({
      type: 'keyword',
      is_tenant: true,
    });
  });
});

describe('errors', () => {
  test('the set is closed', () => {
    expect(isErrorCode('ClusterBusy')).toBe(true);
    expect(isErrorCode('toString')).toBe(false);
    expect(isErrorCode(undefined)).toBe(false);
  });

  test('every code has a class, a status and a title, and only passing failures are repeated', () => {
    for (const [code, { class: kind, status, title }] of Object.entries(ERROR_CODES)) {
      expect(status, code).toBeGreaterThanOrEqual(400);
      expect(title, code).not.toBe('');
      expect(isRetryable(code as keyof typeof ERROR_CODES), code).toBe(kind === 'retry' || kind === 'wait');
    }
  });

  test('a guard tells them apart', () => {
    const error = new FleetError('ClusterBusy', 'held');
    expect(FleetError.is(error)).toBe(true);
    expect(FleetError.is(error, 'ClusterExists')).toBe(false);
    expect(FleetError.is(new Error('held'))).toBe(false);
  });
});

test('the step table stays a table, whatever a message holds', () => {
  const table = stepTable([
    { name: 'One', phase: 'done', startedAt: '2026-01-01T00:00:00.000Z', finishedAt: '2026-01-01T00:00:01.500Z' },
    { name: 'Two', phase: 'failed', message: 'a | b\nc' },
  ]);
  expect(table.split('\n')).toEqual([
    '| | Step | Time | |',
    '|---|---|---|---|',
    '| ✔ | One | 1.5 s |  |',
    '| ✘ | Two |  | a \\| b c |',
  ]);
});
