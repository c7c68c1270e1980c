/** The byte stream into a real store, from an HTTP server that stands in for a node. */
import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { TransferResult } from '../../activities/snapshot-transfer.ts';
import type { Kubernetes } from '../../src/clients/kubernetes.ts';
import { BufferPool, partSizeFor, relay, type RelayOptions } from '../../src/clients/relay.ts';
import { SnapshotSource } from '../../src/clients/snapshot-source.ts';
import { environment, Parts } from './support.ts';

const MiB = 1024 * 1024;
const PART = 5 * MiB;
/** Peers are reached on port 6333 of their pod's address; this one belongs to nobody else. */
const HOST = `127.251.${process.pid % 250}.${1 + (Math.floor(process.pid / 250) % 250)}`;

/** A node with one file, as Qdrant serves it. */
class Node {
  body = Buffer.alloc(0);
  etag = '"1"';
  /** Called before each range is answered. */
  onRange: (start: number) => void | Promise<void> = () => undefined;
  readonly ranges: number[] = [];
  readonly #server: Server = createServer((request, response) => void this.#answer(request, response));

  async listen(): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(6333, HOST, resolve));
    return (this.#server.address() as AddressInfo).port;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.url === '/cluster') {
      const result = { status: 'enabled', peer_id: 1, peers: { 1: { uri: 'http://qdrant-0' } } };
      return void response.end(JSON.stringify({ result }));
    }
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
    const [start, end] = [Number(from), Math.min(Number(to), this.body.length - 1)];
    if (to !== '0') {
      this.ranges.push(start);
      await this.onRange(start);
    }
    const wanted = request.headers['if-match'];
    if (wanted !== undefined && wanted !== this.etag) return void response.writeHead(412).end();
    const chunk = this.body.subarray(start, end + 1);
    response.writeHead(206, {
      etag: this.etag,
      'content-length': chunk.length,
      'content-range': `bytes ${start}-${end}/${this.body.length}`,
    });
    response.end(chunk);
  }

  close(): Promise<void> {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }
}

const node = new Node();
let parts: Parts;
beforeAll(async () => {
  // Only the question where the pods are is answered by hand.
  const pods = { pods: () => Promise.resolve([{ name: 'qdrant-0', ip: HOST, ready: true, reason: '' }]) };
  // No certificates: loopback may be plain.
  const secret = { secretValue: () => Promise.resolve('key'), secret: () => Promise.resolve(undefined) };
  parts = await Parts.open({ kubernetes: { ...pods, ...secret } as unknown as Kubernetes });
  await node.listen();
});
afterAll(async () => {
  await node.close();
  await parts.close();
});

let keys = 0;
/** Bytes of the node's file from now on, and a key to copy it to. */
function serve(size: number): string {
  keys += 1;
  // Every part differs from every other one, and from those of the other tests.
  node.body = Buffer.alloc(size, `${parts.tenant} ${keys} `);
  for (let at = 0; at + 4 <= size; at += 65_536) node.body.writeUInt32BE(at / 65_536, at);
  node.etag = `"${keys}"`;
  node.onRange = () => undefined;
  node.ranges.length = 0;
  return `${parts.tenant}/relay/${keys}`;
}

async function copyWith(key: string, change: Partial<RelayOptions> = {}) {
  const signal = change.signal ?? new AbortController().signal;
  const source = await SnapshotSource.open(`http://${HOST}:6333/file`, {}, signal);
  const options = { source, key, signal, store: parts.store, partSize: PART, lanes: 2, buffers: new BufferPool() };
  return relay({ ...options, onProgress: () => undefined, ...change });
}

const hash = () => createHash('sha256').update(node.body).digest('hex');

