/** Who may name what exists: every nameable thing by itself, and that nothing is allowed by accident. */
import fc from 'fast-check';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import { resolveSpec, type ClusterRequest } from '../../src/domain/cluster.ts';
import { FleetError } from '../../src/domain/errors.ts';
import {
  DEFAULT_POLICY,
  requireAllowed,
  requireChangeAllowed,
  type TenantPolicy,
  type Wanted,
} from '../../src/domain/tenant-policy.ts';

const ENV = { DATABASE_URL: 'postgres://localhost/fleet', FLEET_BACKUP_BUCKET: 'backups' };
const ROLE = 'arn:aws:iam::123456789012:role';
const KEY = 'arn:aws:kms:us-east-1:123456789012:key/0a1b';

const FULL = {
  providers: ['kubernetes', 'aws'],
  aws: {
    regions: ['us-east-1'],
    eksClusters: ['us-east-1/shared'],
    vpcIds: ['vpc-0a1b2c3d'],
    subnetIds: ['subnet-0a1b2c3d', 'subnet-0a1b2c3e'],
    roleArns: [`${ROLE}/c`, `${ROLE}/n`],
    kmsKeyArns: [KEY],
    adminPrincipalArns: [`${ROLE}/admins`],
    internalLoadBalancer: true,
  },
  placement: { nodeSelector: { disk: ['nvme'] }, tolerations: [{ key: 'qdrant' }] },
};

/** A policy as the configuration reads it. */
function policyOf(file: unknown): TenantPolicy {
  const path = join(mkdtempSync(join(tmpdir(), 'fleet-policy-')), 'policy.json');
  writeFileSync(path, typeof file === 'string' ? file : JSON.stringify(file));
  const { FLEET_TENANT_POLICY: policy } = loadConfig({ ...ENV, FLEET_TENANT_POLICY: path });
  if (policy === undefined) throw new Error('no policy was read');
  return policy;
}

/** Fields that are refused. */
function refused(policy: TenantPolicy, wanted: Wanted, tenant = 'acme'): string[] {
  try {
    requireAllowed(policy, tenant, wanted);
    return [];
  } catch (error) {
    if (!FleetError.is(error, 'NotAllowed')) throw error;
    return error.fields.map(({ field }) => field);
  }
}

/** One request for each thing that can be named, and the fields that name it. */
const NAMED: [what: string, wanted: ClusterRequest, fields: string[]][] = [
  ['a provider', { provider: 'aws' }, ['provider']],
  ['a region', { provider: 'aws', aws: { region: 'us-east-1' } }, ['aws.region']],
  ['an EKS cluster', { provider: 'aws', aws: { eksCluster: 'shared' } }, ['aws.eksCluster']],
  ['a VPC', { provider: 'aws', aws: { vpcId: 'vpc-0a1b2c3d' } }, ['aws.vpcId']],
  [
    'subnets',
    { provider: 'aws', aws: { subnetIds: ['subnet-0a1b2c3d', 'subnet-0a1b2c3e'] } },
    ['aws.subnetIds[0]', 'aws.subnetIds[1]'],
  ],
  ['a role of the cluster', { provider: 'aws', aws: { roles: { cluster: `${ROLE}/c` } } }, ['aws.roles.cluster']],
  ['a role of machines', { provider: 'aws', aws: { roles: { node: `${ROLE}/n` } } }, ['aws.roles.node']],
  ['a key', { provider: 'aws', aws: { secretsEncryptionKeyArn: KEY } }, ['aws.secretsEncryptionKeyArn']],
  [
    'administrators',
    { provider: 'aws', aws: { adminPrincipalArns: [`${ROLE}/admins`] } },
    ['aws.adminPrincipalArns[0]'],
  ],
  [
    'a load balancer on AWS',
    { provider: 'aws', network: { internalLoadBalancer: true } },
    ['network.internalLoadBalancer'],
  ],
  ['a label of nodes', { placement: { nodeSelector: { disk: 'nvme' } } }, ['placement.nodeSelector.disk']],
  [
    'a taint of nodes',
    { placement: { tolerations: [{ key: 'qdrant', operator: 'Exists' }] } },
    ['placement.tolerations[0]'],
  ],
];

describe.each(NAMED)('%s', (_what, request, fields) => {
  const spec = resolveSpec({ ...request, collections: [] }, {});

  test('is allowed where the policy lists it, as it is asked for and as it is resolved', () => {
    expect(refused(policyOf({ acme: FULL }), request)).toEqual([]);
    expect(refused(policyOf({ '*': FULL }), spec)).toEqual([]);
  });

  test('is refused where it is not listed, or to another tenant, or without a file', () => {
    const onlyProviders = {
      providers: fields[0] === 'provider' ? [] : FULL.providers,
      aws: { regions: ['eu-west-1'] },
    };
    // Everything on AWS is in a region that is not allowed here, too.
    const others =
      request.provider === 'aws' && fields[0] !== 'provider' ? new Set(['aws.region', ...fields]) : new Set(fields);
    expect(new Set(refused(policyOf({ acme: onlyProviders }), spec))).toEqual(others);
    expect(refused(policyOf({ other: FULL }), spec)).not.toEqual([]);
    expect(refused(policyOf({ acme: { providers: [] }, '*': FULL }), spec)).not.toEqual([]);
    expect(refused(DEFAULT_POLICY, spec)).not.toEqual([]);
  });

  test('is told in words that are the same whatever exists', () => {
    const policy = policyOf({ acme: {} });
    expect(() => requireAllowed(policy, 'acme', spec)).toThrow(
      /is not allowed to tenant "acme"\. The operator of the fleet allows it in the file that FLEET_TENANT_POLICY names/,
    );
  });
});

