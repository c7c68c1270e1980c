/** Stores that are not quite S3: what they refuse, ignore or answer otherwise, and what a backup makes of it. */
import { createHash, randomBytes } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { writeIntent } from '../../activities/backup-intent.ts';
import { claim, readRecord } from '../../activities/backup-records.ts';
import { requireConditionalWrites } from '../../src/clients/conditional-writes.ts';
import { BufferPool, relay } from '../../src/clients/relay.ts';
import type { BackupStore } from '../../src/clients/s3.ts';
import { SnapshotSource } from '../../src/clients/snapshot-source.ts';
import type { CommitRecord } from '../../src/domain/backup.ts';
import { backupKeys, type BackupLocation } from '../../src/domain/naming.ts';
import { FaultProxy, s3Error } from '../support/fault-proxy.ts';
import { Fleet, openStore } from '../support/fleet.ts';

const MiB = 1024 * 1024;
const body = randomBytes(5 * MiB + 12_345);
const sha256 = createHash('sha256').update(body).digest('hex');
const CONFLICT = s3Error(409, 'ConditionalRequestConflict');
const COMPLETE = { method: 'POST', path: /uploadId=/ } as const;
const CHECKSUMS = /^x-amz-(?:checksum|sdk-checksum|trailer)/;

let fleet: Fleet;
let proxy: FaultProxy;
let store: BackupStore;
let node: Server;
let count = 0;

beforeAll(async () => {
  fleet = await Fleet.open();
  proxy = await FaultProxy.listen(fleet.env['FLEET_S3_ENDPOINT'] ?? '');
  node = createServer((request, response) => {
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
    const chunk = body.subarray(Number(from), Number(to) + 1);
    const range = `bytes ${from}-${to}/${body.length}`;
    response.writeHead(206, { etag: '"1"', 'content-length': chunk.length, 'content-range': range }).end(chunk);
  });
  await new Promise<void>((resolve) => node.listen(0, '127.0.0.1', resolve));
});
beforeEach(() => {
  // A client of its own: what one test teaches it of the store is not for the next.
  store = openStore({ ...fleet.env, FLEET_S3_ENDPOINT: proxy.url });
  proxy.log.length = 0;
  count += 1;
});
afterEach(() => {
  proxy.lift();
  store.close();
});
afterAll(async () => {
  await proxy.close();
  await new Promise((resolve) => node.close(resolve));
  await fleet.close();
});

const key = () => `${fleet.tenant}/stores/${count}`;
const location = (): BackupLocation => ({
  ...{ tenant: fleet.tenant, cluster: 'docs', prefix: '' },
  backup: `20261101T030000Z-${count.toString(16).padStart(8, '0')}`,
});

async function copy() {
  const { signal } = new AbortController();
  const { port } = node.address() as AddressInfo;
  const source = await SnapshotSource.open(`http://127.0.0.1:${port}/file`, {}, signal);
  const buffers = new BufferPool(20 * MiB);
  const options = { source, store, key: key(), partSize: 5 * MiB, lanes: 2, buffers, signal };
  return relay({ ...options, onProgress: () => undefined });
}

async function expectStored(): Promise<void> {
  const chunks: Buffer[] = [];
  for await (const chunk of (await fleet.store.read(key(), new AbortController().signal)) ?? []) chunks.push(chunk);
  expect(createHash('sha256').update(Buffer.concat(chunks)).digest('hex')).toBe(sha256);
  expect(await fleet.store.openUploads(key())).toEqual([]);
}

