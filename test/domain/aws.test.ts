/** Rules of the AWS provider: blocks of addresses, the guard of a request, names, policies. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { backupsPolicy, bucketsPolicy, deletionPolicy } from '../../src/domain/aws-backups-policy.ts';
import { boundaryPolicy } from '../../src/domain/aws-boundary.ts';
import { bucketNameOf, clientToken, IAM_PATH, operationTag, roleNameOf } from '../../src/domain/aws-names.ts';
import { isAllowed } from '../aws/iam.ts';
import {
  adminAccess,
  backupPolicy,
  podTrust,
  serviceTrust,
  type PolicyDocument,
} from '../../src/domain/aws-policies.ts';
import { workerPolicy } from '../../src/domain/aws-worker-policy.ts';
import { cutNetwork, longestPrefix, overlaps, parseCidr } from '../../src/domain/cidr.ts';
import { requestOf, resolveSpec } from '../../src/domain/cluster.ts';
import { backupKeys, isLeaseKey } from '../../src/domain/naming.ts';
import { parseProvisionInput } from '../../src/domain/input.ts';
import { capabilitiesOf } from '../../src/domain/provider.ts';

const REF = { tenant: 'acme', cluster: 'docs' };
const AT = { partition: 'aws', account: '123456789012', region: 'eu-west-1' };

test('a network is cut into subnets that lie inside of it and do not overlap, for every size that is accepted', () => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 6 }), fc.integer({ min: 16, max: 28 }), fc.nat(255), (zones, prefix, b) => {
      fc.pre(prefix <= longestPrefix(zones));
      const block = parseCidr(`10.${b}.0.0/${prefix}`);
      if (block === undefined) throw new Error('not a block');
      const parts = cutNetwork(block, zones).flatMap(({ publicCidr, privateCidr }) => [publicCidr, privateCidr]);
      const cidrs = parts.map((part) => parseCidr(part));
      expect(cidrs).toHaveLength(2 * zones);
      for (const [index, one] of cidrs.entries()) {
        if (one === undefined) throw new Error(`${parts[index]} is no block`);
        expect(one.prefix).toBeLessThanOrEqual(28);
        expect(one.base).toBeGreaterThanOrEqual(block.base);
        expect(one.base + 2 ** (32 - one.prefix)).toBeLessThanOrEqual(block.base + 2 ** (32 - block.prefix));
        for (const other of cidrs.slice(index + 1)) expect(other !== undefined && overlaps(one, other)).toBe(false);
      }
    }),
  );
});

describe('a request that cannot be met names the field and what to do', () => {
  const cases: [aws: object, field: string, detail: RegExp][] = [
    [{ region: 'mars-1' }, 'aws.region', /no region that is known here; known: us-east-1/],
    [{ instanceType: 'huge' }, 'aws.instanceType', /such as "m6i.large"/],
    [{ kubernetesVersion: '1.9' }, 'aws.kubernetesVersion', /such as "1.34"/],
    [{ cidr: '10.0.0.1/16' }, 'aws.cidr', /begins at its own first address/],
    [{ cidr: '10.0.0.0/33' }, 'aws.cidr', /such as "10.64.0.0\/16"/],
    [{ cidr: '10.0.0.0/25' }, 'aws.cidr', /too small for 3 zones; must be \/24 or larger/],
    [{ cidr: '10.0.0.0/8' }, 'aws.cidr', /must be \/16 or smaller/],
    [{ cidr: '10.100.0.0/17' }, 'aws.cidr', /overlaps 10.100.0.0\/16, which EKS uses for Services/],
    [{ availabilityZones: ['us-east-1a'] }, 'aws.availabilityZones', /at least 2/],
    [{ availabilityZones: ['us-east-1a', 'us-east-1a'] }, 'aws.availabilityZones', /twice/],
    [
      { region: 'eu-west-1', availabilityZones: ['us-east-1a', 'us-east-1b'] },
      'aws.availabilityZones',
      /not in eu-west-1/,
    ],
    [{ vpcId: 'vpc-0a1b2c3d' }, 'aws.subnetIds', /is needed with "vpcId"/],
    [{ create: { network: false } }, 'aws.vpcId', /is needed, and "subnetIds"/],
    [{ create: { controlPlane: false } }, 'aws.eksCluster', /the EKS cluster to use/],
    [{ create: { access: false } }, 'aws.roles.cluster', /is needed where "create.access" is false/],
    [{ endpointAccess: { publicCidrs: ['everywhere'] } }, 'aws.endpointAccess.publicCidrs[0]', /must be a block/],
    [{ surprise: 1 }, 'aws.surprise', /is not known here/],
  ];
  test.each(cases)('%j', (aws, field, detail) => {
    const input = { ...REF, provider: 'aws', aws };
    const fields = (() => {
      try {
        parseProvisionInput(input);
        return [];
      } catch (error) {
        return (error as { fields: { field: string; detail: string }[] }).fields;
      }
    })();
    expect(fields.find((one) => one.field === field)?.detail).toMatch(detail);
  });

  test('a field of AWS with another provider', () => {
    expect(() => parseProvisionInput({ ...REF, aws: {} })).toThrow(/aws: is for clusters with "provider": "aws" only/);
  });
});

test('names fit what AWS takes, however long tenant and cluster are', () => {
  const longest = { tenant: 'a'.repeat(20), cluster: 'b'.repeat(32) };
  for (const role of ['cluster', 'node', 'volumes', 'backup'] as const) {
    expect(roleNameOf(longest, 'ap-southeast-1', role)).toMatch(/^[\w-]{1,64}$/);
  }
  expect(clientToken('0'.repeat(36), 'subnet/private/us-east-1a')).toMatch(/^[\u0021-\u007E]{33,64}$/);
  expect(operationTag('provision-acme--docs-1')).toBe('provision-acme--docs-1');
  expect(operationTag('what ever? ünicode')).toMatch(/^[\w .:/=+@~-]{1,256}$/);
  expect(operationTag('a?')).not.toBe(operationTag('a!'));
});

test.each([
  {},
  { availabilityZones: ['us-east-1a', 'us-east-1b'], create: { backupBucket: true } },
  { nodeCount: 4, labels: { team: 'search' }, taints: [{ key: 'qdrant', effect: 'NO_SCHEDULE' as const }] },
  { vpcId: 'vpc-0a1b2c3d4e5f60718', subnetIds: ['subnet-0a1b2c3d', 'subnet-0a1b2c3e'], eksCluster: 'theirs' },
  {
    create: { access: false },
    roles: { cluster: 'arn:aws:iam::123456789012:role/c', node: 'arn:aws:iam::123456789012:role/n' },
    logging: ['api' as const],
    endpointAccess: { public: false },
  },
])('a cluster like one that was backed up can be asked for: %j', (aws) => {
  const spec = resolveSpec({ provider: 'aws', aws, nodes: 2, collections: [] }, {});
  const asked = parseProvisionInput({ ...REF, ...requestOf({ ...spec, suspended: true, keyRevision: 3 }) });
  expect(resolveSpec(asked, {})).toEqual(spec);
  const larger = resolveSpec({ ...asked, nodes: 5 }, {});
  expect(larger.aws?.nodeCount).toBe(aws.nodeCount ?? 5);
});

describe('policies', () => {
  const policies: Record<string, PolicyDocument> = {
    worker: workerPolicy('aws', 'arn:aws:iam::123456789012:policy/boundary'),
    backups: backupsPolicy('our-backups'),
    deletion: deletionPolicy('our-backups'),
    buckets: bucketsPolicy(),
    backup: backupPolicy(REF, AT, 'backups', 'fleet'),
    clusterTrust: serviceTrust('eks.amazonaws.com', AT),
    nodeTrust: serviceTrust('ec2.amazonaws.com', AT),
    podTrust: podTrust(REF, AT, { namespace: 'fleet-acme--docs', serviceAccount: 'qdrant-fleet-backup' }),
  };
  const statements = Object.entries(policies).flatMap(([name, { Statement }]) =>
    Statement.map((statement) => [`${name} ${statement.Sid}`, statement] as const),
  );
  const list = (value: string | readonly string[] | undefined) => [value ?? []].flat();

  test.each(statements)(
    '%s: no action is a pattern; every resource only for looking, or by tag',
    (_name, statement) => {
      if (statement.Effect === 'Deny') return;
      for (const action of list(statement.Action)) expect(action).toMatch(/^[a-z0-9]+:[A-Za-z]+$/);
      if (list(statement.Resource).includes('*')) {
        const tagged = statement.Condition?.['StringEquals']?.['aws:RequestTag/managed-by'] === 'qdrant-fleet';
        for (const action of list(statement.Action)) {
          if (tagged && action === 'eks:CreateCluster') continue;
          expect(action).toMatch(
            /^(?:ec2:Describe|eks:(?:Describe|List)|iam:(?:List|GetRole$)|sts:GetCallerIdentity$)/,
          );
        }
      }
      expect(statement.Principal).not.toBe('*');
    },
  );

  test('the backup role reads the data below its own prefix, and writes and removes nothing', () => {
    const { Statement } = policies['backup'] as PolicyDocument;
    expect(list(Statement[0]?.Resource)).toEqual(['arn:aws:s3:::backups/fleet/acme/docs/*/data/*']);
    const allowed = Statement.filter(({ Effect }) => Effect === 'Allow');
    expect(allowed.flatMap(({ Action }) => list(Action))).toEqual(['s3:GetObject', 's3:ListBucket']);
  });

  test('an administrator has the whole of an own EKS cluster, and of another the namespace of the Qdrant cluster', () => {
    expect(adminAccess(REF, 'aws', true)).toEqual({
      policyArn: 'arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy',
      accessScope: { type: 'cluster' },
    });
    expect(adminAccess(REF, 'aws-cn', false)).toEqual({
      policyArn: 'arn:aws-cn:eks::aws:cluster-access-policy/AmazonEKSAdminPolicy',
      accessScope: { type: 'namespace', namespaces: ['fleet-acme--docs'] },
    });
  });

  describe('a role gets rights only within the boundary', () => {
    const boundary = 'arn:aws:iam::123456789012:policy/qdrant-fleet-boundary';
    const policy = workerPolicy();
    const role = `arn:aws:iam::123456789012:role${IAM_PATH}fleet-acme--docs-0a1b2c3d-backup`;
    const managed = 'arn:aws:iam::aws:policy/AmazonEKSClusterPolicy';
    const ask = (action: string, context: Record<string, string>) =>
      isAllowed(policy, { action, resource: role, context });
    const asked = { 'aws:RequestTag/managed-by': 'qdrant-fleet', 'iam:PolicyARN': managed };

    test.each(['iam:CreateRole', 'iam:PutRolePolicy', 'iam:AttachRolePolicy'])('%s', (action) => {
      expect(ask(action, { ...asked, 'iam:PermissionsBoundary': boundary })).toBe(true);
      expect(ask(action, asked)).toBe(false);
      for (const other of [
        'arn:aws:iam::123456789012:policy/other',
        'arn:aws:iam::123456789012:policy/a:policy/qdrant-fleet-boundary',
        'arn:aws:iam::aws:policy/AdministratorAccess',
      ]) {
        expect(ask(action, { ...asked, 'iam:PermissionsBoundary': other }), other).toBe(false);
      }
    });

    test.each([
      'iam:DeleteRolePermissionsBoundary',
      'iam:PutRolePermissionsBoundary',
      'iam:UpdateAssumeRolePolicy',
      'iam:CreatePolicyVersion',
    ])('%s is not allowed at all', (action) => {
      expect(ask(action, { ...asked, 'iam:PermissionsBoundary': boundary })).toBe(false);
    });

    test('only the backup role has a policy of its own, and other managed policies are attached to none', () => {
      const context = { 'iam:PermissionsBoundary': boundary };
      const node = role.replace('-backup', '-node');
      expect(isAllowed(policy, { action: 'iam:PutRolePolicy', resource: node, context })).toBe(false);
      expect(
        ask('iam:AttachRolePolicy', { ...context, 'iam:PolicyARN': 'arn:aws:iam::aws:policy/AdministratorAccess' }),
      ).toBe(false);
    });

    test('the boundary lets no role change roles, take others, or write or remove backups', () => {
      const resource = 'arn:aws:s3:::fleet-acme--docs-0a1b2c3d4e5f/acme/docs/b/commit.json';
      const can = (action: string, at = '*') =>
        isAllowed(boundaryPolicy('our-backups'), { action, resource: at, context: {} });
      expect(can('s3:GetObject', resource)).toBe(true);
      for (const action of ['s3:PutObject', 's3:DeleteObject', 's3:PutBucketPolicy'])
        expect(can(action, resource)).toBe(false);
      for (const action of [
        'iam:PassRole',
        'iam:CreateRole',
        'iam:AttachRolePolicy',
        'sts:AssumeRole',
        'eks:CreateAccessEntry',
      ]) {
        expect(can(action), action).toBe(false);
      }
    });
  });

  test('who writes backups removes leases only; who removes them reads and writes nothing', () => {
    const key = 'arn:aws:s3:::our-backups/acme/docs/20261121T030000Z-1a2b3c4d/';
    const can = (name: string, action: string, resource: string) =>
      isAllowed(policies[name] as PolicyDocument, { action, resource, context: {} });
    for (const rest of ['commit.json', 'manifest.json', 'data/1/c/shard-0.snapshot']) {
      expect(can('backups', 's3:DeleteObject', key + rest), rest).toBe(false);
      expect(can('deletion', 's3:DeleteObject', key + rest), rest).toBe(true);
    }
    expect(can('backups', 's3:DeleteObject', `${key}leases/a.json`)).toBe(true);
    // Every key of a backup, where everything that can have a name is named like the folder of leases.
    const named = { tenant: 'leases', cluster: 'leases', backup: '20261121T030000Z-1a2b3c4d' };
    for (const prefix of ['', 'fleet', 'leases', 'a/leases']) {
      const keys = backupKeys({ ...named, prefix });
      const attempt = '0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9';
      for (const collection of ['leases', named.backup]) {
        const shard = keys.shard(attempt, collection, 0, 'a'.repeat(64));
        const blocks = keys.blocks(attempt, collection, 0);
        for (const data of [
          keys.commit,
          keys.manifest,
          keys.plan(attempt),
          keys.lane(attempt, '1'),
          shard,
          shard.replace('.snapshot', '.sample.json'),
          `${blocks}recipe.json`,
          `${keys.data}${attempt}/${collection}/x.json`,
        ]) {
          expect(isLeaseKey(data), data).toBe(false);
          expect(can('backups', 's3:DeleteObject', `arn:aws:s3:::our-backups/${data}`), data).toBe(false);
        }
      }
      for (const lease of [keys.lease('restore-acme--docs-1'), keys.holder(named.backup, attempt)]) {
        expect(isLeaseKey(lease), lease).toBe(true);
        expect(can('backups', 's3:DeleteObject', `arn:aws:s3:::our-backups/${lease}`), lease).toBe(true);
      }
    }
    for (const action of ['s3:GetObject', 's3:PutObject'])
      expect(can('deletion', action, `${key}commit.json`)).toBe(false);
  });

  test("the worker's policy fits into a managed policy, with a permissions boundary too", () => {
    const policy = workerPolicy('aws-us-gov', 'arn:aws-us-gov:iam::123456789012:policy/boundary');
    expect(JSON.stringify(policy).length).toBeLessThanOrEqual(6144);
  });

  test('a worker reaches the buckets of clusters and the fleet’s, and removes no version in them', () => {
    const { Statement } = policies['backups'] as PolicyDocument;
    const buckets = list(Statement.find(({ Sid }) => Sid === 'Lists')?.Resource);
    const reached = (name: string) =>
      buckets.some((arn) => new RegExp(`^${arn.replaceAll('*', '.*')}$`).test(`arn:aws:s3:::${name}`));
    expect(reached(bucketNameOf(REF, 'eu-west-1', '123456789012'))).toBe(true);
    const longest = { tenant: 'a'.repeat(20), cluster: 'b'.repeat(32) };
    expect(reached(bucketNameOf(longest, 'eu-west-1', '123456789012'))).toBe(true);
    expect(reached('our-backups')).toBe(true);
    expect(reached('fleet-backups')).toBe(false);
    const own = list(bucketsPolicy().Statement[0]?.Resource);
    expect(own).toEqual(buckets.filter((arn) => !arn.endsWith('our-backups')));
  });

  test.each(['backups', 'deletion', 'buckets'])(
    "%s: no version goes or loses its lock and nothing goes without TLS, whatever a bucket's policy allows",
    (name) => {
      const { Statement } = policies[name] as PolicyDocument;
      // What the bucket's policy allows counts like a statement of the identity's own.
      const opened: PolicyDocument = {
        Version: '2012-10-17',
        Statement: [...Statement, { Sid: 'Evil', Effect: 'Allow', Action: 's3:*', Resource: '*' }],
      };
      const bucket = `arn:aws:s3:::${bucketNameOf(REF, 'eu-west-1', '123456789012')}`;
      const can = (action: string, resource: string, tls = 'true') =>
        isAllowed(opened, { action, resource, context: { 'aws:SecureTransport': tls } });
      for (const action of [
        'DeleteObjectVersion',
        'BypassGovernanceRetention',
        'PutObjectRetention',
        'PutObjectLegalHold',
      ]) {
        expect(can(`s3:${action}`, `${bucket}/acme/docs/x`), action).toBe(false);
      }
      for (const action of ['PutBucketPolicy', 'DeleteBucketPolicy'])
        expect(can(`s3:${action}`, bucket), action).toBe(false);
      expect(can('s3:GetObject', `${bucket}/acme/docs/x`)).toBe(true);
      expect(can('s3:GetObject', `${bucket}/acme/docs/x`, 'false')).toBe(false);
    },
  );

  test.each([
    ['worker', workerPolicy()],
    ['backups', backupsPolicy()],
    ['deletion', deletionPolicy()],
    ['buckets', bucketsPolicy()],
    ['boundary', boundaryPolicy()],
  ])('docs/iam/%s.json is what npm run iam prints', (name, policy) => {
    const file = readFileSync(join(import.meta.dirname, `../../docs/iam/${name}.json`), 'utf8');
    expect(JSON.parse(file)).toEqual(JSON.parse(JSON.stringify(policy)));
  });
});

test('what a provider can do is told; one that is not there yet says which are', () => {
  expect(capabilitiesOf('aws')).toMatchObject({ suspend: true, volumeExpansion: true });
  expect(capabilitiesOf('aws').regions).toContain('eu-west-1');
  expect(capabilitiesOf('kubernetes').rooms).toEqual([]);
  expect(() => capabilitiesOf('google')).toThrow('Provider "google" is not supported yet; supported: kubernetes, aws.');
});
