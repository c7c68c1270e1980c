/** Shards served by a worker: what a reader gets, what it never gets, and how little of it is in memory. */
import { randomBytes } from 'node:crypto';
import { get as getSecure } from 'node:https';
import { createServer, get, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { connect } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { BucketShard } from '../../src/clients/bucket-shard.ts';
import type { BackupStore } from '../../src/clients/s3.ts';
import { ShardRelay, type ServeOptions, type ShardBytes } from '../../src/clients/shard-relay.ts';
import { BufferPool } from '../../src/clients/transfer-budget.ts';
import { issue, makeAuthority } from '../../src/clients/x509.ts';
import { until } from '../support/fleet.ts';

const relay = new ShardRelay({ host: '127.0.0.1', port: 0 });
const never = new AbortController().signal;
afterAll(() => relay.close());

function serve(source: ShardBytes, options: Partial<ServeOptions> = {}) {
  return relay.serve(source, { signal: never, onBytes: () => undefined, ...options });
}

function fixed(...chunks: readonly string[]): ShardBytes {
  return {
    size: chunks.join('').length,
    // oxlint-disable-next-line typescript/require-await -- what a source is may wait
    async *stream() {
      for (const chunk of chunks) yield Buffer.from(chunk);
    },
  };
}

/** The head, before any byte of the body is read. */
function begin(url: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => get(url, { agent: false }, resolve).once('error', reject));
}

async function body(answer: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  // A source uses its memory again.
  for await (const chunk of answer) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}

