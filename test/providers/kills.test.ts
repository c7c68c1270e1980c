/**
 * A worker that dies at any call to AWS, an answer that never arrives, a result that nobody was told: what is made is
 * made once, what is removed is removed whole, and nothing of anybody else's is touched.
 *
 * FLEET_TEST_AWS=all goes through every point on both emulators; otherwise through all on the quick one, and a sample
 * of the compensations.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Owner } from '../../src/domain/aws-names.ts';
import { FleetError } from '../../src/domain/errors.ts';
import { EMULATORS, startAwsEmulators, type AwsEmulators } from '../../src/local/aws/emulators.ts';
import { releaseCanaries } from './canaries.ts';
import { Site } from './site.ts';
import { Account, changes, countsOf, killing } from './support.ts';

const ALL = process.env['FLEET_TEST_AWS'] === 'all';
const REQUEST = { instanceType: 'm5.large', availabilityZones: ['us-east-1a', 'us-east-1b'] };

let emulators: AwsEmulators;
beforeAll(async () => {
  emulators = await startAwsEmulators();
}, 300_000);
afterAll(() => emulators.stop());

async function ownerOf(site: Site): Promise<Owner> {
  const installation = await site.account.parts.catalog.installation();
  return { ...site.ref, installation, operation: site.operation };
}

describe.each(ALL ? EMULATORS : (['ministack'] as const))('on %s', (name) => {
  let account: Account;
  /** What one cluster consists of. */
  let clean: Record<string, number>;
  /** Every call that changes something on the way to a cluster, in order. */
  const points: string[] = [];

  beforeAll(async () => {
    account = await Account.open(emulators.urls[name] ?? '');
    const before = await account.inventory();
    const site = new Site(account, name);
    account.interference = { after: (action) => void (changes(action) && points.push(action)) };
    await site.provision(REQUEST);
    account.interference = {};
    clean = differenceOf(countsOf(before), countsOf(await account.inventory()));
    await site.remove();
  }, 120_000);
  afterAll(() => account.close());

  test.each(['before', 'after'] as const)(
    'killed %s every call that changes something: one of each, and none in the end',
    async (when) => {
      const site = new Site(account, name);
      const canaries = await releaseCanaries(await account.aws(), await ownerOf(site), false);
      const before = await account.inventory();
      const { interference, points } = killing(when);
      account.interference = interference;
      await site.provision(REQUEST);
      const during = await account.inventory();
      await site.remove();
      account.interference = {};
      expect(differenceOf(countsOf(before), countsOf(during)), 'duplicates').toEqual(clean);
      expect(await account.inventory(), 'leaks, or canaries gone').toEqual(before);
      expect(await site.ledger()).toEqual([]);
      expect(points.size).toBeGreaterThan(60);
      console.log(`${name}: died ${when} ${points.size} calls, ${site.attempts} attempts, ${canaries} canaries alive`);
    },
    180_000,
  );

  test('every activity is done twice, as when its first result was told to nobody', async () => {
    const site = new Site(account, name);
    const before = await account.inventory();
    site.twice = true;
    await site.provision(REQUEST);
    expect(differenceOf(countsOf(before), countsOf(await account.inventory()))).toEqual(clean);
    await site.remove();
    expect(await account.inventory()).toEqual(before);
  }, 120_000);

  test('refused at any call, its answer lost or not: the compensation leaves nothing and touches nothing else', async () => {
    const canarySite = new Site(account, name);
    const canaries = await releaseCanaries(await account.aws(), await ownerOf(canarySite), true);
    const before = await account.inventory();
    const step = ALL ? 1 : 7;
    let runs = 0;
    let refused = 0;
    for (let at = 0; at < points.length; at += step) {
      const site = new Site(account, name, canarySite.operation, canarySite.ref);
      let seen = -1;
      const refuse = (action: string) => {
        if (!changes(action)) return;
        seen += 1;
        if (seen >= at) throw new FleetError('CloudDenied', `Refused on purpose: ${action}`);
      };
      account.interference = { [at % 2 === 0 ? 'after' : 'before']: refuse };
      // A call that was refused although it happened may be seen to have happened, and then nothing is wrong.
      const outcome = await site.provision(REQUEST).then(
        () => 'made',
        (error: { code?: string }) => error.code,
      );
      expect(['made', 'CloudDenied']).toContain(outcome);
      if (outcome === 'CloudDenied') refused += 1;
      account.interference = {};
      await site.dropContents();
      await site.remove({ onlyOwn: true });
      expect(await account.inventory(), `after ${points[at]}`).toEqual(before);
      expect(await site.ledger()).toEqual([]);
      runs += 1;
    }
    expect(refused).toBeGreaterThanOrEqual(runs - 2);
    console.log(`${name}: ${runs} of ${points.length} compensations, ${canaries} canaries alive`);
  }, 600_000);
});

function differenceOf(before: Record<string, number>, after: Record<string, number>): Record<string, number> {
  const kinds = Object.entries(after).map(([kind, count]) => [kind, count - (before[kind] ?? 0)] as const);
  return Object.fromEntries(kinds.filter(([, count]) => count !== 0));
}
