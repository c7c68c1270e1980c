/**
 * The confused deputy, over both emulators: everything that exists already and that a request can name, where it is a
 * neighbour's, another installation's, somebody's whom the operator's file does not let this tenant name, or allowed.
 * Nothing is changed before a refusal, by the calls that reach the account.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Aws } from '../../src/clients/aws/clients.ts';
import { tagList } from '../../src/clients/aws/inventory.ts';
import { clusterTags, IAM_PATH, type Tags } from '../../src/domain/aws-names.ts';
import { resolveAws, type AwsRequest } from '../../src/domain/aws.ts';
import { resolveSpec, type ClusterRequest } from '../../src/domain/cluster.ts';
import type { TenantRules } from '../../src/domain/tenant-policy.ts';
import { EMULATORS, startAwsEmulators, type AwsEmulators } from '../../src/local/aws/emulators.ts';
import { AwsProxy } from '../../src/local/aws/proxy/proxy.ts';
import { awsProvider } from '../../src/providers/aws.ts';
import { CHANGES } from './faulty.ts';
import { Account, REGION } from './support.ts';

let emulators: AwsEmulators;
beforeAll(async () => {
  emulators = await startAwsEmulators();
}, 300_000);
afterAll(() => emulators.stop());

const THINGS = ['eksCluster', 'vpcId', 'subnetIds', 'roles.cluster', 'roles.node', 'adminPrincipalArns'] as const;
type Thing = (typeof THINGS)[number];

/** Whose a thing is, by its tags. */
const OWNERS = [
  'nobody',
  'a neighbour',
  'another tenant',
  'another installation',
  'part of a fleet',
  'itself',
] as const;
type OwnerName = (typeof OWNERS)[number];

/** How often each kind of answer was seen: written into the report of the run. */
const seen = { allowed: 0, refused: 0, writes: 0 };

describe.each(EMULATORS)('on %s', (emulator) => {
  let proxy: AwsProxy;
  let account: Account;
  let policies: Map<string, TenantRules>;
  let made = 0;

  beforeAll(async () => {
    proxy = await AwsProxy.listen({ routes: { '*': emulators.urls[emulator] ?? '' } });
    policies = new Map();
    account = await Account.open(proxy.url, { policy: policies });
  });
  afterAll(async () => {
    await account.close();
    await proxy.close();
  });

  /** Make one of everything with these tags. @returns a request that names a thing of it, with whatever it needs */
  async function stage(thing: Thing, tags: Tags): Promise<AwsRequest> {
    const aws = await account.aws();
    made += 1;
    const foreign = await network(aws, thing === 'vpcId' ? tags : {}, thing === 'subnetIds' ? tags : {});
    const cluster = `there-${emulator}-${made}`;
    const role = await roleOf(aws, `there-${emulator}-${made}`, /role|admin/i.test(thing) ? tags : {});
    switch (thing) {
      case 'eksCluster':
        await aws.eks.createCluster({
          name: cluster,
          roleArn: role,
          resourcesVpcConfig: { subnetIds: [...foreign.subnetIds] },
          tags: { ...tags },
        });
        return { ...foreign, eksCluster: cluster };
      case 'roles.cluster':
        return { roles: { cluster: role } };
      case 'roles.node':
        return { roles: { node: role } };
      case 'adminPrincipalArns':
        return { adminPrincipalArns: [role] };
      default:
        return foreign;
    }
  }

  const tenant = () => account.parts.tenant;

  async function tagsOf(owner: OwnerName): Promise<Tags> {
    const installation = await account.parts.catalog.installation();
    const own = { installation, tenant: tenant(), cluster: 'docs' };
    switch (owner) {
      case 'nobody':
        return { team: 'search' };
      case 'a neighbour':
        return clusterTags({ ...own, cluster: 'victim' });
      case 'another tenant':
        return clusterTags({ ...own, tenant: 'victim' });
      case 'another installation':
        return clusterTags({ ...own, installation: 'other' });
      case 'part of a fleet':
        return { 'qdrant-fleet/tenant': tenant(), 'qdrant-fleet/cluster': 'docs' };
      default:
        return clusterTags(own);
    }
  }

  /** Reserve and plan, as the workflow does first. @returns the refusal, and the changing calls that reached the account */
  async function ask(request: AwsRequest, rules: TenantRules) {
    policies.clear();
    policies.set(tenant(), rules);
    const operation = `provision-${made}`;
    const ref = { tenant: tenant(), cluster: 'docs' };
    proxy.log.length = 0;
    const wanted: ClusterRequest = { provider: 'aws', aws: request, nodes: 1, collections: [] };
    const refusal = await account.parts
      .as(operation, async (a) => {
        const spec = await a.reserveCluster({ ...ref, request: wanted });
        return a.planInfrastructure({ ...ref, spec: spec.aws ?? resolveAws({}, 1) });
      })
      .then(
        () => undefined,
        (error: unknown) => error as { code: string; message: string },
      );
    await account.parts.as(operation, (a) => a.forgetCluster({ ...ref, onlyOwn: true }));
    const calls = proxy.log.map(({ service, operation: name }) => `${service}:${name}`);
    const writes = calls.filter((call) => CHANGES.test(call.split(':')[1] ?? ''));
    seen.writes += writes.length;
    if (refusal === undefined) seen.allowed += 1;
    else seen.refused += 1;
    return { refusal, calls, writes };
  }

  describe.each(THINGS)('%s', (thing) => {
    test.each(OWNERS)('that carries the tags of %s', async (owner) => {
      const request = await stage(thing, await tagsOf(owner));
      const { refusal, writes } = await ask(request, allowing(request));
      expect(writes).toEqual([]);
      if (owner === 'nobody' || owner === 'itself') expect(refusal).toBeUndefined();
      else {
        expect(refusal?.code, refusal?.message).toBe('NotAllowed');
        expect(refusal?.message).toContain(`aws.${thing}`);
        expect(refusal?.message).not.toContain('victim');
      }
    });

    test('that the file does not allow: refused before the account is asked anything', async () => {
      const request = await stage(thing, await tagsOf('nobody'));
      const { refusal, calls } = await ask(request, allowing({}));
      expect(refusal?.code).toBe('NotAllowed');
      expect(refusal?.message).toContain(`aws.${thing}`);
      expect(calls).toEqual([]);
    });

    test('that does not exist, and is not allowed: the same words', async () => {
      const request = missing(thing);
      const { refusal, calls } = await ask(request, allowing({}));
      expect(refusal?.code).toBe('NotAllowed');
      expect(calls).toEqual([]);
    });
  });

  test('an EKS cluster that carries the tags of another is not entered, whatever the catalogue says', async () => {
    const installation = await account.parts.catalog.installation();
    const provider = awsProvider({
      aws: account.clients,
      helm: 'helm',
      installation: () => Promise.resolve(installation),
    });
    for (const owner of ['a neighbour', 'another tenant', 'another installation'] as const) {
      const { eksCluster = '' } = await stage('eksCluster', await tagsOf(owner));
      const aws = { ...resolveAws({ region: REGION, eksCluster }, 1) };
      const spec = { ...resolveSpec({ provider: 'aws', collections: [] }, {}), aws };
      const ref = { tenant: tenant(), cluster: 'docs' };
      proxy.log.length = 0;
      await expect(provider.access(ref, spec)).rejects.toMatchObject({ code: 'NotAllowed' });
      expect(proxy.log.map(({ operation }) => operation)).toEqual(['DescribeCluster']);
    }
    await provider.close();
  });

  test('provider aws for a tenant to whom it is not allowed: refused before the account is asked anything', async () => {
    const { refusal, calls } = await ask({}, { ...allowing({}), providers: ['kubernetes'] });
    expect(refusal).toMatchObject({ code: 'NotAllowed' });
    expect(refusal?.message).toMatch(/^provider: "aws" is not allowed to tenant/);
    expect(calls).toEqual([]);
  });
});

