import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { collectionChanges, type CollectionLook } from '../../src/domain/collection-change.ts';

const LOOK = {
  id: 'a',
  config: {
    params: { vectors: { size: 4, distance: 'Cosine' }, shard_number: 2, replication_factor: 1 },
    optimizer_config: { indexing_threshold: 1 },
  },
  payload_schema: { tag: { data_type: 'keyword', points: 10 } },
  placement: {
    collection: 'docs',
    shards: [0, 1].map((shard) => ({ shard, shardKey: 'k', replicas: [{ peer: '1', state: 'Active' }] })),
    transfers: 0,
    resharding: 0,
  },
};

describe('collectionChanges', () => {
  test('nothing but what writes, moves and the optimizer change', () => {
    const after: CollectionLook = {
      ...LOOK,
      config: { ...LOOK.config, optimizer_config: { indexing_threshold: 2 } } as CollectionLook['config'],
      payload_schema: { tag: { points: 99, data_type: 'keyword' } },
      placement: {
        ...LOOK.placement,
        shards: LOOK.placement.shards.map((shard) => ({ ...shard, replicas: [{ peer: '2', state: 'Dead' }] })),
      },
    };
    expect(collectionChanges(LOOK, after)).toEqual([]);
  });

  test.for<[string, Partial<CollectionLook>]>([
    ['it was deleted and made anew', { id: 'b' }],
    [
      'its parameter vectors',
      { config: { params: { ...LOOK.config.params, vectors: { size: 5, distance: 'Cosine' } } } },
    ],
    ['its parameter sparse_vectors', { config: { params: { ...LOOK.config.params, sparse_vectors: { text: {} } } } }],
    ['its payload indexes', { payload_schema: {} }],
    ['its payload indexes', { payload_schema: { tag: { data_type: 'text', points: 10 } } }],
    ['its shards or their keys', { placement: { ...LOOK.placement, shards: LOOK.placement.shards.slice(0, 1) } }],
    [
      'its shards or their keys',
      {
        placement: {
          ...LOOK.placement,
          shards: LOOK.placement.shards.map((shard) => ({ ...shard, shardKey: 'other' })),
        },
      },
    ],
  ])('%s', ([words, change]) => {
    expect(collectionChanges(LOOK, { ...LOOK, ...change })).toEqual([words]);
  });

  test('a server that tells no ids is compared by the rest', () => {
    const { id: _, ...silent } = LOOK;
    expect(collectionChanges(silent, LOOK)).toEqual([]);
    expect(collectionChanges(LOOK, silent)).toEqual([]);
  });

  test('the order of keys decides nothing, and any other value of a parameter is seen', () => {
    const params = fc.dictionary(fc.string({ minLength: 1 }), fc.jsonValue(), { maxKeys: 6, noNullPrototype: false });
    fc.assert(
      fc.property(params, fc.string({ minLength: 1 }), fc.jsonValue(), (before, name, value) => {
        const look = (now: Record<string, unknown>) => ({ ...LOOK, config: { params: now } });
        const turned = Object.fromEntries(Object.entries(before).toReversed());
        expect(collectionChanges(look(before), look(turned))).toEqual([]);
        const after = Object.fromEntries([...Object.entries(before), [name, value]]);
        const same = JSON.stringify(before[name] ?? null) === JSON.stringify(value ?? null);
        if (!same && Object.hasOwn(before, name) && typeof value !== 'object') {
          expect(collectionChanges(look(before), look(after))).toEqual([`its parameter ${name}`]);
        }
      }),
    );
  });
});
