import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { advance, BACKUP_STATES, mayFollow, type BackupManifest, type CommitRecord } from '../../src/domain/backup.ts';
import { chartValues } from '../../src/domain/chart-values.ts';
import { DEFAULT_PRESETS, resolveSpec } from '../../src/domain/cluster.ts';
import { createRequestOf, indexSchemaOf, laterParamsOf, replicasOf } from '../../src/domain/collection-config.ts';
import {
  besideProblem,
  restoreRefusals,
  wantedAliases,
  type RestoreTarget,
  type RestoreWish,
} from '../../src/domain/compatibility.ts';
import { ERROR_CODES, FleetError, isErrorCode, isRetryable } from '../../src/domain/errors.ts';
import { remainingKeySteps, shardKeyPlan, type ShardKeyStep } from '../../src/domain/shard-keys.ts';
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
    expect(BACKUP_STATES.filter((to) => mayFollow('COMMITTED', to))).toEqual(['CORRUPT', 'DELETING']);
    expect(BACKUP_STATES.filter((to) => mayFollow('CORRUPT', to))).toEqual(['COMMITTED', 'DELETING']);
    expect(BACKUP_STATES.filter((to) => mayFollow('DELETING', to))).toEqual(['COMMITTED', 'CORRUPT', 'PURGING']);
    expect(BACKUP_STATES.filter((to) => mayFollow('PURGING', to))).toEqual(['DELETED']);
    for (const end of ['DELETED', 'ABORTED'] as const) {
      expect(BACKUP_STATES.filter((to) => mayFollow(end, to))).toEqual([]);
    }
  });

  test('a forbidden step is a conflict', () => {
    expect(advance(record, 'DELETING', 'now')).toEqual({ ...record, state: 'DELETING', revision: 2, changedAt: 'now' });
    expect(() => advance(record, 'DELETED', 'now')).toThrow(expect.objectContaining({ code: 'CommitConflict' }));
  });
});

describe('restore gates', () => {
  const entry = {
    name: 'docs',
    config: { params: { replication_factor: 2 } },
    payloadSchema: {},
    shards: [
      { shard: 0, size: 100 },
      { shard: 1, size: 100 },
    ],
  };
  const manifest = {
    qdrantVersion: '1.18.3',
    collections: [entry],
    aliases: [{ alias: 'live', collection: 'docs' }],
  } as unknown as BackupManifest;
  const target: RestoreTarget = { qdrantVersion: '1.18.3', peers: 2, collections: [], aliases: [] };
  const refusalsOf = (change: Partial<RestoreTarget>, wish: Partial<RestoreWish> = {}, of: { name: string } = entry) =>
    restoreRefusals(manifest, { items: [{ entry: of as never, as: of.name }], ...wish }, { ...target, ...change });
  const gates = (...args: Parameters<typeof refusalsOf>) => refusalsOf(...args).map(({ gate }) => gate);
  const live = (collection: string) => [{ alias: 'live', collection }];
  const custom = (...shards: [number, string | number][]) => ({
    ...entry,
    config: { params: { sharding_method: 'custom' } },
    shards: shards.map(([shard, shardKey]) => ({ shard, shardKey, size: 1 })),
  });

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

  test('existing names, too few peers and gaps in shard ids are refused, each with a remedy', () => {
    const refusals = refusalsOf({ collections: ['docs'], aliases: live('old') }, { replicationFactor: 3 });
    expect(refusals.map(({ gate }) => gate)).toEqual(['existing', 'replication', 'aliases']);
    for (const { remedy } of refusals) expect(remedy).toMatch(/"rename"|add nodes|"aliases": false/);
    expect(gates({ collections: ['live'] })).toEqual(['aliases']);
    expect(gates({ collections: ['live'] }, { aliases: false })).toEqual([]);
    expect(gates({ aliases: [{ alias: 'docs', collection: 'old' }] })).toEqual(['existing']);
    const gap = { ...entry, shards: [0, 2].map((shard) => ({ shard, size: 1 })) };
    expect(gates({}, {}, gap)).toEqual(['shard-keys']);
    expect(gates({}, { items: [] })).toEqual(['collections']);
  });

  test('renamed collections take their aliases along, and must not meet', () => {
    const items = [{ entry: entry as never, as: 'docs_v2' }];
    expect(wantedAliases(manifest, items)).toEqual([{ alias: 'live', collection: 'docs_v2' }]);
    expect(gates({ collections: ['docs'] }, { items })).toEqual([]);
    expect(gates({ collections: ['docs_v2'] }, { items })).toEqual(['existing']);
    expect(gates({}, { items: [...items, ...items] })).toEqual(['names']);
    expect(gates({}, { items: [{ entry: entry as never, as: 'live' }] })).toEqual(['aliases']);
  });

  test('in place: the backup is proven beside the old collections only where all disks are known to have room', () => {
    const items = [{ entry: entry as never, as: 'docs' }];
    const problem = (space: RestoreTarget['space'], inPlace = true, collections = ['docs']) =>
      besideProblem({ items, inPlace }, { ...target, collections, ...(space !== undefined && { space }) });
    const node = (name: string, free: number) => ({ node: name, volume: 'storage', free });
    // Two replicas of 200 bytes on two peers, and each is there twice while it is unpacked.
    expect(problem([node('a', 400), node('b', 400)])).toBeUndefined();
    expect(problem([node('a', 400), node('b', 399)])).toMatch(/^volume "storage" of b has 0\.0 MB free/);
    expect(problem([node('a', 400)])).toBe('it is not known how much disk is free');
    expect(problem(undefined)).toBe('it is not known how much disk is free');
    expect(problem(undefined, true, [])).toBeUndefined();
    expect(problem(undefined, false)).toBeUndefined();
  });

  test('in place: collections and their aliases may be there, but no alias is lost', () => {
    const there = { collections: ['docs', 'other'], aliases: live('docs') };
    expect(gates(there, { inPlace: true })).toEqual([]);
    expect(gates({ ...there, aliases: live('other') }, { inPlace: true })).toEqual(['aliases']);
    const lost = { ...there, aliases: [...live('docs'), { alias: 'new', collection: 'docs' }] };
    expect(gates(lost, { inPlace: true })).toEqual(['aliases']);
  });

  test('disk: twice what lands on the fullest node, on every volume; what is replaced makes room', () => {
    const space = (free: number) => ({ space: [{ node: 'qdrant-0', volume: 'storage', free }] });
    // Two replicas of both shards on two nodes: 200 bytes each.
    expect(gates(space(400))).toEqual([]);
    expect(refusalsOf(space(399))).toEqual([
      {
        gate: 'disk',
        detail: expect.stringContaining('volume "storage" of qdrant-0'),
        remedy: expect.stringContaining('enlarge'),
      },
    ]);
    expect(gates({ ...space(200), peers: 4 })).toEqual([]);
    expect(gates({ ...space(200), collections: ['docs'] }, { inPlace: true, aliases: false })).toEqual([]);
    expect(gates(space(200), { inPlace: true })).toEqual(['disk']);
    expect(gates(space(200), { replicationFactor: 1 })).toEqual([]);
  });

  test('shard keys with gaps can be made again, split ones cannot', () => {
    expect(gates({}, {}, custom([1, 'a'], [2, 'a'], [5, 'b']))).toEqual([]);
    expect(gates({}, {}, custom([1, 'a'], [2, 'b'], [3, 'a']))).toEqual(['shard-keys']);
    expect(gates({}, {}, custom([0, 'a']))).toEqual(['shard-keys']);
  });
});

