/** The free disk that a backup demands. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { bytesPerPoint } from '../../src/domain/collection-config.ts';
import { checkSnapshotDisk, largestSnapshot } from '../../src/domain/disk.ts';

const GB = 1e9;
const task = (peer: string, bytes: number) => ({ collection: 'docs', shard: 0, peer, bytes });
const volume = (free: number, used = 0) => ({ free, used, capacity: free + used });
const source = { pod: 'qdrant-0', peer: '1', weight: 40 };

describe('the largest snapshot of a peer', () => {
  test('is its part of what the peer has on disk', () => {
    const tasks = [task('1', 10), task('1', 4), task('2', 39)];
    expect(largestSnapshot(tasks, source, 8 * GB)).toBe(2 * GB);
  });

  test('never exceeds what is on the disk, and is nothing without points', () => {
    fc.assert(
      fc.property(fc.array(fc.nat()), fc.nat(), fc.nat(), (sizes, weight, used) => {
        const found = largestSnapshot(
          sizes.map((bytes) => task('1', bytes)),
          { ...source, weight },
          used,
        );
        expect(found).toBeGreaterThanOrEqual(0);
        expect(found).toBeLessThanOrEqual(used);
      }),
    );
    expect(largestSnapshot([task('1', 0)], { ...source, weight: 0 }, GB)).toBe(0);
  });
});

describe('free disk', () => {
  const tasks = [task('1', 20)];
  const check = (storage: number, snapshots: number) =>
    checkSnapshotDisk(tasks, [source], {
      'qdrant-0': { storage: volume(storage, 2 * GB), snapshots: volume(snapshots) },
    });

  test('enough is a fifth more than the largest shard, on both volumes', () => {
    expect(check(1.2 * GB, 1.2 * GB)).toEqual([]);
  });

  test('too little is refused by pod, volume, free and needed bytes', () => {
    expect(() => check(1.19 * GB, 5 * GB)).toThrow(
      'the storage volume of pod qdrant-0 has 1190.0 MB free and needs 1200.0 MB',
    );
    expect(() => check(1 * GB, 0)).toThrow(
      /the storage volume of .*; the snapshots volume of pod qdrant-0 has 0\.0 MB/,
    );
  });

  test('a pod that nobody measured is named, and nothing is refused for it', () => {
    expect(checkSnapshotDisk(tasks, [source, { ...source, pod: 'qdrant-1', peer: '2' }], {})).toEqual([
      'qdrant-0',
      'qdrant-1',
    ]);
  });
});

test.for([
  ['one vector', { vectors: { size: 128 } }, 512 + 512],
  ['half floats', { vectors: { size: 128, datatype: 'float16' } }, 256 + 512],
  ['named vectors', { vectors: { a: { size: 4 }, b: { size: 8, datatype: 'uint8' } } }, 16 + 8 + 512],
  ['a sparse one alone', { vectors: {}, sparse_vectors: { text: {} } }, 512 + 512],
  ['a multivector', { vectors: { size: 2, multivector_config: { comparator: 'max_sim' } } }, 8 * 16 + 512],
  ['no vectors at all', { vectors: {}, sparse_vectors: null }, 512],
] as const)('bytes of a point with %s', ([, params, bytes]) => {
  expect(bytesPerPoint(params)).toBe(bytes);
});
