/** The incremental format's pure parts: whatever comes in, the bytes that come out are the same. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BlockCutter, blockSizeFor, MAX_BLOCKS, MIN_BLOCK } from '../../src/domain/block-cutter.ts';
import { BlockIndex } from '../../src/domain/block-index.ts';
import { readRecipe, RecipeWriter, type RecipeStep } from '../../src/domain/shard-recipe.ts';
import { TarWalker } from '../../src/domain/tar-walker.ts';
import { sparseMember, tar, type Member } from '../support/tar.ts';

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest();

function noise(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at += 1) bytes[at] = Math.imul(at + seed * 7919, 2654435761) >>> 13;
  return bytes;
}

/** Cut the stream into pieces at any place, and collect what the cutter makes of it. */
function cut(stream: Buffer, blockSize: number, borders: readonly number[] = []) {
  const blocks: Buffer[] = [];
  const out: Buffer[] = [];
  const cutter = new BlockCutter(
    {
      inline: (bytes) => out.push(Buffer.from(bytes)),
      zeros: (count) => out.push(Buffer.alloc(count)),
      block: (bytes) => {
        expect(bytes.length).toBeLessThanOrEqual(blockSize);
        blocks.push(Buffer.from(bytes));
        out.push(Buffer.from(bytes));
      },
    },
    blockSize,
  );
  const ends = [...new Set(borders.map((border) => border % (stream.length + 1))), stream.length].sort((a, b) => a - b);
  let at = 0;
  for (const end of ends) {
    cutter.push(stream.subarray(at, end));
    at = end;
  }
  cutter.finish();
  return { blocks, joined: Buffer.concat(out) };
}

/** Bytes that depend on a seed; some of them all zeros. */
const content = fc
  .tuple(fc.oneof(fc.nat({ max: 600 }), fc.nat({ max: 20_000 })), fc.nat({ max: 5 }))
  .map(([length, seed]) => (seed === 0 ? Buffer.alloc(length) : noise(length, seed)));
const name = fc
  .string({ minLength: 1, maxLength: 60, unit: 'grapheme-ascii' })
  .map((text) => text.replaceAll('/', '_'));
const plain = fc.record({ name, content }) satisfies fc.Arbitrary<Member>;
const sparse = fc
  .tuple(name, fc.array(fc.tuple(fc.nat({ max: 50 }), fc.integer({ min: 1, max: 9 })), { maxLength: 30 }), fc.nat())
  .map(([file, extents, seed]): Member => sparseMember(file, extents, seed));
const nested = fc.array(fc.oneof(plain, sparse), { maxLength: 5 }).map((members) => tar(members));
const archive = fc
  .array(
    fc.oneof(
      plain,
      sparse,
      fc.tuple(name, nested).map(([file, bytes]): Member => ({ name: `${file}.tar`, content: bytes })),
      fc.tuple(name, content).map(([file, bytes]): Member => ({ name: `${file}.tar`, content: bytes })),
      fc.record({ name, content, type: fc.constantFrom('L', 'K', 'x', 'g', '5', '1', 'Z') }),
    ),
    { maxLength: 6 },
  )
  .map((members) => tar(members));
const stream = fc.oneof(
  archive,
  content,
  // Cut short, and altered somewhere: the walker is led astray, and nothing may come of it.
  fc.tuple(archive, fc.nat()).map(([bytes, at]) => bytes.subarray(0, at % (bytes.length + 1))),
  fc.tuple(archive, fc.nat(), fc.nat({ max: 255 })).map(([bytes, at, value]) => {
    const altered = Buffer.from(bytes);
    altered[at % altered.length] = value;
    return altered;
  }),
);
const blockSize = fc.constantFrom(512, 1000, MIN_BLOCK, 16_384);

