/** Which shards are copied together, and that no payload of a workflow grows with a cluster. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PACK, packShards } from '../../src/domain/packing.ts';
import type { ShardTask } from '../../src/domain/topology.ts';

const MiB = 1024 * 1024;
const SMALL = 16 * MiB;
const tasksOf = (sizes: readonly (number | undefined)[]): ShardTask[] =>
  sizes.map((bytes, shard) => ({ collection: 'docs', shard, peer: '1', ...(bytes !== undefined && { bytes }) }));

describe('packs', () => {
  const sizes = fc.array(fc.option(fc.integer({ min: 0, max: 40 * MiB }), { nil: undefined }), { maxLength: 300 });

  test('hold every shard once and in order, within their limits, and nothing large', () => {
    fc.assert(
      fc.property(sizes, (list) => {
        const tasks = tasksOf(list);
        const packs = packShards(tasks, SMALL);
        expect(packs.flat()).toEqual(tasks);
        for (const pack of packs) {
          expect(pack.length).toBeGreaterThan(0);
          if (pack.length === 1) continue;
          expect(pack.length).toBeLessThanOrEqual(PACK.shards);
          expect(pack.reduce((sum, { bytes = 0 }) => sum + bytes, 0)).toBeLessThanOrEqual(PACK.bytes);
          for (const { bytes = Number.POSITIVE_INFINITY } of pack) expect(bytes).toBeLessThanOrEqual(SMALL);
        }
      }),
    );
  });

  test('are few: 1,000 empty shards make 20', () => {
    expect(packShards(tasksOf(Array(1000).fill(0)), SMALL)).toHaveLength(20);
  });

  test('a shard that nobody has guessed the size of is alone, and so are all when none counts as small', () => {
    expect(packShards(tasksOf([1, undefined, 1, 1]), SMALL).map((pack) => pack.length)).toEqual([1, 1, 2]);
    expect(packShards(tasksOf([0, 0]), 0)).toHaveLength(2);
  });
});
