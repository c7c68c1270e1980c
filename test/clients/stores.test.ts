/** Stores of several buckets: which address and region each is asked at, and that every write carries a checksum. */
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { BackupStores } from '../../src/clients/stores.ts';

const OWN = { bucket: { name: 'own', region: 'eu-west-1' } };
const CREDENTIALS = { AWS_ACCESS_KEY_ID: 'key', AWS_SECRET_ACCESS_KEY: 'not-a-secret' };
const before = { ...process.env };
beforeAll(() => void Object.assign(process.env, CREDENTIALS));
afterAll(() => {
  for (const name of Object.keys(CREDENTIALS)) delete process.env[name];
  Object.assign(process.env, before);
});

/** Address and region of a URL that a node would pull from. */
async function signedFor(stores: BackupStores, where: typeof OWN | object): Promise<[string, string | undefined]> {
  const url = new URL(await stores.of(where).presignRead('a/key', 60));
  return [`${url.origin}${url.pathname}`, url.searchParams.get('X-Amz-Credential')?.split('/')[2]];
}

describe('the address and region of a bucket', () => {
  test('on AWS are its own', async () => {
    const stores = new BackupStores({ bucket: 'fleet', region: 'us-east-1', forcePathStyle: false });
    expect(await signedFor(stores, {})).toEqual(['https://fleet.s3.us-east-1.amazonaws.com/a/key', 'us-east-1']);
    expect(await signedFor(stores, OWN)).toEqual(['https://own.s3.eu-west-1.amazonaws.com/a/key', 'eu-west-1']);
    expect(stores.of(OWN)).toBe(stores.of({ bucket: { ...OWN.bucket } }));
    stores.close();
  });

  test('are kept for the 256 that were asked for last', () => {
    const stores = new BackupStores({ bucket: 'fleet', region: 'us-east-1', forcePathStyle: false });
    const store = (name: string) => stores.of({ bucket: { name, region: 'eu-west-1' } });
    const [first, second] = [store('first'), store('second')];
    for (let index = 0; index < 254; index += 1) store(`other-${index}`);
    expect(store('first')).toBe(first);
    store('one-more');
    expect(store('first')).toBe(first);
    expect(store('second')).not.toBe(second);
    stores.close();
  });

  test('of another store are the store’s, as the nodes know it', async () => {
    const address = { endpoint: 'http://store:7070', nodeEndpoint: 'http://inside:7070' };
    const stores = new BackupStores({ bucket: 'fleet', region: 'us-east-1', forcePathStyle: true, ...address });
    expect(await signedFor(stores, OWN)).toEqual(['http://inside:7070/own/a/key', 'us-east-1']);
    stores.close();
  });
});

/** A lock takes no write without one: S3 answers InvalidRequest to an upload with neither Content-MD5 nor a checksum. */
describe('every write', () => {
  const seen: { method: string | undefined; url: string; headers: IncomingHttpHeaders }[] = [];
  let server: Server;
  let stores: BackupStores;
  beforeAll(async () => {
    server = createServer((request, response) => {
      request.resume().on('end', () => {
        seen.push({ method: request.method, url: request.url ?? '', headers: request.headers });
        const body = request.url?.includes('uploads') === true ? '<R><UploadId>u</UploadId></R>' : '<R/>';
        response.writeHead(200, { etag: '"e"', 'x-amz-checksum-crc32': 'pn07Cg==', 'content-type': 'application/xml' });
        response.end(request.method === 'PUT' ? '' : body);
      });
    });
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
    const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    stores = new BackupStores({ bucket: 'fleet', region: 'us-east-1', forcePathStyle: true, endpoint });
  });
  afterAll(() => {
    stores.close();
    server.closeAllConnections();
    server.close();
  });
  beforeEach(() => void (seen.length = 0));

  test('carries a checksum', async () => {
    const store = stores.of(OWN);
    const upload = { key: 'c', uploadId: await store.createUpload('c') };
    const part = { partNumber: 1, crc32: 'pn07Cg==' };
    expect(await store.putIf('a', '{}', { absent: true })).toBe('written');
    await store.putBytes('b', Buffer.from('b'));
    await store.uploadPart(upload, { ...part, body: Buffer.from('body') });
    const stream = await store.streamPart(
      upload,
      { partNumber: 2, size: 4, chunkSize: 4 },
      new AbortController().signal,
    );
    await new Promise<void>((sent) => stream?.write(Buffer.from('body'), sent));
    expect(await stream?.end('pn07Cg==')).toMatchObject({ partNumber: 2 });
    await store.deleteKeys(['a']);

    const writes = seen.filter(({ url }) => !url.includes('uploads'));
    expect(writes).toHaveLength(5);
    for (const { method, url, headers } of writes) {
      expect(url).toMatch(/^\/own[/?]/);
      const checksum = headers['x-amz-checksum-crc32'] ?? headers['x-amz-trailer'];
      expect(checksum, `${method} ${url}`).toBeDefined();
    }
  });
});
