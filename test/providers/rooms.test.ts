/** All rooms over both emulators: made, and taken down to the last resource; and which calls each of them proves. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { PERMISSIONS } from '../../src/clients/aws/errors.ts';
import { workerPolicy } from '../../src/domain/aws-worker-policy.ts';
import { EMULATORS, startAwsEmulators, type AwsEmulators } from '../../src/local/aws/emulators.ts';
import { Site } from './site.ts';
import { Account } from './support.ts';

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
    await site.remove();
    proven.set(name, new Set(account.calls.filter(({ outcome }) => outcome === 'ok').map(({ action }) => action)));
    expect(await account.inventory()).toEqual(before);
    expect(await site.ledger()).toEqual([]);
    await account.close();
  },
  120_000,
);

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

test('the policy of the worker allows every one of them', () => {
  const allowed = new Set(workerPolicy().Statement.flatMap(({ Action }) => [Action].flat()));
  const called = new Set([...proven.values()].flatMap((calls) => [...calls]));
  expect([...called].map((call) => PERMISSIONS[call] ?? call).filter((call) => !allowed.has(call))).toEqual([]);
});