describe('409 ConditionalRequestConflict means "try again"', () => {
  test('at Complete: the same upload is completed', async () => {
    proxy.inject({ ...COMPLETE, fault: CONFLICT });
    expect(await copy()).toMatchObject({ sha256, sent: body.length });
    expect(proxy.log).toHaveLength(1);
    await expectStored();
  });

  test('at every Complete of an upload: worth another attempt, which begins a new upload', async () => {
    proxy.inject({ ...COMPLETE, times: 8, fault: CONFLICT });
    await expect(copy()).rejects.toMatchObject({ code: 'StoreUnavailable', message: expect.stringContaining('409') });
    expect(await fleet.store.openUploads(key())).toEqual([]);
    expect(await copy()).toMatchObject({ sha256, sent: body.length });
    await expectStored();
  });

  test('at a conditional write: it is written, once', async () => {
    proxy.inject({ method: 'PUT', times: 3, fault: CONFLICT });
    expect(await store.putIf(key(), '{"by":"us"}', { absent: true })).toBe('written');
    expect(await store.putIf(key(), '{"by":"them"}', { absent: true })).toBe('refused');
    expect((await fleet.store.getJson(key()))?.body).toEqual({ by: 'us' });
    expect(proxy.log).toHaveLength(3);
  });

  test('at the intent: it is there afterwards', async () => {
    const at = location();
    proxy.inject({ method: 'PUT', path: /intent\.json/, fault: CONFLICT });
    await writeIntent(store, at, intentOf(at, 'run'));
    expect((await fleet.store.getJson(backupKeys(at).intent))?.body).toMatchObject({ runId: 'run' });
    expect(proxy.log).toHaveLength(1);
  });

  test('at a store that never decides: said as such, and worth another try', async () => {
    proxy.inject({ method: 'PUT', times: 99, fault: CONFLICT });
    await expect(store.putIf(key(), '{}', { absent: true })).rejects.toMatchObject({
      code: 'StoreUnavailable',
      message: expect.stringContaining('another write of the same key is under way'),
    });
  });
});

describe('the intent of a backup', () => {
  test('may be written again by the run that wrote it, its answer lost', async () => {
    const at = location();
    proxy.inject({ method: 'PUT', path: /intent\.json/, fault: { kind: 'drop-reply', by: 'rst' } });
    await writeIntent(store, at, intentOf(at, 'run'));
    await writeIntent(store, at, intentOf(at, 'run'));
    expect((await fleet.store.getJson(backupKeys(at).intent))?.body).toMatchObject({ runId: 'run' });
  });

  test('is taken over by a later run of the workflow, until the record stands', async () => {
    const at = location();
    await writeIntent(store, at, intentOf(at, 'first'));
    await writeIntent(store, at, intentOf(at, 'second'));
    expect((await fleet.store.getJson(backupKeys(at).intent))?.body).toMatchObject({ runId: 'second' });
    await claim(store, at, recordOf(at, 'second'));
    await expect(writeIntent(store, at, intentOf(at, 'third'))).rejects.toMatchObject({ code: 'CommitConflict' });
    expect((await readRecord(store, at))?.record.attempt).toBe('second');
  });

  test('of another workflow is left alone', async () => {
    const at = location();
    await writeIntent(store, at, intentOf(at, 'run'));
    const other = { ...intentOf(at, 'run'), workflowId: 'other' };
    await expect(writeIntent(store, at, other)).rejects.toMatchObject({ code: 'CommitConflict' });
  });
});

describe('a store that deletes one object at a time', () => {
  const written = async () => {
    const keys = Array.from({ length: 20 }, (_, index) => `${key()}/${index}`);
    for (const each of keys) await store.putJson(each, '{}');
    return keys;
  };
  const left = async () => {
    let found = 0;
    for await (const _ of fleet.store.list(`${key()}/`)) found += 1;
    return found;
  };

  test.for([
    [501, 'NotImplemented'],
    [400, 'MissingContentMD5'],
    [405, 'MethodNotAllowed'],
  ] as const)('%i %s: adapted to, and asked for many at once no more', async ([status, code]) => {
    const keys = await written();
    proxy.inject({ method: 'POST', path: /\?delete/, times: 99, fault: s3Error(status, code) });
    await store.deleteKeys([...keys, `${key()}/never-was`]);
    expect(await left()).toBe(0);
    const asked = proxy.log.length;
    expect(asked).toBeGreaterThan(0);
    await store.deleteKeys([`${key()}/never-was`]);
    expect(proxy.log).toHaveLength(asked);
  });

  test('503 SlowDown is no such store: it is worth another try', async () => {
    const keys = await written();
    proxy.inject({ method: 'POST', path: /\?delete/, times: 3, fault: s3Error(503, 'SlowDown') });
    await expect(store.deleteKeys(keys)).rejects.toMatchObject({ code: 'StoreUnavailable' });
    await store.deleteKeys(keys);
    expect(await left()).toBe(0);
  });
});

