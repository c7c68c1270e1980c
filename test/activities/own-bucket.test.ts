/** Backups in a bucket of the cluster's own, on a real store: where they go, how they are found again, how they go. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { bucketForBackup, bucketsOf, locate } from '../../activities/backup-buckets.ts';
import { readRecord } from '../../activities/backup-records.ts';
import { resolveSpec } from '../../src/domain/cluster.ts';
import { backupKeys, bucketsKey, namespaceOf, type BackupLocation, type BucketRef } from '../../src/domain/naming.ts';
import { askForBucket, giveBucket } from '../support/own-bucket.ts';
import { storeBackup, TIME } from '../support/stored-backup.ts';
import { Parts } from './support.ts';

/** Of a snapshot. */
const SHA = 'ab'.repeat(32);

let parts: Parts;
let bucket: BucketRef;
const ref = () => ({ tenant: parts.tenant, cluster: 'docs' });
const idOf = (day: number) => `202611${String(day).padStart(2, '0')}T030000Z-0000000a`;
const place = (day: number, inOwn = true): BackupLocation => ({
  ...{ ...ref(), prefix: '', backup: idOf(day) },
  ...(inOwn && { bucket }),
});

beforeAll(async () => {
  parts = await Parts.open();
  bucket = await giveBucket({ env: parts.env, catalog: parts.catalog }, ref());
});
afterAll(() => parts.close());

/** A committed backup with one object. */
async function stored(location: BackupLocation): Promise<BackupLocation> {
  const store = parts.stores.of(location);
  const keys = backupKeys(location);
  await store.putJson(keys.intent, '{}');
  await store.putJson(keys.shard('run', 'documents', 0, SHA), '"data"');
  await storeBackup(store, location);
  return location;
}

async function keysIn(location: BackupLocation, part: 'leases' | 'data'): Promise<string[]> {
  const found: string[] = [];
  for await (const { key } of parts.stores.of(location).list(backupKeys(location)[part])) found.push(key);
  return found;
}

test('the next backup goes into the own bucket where the cluster asks for one, and into the fleet’s where not', async () => {
  const spec = JSON.stringify(resolveSpec({}, parts.config.FLEET_COLLECTION_PRESETS));
  for (const cluster of ['docs', 'lost']) {
    const at = { tenant: parts.tenant, cluster };
    const row = { ...at, phase: 'HEALTHY' as const, namespace: namespaceOf(at), created_by: 'test', reason: null };
    await parts.catalog.db
      .insertInto('clusters')
      .values({ ...row, spec })
      .execute();
  }
  expect(await bucketForBackup(parts, ref())).toEqual({});
  await askForBucket(parts.catalog, ref());
  for (let times = 0; times < 2; times += 1) expect(await bucketForBackup(parts, ref())).toEqual({ bucket });
  expect((await parts.store.getJson(bucketsKey({ ...ref(), prefix: '' })))?.body).toMatchObject({ buckets: [bucket] });
  const lost = { tenant: parts.tenant, cluster: 'lost' };
  await askForBucket(parts.catalog, lost);
  await expect(bucketForBackup(parts, lost)).rejects.toMatchObject({ code: 'InfrastructureNotReady' });
});

test('a backup is found by the catalogue, and without one in the buckets that the fleet’s names', async () => {
  const [indexed, unindexed, fleets] = [place(1), await stored(place(2)), await stored(place(3, false))];
  const found = ({ tenant, cluster, backup }: BackupLocation) => locate(parts, { tenant, cluster, backup });
  const entry = { ...ref(), state: 'COMMITTED' as const, createdAt: '2026-11-01T03:00:00Z' };
  await parts.as('backup', (a) => a.indexBackup({ ...entry, backup: indexed.backup, bucket }));
  expect(await found(indexed)).toEqual(indexed);
  expect(await found(unindexed)).toEqual(unindexed);
  expect(await found(fleets)).toEqual(fleets);
  await parts.catalog.db.deleteFrom('resources').where('tenant', '=', parts.tenant).execute();
  expect(await found(unindexed)).toEqual(unindexed);
  expect(await found(place(9))).toEqual(place(9, false));
  expect(await found({ ...place(9), cluster: 'another' })).toEqual({ ...place(9, false), cluster: 'another' });
});

