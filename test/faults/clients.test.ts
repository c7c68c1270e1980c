/** Single requests that break: what the clients make of them. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { move, readRecord } from '../../activities/backup-records.ts';
import { QdrantClient } from '../../src/clients/qdrant.ts';
import type { BackupStore } from '../../src/clients/s3.ts';
import { FaultProxy, qdrantError, s3Error, type Fault } from '../support/fault-proxy.ts';
import { Fleet, openStore } from '../support/fleet.ts';
import { recordOf, sealedRecord } from '../support/stored-backup.ts';

describe('S3', () => {
  let fleet: Fleet;
  let proxy: FaultProxy;
  let store: BackupStore;
  beforeAll(async () => {
    fleet = await Fleet.open();
    proxy = await FaultProxy.listen(fleet.env['FLEET_S3_ENDPOINT'] ?? '');
    store = openStore({ ...fleet.env, FLEET_S3_ENDPOINT: proxy.url });
  });
  afterEach(() => proxy.lift());
  afterAll(async () => {
    store.close();
    await proxy.close();
    await fleet.close();
  });

  test('a record that is altered on its way back is not believed', async () => {
    const key = `${fleet.tenant}/altered.json`;
    await fleet.store.putJson(key, '{"state":"COMMITTED"}');
    proxy.inject({ method: 'GET', times: 9, fault: { kind: 'flip', side: 'response', at: 15, bit: 0 } });
    await expect(store.getJson(key)).rejects.toMatchObject({ code: 'StoreUnavailable' });
    proxy.lift();
    expect((await store.getJson(key))?.body).toEqual({ state: 'COMMITTED' });
  });

  test('a record that is altered on its way in is refused, and written whole by the next try', async () => {
    const key = `${fleet.tenant}/refused.json`;
    proxy.inject({ method: 'PUT', fault: { kind: 'flip', side: 'request', at: 3, bit: 0 } });
    await expect(store.putJson(key, '{"a":1}')).rejects.toMatchObject({ code: 'StoreUnavailable' });
    expect(await fleet.store.getJson(key)).toBeUndefined();
    await store.putJson(key, '{"a":1}');
    expect((await fleet.store.getJson(key))?.body).toEqual({ a: 1 });
  });

  test('a change of the record whose answer was lost counts; one by somebody else does not', async () => {
    const location = { tenant: fleet.tenant, cluster: 'docs', prefix: '', backup: '20261101T030000Z-00000000' };
    const key = `${fleet.tenant}/docs/${location.backup}/commit.json`;
    await store.putJson(key, sealedRecord(store, location, recordOf(location, 'COMMITTED', '{}')));
    const found = await readRecord(store, location);
    if (found === undefined) throw new Error('The record is not there.');
    proxy.inject({ method: 'PUT', fault: { kind: 'drop-reply', by: 'rst' } });
    expect(await move(store, location, found, 'DELETING')).toMatchObject({ state: 'DELETING', revision: 2 });
    expect(proxy.log.at(-1)).toMatchObject({ name: 'reply dropped' });
    await expect(move(store, location, found, 'DELETING')).rejects.toMatchObject({ code: 'CommitConflict' });
  });

  test('an upload that is gone is worth another try, not an unexpected error', async () => {
    const key = `${fleet.tenant}/gone`;
    const upload = { key, uploadId: await store.createUpload(key) };
    const body = Buffer.from('0123');
    const part = await store.uploadPart(upload, { partNumber: 1, body, crc32: 'pn07Cg==' }).catch(() => undefined);
    await store.abortUpload(upload);
    const parts = [part ?? { partNumber: 1, etag: '"1"', size: 4, crc32: 'pn07Cg==' }];
    await expect(store.completeUpload(upload, parts, 4)).rejects.toMatchObject({ code: 'StoreUnavailable' });
    await expect(store.uploadPart(upload, { partNumber: 1, body, crc32: 'pn07Cg==' })).rejects.toMatchObject({
      code: 'StoreUnavailable',
    });
  });

  test('expired credentials are told as such', async () => {
    proxy.inject({ times: 2, fault: s3Error(400, 'ExpiredToken') });
    await expect(store.check()).rejects.toMatchObject({ code: 'StoreUnavailable' });
    proxy.inject({ times: 9, fault: s3Error(400, 'ExpiredToken') });
    await expect(store.getJson('any')).rejects.toMatchObject({
      code: 'StoreDenied',
      message: expect.stringContaining('ExpiredToken'),
    });
  });
});

describe('Qdrant', () => {
  const RESULT = { result: { status: 'enabled', peer_id: 7, peers: {} } };
  let node: Server;
  let proxy: FaultProxy;
  let client: QdrantClient;
  beforeAll(async () => {
    node = createServer((_request, response) => {
      const body = JSON.stringify(RESULT);
      response.writeHead(200, { 'content-length': body.length }).end(body);
    });
    await new Promise<void>((resolve) => node.listen(0, '127.0.0.1', resolve));
    proxy = await FaultProxy.listen(`http://127.0.0.1:${(node.address() as AddressInfo).port}`);
    client = new QdrantClient({ url: proxy.url });
  });
  afterAll(async () => {
    await proxy.close();
    node.close();
  });

  const html = { kind: 'answer', status: 200, body: '<html>', contentType: 'text/html' } as const;
  test.for<[string, Fault]>([
    ['an answer that is cut', { kind: 'cut', side: 'response', at: 10, by: 'fin' }],
    ['an answer that is reset', { kind: 'cut', side: 'response', at: 10, by: 'rst' }],
    ['an answer that is shorter than it says', { kind: 'length', by: 5 }],
    ['an answer that is no JSON', html],
    ['no answer', { kind: 'drop-reply', by: 'fin' }],
  ])('%s: QdrantUnavailable, so that it is tried again', async ([, fault]) => {
    const calls = [
      () => client.cluster(),
      () => client.version(),
      () => client.collection('docs'),
      () => client.recoverShard('docs', 0, 'http://s3/x', '00'),
      () => client.createCollection('docs', {}),
      () => client.deleteShardSnapshot('docs', 0, 'x.snapshot'),
    ];
    for (const call of calls) {
      proxy.inject({ fault });
      await expect(call()).rejects.toMatchObject({ code: 'QdrantUnavailable' });
    }
    expect(await client.cluster()).toMatchObject({ peerId: '7' });
  });

  test('a snapshot is gone when Qdrant says so, not when something in between knows no such page', async () => {
    const page: Fault = { kind: 'answer', status: 404, body: '<html>404', contentType: 'text/html' };
    proxy.inject({ fault: page });
    await expect(client.deleteShardSnapshot('docs', 0, 'x.snapshot')).rejects.toMatchObject({
      code: 'QdrantUnavailable',
    });
    proxy.inject({ fault: qdrantError(404) });
    await client.deleteShardSnapshot('docs', 0, 'x.snapshot');
  });
});
