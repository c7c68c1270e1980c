/** All rooms over both emulators: made, and taken down to the last resource; and which calls each of them proves. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { removeData } from '../../activities/backup-records.ts';
import { PERMISSIONS } from '../../src/clients/aws/errors.ts';
import { BackupStore } from '../../src/clients/s3.ts';
import { boundaryPolicy } from '../../src/domain/aws-boundary.ts';
import { MANAGED_POLICIES, type PolicyDocument } from '../../src/domain/aws-policies.ts';
import { isAllowed } from '../aws/iam.ts';
import { eksNameOf } from '../../src/domain/aws-names.ts';
import { bucketsPolicy } from '../../src/domain/aws-backups-policy.ts';
import { workerPolicy } from '../../src/domain/aws-worker-policy.ts';
import { EMULATORS, startAwsEmulators, type AwsEmulators } from '../../src/local/aws/emulators.ts';
import { Site } from './site.ts';
import { Account, REGION } from './support.ts';

let emulators: AwsEmulators;
beforeAll(async () => {
  emulators = await startAwsEmulators();
}, 300_000);
afterAll(() => emulators.stop());

/** Calls that were answered with success, by emulator. */
const proven = new Map<string, Set<string>>();

test.each(EMULATORS)(
  'on %s a cluster stands in a network of its own, and is taken down to the last resource',
  async (name) => {
    const account = await Account.open(emulators.urls[name] ?? '');
    const before = await account.inventory();
    account.calls.length = 0;
    const site = new Site(account, name);
    await site.provision({
      instanceType: 'm5.large',
      availabilityZones: ['us-east-1a', 'us-east-1b'],
      natGateways: 'perZone',
      adminPrincipalArns: ['arn:aws:iam::123456789012:role/admins'],
      labels: { team: 'search' },
      taints: [{ key: 'qdrant', effect: 'NO_SCHEDULE' }],
      create: { backupBucket: true },
    });
    if (site.has('add-ons')) {
      const { eks } = await account.aws();
      const cni = await eks.describeAddon({ clusterName: eksNameOf(site.ref), addonName: 'vpc-cni' });
      expect(cni.addon?.configurationValues).toBe('{"enableNetworkPolicy":"true"}');
    }
    const { cluster } = await (await account.aws()).eks.describeCluster({ name: eksNameOf(site.ref) });
    expect(cluster?.resourcesVpcConfig).toMatchObject({
      endpointPrivateAccess: true,
      publicAccessCidrs: ['127.0.0.1/32'],
    });
    await site.remove();
    proven.set(name, new Set(account.calls.filter(({ outcome }) => outcome === 'ok').map(({ action }) => action)));
    expect(await account.inventory()).toEqual(before);
    expect(await site.ledger()).toEqual([]);
    await account.close();
  },
  120_000,
);

// Of these two only moto has the policies as AWS publishes them.
test('the permissions boundary leaves the roles everything that the policies of AWS give them', async () => {
  const account = await Account.open(emulators.urls.moto ?? '');
  const { iam } = await account.aws();
  const names = Object.values(MANAGED_POLICIES).flat();
  const boundary = boundaryPolicy();
  const lost: string[] = [];
  let actions = 0;
  for (const name of names) {
    const PolicyArn = `arn:aws:iam::aws:policy/${name}`;
    const { Policy } = await iam.getPolicy({ PolicyArn });
    const version = await iam.getPolicyVersion({ PolicyArn, VersionId: Policy?.DefaultVersionId });
    const document = JSON.parse(decodeURIComponent(version.PolicyVersion?.Document ?? '')) as PolicyDocument;
    for (const action of document.Statement.flatMap(({ Action }) => [Action].flat())) {
      actions += 1;
      const context = { 'iam:AWSServiceName': 'elasticloadbalancing.amazonaws.com' };
      if (!isAllowed(boundary, { action, resource: '*', context })) lost.push(`${name}: ${action}`);
    }
  }
  expect(names).toHaveLength(5);
  expect(actions).toBeGreaterThan(80);
  expect(lost).toEqual([]);
  await account.close();
});