/** Parts of which the budget holds all lanes' are buffered; others pass through it in frames. */
describe.for([
  ['parts that are held', undefined],
  ['parts that pass through', 4 * MiB],
] as const)('relay of %s', ([, budget]) => {
  const copy = (key: string, change: Partial<RelayOptions> = {}) =>
    copyWith(key, { buffers: new BufferPool(budget), ...change });

  test.for([
    ['one small part', 1000],
    ['exactly one part', PART],
    ['an exact multiple', 2 * PART],
    ['a little more than a multiple', 2 * PART + 1],
  ] as const)('%s', async ([, size]) => {
    const key = serve(size);
    const result = await copy(key);
    expect(result).toMatchObject({ sha256: hash(), sent: size });
    expect(await parts.store.head(key)).toEqual({ size, crc32: result.crc32 });
    expect(await parts.store.openUploads(key)).toEqual([]);
  });

  test('takes up what an earlier attempt sent, and sends only the rest', async () => {
    const key = serve(3 * PART + 7);
    const broken = new AbortController();
    node.onRange = (start) => {
      if (start === 2 * PART) broken.abort(new Error('The worker stops.'));
    };
    await expect(copy(key, { lanes: 1, signal: broken.signal })).rejects.toThrow('The worker stops.');
    // The upload is left for the next attempt.
    expect(await parts.store.openUploads(key)).toHaveLength(1);
    expect(await parts.store.head(key)).toBeUndefined();

    node.onRange = () => undefined;
    expect(await copy(key)).toMatchObject({ sha256: hash(), sent: PART + 7 });
    expect(await parts.store.openUploads(key)).toEqual([]);
  });

  test('sends again what differs from the source', async () => {
    const key = serve(2 * PART);
    const uploadId = await parts.store.createUpload(key);
    const checksum = (body: Buffer) => {
      const bytes = Buffer.alloc(4);
      bytes.writeUInt32BE(crc32(body));
      return bytes.toString('base64');
    };
    const good = node.body.subarray(0, PART);
    const bad = Buffer.alloc(PART, 'something else');
    await parts.store.uploadPart({ key, uploadId }, { partNumber: 1, body: good, crc32: checksum(good) });
    await parts.store.uploadPart({ key, uploadId }, { partNumber: 2, body: bad, crc32: checksum(bad) });
    expect(await copy(key)).toMatchObject({ sha256: hash(), sent: PART });
    expect(await parts.store.head(key)).toMatchObject({ size: 2 * PART });
  });

  test('finished and the answer lost: nothing is sent again', async () => {
    const key = serve(PART + 1);
    const first = await copy(key);
    expect(await copy(key)).toEqual({ ...first, sent: 0 });
  });

  test('a key that holds other bytes is never overwritten', async () => {
    const key = serve(1000);
    const first = await copy(key);
    node.body = Buffer.alloc(1000, 'other');
    await expect(copy(key)).rejects.toMatchObject({ code: 'IntegrityMismatch' });
    expect(await parts.store.head(key)).toEqual({ size: 1000, crc32: first.crc32 });
  });

  test('the file is replaced while it is read: SnapshotVanished, and nothing appears', async () => {
    const key = serve(2 * PART);
    node.onRange = (start) => {
      if (start === PART) node.etag = '"another"';
    };
    await expect(copy(key, { lanes: 1 })).rejects.toMatchObject({ code: 'SnapshotVanished' });
    expect(await parts.store.head(key)).toBeUndefined();
  });

  test('two attempts at once end in one object with the right bytes', async () => {
    const key = serve(2 * PART + 3);
    const outcomes = await Promise.allSettled([copy(key), copy(key)]);
    expect(outcomes.some(({ status }) => status === 'fulfilled')).toBe(true);
    expect(await copy(key)).toMatchObject({ sha256: hash(), sent: 0 });
  });
});

describe('transferShardSnapshot', () => {
  const transfer = (
    key: string,
    snapshot: { size?: number; sha256?: string } = {},
    beats: unknown[] = [],
  ): Promise<TransferResult> => {
    const context = environment('backup');
    context.on('heartbeat', (details: unknown) => beats.push(details));
    return context.run(() =>
      parts.activities.transferShardSnapshot({
        tenant: parts.tenant,
        cluster: 'docs',
        task: { collection: 'documents', shard: 0, peer: '1' },
        snapshot: { name: 'file', size: node.body.length, sha256: hash(), ...snapshot },
        key,
      }),
    );
  };

  test('proves size, SHA-256 and CRC32, and beats as bytes move', async () => {
    const key = serve(PART + 1);
    const beats: unknown[] = [];
    const result = await transfer(key, {}, beats);
    expect(result).toMatchObject({ size: PART + 1, sha256: hash() });
    expect(await parts.store.head(key)).toEqual({ size: PART + 1, crc32: result.crc32 });
    expect(beats.length).toBeGreaterThan(2);
    expect(beats.at(-1)).toMatchObject({ size: PART + 1 });
  });

  test('another SHA-256 than announced: IntegrityMismatch, and the object goes', async () => {
    const key = serve(1000);
    await expect(transfer(key, { sha256: '00' })).rejects.toMatchObject({ code: 'IntegrityMismatch' });
    expect(await parts.store.head(key)).toBeUndefined();
  });

  test('another size than announced: IntegrityMismatch before a byte is sent', async () => {
    const key = serve(1000);
    await expect(transfer(key, { size: 999 })).rejects.toMatchObject({ code: 'IntegrityMismatch' });
    expect(node.ranges).toEqual([]);
  });

  test('a peer that is not there: QdrantUnavailable', async () => {
    serve(10);
    const run = environment('backup').run(() =>
      parts.activities.transferShardSnapshot({
        tenant: parts.tenant,
        cluster: 'docs',
        task: { collection: 'documents', shard: 0, peer: '2' },
        snapshot: { name: 'file', size: 10, sha256: hash() },
        key: 'never',
      }),
    );
    await expect(run).rejects.toMatchObject({ code: 'QdrantUnavailable' });
  });
});

describe('partSizeFor', () => {
  const size = fc.nat({ max: 40 * 1024 * 1024 }).map((mebibytes) => mebibytes * MiB + 1);
  const configured = fc.integer({ min: 5, max: 5 * 1024 }).map((mebibytes) => mebibytes * MiB);

  test('never more than 10,000 parts, never smaller than configured, as small as that allows', () => {
    fc.assert(
      fc.property(size, configured, (bytes, least) => {
        const part = partSizeFor(bytes, least);
        expect(Math.ceil(bytes / part)).toBeLessThanOrEqual(10_000);
        expect(part).toBeGreaterThanOrEqual(least);
        if (part > least) expect(Math.ceil(bytes / (part - MiB))).toBeGreaterThan(9900);
      }),
    );
  });

  test('a store that takes 1,000 parts', () => {
    fc.assert(
      fc.property(size, configured, (bytes, least) => {
        expect(Math.ceil(bytes / partSizeFor(bytes, least, 1000))).toBeLessThanOrEqual(1000);
      }),
    );
    expect(partSizeFor(100 * 1024 * MiB, 8 * MiB, 1000)).toBe(104 * MiB);
  });
});