describe('ShardRelay', () => {
  test('one GET brings the whole shard with its length; the bytes are counted', async () => {
    const moved: number[] = [];
    const served = await serve(fixed('one', 'two'), { onBytes: (bytes) => moved.push(bytes) });
    const answer = await begin(served.url);
    expect(answer.statusCode).toBe(200);
    expect(answer.headers['content-length']).toBe('6');
    expect(String(await body(answer))).toBe('onetwo');
    expect({ moved, sent: served.sent, failure: served.failure }).toEqual({
      moved: [3, 3],
      sent: 6,
      failure: undefined,
    });
    served.close();
  });

  test('with a certificate it speaks TLS only, and a renewed one is taken up with the next shard', async () => {
    const authority = makeAuthority('relay', 2);
    const pairs = [1, 2].map(() => issue(authority, { names: ['127.0.0.1'], days: 1 }));
    let [pair] = pairs;
    const sealed = new ShardRelay({
      ...{ host: '127.0.0.1', port: 0 },
      pair: () => (pair === undefined ? Promise.reject(new Error('no pair')) : Promise.resolve(pair)),
    });
    const read = (url: string, ca: string) =>
      new Promise<string>((resolve, reject) => {
        getSecure(url, { agent: false, ca }, (answer) => {
          body(answer).then((bytes) => resolve(String(bytes)), reject);
        }).once('error', reject);
      });
    const options = { signal: never, onBytes: () => undefined };
    try {
      const one = await sealed.serve(fixed('one'), options);
      expect(await read(one.url, authority.cert)).toBe('one');
      await expect(read(one.url, makeAuthority('other', 2).cert)).rejects.toThrow(/certificate/);
      await expect(fetch(one.url.replace('https:', 'http:'))).rejects.toThrow();
      [, pair] = pairs;
      const two = await sealed.serve(fixed('two'), options);
      const shown = await new Promise<string | undefined>((resolve, reject) => {
        const socket = connect({ host: '127.0.0.1', port: Number(new URL(two.url).port), ca: authority.cert }, () => {
          resolve(socket.getPeerX509Certificate()?.toString());
          socket.destroy();
        });
        socket.on('error', reject);
      });
      expect(shown?.trim()).toBe(pairs[1]?.cert.trim());
      expect(await read(two.url, authority.cert)).toBe('two');
    } finally {
      await sealed.close();
    }
  });

  test('paths cannot be guessed, other methods are refused, and a path ends with its recovery', async () => {
    const [one, two] = [await serve(fixed('a')), await serve(fixed('b'))];
    expect(new URL(one.url).pathname).toMatch(/^\/[0-9a-f]{64}$/);
    expect(one.url).not.toBe(two.url);
    expect((await fetch(new URL('/', one.url))).status).toBe(404);
    expect((await fetch(`${one.url}/more`)).status).toBe(404);
    expect((await fetch(one.url, { method: 'PUT', body: 'x' })).status).toBe(405);
    one.close();
    expect((await fetch(one.url)).status).toBe(404);
    expect(await (await fetch(two.url)).text()).toBe('b');
    two.close();
  });

  test('more readers than there are replicas get 503, one after the other get all', async () => {
    const go = Promise.withResolvers<void>();
    const slow: ShardBytes = {
      size: 2,
      async *stream() {
        yield Buffer.from('a');
        await go.promise;
        yield Buffer.from('b');
      },
    };
    const served = await serve(slow);
    const first = await begin(served.url);
    expect((await fetch(served.url)).status).toBe(503);
    go.resolve();
    expect(String(await body(first))).toBe('ab');
    await until('the first reader is gone', async () => (await fetch(served.url)).status === 200);
    served.close();
  });

  test.for([
    ['fewer bytes than it said', { ...fixed('abc'), size: 5 }],
    ['more bytes than it said', { ...fixed('abc', 'def'), size: 4 }],
    [
      'a failure half-way',
      {
        size: 6,
        // oxlint-disable-next-line typescript/require-await -- what a source is may wait
        async *stream() {
          yield Buffer.from('abc');
          throw new Error('the store is gone');
        },
      },
    ],
  ] as const)('a source with %s ends in a body that is cut, never in one that looks whole', async ([, source]) => {
    const served = await serve(source);
    await expect(
      (async () => {
        await body(await begin(served.url));
      })(),
    ).rejects.toThrow(/aborted|ECONNRESET|hang up/);
    expect(served.failure).toBeInstanceOf(Error);
    served.close();
  });

  test('closing a path cuts who reads it, and ends the source', async () => {
    const ended = Promise.withResolvers<void>();
    const endless: ShardBytes = {
      size: 1e12,
      async *stream(signal) {
        try {
          for (;;) {
            signal.throwIfAborted();
            yield Buffer.alloc(64 * 1024);
            await new Promise(setImmediate);
          }
        } finally {
          ended.resolve();
        }
      },
    };
    const served = await serve(endless);
    const answer = await begin(served.url);
    served.close();
    await expect(body(answer)).rejects.toThrow(/aborted|ECONNRESET/);
    await ended.promise;
    expect(served.failure).toBeUndefined();
  });

  test('a reader that takes nothing holds the source', async () => {
    let yielded = 0;
    const source: ShardBytes = {
      size: 64 * 1024 * 1024,
      // oxlint-disable-next-line typescript/require-await -- what a source is may wait
      async *stream() {
        for (; yielded < 64; yielded += 1) yield Buffer.alloc(1024 * 1024);
      },
    };
    const served = await serve(source);
    const answer = await begin(served.url);
    // The kernel's buffers take what they take; then nothing moves.
    let before = -1;
    await until('nothing moves', async () => {
      const still = before === served.sent;
      before = served.sent;
      await new Promise((wake) => setTimeout(wake, 100));
      return still && before === served.sent;
    });
    expect(yielded).toBeLessThan(32);
    expect((await body(answer)).length).toBe(source.size);
    served.close();
  });

  test('a port that is taken is named with its variables', async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
    const { port } = taken.address() as AddressInfo;
    const other = new ShardRelay({ host: '127.0.0.1', port });
    const attempt = other.serve(fixed('a'), { signal: never, onBytes: () => undefined });
    await expect(attempt).rejects.toMatchObject({ message: expect.stringContaining('FLEET_RELAY_PORT') });
    // It is tried again, not remembered.
    await new Promise((resolve) => taken.close(resolve));
    const served = await other.serve(fixed('a'), { signal: never, onBytes: () => undefined });
    expect(await (await fetch(served.url)).text()).toBe('a');
    await other.close();
  });
});

