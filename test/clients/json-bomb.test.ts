/** JSON out of a bucket is counted, or proven by its digest, before it is parsed; honest manifests of any size are read. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { readCommitted, sealOf } from '../../activities/backup-records.ts';
import { BackupMac } from '../../src/clients/backup-mac.ts';
import { BackupStore } from '../../src/clients/s3.ts';
import { LARGE_JSON } from '../../src/domain/json-bounds.ts';
import { backupKeys, type BackupLocation } from '../../src/domain/naming.ts';
import { manifestOf, recordOf, sealedRecord, shardOf } from '../support/stored-backup.ts';

const location: BackupLocation = { tenant: 'acme', cluster: 'docs', prefix: '', backup: '20261101T030000Z-00000000' };
const keys = backupKeys(location);
const bomb = `[${'[],'.repeat(8 * 2 ** 20)}0]`;

const objects = new Map<string, string>();
let server: Server;
let store: BackupStore;
beforeAll(async () => {
  vi.stubEnv('AWS_ACCESS_KEY_ID', 'id').stubEnv('AWS_SECRET_ACCESS_KEY', 'secret');
  // A store that only answers GET of an object.
  server = createServer((request, response) => {
    const path = new URL(request.url ?? '/', 'http://store').pathname;
    const text = objects.get(decodeURIComponent(path).replace('/bucket/', ''));
    response.statusCode = text === undefined ? 404 : 200;
    response.end(text);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  store = new BackupStore({
    ...{ bucket: 'bucket', region: 'eu-central-1', forcePathStyle: true },
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    mac: new BackupMac([{ id: 'k', key: Buffer.alloc(32, 1) }]),
  });
});
afterAll(() => {
  vi.unstubAllEnvs();
  store.close();
  server.closeAllConnections();
  server.close();
});

/** Put a signed record and the manifest that it names. */
function put(text: string, stored = text): void {
  objects.set(keys.commit, sealedRecord(store, location, recordOf(location, 'COMMITTED', text)));
  objects.set(keys.manifest, stored);
}

test('24 MiB of empty lists are refused unparsed', async () => {
  objects.set('list.json', bomb);
  objects.set('small.json', bomb.slice(0, 1_000_000));
  const before = process.cpuUsage();
  const parse = vi.spyOn(JSON, 'parse');
  await expect(store.getJson('list.json', LARGE_JSON)).rejects.toMatchObject({
    code: 'IntegrityMismatch',
    message: 'list.json has more than 3000000 values, and was not read.',
  });
  await expect(store.getJson('small.json')).rejects.toMatchObject({
    message: expect.stringContaining('100000 values'),
  });
  await expect(store.getJson('list.json')).rejects.toMatchObject({ message: expect.stringContaining('bytes') });
  expect(parse.mock.calls.filter(([text]) => text.startsWith('[[]'))).toEqual([]);
  parse.mockRestore();
  const { user, system } = process.cpuUsage(before);
  expect((user + system) / 1e6).toBeLessThan(2);
});

test('a manifest that the record does not name is not parsed at all', async () => {
  const text = JSON.stringify(store.mac.seal('manifest', location, manifestOf(location)));
  const forged = `{"a":1${' '.repeat(text.length - 7)}}`;
  put(text, forged);
  const parse = vi.spyOn(JSON, 'parse');
  await expect(readCommitted(store, location)).rejects.toMatchObject({
    code: 'IntegrityMismatch',
    message: `${keys.manifest} is not the manifest that was committed.`,
  });
  expect(parse.mock.calls.filter(([text]) => text === forged)).toEqual([]);
  parse.mockRestore();
});

/** A signed manifest with this many shards. */
function manifestText(count: number): string {
  const sample = { key: `${keys.data}run/documents/shard-0.sample.json`, sha256: 'ab'.repeat(32), points: 64 };
  const one = { ...shardOf(location, 'text'), sample };
  const shards = Array.from({ length: count }, (_, shard) => ({ ...one, shard }));
  const documents = { name: 'documents', config: { params: {} }, payloadSchema: {}, shards };
  return JSON.stringify(store.mac.seal('manifest', location, manifestOf(location, { collections: [documents] })));
}

test('a manifest of 60,000 shards is read', { timeout: 60_000 }, async () => {
  put(manifestText(60_000));
  expect((await readCommitted(store, location)).collections[0]?.shards.length).toBe(60_000);
});

test('a manifest is parsed once for all who ask in turn, and looked at in the bucket each time', async () => {
  const text = manifestText(3);
  put(text);
  const first = await readCommitted(store, location);
  expect(await readCommitted(store, location)).toBe(first);
  expect(await sealOf(store, location)).toBe('valid');
  objects.set(keys.manifest, text.replace('documents', 'documentz'));
  await expect(readCommitted(store, location)).rejects.toMatchObject({ code: 'IntegrityMismatch' });
});
