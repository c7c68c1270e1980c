/** Whether an EKS cluster enforces network policies, and how a cluster tells it. */
import { describe, expect, test } from 'vitest';
import { addonSettings, enforcementOf } from '../../src/domain/aws-addons.ts';
import { conditionsOf, withEnforcement } from '../../src/domain/conditions.ts';

test('the VPC CNI of a cluster that the fleet makes enforces policies', () => {
  const settings = addonSettings('vpc-cni', 'arn:aws:iam::123456789012:role/volumes');
  expect(settings).toEqual({ configurationValues: '{"enableNetworkPolicy":"true"}' });
  expect(enforcementOf('fleet-acme--docs', settings as { configurationValues: string })).toMatchObject({
    status: 'True',
  });
});

describe('of an EKS cluster of somebody else’s', () => {
  test.each([
    ['JSON that says so', { configurationValues: '{"env":{"A":"b"},"enableNetworkPolicy": "true"}' }, 'True'],
    ['YAML that says so', { configurationValues: "enableNetworkPolicy: 'true'\nnodeAgent: {}" }, 'True'],
    ['a boolean', { configurationValues: '{"enableNetworkPolicy":true}' }, 'True'],
    ['the opposite', { configurationValues: '{"enableNetworkPolicy":"false"}' }, 'False'],
    ['nothing about it', { configurationValues: '{}' }, 'False'],
    ['no configuration', {}, 'False'],
    ['no add-on that can be looked at', undefined, 'Unknown'],
  ] as const)('%s: %j is %s', (_what, facts, status) => {
    const seen = enforcementOf('shared', facts);
    expect(seen.status).toBe(status);
    if (status !== 'True') expect(seen.message).toMatch(/"vpc-cni".*"shared"|"shared".*"vpc-cni"/);
  });
});

test('the condition outlives every phase, keeps its time, and is not there where nobody looked', () => {
  const types = (phase: 'CREATING' | 'HEALTHY', before = [] as ReturnType<typeof conditionsOf>) =>
    conditionsOf({ phase }, before, 't2').map(({ type }) => type);
  expect(types('HEALTHY')).toEqual(['Ready', 'Progressing', 'Degraded', 'Failed']);
  const unknown = withEnforcement(
    conditionsOf({ phase: 'CREATING' }, [], 't0'),
    enforcementOf('shared', undefined),
    't1',
  );
  expect(types('HEALTHY', unknown).at(-1)).toBe('PoliciesEnforced');
  const [again] = withEnforcement(
    conditionsOf({ phase: 'HEALTHY' }, unknown, 't2'),
    enforcementOf('shared', undefined),
    't3',
  ).slice(-1);
  expect(again).toMatchObject({ status: 'Unknown', lastTransitionTime: 't1' });
  const enforced = withEnforcement(unknown, enforcementOf('shared', addonSettings('vpc-cni', '')), 't4');
  expect(enforced).toHaveLength(5);
  expect(enforced.at(-1)).toMatchObject({ status: 'True', lastTransitionTime: 't4' });
});