describe('BucketShard', () => {
  const object = randomBytes(1_000_003);
  const ranges: string[] = [];
  let open = 0;
  let most = 0;
  type How = 'right' | 'cut' | number;
  let answer: (start: number) => How | Promise<How> = () => 'right';
  let server: Server;
  /** Stands in for the store at its HTTP border, to count and to break what it is asked. */
  let store: BackupStore;

  beforeAll(async () => {
    const serveRange = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
      const [start = 0, end = 0] = (/bytes=(\d+)-(\d+)/.exec(request.headers.range ?? '') ?? []).slice(1).map(Number);
      ranges.push(`${start}-${end}`);
      open += 1;
      most = Math.max(most, open);
      response.once('close', () => (open -= 1));
      const how = await answer(start);
      if (typeof how === 'number') return void response.writeHead(how, { 'content-length': 0 }).end();
      const range = `bytes ${start}-${end}/${object.length}`;
      response.writeHead(206, { 'content-range': range, 'content-length': end - start + 1 });
      if (how === 'right') return void response.end(object.subarray(start, end + 1));
      response.write(object.subarray(start, start + 10), () => response.destroy());
    };
    server = createServer((request, response) => void serveRange(request, response));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const presignOwnRead = () => Promise.resolve(`http://127.0.0.1:${port}/bucket/key?X-Amz-Signature=secret`);
    store = { presignOwnRead } as unknown as BackupStore;
  });
  afterEach(() => {
    ranges.length = 0;
    most = 0;
    answer = () => 'right';
  });
  afterAll(() => server.close());

  const RANGE = 64 * 1024;
  const shard = (buffers: BufferPool, lanes = 4) =>
    new BucketShard({ store, key: 'data/shard-0.snapshot', size: object.length, rangeSize: RANGE, lanes, buffers });

  test('all bytes in order, by several reads at a time, in a few buffers that all come back', async () => {
    const buffers = new BufferPool();
    // Nothing is answered before four are open.
    answer = () => until('four reads are open', () => Promise.resolve(most === 4 && ('right' as const)));
    expect((await body(shard(buffers).stream(never) as AsyncIterable<Buffer>)).equals(object)).toBe(true);
    expect(ranges).toHaveLength(Math.ceil(object.length / RANGE));
    expect(most).toBe(4);
    expect(buffers.bytes).toBeLessThanOrEqual(4 * RANGE);
    // Those that are free are used again: no more come to be.
    await body(shard(buffers).stream(never) as AsyncIterable<Buffer>);
    expect(buffers.bytes).toBeLessThanOrEqual(4 * RANGE);
  });

  test('streams that share a budget smaller than one window all come to their end', async () => {
    const buffers = new BufferPool(3 * RANGE);
    const all = await Promise.all([1, 2, 3, 4].map(() => body(shard(buffers).stream(never) as AsyncIterable<Buffer>)));
    for (const bytes of all) expect(bytes.equals(object)).toBe(true);
    expect(buffers.bytes).toBeLessThanOrEqual(3 * RANGE);
  });

  test('a range that breaks off is read again; the others are not', async () => {
    let broken = 0;
    answer = (start) => (start === 2 * RANGE && (broken += 1) <= 2 ? 'cut' : 'right');
    expect((await body(shard(new BufferPool()).stream(never) as AsyncIterable<Buffer>)).equals(object)).toBe(true);
    expect(ranges).toHaveLength(Math.ceil(object.length / RANGE) + 2);
  });

  test.for([
    [503, 'StoreUnavailable'],
    [403, 'StoreDenied'],
    [404, 'IntegrityMismatch'],
  ] as const)('an answer of %i is %s, tells no signature, and every buffer comes back', async ([status, code]) => {
    answer = (start) => (start >= 5 * RANGE ? status : 'right');
    const buffers = new BufferPool(4 * RANGE);
    const failure = await body(shard(buffers).stream(never) as AsyncIterable<Buffer>).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code, message: expect.stringContaining('shard-0.snapshot') });
    expect(String(failure)).not.toContain('secret');
    // All four can be had at once.
    const taken = await Promise.all([1, 2, 3, 4].map(() => buffers.take(RANGE, AbortSignal.timeout(2000))));
    expect(taken).toHaveLength(4);
  });

  test('a reader that leaves gives every buffer back', async () => {
    const buffers = new BufferPool(4 * RANGE);
    for await (const chunk of shard(buffers).stream(never)) {
      expect(chunk.length).toBe(RANGE);
      break;
    }
    const taken = await Promise.all([1, 2, 3, 4].map(() => buffers.take(RANGE, AbortSignal.timeout(2000))));
    expect(taken).toHaveLength(4);
  });
});
