/** A specification out of a bucket may be anything: it names no other tenant, breaks nothing, and is judged like a request. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { requestOf, resolveSpec, type ClusterSpec } from '../../src/domain/cluster.ts';
import { FleetError } from '../../src/domain/errors.ts';
import { parseProvisionInput } from '../../src/domain/input.ts';
import { DEFAULT_POLICY, requireAllowed } from '../../src/domain/tenant-policy.ts';

const TARGET = { tenant: 'acme', cluster: 'docs' };
const SPEC = resolveSpec({ provider: 'aws', aws: {}, nodes: 2, collections: [] }, {});

/** What a restore asks for, as the workflow does. */
function judge(spec: unknown): 'refused' | ReturnType<typeof parseProvisionInput> {
  const request = { ...requestOf(spec as ClusterSpec), ...TARGET };
  try {
    return parseProvisionInput(request);
  } catch (error) {
    if (FleetError.is(error, 'InvalidInput')) return 'refused';
    throw error;
  }
}

test.each([
  ['another tenant', { tenant: 'victim', cluster: 'docs' }],
  ['a time to wait', { readyTimeoutSeconds: 1 }],
  ['fields that nobody knows', { surprise: 1, constructor: { prototype: 1 } }],
])('a specification that brings %s brings nothing', (_what, more) => {
  const asked = judge({ ...SPEC, ...more });
  expect(asked).toEqual(judge(SPEC));
  expect(asked).toMatchObject(TARGET);
});

test.each([
  ['aws', 'everything'],
  ['aws', []],
  ['aws', { ...SPEC.aws, endpointAccess: 7 }],
  ['aws', { ...SPEC.aws, endpointAccess: { public: true, publicCidrs: 'all' } }],
  ['aws', { ...SPEC.aws, subnetIds: 'subnet-1' }],
  ['aws', { ...SPEC.aws, roles: 1 }],
  ['placement', { nodeSelector: [] }],
  ['nodes', '3'],
  ['provider', 'moon'],
])('with %s as %j it is refused', (field, value) => {
  expect(judge({ ...SPEC, [field]: value })).toBe('refused');
});

test('whatever it is, it is refused or a request of the same tenant', () => {
  const spec = fc.record(
    Object.fromEntries(
      [...Object.keys(SPEC), 'tenant', 'cluster', 'placement', 'network'].map((key) => [key, fc.jsonValue()]),
    ),
    { requiredKeys: [] },
  );
  const onAws = fc
    .record(Object.fromEntries(Object.keys(SPEC.aws ?? {}).map((key) => [key, fc.jsonValue()])), { requiredKeys: [] })
    .map((aws) => ({ ...SPEC, aws: { ...SPEC.aws, ...aws } }));
  fc.assert(
    fc.property(fc.oneof(spec, onAws), (any) => {
      const asked = judge(any);
      if (asked !== 'refused') expect(asked).toMatchObject(TARGET);
    }),
    { numRuns: 500 },
  );
});

test('what it names is held against the policy like a request', () => {
  const arn = 'arn:aws:iam::123456789012:role/evil';
  const net = { vpcId: 'vpc-0a1b2c3d', subnetIds: ['subnet-0a1b2c3d', 'subnet-0a1b2c3e'] };
  const aws = { ...SPEC.aws, ...net, eksCluster: 'fleet-victim--docs', adminPrincipalArns: [arn], create: {} };
  const asked = judge({ ...SPEC, aws });
  expect(asked).toMatchObject({ aws: { eksCluster: 'fleet-victim--docs', adminPrincipalArns: [arn] } });
  expect(() => requireAllowed(DEFAULT_POLICY, 'acme', asked as object)).toThrow(/provider: "aws" is not allowed/);
  const onlyAws = new Map([['*', { ...DEFAULT_POLICY.get('*'), providers: ['aws'] }]]) as typeof DEFAULT_POLICY;
  expect(() => requireAllowed(onlyAws, 'acme', asked as object)).toThrow(
    /aws\.eksCluster: "fleet-victim--docs".*aws\.vpcId.*aws\.subnetIds\[0\].*aws\.adminPrincipalArns\[0\]/,
  );
});

test('a cluster that stood open to everybody by an earlier default does not come back so', () => {
  const open = (publicCidrs: string[]) =>
    judge({ ...SPEC, aws: { ...SPEC.aws, endpointAccess: { public: true, publicCidrs } } });
  expect(open(['0.0.0.0/0'])).not.toHaveProperty('aws.endpointAccess');
  expect(open(['198.51.100.0/24'])).toHaveProperty('aws.endpointAccess.publicCidrs', ['198.51.100.0/24']);
});
