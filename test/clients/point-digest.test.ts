/** One point, read from the engine by Python and from the API by Node: the same digest, and another for any difference. */
import { execa } from 'execa';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { compareSample } from '../../activities/sample.ts';
import { pointDigest } from '../../src/clients/point-digest.ts';
import type { QdrantClient } from '../../src/clients/qdrant.ts';
import type { ShardEntry } from '../../src/domain/backup.ts';

const VERIFY = new URL('../../src/verify', import.meta.url).pathname;
/** The engine's sparse vectors are objects with two attributes; nothing else of it is needed here. */
const SCRIPT = `
import json, sys, types
sys.path.insert(0, sys.argv[1])
from point_digest import digest
def vector(value):
    if isinstance(value, dict) and "indices" in value:
        return types.SimpleNamespace(**value)
    return {name: vector(item) for name, item in value.items()} if isinstance(value, dict) else value
print(json.dumps([digest(point["payload"], vector(point["vector"])) for point in json.load(sys.stdin)]))
`;

const f32 = fc.float({ noNaN: true, noDefaultInfinity: true, min: Math.fround(-1e30), max: Math.fround(1e30) });
const dense = fc.array(f32, { minLength: 1, maxLength: 5 });
const sparse = fc
  .uniqueArray(fc.tuple(fc.nat({ max: 0xffffffff }), f32), { selector: ([index]) => index, maxLength: 5 })
  .map((entries) => ({ indices: entries.map(([index]) => index), values: entries.map(([, value]) => value) }));
const multi = fc.array(dense, { minLength: 1, maxLength: 3 });
const text = fc.string({ unit: 'binary', maxLength: 6 }).filter((s) => s.isWellFormed());
const vectors = fc.oneof(dense, multi, fc.dictionary(text, fc.oneof(dense, multi, sparse), { maxKeys: 4 }));
const payload = fc.dictionary(text, fc.jsonValue({ maxDepth: 3 }), { maxKeys: 4 });

test('both languages agree on whatever points there are', async () => {
  const points = fc
    .sample(fc.record({ payload, vector: vectors }), { numRuns: 400, seed: 7 })
    .map((point) => JSON.parse(JSON.stringify(point)) as { payload: unknown; vector: unknown });
  const { stdout } = await execa('python3', ['-c', SCRIPT, VERIFY], {
    input: JSON.stringify(points),
    env: { PYTHONDONTWRITEBYTECODE: '1' },
  });
  expect(JSON.parse(stdout)).toEqual(points.map((point) => pointDigest(point.payload, point.vector)));
  expect(new Set(points.map((point) => pointDigest(point.payload, point.vector))).size).toBe(
    new Set(points.map((point) => JSON.stringify(point))).size,
  );
});

test.each([
  [{ a: 1 }, { a: 1.0000001 }],
  [{ a: [1, 2] }, { a: [2, 1] }],
  [{ a: '1' }, { a: 1 }],
  [{ a: null }, {}],
  [{ a: { b: 1 } }, { a: [['b', 1]] }],
])('payload %j is not %j', (one, other) => {
  expect(pointDigest(one, [1])).not.toBe(pointDigest(other, [1]));
});

test('vectors: one bit, one name, one shape make a difference; the order of keys and of sparse entries does not', () => {
  const digest = (vector: unknown) => pointDigest({}, vector);
  expect(digest([1, 2])).not.toBe(digest([1, Math.fround(2 + 2 ** -22)]));
  expect(digest({ a: [1, 2] })).not.toBe(digest({ b: [1, 2] }));
  expect(digest([[1, 2]])).not.toBe(digest([1, 2]));
  expect(digest([1])).toBe(digest({ '': [1] }));
  const sparseIn = (indices: number[], values: number[]) => digest({ s: { indices, values } });
  expect(sparseIn([5, 2], [1, 3])).toBe(sparseIn([2, 5], [3, 1]));
  expect(pointDigest({ b: 1, a: 2 }, { y: [1], x: [2] })).toBe(pointDigest({ a: 2, b: 1 }, { x: [2], y: [1] }));
});

test('a point that differs or is missing is named with its collection, shard and node', async () => {
  const points = [1, 2].map((id) => ({ id, payload: { id }, vector: [id] }));
  const sample = {
    ...{ formatVersion: 1 as const, seed: '00' },
    points: points.map(({ id, payload: of, vector }) => ({ id: String(id), sha256: pointDigest(of, vector) })),
  };
  const compare = (found: unknown[]) => {
    // Answers as the API would.
    const client = { points: () => Promise.resolve(found) } as unknown as QdrantClient;
    return compareSample(client, 'docs', {} as ShardEntry, sample, 'Collection "docs", shard 3 on qdrant-0');
  };
  await compare(points);
  await expect(compare([points[0], { ...points[1], vector: [2.5] }])).rejects.toMatchObject({
    code: 'IntegrityMismatch',
    message: 'Collection "docs", shard 3 on qdrant-0: point 2 is not what was backed up.',
  });
  await expect(compare([points[1]])).rejects.toMatchObject({ message: expect.stringContaining('point 1 is missing') });
});