test('a restore opens the backup there, and its lease lies beside it', async () => {
  const location = await stored(place(4));
  const opening = { tenant: parts.tenant, source: 'docs', backup: location.backup };
  expect(await parts.as('restore', (a) => a.openBackup(opening))).toMatchObject({ location });
  expect(await keysIn(location, 'leases')).toHaveLength(1);
  expect(await keysIn(place(4, false), 'leases')).toEqual([]);
  await parts.as('restore', (a) => a.closeBackup(opening));
  expect(await keysIn(location, 'leases')).toEqual([]);
});

test('a URL for a node is of that bucket, signed for the region of the store', async () => {
  const location = await stored(place(5));
  const key = backupKeys(location).manifest;
  const url = await parts.stores.of(location).presignRead(key, 60);
  expect(new URL(url).pathname).toBe(`/${bucket.name}/${key}`);
  expect(await (await fetch(url)).json()).toMatchObject({ backup: location.backup });
});

test('a sweep sees both buckets, and removes each backup where it is', async () => {
  const own = await stored(place(20));
  // The same key in the fleet's bucket, of an id that a sweep of the own one must leave alone.
  const other = await stored(place(21, false));
  const found = await parts.as('sweep', (a) => a.surveyBackups(ref()));
  expect(found.committed.map(({ id }) => id)).toEqual(expect.arrayContaining([own.backup, other.backup]));
  expect(found.elsewhere).toEqual([{ bucket, backups: expect.arrayContaining([own.backup]) as unknown }]);
  expect(found.elsewhere?.[0]?.backups).not.toContain(other.backup);

  const sweeping = { ...ref(), backup: own.backup, bucket };
  expect(await parts.as('sweep', (a) => a.markBackupDeleting(sweeping))).toBe('DELETING');
  expect(await parts.as('sweep', (a) => a.purgeBackup(sweeping))).toEqual({ state: 'DELETED', objects: 1 });
  expect(await keysIn(own, 'data')).toEqual([]);
  expect((await readRecord(parts.stores.of(own), own))?.record.state).toBe('DELETED');
  expect(await keysIn(other, 'data')).toHaveLength(1);
});

test('an unfinished backup is given up, and collected, where it was begun', async () => {
  const begun = async (location: BackupLocation) => {
    const store = parts.stores.of(location);
    const keys = backupKeys(location);
    await store.putJson(
      keys.intent,
      JSON.stringify({ backup: location.backup, startedAt: TIME, workflowId: 'w', runId: 'run' }),
    );
    await store.putJson(keys.shard('run', 'documents', 0, SHA), '"data"');
    await store.createUpload(keys.shard('run', 'documents', 1, SHA));
    return location;
  };
  const [failed, left, other] = [await begun(place(24)), await begun(place(25)), await begun(place(25, false))];
  await parts.as('backup', (a) => a.abandonBackup({ location: failed, attempt: 'run' }));
  await parts.as('sweep', (a) => a.collectUnfinished({ ...ref(), backup: left.backup, bucket }));
  for (const location of [failed, left]) {
    const store = parts.stores.of(location);
    expect(await keysIn(location, 'data')).toEqual([]);
    expect(await store.openUploads(backupKeys(location).root)).toEqual([]);
    expect((await readRecord(store, location))?.record.state).toBe('ABORTED');
  }
  expect(await keysIn(other, 'data')).toHaveLength(1);
  expect(await readRecord(parts.store, other)).toBeUndefined();
});

test('all buckets with backups that count are looked into, once each, also when the ledger has forgotten them', async () => {
  const lost = { tenant: parts.tenant, cluster: 'gone' };
  const entry = { ...lost, createdAt: '2026-11-01T03:00:00Z' };
  const old = { name: 'of-old', region: 'eu-west-1' };
  const index = (day: number, state: 'COMMITTED' | 'DELETED', name: string) =>
    parts.as('x', (a) => a.indexBackup({ ...entry, backup: idOf(day), state, bucket: { ...old, name } }));
  await index(1, 'COMMITTED', 'of-old');
  await index(2, 'COMMITTED', 'of-old');
  await index(3, 'DELETED', 'emptied');
  expect(await bucketsOf(parts, lost)).toEqual([{}, { bucket: old }]);
  // It was removed by somebody: what is in the others is still swept.
  const fleets = await stored({ ...lost, prefix: '', backup: idOf(4) });
  const { committed, elsewhere } = await parts.as('sweep', (a) => a.surveyBackups(lost));
  expect({ committed, elsewhere }).toMatchObject({ committed: [{ id: fleets.backup }], elsewhere: undefined });
  expect(await bucketsOf(parts, ref())).toEqual([{}, { bucket }]);
});