// On ministack: moto locks no bucket that has objects in it, which AWS does.
test('the lock of a backup bucket lets backups come and go, keeps what they were, and the bucket outlives its cluster', async () => {
  const name = 'ministack';
  const url = emulators.urls[name] ?? '';
  const account = await Account.open(url);
  const site = new Site(account, name);
  const where = { ...site.ref, region: REGION };
  const request = { create: { backupBucket: true } };
  const { bucket } = await site.run(async (a) => a.ensureBackupBucket({ ...site.ref, plan: await site.plan(request) }));
  const store = new BackupStore({ bucket, region: REGION, endpoint: url, forcePathStyle: true });
  const { s3 } = await account.aws();

  // A record that moves, a lease that is renewed and let go, data that is removed.
  const [record, lease, data] = ['commit.json', 'leases/a.json', 'data/shard'];
  expect(await store.putIf(record, '{"revision":1}', { absent: true })).toBe('written');
  expect(await store.putIf(record, '{}', { absent: true })).toBe('refused');
  const { etag = '' } = (await store.getJson(record)) ?? {};
  expect(await store.putIf(record, '{"revision":2}', { etag })).toBe('written');
  expect(await store.putIf(record, '{}', { etag })).toBe('refused');
  for (const time of ['1', '2']) await store.putJson(lease, time);
  await store.deleteKeys([lease]);
  await store.putBytes(data, Buffer.from('points'));
  expect(await removeData(store, 'data/')).toEqual({ objects: 1 });
  const keys: string[] = [];
  for await (const { key } of store.list('')) keys.push(key);
  expect(keys).toEqual([record]);

  // What was removed is there as a version, and cannot be removed for good.
  const { Versions = [] } = await s3.listObjectVersions({ Bucket: bucket, Prefix: data });
  expect(Versions).toHaveLength(1);
  const [{ VersionId }] = Versions as [{ VersionId: string }];
  await expect(s3.deleteObject({ Bucket: bucket, Key: data, VersionId })).rejects.toThrow(/AccessDenied|denied|lock/i);

  expect(await site.run((a) => a.deleteBackupBucket(where), 'delete-1')).toEqual({ kept: bucket });
  const next = new Site(account, name, undefined, site.ref);
  await next.run(async (a) => a.ensureBackupBucket({ ...next.ref, plan: await next.plan(request) }));
  expect(await account.parts.catalog.resources(site.ref)).toMatchObject([
    { slot: 'bucket', resource_id: bucket, operation: next.operation },
  ]);
  expect(await next.run((a) => a.deleteBackupBucket({ ...where, onlyOwn: true }))).toEqual({ kept: bucket });

  // One tag that differs makes it somebody else's.
  const { TagSet = [] } = await s3.getBucketTagging({ Bucket: bucket });
  const foreign = TagSet.map((tag) => (tag.Key === 'qdrant-fleet/installation' ? { ...tag, Value: 'other' } : tag));
  await s3.putBucketTagging({ Bucket: bucket, Tagging: { TagSet: foreign } });
  const third = new Site(account, name, undefined, site.ref);
  const refused = third.run(async (a) => a.ensureBackupBucket({ ...third.ref, plan: await third.plan(request) }));
  await expect(refused).rejects.toMatchObject({ code: 'ResourceNotOurs' });
  store.close();
  await account.close();
});

test('docs/aws-operations.md tells which emulator proves which call (vitest -u writes it)', async () => {
  const calls = [...new Set([...proven.values()].flatMap((calls) => [...calls]))].sort();
  const rows = calls.map(
    (call) => `| \`${call}\` | ${EMULATORS.map((name) => (proven.get(name)?.has(call) ? 'yes' : '-')).join(' | ')} |`,
  );
  const text = [
    '# Calls to AWS, and what proves them',
    '',
    'Every call that making and removing a cluster with all its rooms sends, and the emulators that answered it with success',
    'in `test/providers/rooms.test.ts`. Not in it: `eks:DescribeClusterVersions` and what updates need, which neither emulator',
    'has and the proxy of `src/local/aws/proxy` answers; volumes, interfaces and security groups that only real machines leave;',
    'real AWS has not been asked.',
    '',
    `| call | ${EMULATORS.join(' | ')} |`,
    '|---|---|---|',
    ...rows,
    '',
  ].join('\n');
  await expect(text).toMatchFileSnapshot('../../docs/aws-operations.md');
});

test('the policies of the worker allow every one of them', () => {
  const statements = [...workerPolicy().Statement, ...bucketsPolicy().Statement].filter(
    ({ Effect }) => Effect === 'Allow',
  );
  const allowed = new Set(statements.flatMap(({ Action }) => [Action].flat()));
  const called = new Set([...proven.values()].flatMap((calls) => [...calls]));
  expect([...called].map((call) => PERMISSIONS[call] ?? call).filter((call) => !allowed.has(call))).toEqual([]);
});
