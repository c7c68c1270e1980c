/**
 * The rooms behind a proxy that breaks every call which changes something: throttled, failed, answered into a dead
 * connection, never arrived. What is made is made once, what is removed is removed whole, and canaries live.
 *
 * FLEET_TEST_AWS=all (or =ministack) breaks each call on its own too; otherwise a few, chosen by FLEET_TEST_SEED.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { awsErrors, type FaultRule } from '../../src/local/aws/proxy/faults.ts';
import { CHANGES, CREATES, FaultyAccount, more, REQUEST, sampled, type Point } from './faulty.ts';

/** `all` on both emulators; `ministack` the same on that one, five times as fast. */
const MODE = process.env['FLEET_TEST_AWS'];
const ALL = MODE === 'all' || MODE === 'ministack';

const SEED = Number(process.env['FLEET_TEST_SEED'] ?? 1);

let faulty: FaultyAccount;
/** What one cluster consists of. */
let clean: Record<string, number>;
const points: Record<'provision' | 'remove', Point[]> = { provision: [], remove: [] };

beforeAll(async () => {
  faulty = await FaultyAccount.open(MODE === 'all' ? 'both' : 'ministack');
  const site = faulty.site();
  const before = await faulty.inventory();
  faulty.proxy.log.length = 0;
  await site.provision(REQUEST);
  points.provision = faulty.points();
  clean = more(before, await faulty.inventory());
  faulty.proxy.log.length = 0;
  await site.remove();
  points.remove = faulty.points();
  expect(await faulty.inventory()).toEqual(before);
}, 300_000);
afterAll(() => faulty.close());

/** Every kind of call meets one of the faults that a service of AWS has in words of its own; with `all`, each of them. */
function worded(): FaultRule[] {
  const calls = [...points.provision, ...points.remove];
  const kinds = [...new Set(calls.map(({ service, operation }) => `${service}:${operation}`))];
  const faults = [awsErrors.throttling, awsErrors.internal, awsErrors.unavailable];
  return kinds.flatMap((kind, index) => {
    const [service = '', operation = ''] = kind.split(':');
    const chosen = ALL ? faults : [faults[(index + SEED) % faults.length] ?? awsErrors.throttling];
    return chosen.map((fault): FaultRule => ({ service, operation, perRequest: true, fault: fault(service) }));
  });
}
const every = (kind: 'lose-reply' | 'reset'): FaultRule[] => [
  { operation: CHANGES, perRequest: true, fault: { kind } },
];
/** Reads are repeated by the SDK. */
const BURST: FaultRule = {
  service: 'ec2',
  operation: /^Describe/,
  skip: 2,
  times: 2,
  fault: awsErrors.throttling('ec2'),
};

const EVERYWHERE: Readonly<Record<string, { rules: () => FaultRule[]; graceSeconds?: number; lag?: number }>> = {
  'throttled, failed by a fault of AWS, or unavailable': {
    rules: () => [...worded(), BURST],
  },
  'answered into a dead connection': { rules: () => every('lose-reply') },
  'reset before it arrives': { rules: () => every('reset') },
  'answered into a dead connection, and what is made is not seen at once': {
    rules: () => every('lose-reply'),
    graceSeconds: 30,
    lag: 2,
  },
  'not harmed, but what is made is not seen at once': { rules: () => [], graceSeconds: 30, lag: 3 },
};

describe('every call that changes something', () => {
  const names = Object.keys(EVERYWHERE);
  test.each(ALL ? names : sampled(names, 3, SEED))(
    '%s: one of each, and none in the end',
    async (name) => {
      const { rules, graceSeconds = 0, lag } = EVERYWHERE[name] ?? { rules: () => [] };
      const { proxy, account } = faulty;
      account.graceSeconds = graceSeconds;
      const site = faulty.site();
      const canaries = await faulty.canaries(site, false);
      const before = await faulty.inventory();
      const break_ = () => {
        proxy.inject(...rules());
        if (lag !== undefined) {
          for (const operation of CREATES) proxy.lag({ operation, describes: lag, times: 99 });
        }
      };
      break_();
      await site.provision(REQUEST);
      const during = await faulty.inventory();
      break_();
      await site.remove();
      const after = await faulty.inventory();
      expect(more(before, during), 'duplicates').toEqual(clean);
      expect(after, 'leaks, or canaries gone').toEqual(before);
      expect(await site.ledger()).toEqual([]);
      console.log(`${name}: ${site.attempts} attempts, ${site.failures.length} failures, ${canaries} canaries alive`);
    },
    ALL ? 600_000 : 120_000,
  );
});

describe('one call, and no other', () => {
  const all = () =>
    (['provision', 'remove'] as const).flatMap((phase) =>
      points[phase].flatMap((point) => (['lose-reply', 'reset'] as const).map((kind) => ({ phase, kind, ...point }))),
    );

  test(
    'is lost, or its answer is: one of each, and none in the end',
    async () => {
      const chosen = ALL ? all() : sampled(all(), 2, SEED);
      let site0 = faulty.site();
      const canaries = await faulty.canaries(site0, false);
      let before = await faulty.inventory();
      const wrong: string[] = [];
      for (const [index, { phase, kind, service, operation, nth }] of chosen.entries()) {
        const about = `${kind} of ${operation} ${nth} while ${phase}`;
        faulty.account.graceSeconds = 0.2;
        const site = faulty.site(site0);
        const rule = { service, operation, skip: nth, fault: { kind } };
        try {
          if (phase === 'provision') faulty.proxy.inject(rule);
          await site.provision(REQUEST);
          const during = await faulty.inventory();
          if (phase === 'remove') faulty.proxy.inject(rule);
          await site.remove();
          expect(more(before, during), about).toEqual(clean);
          expect(await faulty.inventory(), about).toEqual(before);
          expect(await site.ledger(), about).toEqual([]);
          expect(site.failures.length, about).toBeGreaterThan(0);
        } catch (error) {
          wrong.push(error instanceof Error ? error.message : String(error));
          // The others are not to suffer from what this one left.
          site0 = faulty.site();
          before = await faulty.inventory();
        }
        if (index % 20 === 19) console.log(`${index + 1} of ${chosen.length} calls, ${wrong.length} violations`);
      }
      console.log(
        `${chosen.length} of ${all().length} calls lost one by one: ${wrong.length} violations, ${canaries} canaries alive`,
      );
      expect(wrong).toEqual([]);
    },
    ALL ? 7_200_000 : 120_000,
  );
});
