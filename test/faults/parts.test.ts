/** Uploads that break at one request: what arrives in the store is right all the same, or the next attempt makes it so. */
import { createHash, randomBytes } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { BufferPool, relay } from '../../src/clients/relay.ts';
import type { BackupStore } from '../../src/clients/s3.ts';
import { SnapshotSource } from '../../src/clients/snapshot-source.ts';
import { FaultProxy, s3Error, type Rule } from '../support/fault-proxy.ts';
import { Fleet, openStore } from '../support/fleet.ts';

const MiB = 1024 * 1024;
const PART = 5 * MiB;
const body = randomBytes(2 * PART + 12_345);
const sha256 = createHash('sha256').update(body).digest('hex');

let fleet: Fleet;
let s3: FaultProxy;
let qdrant: FaultProxy;
let store: BackupStore;
let node: Server;
let keys = 0;

beforeAll(async () => {
  fleet = await Fleet.open();
  s3 = await FaultProxy.listen(fleet.env['FLEET_S3_ENDPOINT'] ?? '');
  // Only a file with ranges is wanted of the node; what matters here is what happens on the way.
  node = createServer((request, response) => {
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
    const chunk = body.subarray(Number(from), Number(to) + 1);
    const range = `bytes ${from}-${to}/${body.length}`;
    response.writeHead(206, { etag: '"1"', 'content-length': chunk.length, 'content-range': range }).end(chunk);
  });
  await new Promise<void>((resolve) => node.listen(0, '127.0.0.1', resolve));
  qdrant = await FaultProxy.listen(`http://127.0.0.1:${(node.address() as AddressInfo).port}`);
});
beforeEach(() => {
  // A client of its own: what one test teaches it of the store is not for the next.
  store = openStore({ ...fleet.env, FLEET_S3_ENDPOINT: s3.url });
  s3.log.length = 0;
  keys += 1;
});
afterEach(() => {
  s3.lift();
  qdrant.lift();
  store.close();
});
afterAll(async () => {
  await s3.close();
  await qdrant.close();
  await new Promise((resolve) => node.close(resolve));
  await fleet.close();
});

const PUT_PART = { method: 'PUT', path: /partNumber=2/ } as const;
const COMPLETE = { method: 'POST', path: /uploadId=/ } as const;

