/** Checksums put together, bytes a second in virtual time, memory over all streams. */
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { base64Crc32, combineCrc32 } from '../../src/clients/crc32.ts';
import { BufferPool, RateLimiter } from '../../src/clients/transfer-budget.ts';

describe('combineCrc32', () => {
  test('equals the CRC32 of the whole, however it is cut', () => {
    const pieces = fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 12 });
    fc.assert(
      fc.property(pieces, (parts) => {
        const combined = parts.reduce((crc, part) => combineCrc32(crc, crc32(part), part.length), 0);
        expect(combined).toBe(crc32(Buffer.concat(parts)));
      }),
    );
  });

  test('is associative over lengths beyond 32 bits', () => {
    const crc = fc.integer({ min: 0, max: 0xffffffff });
    const length = fc.integer({ min: 0, max: 2 ** 44 });
    fc.assert(
      fc.property(crc, crc, crc, length, length, (a, b, c, m, n) => {
        const left = combineCrc32(combineCrc32(a, b, m), c, n);
        expect(left).toBe(combineCrc32(a, combineCrc32(b, c, n), m + n));
      }),
    );
  });

  test('large parts', () => {
    const part = Buffer.alloc(8 * 1024 * 1024, 'part');
    const whole = crc32(part, crc32(part));
    expect(combineCrc32(crc32(part), crc32(part), part.length)).toBe(whole);
    expect(base64Crc32(crc32('hello'))).toBe('NhCmhg==');
  });
});

describe('RateLimiter', () => {
  test('readers together stay within 10 % of the rate over any 5 seconds', () => {
    const rate = fc.integer({ min: 1_048_576, max: 500_000_000 });
    fc.assert(
      fc.property(rate, fc.integer({ min: 1, max: 64 }), (bytesPerSecond, readers) => {
        let now = 0;
        const limiter = new RateLimiter(bytesPerSecond, () => now);
        const wakes = Array.from({ length: readers }, () => 0);
        const read: { at: number; bytes: number }[] = [];
        while (now < 12_000) {
          const reader = wakes.indexOf(Math.min(...wakes));
          now = Math.max(now, wakes[reader] ?? 0);
          read.push({ at: now, bytes: limiter.slice });
          wakes[reader] = now + limiter.spend(limiter.slice);
        }
        // The start may have a slice of each reader at once.
        for (const begin of [3000, 4321, 6500]) {
          const inside = read.filter(({ at }) => at >= begin && at < begin + 5000);
          const total = inside.reduce((sum, { bytes }) => sum + bytes, 0);
          expect(Math.abs(total / (bytesPerSecond * 5) - 1)).toBeLessThan(0.1);
        }
      }),
      { numRuns: 20 },
    );
  });

  test('an idle time is not saved up', () => {
    let now = 0;
    const limiter = new RateLimiter(1_000_000, () => now);
    now = 3_600_000;
    expect(limiter.spend(100_000)).toBe(0);
    expect(limiter.spend(100_000)).toBe(100);
  });
});

describe('BufferPool', () => {
  test('never holds more than the budget, serves everybody, in the order they came', async () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 100 }), { minLength: 1, maxLength: 40 });
    await fc.assert(
      fc.asyncProperty(sizes, async (wanted) => {
        const pool = new BufferPool(100);
        const served: number[] = [];
        await Promise.all(
          wanted.map(async (size, index) => {
            const buffer = await pool.take(size);
            served.push(index);
            expect(buffer.length).toBeGreaterThanOrEqual(size);
            expect(pool.bytes).toBeLessThanOrEqual(100);
            await Promise.resolve();
            pool.give(buffer);
          }),
        );
        expect(served).toEqual(wanted.map((_, index) => index));
      }),
    );
  });

  test('a buffer larger than the budget is alone', async () => {
    const pool = new BufferPool(100);
    const small = await pool.take(50);
    let large: Buffer | undefined;
    const waiting = pool.take(500).then((buffer) => (large = buffer));
    await Promise.resolve();
    expect(large).toBeUndefined();
    pool.give(small);
    pool.give(await waiting);
    expect(pool.bytes).toBe(500);
  });

  test('who gives up waiting lets the next one through', async () => {
    const pool = new BufferPool(100);
    const held = await pool.take(60);
    const stop = new AbortController();
    const large = pool.take(90, stop.signal);
    const small = pool.take(40);
    stop.abort(new Error('enough'));
    await expect(large).rejects.toThrow('enough');
    expect((await small).length).toBe(40);
    expect(pool.bytes).toBe(100);
    pool.give(held);
  });

  test('buffers are used again', async () => {
    const pool = new BufferPool(100);
    const first = await pool.take(60);
    pool.give(first);
    expect(await pool.take(50)).toBe(first);
  });
});