describe('tar walker and cutter', () => {
  test('every byte comes out once and in order, wherever the stream is cut', () => {
    fc.assert(
      fc.property(stream, blockSize, fc.array(fc.nat(), { maxLength: 12 }), (bytes, size, borders) => {
        expect(cut(bytes, size, borders).joined.equals(bytes)).toBe(true);
      }),
      { numRuns: 400 },
    );
  });

  test('the blocks do not depend on where the stream is cut', () => {
    fc.assert(
      fc.property(stream, blockSize, fc.array(fc.nat(), { maxLength: 12 }), (bytes, size, borders) => {
        expect(cut(bytes, size, borders).blocks).toEqual(cut(bytes, size).blocks);
      }),
      { numRuns: 200 },
    );
  });

  test('a snapshot of a real Qdrant 1.18.3: its files are found in the tars of its segments', () => {
    const bytes = readFileSync(new URL('../fixtures/qdrant/shard-1.18.3.snapshot', import.meta.url));
    const counts = { skeleton: 0, content: 0, runs: 0 };
    const walker = new TarWalker(
      {
        skeleton: (part) => void (counts.skeleton += part.length),
        begin: () => void (counts.runs += 1),
        content: (part) => void (counts.content += part.length),
        end: () => undefined,
      },
      MIN_BLOCK,
    );
    walker.push(bytes);
    walker.finish();
    expect(counts.skeleton + counts.content).toBe(bytes.length);
    expect(counts.runs).toBeGreaterThan(50);
    expect(counts.skeleton).toBeLessThan(bytes.length / 4);
    expect(cut(bytes, MIN_BLOCK).joined.equals(bytes)).toBe(true);
  });

  test('a file keeps its blocks when others grow, headers change, and holes of it are filled', () => {
    const big = noise(200_000, 1);
    const segment = (small: number, mtime: number, extents: [number, number][]) =>
      tar([
        { name: 'small', content: noise(small, 2), mtime },
        { name: 'big', content: big, mtime },
        sparseMember('chunk', extents, 7),
      ]);
    const shard = (inner: Buffer) => tar([{ name: 'segments/1.tar', content: inner }]);
    const before = cut(
      shard(
        segment(5000, 1, [
          [0, 4],
          [100, 8],
        ]),
      ),
      MIN_BLOCK,
    ).blocks;
    const after = cut(
      shard(
        segment(6001, 2, [
          [0, 4],
          [50, 3],
          [100, 8],
        ]),
      ),
      MIN_BLOCK,
    ).blocks;
    const known = new Set(before.map((block) => block.toString('hex')));
    const fresh = after.filter((block) => !known.has(block.toString('hex')));
    // The end of the small file, and the hole that was filled.
    expect(fresh.map(({ length }) => length).reduce((a, b) => a + b, 0)).toBeLessThan(6001 + 3 * 4096);
    expect(before.length).toBeGreaterThan(55);
  });

  test('more headers than a recipe may hold: plain blocks from there on', () => {
    const members = Array.from({ length: 17_000 }, (_, index) => ({ name: `f${index}`, content: Buffer.alloc(0) }));
    const bytes = tar(members);
    const { joined, blocks } = cut(bytes, MIN_BLOCK, [8_000_000]);
    expect(joined.equals(bytes)).toBe(true);
    expect(blocks.length).toBeGreaterThan(50);
  });
});

describe('block size', () => {
  test('bounds the number of blocks, and stays unless it is far off', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 40 }), (size) => {
        const block = blockSizeFor(size);
        expect(size / block).toBeLessThanOrEqual(MAX_BLOCKS);
        if (block > MIN_BLOCK) expect(size / (block / 2)).toBeGreaterThan(MAX_BLOCKS);
        for (const previous of [block / 4, block, block * 4]) expect(blockSizeFor(size, previous)).toBe(previous);
        for (const previous of [block / 8, block * 8]) expect(blockSizeFor(size, previous)).toBe(block);
      }),
    );
  });
});

describe('block index', () => {
  test('finds what was added first, up to its capacity, as a map would', () => {
    const hash = fc.nat({ max: 4000 }).map((n) => sha256(Buffer.from(String(n))));
    fc.assert(
      fc.property(
        fc.array(hash, { maxLength: 3000, size: 'max' }),
        fc.constantFrom(1, 100, 1500, 10_000),
        (hashes, capacity) => {
          const index = new BlockIndex(capacity);
          const model = new Map<string, number>();
          for (const [n, bytes] of hashes.entries()) {
            const fits = !model.has(bytes.toString('hex')) && model.size < capacity;
            expect(index.add(bytes, { pack: n, offset: n * 2 })).toBe(fits);
            if (fits) model.set(bytes.toString('hex'), n);
          }
          expect(index.size).toBe(model.size);
          for (const bytes of hashes) {
            const n = model.get(bytes.toString('hex'));
            expect(index.find(bytes)).toEqual(n === undefined ? undefined : { pack: n, offset: n * 2 });
          }
        },
      ),
      { numRuns: 30 },
    );
  });
});