describe.for([
  ['held', undefined],
  ['passing through', 4 * MiB],
] as const)('parts %s', ([name, budget]) => {
  const key = () => `${fleet.tenant}/parts/${keys}`;
  const copy = async () => {
    const { signal } = new AbortController();
    const source = await SnapshotSource.open(`${qdrant.url}/file`, {}, signal);
    const buffers = new BufferPool(budget);
    const options = { source, store, key: key(), partSize: PART, lanes: 2, buffers, signal };
    return relay({ ...options, onProgress: () => undefined });
  };
  const expectStored = async (crc32: string) => {
    const chunks: Buffer[] = [];
    for await (const chunk of (await fleet.store.read(key(), new AbortController().signal)) ?? []) chunks.push(chunk);
    expect(createHash('sha256').update(Buffer.concat(chunks)).digest('hex')).toBe(sha256);
    expect(await fleet.store.head(key())).toEqual({ size: body.length, crc32 });
    expect(await fleet.store.openUploads(key())).toEqual([]);
  };

  test.for<[string, Rule]>([
    ['is cut by a reset', { ...PUT_PART, fault: { kind: 'cut', side: 'request', at: { share: 0.5 }, by: 'rst' } }],
    ['is cut in order', { ...PUT_PART, fault: { kind: 'cut', side: 'request', at: { share: 0.9 }, by: 'fin' } }],
    ['is altered on its way', { ...PUT_PART, fault: { kind: 'flip', side: 'request', at: { share: 0.3 }, bit: 2 } }],
    ['is taken, and the answer lost', { ...PUT_PART, fault: { kind: 'drop-reply', by: 'rst' } }],
    ['is answered 503', { ...PUT_PART, fault: s3Error(503, 'SlowDown') }],
    ['is answered 500', { ...PUT_PART, fault: s3Error(500, 'InternalError') }],
    ['meets expired credentials', { ...PUT_PART, fault: s3Error(400, 'ExpiredToken') }],
  ])('a part that %s is sent again', async ([, rule]) => {
    s3.inject(rule);
    const result = await copy();
    expect(s3.log).toHaveLength(1);
    expect(result).toMatchObject({ sha256, sent: body.length });
    await expectStored(result.crc32);
    expect(store.takesTrailers).toBe(true);
  });

  test('credentials that were exchanged are taken anew, without a restart', async () => {
    const { AWS_SECRET_ACCESS_KEY: right } = process.env;
    // The real store refuses these; the right ones then appear where the provider chain looks.
    process.env['AWS_SECRET_ACCESS_KEY'] = 'exchanged';
    try {
      await expect(store.createUpload(key())).rejects.toMatchObject({ code: 'StoreDenied' });
    } finally {
      process.env['AWS_SECRET_ACCESS_KEY'] = right;
    }
    const result = await copy();
    expect(result).toMatchObject({ sha256, sent: body.length });
    await expectStored(result.crc32);
  });

  test('an error in a Complete that began with 200: the next attempt completes, and sends nothing again', async () => {
    s3.inject({ ...COMPLETE, times: 9, fault: s3Error(200, 'InternalError') });
    await expect(copy()).rejects.toMatchObject({ code: 'StoreUnavailable' });
    expect(s3.log.length).toBeGreaterThan(0);
    s3.lift();
    const result = await copy();
    expect(result).toMatchObject({ sha256, sent: 0 });
    await expectStored(result.crc32);
  });

  test('Complete done and its answer lost: found to be done', async () => {
    s3.inject({ ...COMPLETE, fault: { kind: 'drop-reply', by: 'rst' } });
    // The repetition meets NoSuchUpload or a key that is there: the same attempt sees it, or the next.
    const result = await copy().catch(copy);
    expect(s3.log).toHaveLength(1);
    expect(result.sha256).toBe(sha256);
    await expectStored(result.crc32);
  });

  test('an upload that vanishes under way: the next attempt begins another', async () => {
    s3.inject({ ...PUT_PART, times: 9, fault: s3Error(404, 'NoSuchUpload') });
    await expect(copy()).rejects.toMatchObject({ code: 'StoreUnavailable' });
    s3.lift();
    const result = await copy();
    await expectStored(result.crc32);
  });

  test('a read that breaks off', async () => {
    qdrant.inject({ method: 'GET', skip: 3, fault: { kind: 'cut', side: 'response', at: { share: 0.5 }, by: 'rst' } });
    const first = copy();
    // A frame is read again on the spot, a whole part by the next attempt.
    if (name === 'held') await expect(first).rejects.toMatchObject({ code: 'QdrantUnavailable' });
    const result = name === 'held' ? await copy() : await first;
    expect(qdrant.log).not.toHaveLength(0);
    await expectStored(result.crc32);
  });
});

test('a store that refuses checksums behind the body gets parts that are held', async () => {
  s3.inject({ method: 'PUT', path: /partNumber=1&/, times: 2, fault: s3Error(501, 'NotImplemented') });
  s3.inject({ method: 'PUT', path: /partNumber=1&/, times: 2, fault: s3Error(400, 'InvalidRequest') });
  const { signal } = new AbortController();
  const source = await SnapshotSource.open(`${qdrant.url}/file`, {}, signal);
  const buffers = new BufferPool(4 * MiB);
  const options = { source, store, key: `${fleet.tenant}/parts/${keys}`, partSize: PART, lanes: 2, buffers, signal };
  expect(await relay({ ...options, onProgress: () => undefined })).toMatchObject({ sha256, sent: body.length });
  expect(store.takesTrailers).toBe(false);
  // The next ones are not even tried.
  s3.log.length = 0;
  const next = { ...options, key: `${fleet.tenant}/parts/${keys}-next` };
  expect(await relay({ ...next, onProgress: () => undefined })).toMatchObject({ sha256 });
  expect(s3.log).toEqual([]);
});
