/** The sweeper: finds what belongs to nobody, leaves alone what belongs to a cluster, an open operation or a stranger. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startAwsEmulators, type AwsEmulators } from '../../src/local/aws/emulators.ts';
import { releaseCanaries } from './canaries.ts';
import { Site } from './site.ts';
import { Account, REGION } from './support.ts';

const REQUEST = { availabilityZones: ['us-east-1a', 'us-east-1b'] };

let emulators: AwsEmulators;
let account: Account;
beforeAll(async () => {
  emulators = await startAwsEmulators({ which: ['ministack'] });
  account = await Account.open(emulators.urls.ministack ?? '');
}, 300_000);
afterAll(async () => {
  await account.close();
  await emulators.stop();
});

test('what an operation left that never came to clean up is found, and removed when told; nothing else is', async () => {
  const { parts } = account;
  const [left, living, running] = [1, 2, 3].map(() => new Site(account, 'ministack')) as [Site, Site, Site];
  for (const site of [left, living, running]) {
    await parts.as(site.operation, (a) => a.registerOperation({ ...site.ref, kind: 'provision' }));
  }
  await parts.as(living.operation, (a) =>
    a.reserveCluster({ ...living.ref, request: { provider: 'aws', collections: [] } }),
  );
  for (const site of [left, living]) parts.closed.add(site.operation);
  await living.provision(REQUEST);
  await running.provision({ ...REQUEST, create: { nodeGroups: false } });
  const installation = await parts.catalog.installation();
  await releaseCanaries(await account.aws(), { ...left.ref, installation, operation: left.operation }, false);
  const before = await account.inventory();
  await left.provision(REQUEST);
  const all = await account.inventory();

  const where = { tenant: left.ref.tenant, region: REGION };
  const everywhere = (await left.run((a) => a.surveyInfrastructure(where))).orphans.map(({ cluster }) => cluster);
  expect(everywhere).toContain(left.ref.cluster);
  for (const { ref } of [living, running]) expect(everywhere).not.toContain(ref.cluster);
  // Of one name only: the canaries that name another cluster of this tenant are orphans too, of that name.
  const named = { ...where, cluster: left.ref.cluster };
  const { found, orphans } = await left.run((a) => a.surveyInfrastructure(named));
  expect(orphans).toHaveLength(1);
  expect(orphans[0]).toMatchObject({ cluster: left.ref.cluster, operation: left.operation });
  const kinds = new Set(orphans[0]?.resources.map(({ kind }) => kind));
  expect([...kinds].sort()).toEqual([
    'eks-cluster',
    'elastic-ip',
    'iam-role',
    'internet-gateway',
    'launch-template',
    'natgateway',
    'route-table',
    'subnet',
    'vpc',
    'vpc-endpoint',
  ]);
  expect(found).toBe(orphans[0]?.resources.length);
  expect(await account.inventory(), 'a survey changes nothing').toEqual(all);

  const what = { ...left.ref, region: REGION, onlyOwn: true, operation: left.operation };
  await left.run((a) => a.deleteNodeGroups(what), 'sweep-1');
  await left.run((a) => a.deleteControlPlane(what), 'sweep-1');
  await left.run((a) => a.deleteNetwork(what), 'sweep-1');
  await left.run((a) => a.deleteAccess(what), 'sweep-1');
  expect(await account.inventory()).toEqual(before);
  expect((await left.run((a) => a.surveyInfrastructure(named))).orphans).toEqual([]);
});