describe('recipe', () => {
  const step = fc.oneof(
    content.map((bytes) => ({ inline: bytes.subarray(0, 700) })),
    fc.integer({ min: 1, max: 2 ** 40 }).map((zeros) => ({ zeros })),
    fc.record({
      pack: fc.nat({ max: 300 }),
      offset: fc.nat({ max: 2 ** 40 }),
      bytes: content.filter((b) => b.length > 0),
    }),
  );
  const write = (steps: readonly (typeof step extends fc.Arbitrary<infer T> ? T : never)[]) => {
    const writer = new RecipeWriter(crc32);
    for (const each of steps) {
      if ('inline' in each) writer.inline(each.inline);
      else if ('zeros' in each) writer.zeros(each.zeros);
      else writer.extent(each.pack, each.offset, each.bytes);
    }
    const packs = Array.from({ length: 301 }, (_, n) => ({
      path: `20261121T000000Z-${String(n).padStart(8, '0')}/data/é ${n}`,
      size: 2 ** 41,
      blocks: n,
      indexHash: sha256(Buffer.from(String(n))),
    }));
    return Buffer.from(writer.finish(packs, { blockSize: MIN_BLOCK, sha256: sha256(Buffer.from('x')) }));
  };
  /** As one long list of what each byte is, with neighbours put together. */
  const plainly = (steps: Iterable<RecipeStep>) =>
    [...steps].map((each) => ('inline' in each ? { inline: Buffer.from(each.inline).toString('hex') } : each));

  test('reads back what was written', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const recipe = readRecipe(write(steps), 'it');
        const wanted: { inline?: Buffer; zeros?: number; extent?: { pack: number; offset: number; bytes: Buffer } }[] =
          [];
        for (const each of steps) {
          const last = wanted.at(-1);
          if ('inline' in each) {
            if (each.inline.length === 0) continue;
            if (last?.inline) last.inline = Buffer.concat([last.inline, each.inline]);
            else wanted.push({ inline: each.inline });
          } else if ('zeros' in each) {
            if (last?.zeros) last.zeros += each.zeros;
            else wanted.push({ zeros: each.zeros });
          } else if (
            last?.extent?.pack === each.pack &&
            last.extent.offset + last.extent.bytes.length === each.offset
          ) {
            last.extent.bytes = Buffer.concat([last.extent.bytes, each.bytes]);
          } else wanted.push({ extent: { ...each } });
        }
        const expected = wanted.map(({ inline, zeros, extent }) => {
          if (extent === undefined) return inline === undefined ? { zeros } : { inline: inline.toString('hex') };
          const { pack, offset, bytes } = extent;
          return { extent: { pack, offset, length: bytes.length, crc32: crc32(bytes) } };
        });
        expect(plainly(recipe.steps())).toEqual(expected);
        const used = wanted.reduce((sum, { extent }) => sum + (extent?.bytes.length ?? 0), 0);
        expect(recipe.packs.reduce((sum, pack) => sum + pack.used, 0)).toBe(used);
        for (const pack of recipe.packs) expect(pack.used === 0).toBe(pack.path === '');
      }),
      { numRuns: 100 },
    );
  });

  test('cut or altered bytes are an IntegrityMismatch or another recipe, and nothing else', () => {
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 10 }),
        fc.nat(),
        fc.nat({ max: 255 }),
        fc.boolean(),
        (steps, at, value, short) => {
          const bytes = write(steps);
          const bad = short ? bytes.subarray(0, at % bytes.length) : Buffer.from(bytes);
          if (!short) bad[at % bad.length] = value;
          try {
            for (const each of readRecipe(bad, 'it').steps()) expect(each).toBeDefined();
          } catch (error) {
            expect(error).toMatchObject({ code: 'IntegrityMismatch' });
          }
          if (short) expect(() => readRecipe(bad, 'it')).toThrow('is no recipe of a shard');
        },
      ),
      { numRuns: 300 },
    );
  });
});