test('no call of all these changed anything', () => {
  expect(seen).toEqual({ allowed: 24, refused: 2 * (6 * 4 + 6 * 2 + 1), writes: 0 });
});

/** A policy that allows what a request names, and nothing else. */
function allowing({ eksCluster, vpcId, subnetIds = [], roles = {}, adminPrincipalArns = [] }: AwsRequest): TenantRules {
  return {
    providers: ['aws'],
    aws: {
      eksClusters: eksCluster === undefined ? [] : [`${REGION}/${eksCluster}`],
      vpcIds: vpcId === undefined ? [] : [vpcId],
      subnetIds,
      roleArns: Object.values(roles),
      kmsKeyArns: [],
      adminPrincipalArns,
      internalLoadBalancer: false,
    },
    placement: { nodeSelector: {}, tolerations: [] },
  };
}

/** Names like those of what exists. */
function missing(thing: Thing): AwsRequest {
  const arn = `arn:aws:iam::123456789012:role${IAM_PATH}fleet-none`;
  const net = { vpcId: 'vpc-00000000000000000', subnetIds: ['subnet-00000000000000000', 'subnet-00000000000000001'] };
  switch (thing) {
    case 'eksCluster':
      return { ...net, eksCluster: 'none' };
    case 'roles.cluster':
      return { roles: { cluster: arn } };
    case 'roles.node':
      return { roles: { node: arn } };
    case 'adminPrincipalArns':
      return { adminPrincipalArns: [arn] };
    default:
      return net;
  }
}

async function network({ ec2 }: Aws, vpcTags: Tags, subnetTags: Tags) {
  const { Vpc } = await ec2.createVpc({ CidrBlock: '10.9.0.0/16' });
  const vpcId = Vpc?.VpcId ?? '';
  const subnetIds: string[] = [];
  for (const [index, AvailabilityZone] of ['us-east-1a', 'us-east-1b'].entries()) {
    const { Subnet } = await ec2.createSubnet({ VpcId: vpcId, CidrBlock: `10.9.${index}.0/24`, AvailabilityZone });
    subnetIds.push(Subnet?.SubnetId ?? '');
  }
  const tag = async (id: string, tags: Tags) => {
    if (Object.keys(tags).length > 0) await ec2.createTags({ Resources: [id], Tags: tagList(tags) });
  };
  await tag(vpcId, vpcTags);
  // The second alone: one is enough.
  await tag(subnetIds[1] ?? '', subnetTags);
  return { vpcId, subnetIds };
}

async function roleOf({ iam }: Aws, RoleName: string, tags: Tags): Promise<string> {
  const { Role } = await iam.createRole({
    RoleName,
    AssumeRolePolicyDocument: '{"Version":"2012-10-17","Statement":[]}',
    Tags: tagList(tags),
  });
  return Role?.Arn ?? '';
}
