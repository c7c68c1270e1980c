/** A cluster with a bucket of its own: its backups lie there, and restore from there, also when nobody knows it. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { backupKeys, bucketsKey, clusterPrefix, type BucketRef } from '../../src/domain/naming.ts';
import type { BackupStores } from '../../src/clients/stores.ts';
import { Fleet, openStores, smallPoints } from '../support/fleet.ts';
import { askForBucket, giveBucket } from '../support/own-bucket.ts';

let fleet: Fleet;
let stores: BackupStores;
let bucket: BucketRef;
const ref = () => ({ tenant: fleet.tenant, cluster: 'docs' });

beforeAll(async () => {
  fleet = await Fleet.open();
  stores = openStores(fleet.env);
  await fleet.worker();
  const collections = [{ preset: 'documents', vectorSize: 32 }];
  await Promise.all([
    fleet.run('ProvisionCluster', { ...ref(), nodes: 1, collections }),
    fleet.run('ProvisionCluster', { ...ref(), cluster: 'copy', nodes: 1, collections: [] }),
  ]);
  bucket = await giveBucket(fleet, ref());
});
afterAll(async () => {
  stores.close();
  await fleet.close();
});

/** Keys of the cluster in a bucket; default: in its own. */
async function keys(where: { bucket?: BucketRef } = { bucket }): Promise<string[]> {
  const found: string[] = [];
  for await (const { key } of stores.of(where).list(clusterPrefix({ ...ref(), prefix: '' }))) found.push(key);
  return found;
}

test('back up, verify, back up what changed, lose the catalogue, restore both ways, sweep', async () => {
  const source = await fleet.access('docs');
  await source.load('documents', smallPoints(300, 32));
  const before = await source.digest('documents');
  await askForBucket(fleet.catalog, ref());

  const backUp = async (format: string) => {
    const handle = await fleet.start('BackupCluster', { ...ref(), format });
    const { backup } = (await handle.result()) as { backup: string };
    const { steps } = await fleet.progress(handle);
    expect(steps.find(({ name }) => name === 'Plan the shards')?.message).toContain(`in bucket ${bucket.name}`);
    return backup;
  };
  const full = await backUp('full');
  const base = await backUp('incremental');
  const next = await backUp('incremental');
  const note = bucketsKey({ ...ref(), prefix: '' });
  expect(await keys({})).toEqual([note]);
  const commit = (backup: string) => backupKeys({ ...ref(), prefix: '', backup }).commit;
  expect(await keys()).toEqual(expect.arrayContaining([full, base, next].map(commit)));
  expect((await stores.of({ bucket }).getJson(commit(next)))?.body).toMatchObject({ references: [base] });
  expect(await fleet.catalog.backup(fleet.tenant, full)).toMatchObject({ bucket: bucket.name });
  expect(await fleet.run('VerifyBackup', { ...ref(), backup: full })).toMatchObject({ shards: 1, opened: 1 });

  // Nothing of the cluster is known any more but the buckets, and the index of two of the backups.
  for (const table of ['clusters', 'resources'] as const) {
    await fleet.catalog.db.deleteFrom(table).where('tenant', '=', fleet.tenant).where('cluster', '=', 'docs').execute();
  }
  await fleet.catalog.db.deleteFrom('backups').where('tenant', '=', fleet.tenant).where('backup', '=', full).execute();
  const copy = await fleet.access('copy');
  const restored = async (backup: string, as: string) => {
    const target = { tenant: fleet.tenant, source: 'docs', backup, cluster: 'copy', rename: { documents: as } };
    const result = await fleet.run<{ relayed: number }>('RestoreCluster', target);
    expect(await copy.digest(as)).toEqual(before);
    return result.relayed > 0;
  };
  expect(await restored(full, 'pulled')).toBe(false);
  expect(await restored(next, 'relayed')).toBe(true);

  const swept = await fleet.run('RetentionSweep', { ...ref(), policy: { keepLast: 1, undoHours: 0 } });
  expect(swept).toMatchObject({ purged: [full], held: { [base]: [next] } });
  const left = (await keys()).filter((key) => /\/data\/|\/leases\//.test(key));
  expect(left.filter((key) => !key.includes(base) && !key.includes(next))).toEqual([]);
  expect(await keys({})).toEqual([note]);
}, 120_000);
