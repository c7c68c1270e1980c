/** Which identity signs which request: deletions of backups go by one of their own, and everything else never does. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { roleIdentity } from '../../src/clients/delete-identity.ts';
import { BackupStores } from '../../src/clients/stores.ts';
import { loadConfig } from '../../src/config.ts';

const WRITER = { AWS_ACCESS_KEY_ID: 'WRITER', AWS_SECRET_ACCESS_KEY: 'not-a-secret' };
const DELETER = { accessKeyId: 'DELETER', secretAccessKey: 'not-a-secret-either' };
const ROLE = 'arn:aws:iam::123456789012:role/deleter';
const OWN = { bucket: { name: 'own', region: 'eu-west-1' } };
const BACKUP = 'acme/docs/20261121T030000Z-1a2b3c4d/';

const before = { ...process.env };
beforeAll(() => void Object.assign(process.env, WRITER));
afterAll(() => {
  for (const name of Object.keys(WRITER)) delete process.env[name];
  Object.assign(process.env, before);
});

/** Who signed, what, in the order of arrival. */
const seen: string[] = [];
let server: Server;
let endpoint: string;
let refuse = '';

beforeAll(async () => {
  server = createServer((request, response) => {
    const body: Buffer[] = [];
    request.on('data', (chunk: Buffer) => body.push(chunk));
    request.on('end', () => {
      const [, signer = 'nobody', service] =
        /Credential=([^/]+)\/\d+\/[^/]+\/([^/]+)\//.exec(request.headers.authorization ?? '') ?? [];
      const { pathname, searchParams } = new URL(request.url ?? '', 'http://store');
      const flags = [...searchParams.keys()].filter((name) => /^(?:delete|uploads|uploadId)$/.test(name)).join();
      seen.push(`${signer} ${service} ${request.method} ${pathname} ${flags}`.trim());
      response.setHeader('content-type', 'application/xml');
      if (service === 'sts') {
        response.statusCode = refuse === '' ? 200 : 403;
        response.end(refuse === '' ? TAKEN : refuse);
      } else {
        const isList = request.method === 'GET' || flags === 'uploads' || flags === 'delete';
        response.writeHead(200, { etag: '"e"' }).end(isList ? '<R><UploadId>u</UploadId></R>' : '');
      }
    });
  });
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});
beforeEach(() => {
  seen.length = 0;
  refuse = '';
});

const TAKEN = `<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>TAKEN</AccessKeyId>
<SecretAccessKey>not-a-secret</SecretAccessKey><SessionToken>session</SessionToken>
<Expiration>${new Date(Date.now() + 3_600_000).toISOString()}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`;

const settings = () => ({ bucket: 'fleet', region: 'us-east-1', forcePathStyle: true, endpoint });

describe.each([
  ["in the fleet's bucket", {}, '/fleet'],
  ["in a cluster's own", OWN, '/own'],
])('with keys of its own, %s', (_where, where, bucket) => {
  test('deletions are signed by them, and nothing else is', async () => {
    const stores = new BackupStores({ ...settings(), deleteIdentity: DELETER });
    const store = stores.of(where);
    await store.putIf(`${BACKUP}commit.json`, '{}', { absent: true });
    await store.deleteKeys([`${BACKUP}data/1/shard`, `${BACKUP}manifest.json`]);
    await store.abortUpload({ key: `${BACKUP}data/1/shard`, uploadId: 'u' });
    await store.putBytes(`${BACKUP}data/2/shard`, Buffer.from('b'));
    await store.head(`${BACKUP}data/2/shard`);
    await store.openUploads(`${BACKUP}data/`);
    const url = new URL(await store.presignRead(`${BACKUP}data/2/shard`, 60));
    stores.close();

    expect(seen.filter((one) => one.startsWith('DELETER'))).toEqual([
      expect.stringMatching(new RegExp(`^DELETER s3 POST ${bucket}/? delete$`)),
      `DELETER s3 DELETE ${bucket}/${BACKUP}data/1/shard uploadId`,
    ]);
    expect(seen.filter((one) => !one.startsWith('DELETER')).every((one) => one.startsWith('WRITER'))).toBe(true);
    expect(seen.length).toBeGreaterThan(5);
    expect(url.searchParams.get('X-Amz-Credential')).toMatch(/^WRITER\//);
  });

  test('a lease is removed by whoever wrote it', async () => {
    const stores = new BackupStores({ ...settings(), deleteIdentity: DELETER });
    await stores.of(where).deleteKeys([`${BACKUP}leases/a.json`, `${BACKUP}leases/b.json`]);
    await stores.of(where).deleteKeys([`${BACKUP}leases/a.json`, `${BACKUP}data/leases`]);
    // Data of a collection, and a record of a cluster, of that name.
    await stores.of(where).deleteKeys([`${BACKUP}data/1/leases/shard-0.0123456789abcdef.sample.json`]);
    await stores.of(where).deleteKeys(['acme/leases/20261121T030000Z-1a2b3c4d/commit.json']);
    stores.close();
    expect(seen.map((one) => one.split(' ')[0])).toEqual(['WRITER', 'DELETER', 'DELETER', 'DELETER']);
  });
});

test('without one everything is signed by the worker', async () => {
  const stores = new BackupStores(settings());
  await stores.fleet.deleteKeys([`${BACKUP}data/1/shard`]);
  stores.close();
  expect(seen.map((one) => one.split(' ')[0])).toEqual(['WRITER']);
});

describe('a role', () => {
  test('is taken once, and signs deletions', async () => {
    const stores = new BackupStores({ ...settings(), deleteIdentity: roleIdentity(ROLE, 'us-east-1', endpoint) });
    await stores.fleet.deleteKeys([`${BACKUP}data/1/shard`]);
    await stores.fleet.deleteKeys([`${BACKUP}data/2/shard`]);
    stores.close();
    expect(seen.map((one) => one.split(' ').slice(0, 3).join(' '))).toEqual([
      'WRITER sts POST',
      'TAKEN s3 POST',
      'TAKEN s3 POST',
    ]);
  });

  test('that cannot be taken is named, and nothing is deleted by anybody', async () => {
    refuse = '<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>';
    const stores = new BackupStores({ ...settings(), deleteIdentity: roleIdentity(ROLE, 'us-east-1', endpoint) });
    await expect(stores.fleet.deleteKeys([`${BACKUP}data/1/shard`])).rejects.toMatchObject({
      code: 'StoreDenied',
      message: expect.stringContaining(`The role ${ROLE} (FLEET_BACKUP_DELETE_ROLE_ARN)`) as string,
    });
    stores.close();
    expect(seen.filter((one) => !one.includes(' sts '))).toEqual([]);
  });
});

test.each([
  { FLEET_S3_DELETE_ACCESS_KEY_ID: 'a' },
  { FLEET_S3_DELETE_SECRET_ACCESS_KEY: 'canary' },
  {
    FLEET_S3_DELETE_ACCESS_KEY_ID: 'a',
    FLEET_S3_DELETE_SECRET_ACCESS_KEY: 'canary',
    FLEET_BACKUP_DELETE_ROLE_ARN: ROLE,
  },
])('half a pair, or both: %j stop the process', (env) => {
  const needed = { DATABASE_URL: 'postgres://localhost/fleet', FLEET_BACKUP_BUCKET: 'backups' };
  expect(() => loadConfig({ ...needed, ...env })).toThrow(/FLEET_S3_DELETE_ACCESS_KEY_ID: needs/);
  expect(() => loadConfig({ ...needed, ...env })).not.toThrow(/canary/);
});
