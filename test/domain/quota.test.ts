import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  DEFAULT_QUOTAS,
  largerUse,
  requireMachineType,
  requireRoom,
  sumOfUse,
  useOf,
  type Quotas,
} from '../../src/domain/quota.ts';

const spec = fc.record({
  nodes: fc.integer({ min: 1, max: 64 }),
  storage: fc.integer({ min: 1, max: 5000 }).map((size) => `${size}Gi`),
  aws: fc.option(fc.record({ nodeCount: fc.integer({ min: 1, max: 64 }) }), { nil: undefined }),
});
const limits = fc.record({
  clusters: fc.integer({ min: 0, max: 10 }),
  nodes: fc.integer({ min: 0, max: 200 }),
  storageGiB: fc.integer({ min: 0, max: 200_000 }),
  machines: fc.integer({ min: 0, max: 100 }),
});
type Spec = Parameters<typeof useOf>[0];
const useOfSpec = (of: { nodes: number; storage: string; aws: { nodeCount: number } | undefined }) => useOf(of as Spec);

function admits(run: () => void): boolean {
  try {
    run();
    return true;
  } catch (error) {
    expect(error).toMatchObject({ code: 'QuotaReached' });
    expect((error as Error).message).toMatch(/An operator of the fleet can change the quota "\w+"\.$/);
    return false;
  }
}

describe('room for a cluster', () => {
  test('clusters that were let in one after the other are never more than the quotas', () => {
    fc.assert(
      fc.property(fc.array(spec, { maxLength: 30 }), limits, (specs, numbers) => {
        const quotas: Quotas = { ...DEFAULT_QUOTAS, ...numbers };
        let held = sumOfUse([]);
        for (const wanted of specs.map(useOfSpec)) {
          if (admits(() => requireRoom('acme', quotas, held, wanted))) held = sumOfUse([held, wanted]);
        }
        expect(held.clusters).toBeLessThanOrEqual(numbers.clusters);
        expect(held.nodes).toBeLessThanOrEqual(numbers.nodes);
        expect(held.storageBytes / 2 ** 30).toBeLessThanOrEqual(numbers.storageGiB);
        expect(held.machines).toBeLessThanOrEqual(numbers.machines);
      }),
    );
  });

  test('what is lowered or left as it is is never refused, also above the quota', () => {
    fc.assert(
      fc.property(spec, spec, spec, limits, (one, other, others, numbers) => {
        const [a, b] = [useOfSpec(one), useOfSpec(other)];
        const larger = largerUse(a, b);
        expect(admits(() => requireRoom('acme', { ...DEFAULT_QUOTAS, ...numbers }, useOfSpec(others), a, larger))).toBe(
          true,
        );
      }),
    );
  });
});

test('types of machines are those that a pattern fits, and a long name takes no time', () => {
  const may = (machineTypes: readonly string[], type: string) =>
    admits(() => requireMachineType('acme', { ...DEFAULT_QUOTAS, machineTypes }, type));
  const allowed = ['t3.micro', 't4g.large', 'm6i.large', 'm7g.4xlarge', 'c6i.2xlarge', 'r6gd.xlarge'];
  const refused = ['m6i.8xlarge', 'm6i.metal', 'p5.48xlarge', 'x2iedn.32xlarge', 'mac2.metal', 'u-24tb1.112xlarge'];
  expect(allowed.filter((type) => !may(DEFAULT_QUOTAS.machineTypes, type))).toEqual([]);
  expect(refused.filter((type) => may(DEFAULT_QUOTAS.machineTypes, type))).toEqual([]);
  fc.assert(
    fc.property(fc.stringMatching(/^[ab.*]{0,12}$/), fc.stringMatching(/^[ab.]{0,12}$/), (pattern, type) => {
      const regex = new RegExp(`^${pattern.replaceAll('.', '\\.').replaceAll(/\*+/g, '.*')}$`);
      expect(may([pattern], type)).toBe(regex.test(type));
    }),
  );
  expect(may([`${'a*'.repeat(30)}b`], 'a'.repeat(60))).toBe(false);
});