test('the Kubernetes of the workers is for everybody where there is no file', () => {
  expect(refused(DEFAULT_POLICY, {})).toEqual([]);
  expect(refused(DEFAULT_POLICY, { network: { internalLoadBalancer: true } })).toEqual([]);
});

test('machines of its own are a cluster’s to choose from; those of an EKS cluster that it shares are not', () => {
  const policy = policyOf({ acme: { ...FULL, placement: {} } });
  const placement = { nodeSelector: { disk: 'nvme' }, tolerations: [{ key: 'qdrant' }] };
  expect(refused(policy, { provider: 'aws', aws: {}, placement })).toEqual([]);
  expect(refused(policy, { provider: 'aws', aws: { eksCluster: 'shared' }, placement })).toEqual([
    'placement.nodeSelector.disk',
    'placement.tolerations[0]',
  ]);
});

test('an EKS cluster of that name in another region is another one', () => {
  const policy = policyOf({ acme: { ...FULL, aws: { ...FULL.aws, regions: undefined } } });
  expect(refused(policy, { provider: 'aws', aws: { region: 'eu-west-1', eksCluster: 'shared' } })).toEqual([
    'aws.eksCluster',
  ]);
});

describe('a toleration', () => {
  const cases: [rule: object, wanted: object, allowed: boolean][] = [
    [{ key: 'qdrant' }, { key: 'qdrant', value: 'x', effect: 'NoExecute' }, true],
    [{ key: 'qdrant' }, { operator: 'Exists' }, false],
    [{ key: 'qdrant' }, { key: 'gpu', operator: 'Exists' }, false],
    [{ key: 'qdrant', value: 'only' }, { key: 'qdrant', operator: 'Exists' }, false],
    [{ key: 'qdrant', value: 'only' }, { key: 'qdrant', value: 'only' }, true],
    [{ key: 'qdrant', effect: 'NoSchedule' }, { key: 'qdrant' }, false],
    [{ key: 'qdrant', effect: 'NoSchedule' }, { key: 'qdrant', effect: 'NoSchedule' }, true],
    [{}, { operator: 'Exists' }, true],
  ];
  test.each(cases)('%j %j: %j', (rule, toleration, allowed) => {
    const policy = policyOf({ acme: { placement: { tolerations: [rule] } } });
    const fields = refused(policy, { placement: { tolerations: [toleration] } });
    expect(fields).toEqual(allowed ? [] : ['placement.tolerations[0]']);
  });
});

describe('a change', () => {
  const policy = policyOf({ acme: { providers: ['aws'], aws: { adminPrincipalArns: [`${ROLE}/admins`] } } });
  const has: Wanted = { provider: 'aws', aws: { eksCluster: 'shared', adminPrincipalArns: [`${ROLE}/before`] } };

  test('that names nothing, or what the cluster has already, is allowed whatever the policy says now', () => {
    for (const change of [
      {},
      { aws: { eksCluster: 'shared' } },
      { aws: has.aws as object },
      { provider: 'google' as const },
    ]) {
      expect(() => requireChangeAllowed(policy, 'acme', has, change)).not.toThrow();
      expect(() => requireChangeAllowed(DEFAULT_POLICY, 'acme', has, change)).not.toThrow();
    }
  });

  test('that names something else is held against the policy', () => {
    const change = { aws: { eksCluster: 'victim', adminPrincipalArns: [`${ROLE}/admins`, `${ROLE}/evil`] } };
    expect(() => requireChangeAllowed(policy, 'acme', has, change)).toThrow(
      /^aws\.eksCluster: "victim".*aws\.adminPrincipalArns\[1\]: ".*evil"/,
    );
    const placement = { nodeSelector: { disk: 'nvme' } };
    expect(() => requireChangeAllowed(DEFAULT_POLICY, 'acme', {}, { placement })).toThrow(
      /placement\.nodeSelector\.disk/,
    );
  });
});

test('a file that is not understood stops the process, and says where', () => {
  const cases: [file: unknown, says: RegExp][] = [
    ['{', /cannot be read as JSON/],
    [{ acme: { provider: ['aws'] } }, /acme: Unrecognized key: "provider"/],
    [{ acme: { aws: { eksClusters: ['shared'] } } }, /acme\.aws\.eksClusters\.0: must be "<region>\/<name>"/],
    [{ Acme: {} }, /tenant "Acme"/],
    [[], /expected record/],
  ];
  for (const [file, says] of cases) expect(() => policyOf(file)).toThrow(says);
});

test('names that objects inherit are no tenants and no labels', () => {
  const policy = policyOf('{"acme":{"placement":{"nodeSelector":{"disk":["a"]}}}}');
  for (const name of ['__proto__', 'constructor', 'toString', 'hasOwnProperty']) {
    expect(refused(policy, { provider: 'aws' }, name)).toEqual(['provider']);
    const nodeSelector = JSON.parse(`{"${name}":"a"}`) as Record<string, string>;
    expect(refused(policy, { placement: { nodeSelector } })).toEqual([`placement.nodeSelector.${name}`]);
  }
});

test('the answer stays small, whatever is asked for', () => {
  fc.assert(
    fc.property(fc.array(fc.string({ minLength: 300, maxLength: 3000 }), { minLength: 30, maxLength: 200 }), (arns) => {
      try {
        requireAllowed(policyOf({ acme: { providers: ['aws'] } }), 'acme', {
          provider: 'aws',
          aws: { adminPrincipalArns: arns },
        });
        expect.unreachable('it was allowed');
      } catch (error) {
        expect(FleetError.is(error, 'NotAllowed') && error.message.length).toBeLessThan(8000);
      }
    }),
    { numRuns: 10 },
  );
});
