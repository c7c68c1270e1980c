/** A bucket of a cluster's own on the local stack: settings at the emulator, objects where the nodes reach them. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { BackupStores } from '../../src/clients/stores.ts';
import { startAwsEmulators, type AwsEmulators } from '../../src/local/aws/emulators.ts';
import { AwsProxy } from '../../src/local/aws/proxy/proxy.ts';
import { Site } from '../providers/site.ts';
import { Account, REGION } from '../providers/support.ts';
import { localStore } from './support.ts';

let emulators: AwsEmulators;
let proxy: AwsProxy;
let account: Account;
beforeAll(async () => {
  emulators = await startAwsEmulators({ which: ['moto'], managedPolicies: false });
  proxy = await AwsProxy.listen({ routes: { '*': emulators.urls.moto ?? '' }, bucketStore: localStore() });
  account = await Account.open(proxy.url);
}, 300_000);
afterAll(async () => {
  await account.close();
  await proxy.close();
  await emulators.stop();
});

test('is made in both, holds what is written to the store, and goes from both when that is gone', async () => {
  const site = new Site(account, 'moto');
  const plan = await site.plan({ create: { backupBucket: true } });
  const { bucket: name } = await site.run((a) => a.ensureBackupBucket({ ...site.ref, plan }));
  const bucket = { name, region: REGION };
  const stores = new BackupStores({ ...localStore(), bucket: 'fleet-backups', forcePathStyle: true });
  const store = stores.of({ bucket });
  await store.check();
  await store.putJson('acme/docs/a name with & and <.json', '{}');

  const { s3 } = await account.aws();
  expect(await s3.getBucketVersioning({ Bucket: name })).toMatchObject({ Status: 'Enabled' });
  await expect(s3.deleteBucket({ Bucket: name })).rejects.toMatchObject({ message: /not empty/ });
  const remove = () => site.run((a) => a.deleteBackupBucket({ ...site.ref, region: REGION }), 'delete-1');
  expect(await remove()).toEqual({ kept: name });

  // The emulator forgets everything when it stops, and the bucket is made again around what is in it.
  await emulators.reset();
  await new Site(account, 'moto', 'again', site.ref).run((a) => a.ensureBackupBucket({ ...site.ref, plan }));
  expect(await remove()).toEqual({ kept: name });
  await store.deleteKeys(['acme/docs/a name with & and <.json']);
  expect(await remove()).toEqual({ kept: null });
  await expect(store.check()).rejects.toMatchObject({ code: 'StoreDenied' });
  stores.close();
});
