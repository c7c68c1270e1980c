/** A backup that is taken while points come and go restores with exactly what its snapshots hold. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { BackupManifest } from '../../src/domain/backup.ts';
import { backupKeys } from '../../src/domain/naming.ts';
import { Fleet, smallPoints } from '../support/fleet.ts';

let fleet: Fleet;
beforeAll(async () => {
  fleet = await Fleet.open();
  await fleet.worker();
});
afterAll(() => fleet.close());

test('back up under writes, restore, count', async () => {
  const ref = { tenant: fleet.tenant, cluster: 'busy' };
  const collections = [{ preset: 'documents', vectorSize: 4 }];
  await fleet.run('ProvisionCluster', { ...ref, nodes: 2, collections });
  const cluster = await fleet.access('busy');
  const points = smallPoints(4000);
  await cluster.load('documents', points.slice(0, 1000));

  // Writers that never rest until the backup has ended: one adds, one removes.
  const ended = new AbortController();
  let written = 0;
  const writer = (async () => {
    for (let at = 1000; !ended.signal.aborted && at < points.length; at += 20) {
      await cluster.load('documents', points.slice(at, at + 20));
      await cluster.call('POST', '/collections/documents/points/delete?wait=true', { points: [at - 1000] });
      written += 20;
    }
  })();
  const { backup } = await fleet.run('BackupCluster', ref);
  ended.abort();
  await writer;
  expect(written).toBeGreaterThan(0);

  const keys = backupKeys({ prefix: '', ...ref, backup: String(backup) });
  const manifest = (await fleet.store.getJson(keys.manifest))?.body as BackupManifest;
  const input = { tenant: fleet.tenant, source: 'busy', backup, cluster: 'still', nodes: 1 };
  const restored = await fleet.run('RestoreCluster', input);
  const digest = await (await fleet.access('still')).digest('documents');
  expect(digest.points).toBe(restored['points']);
  const counts = manifest.collections[0]?.shards.map(({ points: { exact } }) => exact) ?? [];
  if (counts.every((count) => count !== undefined)) {
    expect(digest.points).toBe(counts.reduce((sum, count) => sum + count, 0));
  }
});