describe('a store with checksums of its own kind', () => {
  const composite = `<CompleteMultipartUploadResult><ETag>"e-3"</ETag><ChecksumCRC32>q1w2aa==-3</ChecksumCRC32><ChecksumType>COMPOSITE</ChecksumType></CompleteMultipartUploadResult>`;

  test('a checksum of checksums after Complete, and none at HEAD: parts and SHA-256 decide', async () => {
    const hidden = { kind: 'hide', headers: /^x-amz-checksum/ } as const;
    const answer = { kind: 'answer', status: 200, body: composite, contentType: 'application/xml' } as const;
    proxy.inject({ ...COMPLETE, fault: { ...answer, done: true } });
    proxy.inject({ method: 'HEAD', times: 99, fault: hidden }, { method: 'GET', times: 99, fault: hidden });
    expect(await copy()).toMatchObject({ sha256, sent: body.length });
    // Found by the next attempt, which has no checksum of the whole to compare.
    expect(await copy()).toMatchObject({ sha256, sent: 0 });
    await expectStored();
  });

  test('an object of one size with other bytes is found out without any checksum', async () => {
    await fleet.store.putBytes(key(), randomBytes(body.length));
    proxy.inject({ method: 'HEAD', times: 99, fault: { kind: 'hide', headers: /^x-amz-checksum/ } });
    await expect(copy()).rejects.toMatchObject({ code: 'IntegrityMismatch' });
  });

  test('400 for whatever carries a checksum: sent without, guarded by Content-MD5 and SHA-256', async () => {
    proxy.inject({ header: CHECKSUMS, times: 99, fault: s3Error(400, 'InvalidArgument') });
    expect(await copy()).toMatchObject({ sha256 });
    await expectStored();
    expect(await store.putIf(`${key()}.json`, '{"a":1}', { absent: true })).toBe('written');
    expect(await store.putIf(`${key()}.json`, '{"a":2}', { absent: true })).toBe('refused');
    expect((await store.getJson(`${key()}.json`))?.body).toEqual({ a: 1 });
    const asked = proxy.log.length;
    await store.putBytes(key(), body);
    await store.deleteKeys([key(), `${key()}.json`]);
    // Only the deletion of many objects has to carry one.
    expect(proxy.log.slice(asked).every(({ method }) => method === 'POST')).toBe(true);
    expect(await fleet.store.head(key())).toBeUndefined();
  });
});

describe('a store that ignores conditions is refused', () => {
  test('If-None-Match', async () => {
    const forget = async () => fleet.store.deleteKeys([`${fleet.tenant}/.conditional-writes`]);
    proxy.inject({ method: 'PUT', times: 99, fault: { kind: 'event', name: 'forgotten', happens: forget } });
    await expect(requireConditionalWrites(store, fleet.tenant)).rejects.toMatchObject({
      code: 'StoreDenied',
      message: expect.stringContaining('ignores If-None-Match'),
    });
  });

  test('If-Match', async () => {
    const answer = { kind: 'answer', status: 200, body: '', contentType: 'text/plain' } as const;
    proxy.inject({ method: 'PUT', header: /^if-match$/, fault: answer });
    await expect(requireConditionalWrites(store, fleet.tenant)).rejects.toMatchObject({
      code: 'StoreDenied',
      message: expect.stringContaining('ignores If-Match'),
    });
  });

  test('a store that keeps them is asked once', async () => {
    await requireConditionalWrites(store, fleet.tenant);
    proxy.inject({ times: 99, fault: s3Error(500, 'InternalError') });
    await requireConditionalWrites(store, fleet.tenant);
    expect(proxy.log).toEqual([]);
  });
});

function intentOf({ backup }: BackupLocation, runId: string) {
  return { formatVersion: 1, backup, startedAt: new Date().toISOString(), workflowId: 'workflow', runId };
}

function recordOf({ backup }: BackupLocation, attempt: string): CommitRecord {
  const changedAt = new Date().toISOString();
  return { formatVersion: 1, backup, state: 'ABORTED', attempt, revision: 1, changedAt };
}
