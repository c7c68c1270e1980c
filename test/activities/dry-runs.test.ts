/** What a dry run asks of the bucket, seen at its HTTP border: it reads, and nothing else. */
import { createServer, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import type { BackupLocation } from '../../src/domain/naming.ts';
import { openStores } from '../support/fleet.ts';
import { storeBackup } from '../support/stored-backup.ts';
import { Parts } from './support.ts';

/** Every request that reached the store. */
const calls: string[] = [];
let border: Server;
let parts: Parts;
let location: BackupLocation;
beforeAll(async () => {
  const direct = await Parts.open();
  const upstream = new URL(direct.env['FLEET_S3_ENDPOINT'] ?? '');
  border = createServer((incoming, outgoing) => {
    const { method = '', url = '' } = incoming;
    calls.push(method);
    // With the headers as they came: the signature covers the host.
    const forward = request({
      host: upstream.hostname,
      port: upstream.port,
      method,
      path: url,
      headers: incoming.headers,
    });
    forward.on('response', (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(outgoing);
    });
    forward.on('error', () => outgoing.destroy());
    incoming.pipe(forward);
  });
  await new Promise<void>((listening) => border.listen(0, '127.0.0.1', listening));
  const endpoint = `http://127.0.0.1:${(border.address() as AddressInfo).port}`;
  await direct.close();
  parts = await Parts.open({ stores: openStores({ ...direct.env, FLEET_S3_ENDPOINT: endpoint }) });
  location = { tenant: parts.tenant, cluster: 'docs', prefix: '', backup: '20261101T030000Z-00000000' };
  await storeBackup(parts.store, location, 'COMMITTED');
});
beforeEach(() => {
  calls.length = 0;
});
afterAll(async () => {
  await parts.close();
  border.closeAllConnections();
  border.close();
});

const opening = () => ({ tenant: location.tenant, source: location.cluster, backup: location.backup });
const writes = () => calls.filter((method) => method !== 'GET' && method !== 'HEAD');

test('a restore that only looks reads, and takes no lease', async () => {
  const { location: at } = await parts.as('restore', (activities) =>
    activities.openBackup({ ...opening(), dryRun: true }),
  );
  const target = { tenant: location.tenant, cluster: 'other' };
  const preview = await parts.as('restore', (activities) =>
    activities.previewRestore({ target, location: at, collections: [], nodes: 2 }),
  );
  expect(preview.refusals).toEqual([]);
  expect(calls.length).toBeGreaterThan(0);
  expect(writes()).toEqual([]);
});

test('a sweep that only looks reads', async () => {
  const { tenant, cluster } = location;
  const found = await parts.as('sweep', (activities) => activities.surveyBackups({ tenant, cluster }));
  expect(found.committed).toHaveLength(1);
  expect(writes()).toEqual([]);
});

test('a restore that is meant writes its lease, which this border sees', async () => {
  await parts.as('restore', (activities) => activities.openBackup(opening()));
  expect(writes()).toEqual(['PUT']);
});
