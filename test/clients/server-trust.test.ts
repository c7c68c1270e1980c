/** Clients of a cluster with TLS: whom they speak to, by both of the ways that bytes go. */
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { QdrantClient } from '../../src/clients/qdrant.ts';
import type { ServerTrust } from '../../src/clients/server-trust.ts';
import { SnapshotSource } from '../../src/clients/snapshot-source.ts';
import { issue, makeAuthority } from '../../src/clients/x509.ts';
import { certificateNames, serverNameOf } from '../../src/domain/tls.ts';

const REF = { tenant: 'acme', cluster: 'docs' };
const authority = makeAuthority('fleet-acme--docs', 2);
const trust: ServerTrust = { ca: authority.cert, servername: serverNameOf(REF, 'qdrant-0'), source: 'Secret a/b' };
const signal = new AbortController().signal;
const FILE = Buffer.from('snapshot');

let server: Server;
let url = '';
const keys: (string | undefined)[] = [];
beforeAll(async () => {
  server = createServer(issue(authority, { names: certificateNames(REF), days: 1 }), (request, response) => {
    keys.push(request.headers['api-key']?.toString());
    const range = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? '');
    if (range === null) {
      response.end('{"version":"1.18.3"}');
      return;
    }
    const [start, end] = [Number(range[1]), Number(range[2])];
    response.writeHead(206, {
      'content-range': `bytes ${start}-${end}/${FILE.length}`,
      ...{ 'content-length': end - start + 1, etag: '"e"' },
    });
    response.end(FILE.subarray(start, end + 1));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

const ask = (by: ServerTrust) => new QdrantClient({ url, apiKey: 'k', trust: by }).version();
const read = async (by: ServerTrust) => {
  const source = await SnapshotSource.open(`${url}/file`, { 'api-key': 'k' }, signal, by);
  const target = Buffer.alloc(source.size);
  await source.readInto(target, 0, signal, () => undefined);
  return target.toString();
};

test('a node that is reached by address is known by its name, and until() keeps the trust', async () => {
  expect(await ask(trust)).toBe('1.18.3');
  expect(await new QdrantClient({ url, trust }).until(signal).version()).toBe('1.18.3');
  expect(await read(trust)).toBe('snapshot');
});

test.each([
  ['another authority', { ca: makeAuthority('other', 2).cert }],
  ['another cluster’s name', { servername: serverNameOf({ ...REF, cluster: 'other' }, 'qdrant-0') }],
])('%s: refused before the key is sent, and the message says what to do', async (_what, change) => {
  const before = keys.length;
  for (const call of [ask, read]) {
    await expect(call({ ...trust, ...change })).rejects.toMatchObject({
      code: 'QdrantUnavailable',
      message: expect.stringMatching(
        /certificate was refused .*qdrant-0\.qdrant-headless.*Secret a\/b.*RotateCertificates/,
      ),
    });
  }
  expect(keys.length).toBe(before);
});