describe('shard key plan', () => {
  /** What Qdrant does with keys: each key's shards get the ids after the highest in use. */
  const play = (
    steps: readonly ShardKeyStep[],
    drop: readonly (string | number)[],
    shards = new Map<number, string | number>(),
  ) => {
    for (const { key, shards: count } of steps) {
      for (let n = 0; n < count; n += 1) shards.set(Math.max(0, ...shards.keys()) + 1, key);
    }
    for (const [id, key] of shards) if (drop.includes(key)) shards.delete(id);
    return shards;
  };
  const keyed = fc
    .array(fc.tuple(fc.integer({ min: 1, max: 3 }), fc.boolean()), { minLength: 1, maxLength: 8 })
    .map((keys) => {
      let id = 0;
      return keys.flatMap(([count, kept], index) =>
        Array.from({ length: count }, () => ({ shard: (id += 1), shardKey: index % 2 ? `k${index}` : index, kept })),
      );
    })
    .map((shards) => shards.filter(({ kept }) => kept).map(({ shard, shardKey }) => ({ shard, shardKey })));

  test('leads to the old ids, from any point that an earlier attempt got to, and leaves no filler', () => {
    fc.assert(
      fc.property(keyed, fc.nat(), (shards, stop) => {
        const plan = shardKeyPlan(shards);
        if ('problem' in plan) throw new Error(plan.problem);
        // An earlier attempt made some of the keys, and may have dropped some of the fillers once all were there.
        const first = remainingKeySteps(plan, new Set());
        const made = stop % (first.create.length + first.drop.length + 1);
        const state = play(first.create.slice(0, made), first.drop.slice(0, Math.max(0, made - first.create.length)));
        const { create, drop } = remainingKeySteps(plan, new Set(state.values()));
        const found = [...play(create, drop, state)].map(([shard, shardKey]) => ({ shard, shardKey }));
        expect(found).toEqual(shards);
      }),
    );
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
      env: [
        { name: 'QDRANT__SERVICE__API_KEY', valueFrom: { secretKeyRef: { name: 'qdrant-api-key', key: 'api-key' } } },
        {
          name: 'QDRANT__SERVICE__ALT_API_KEY',
          valueFrom: { secretKeyRef: { name: 'qdrant-api-key', key: 'alt-api-key', optional: true } },
        },
      ],
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
