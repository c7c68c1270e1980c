/**
 * AWS says no on the way: a quota, a permission. The failure names the call and the remedy, nothing of ours is left and
 * nothing else touched; and what the compensation is refused too is named by kind and id.
 *
 * FLEET_TEST_AWS=all goes through every call; otherwise a few, chosen by FLEET_TEST_SEED.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { FleetError } from '../../src/domain/errors.ts';
import { awsErrors, type Fault } from '../../src/local/aws/proxy/faults.ts';
import { FaultyAccount, REQUEST, sampled, type Point } from './faulty.ts';

const ALL = process.env['FLEET_TEST_AWS'] === 'all';
const SEED = Number(process.env['FLEET_TEST_SEED'] ?? 1);

let faulty: FaultyAccount;
let points: Point[];
let before: string[];

beforeAll(async () => {
  faulty = await FaultyAccount.open(ALL ? 'both' : 'ministack');
  const site = faulty.site();
  await site.provision(REQUEST);
  points = faulty.points();
  await site.remove();
  await faulty.canaries(faulty.site(), true);
  before = await faulty.inventory();
}, 300_000);
afterAll(() => faulty.close());

/** Quotas by the call that meets them: fault, the name of the quota in the failure, and its code. */
const QUOTAS: Readonly<Record<string, readonly [fault: Fault, says: RegExp]>> = {
  'iam:CreateRole': [awsErrors.limit, /"Roles per account".* --service-code iam --quota-code L-FE177D64/],
  'iam:AttachRolePolicy': [awsErrors.limit, /"Managed policies attached to an IAM role".*L-0DA4ABF3/],
  'ec2:CreateVpc': [awsErrors.ec2Limit('Vpc'), /"VPCs per Region".* --service-code vpc --quota-code L-F678F1CE/],
  'ec2:CreateInternetGateway': [awsErrors.ec2Limit('InternetGateway'), /"Internet gateways per Region".*L-A4707A72/],
  'ec2:CreateRouteTable': [awsErrors.ec2Limit('RouteTable'), /"Route tables per VPC".*L-589F43AA/],
  'ec2:CreateRoute': [awsErrors.ec2Limit('Route'), /"Routes per route table".*L-93826ACB/],
  'ec2:CreateSubnet': [awsErrors.ec2Limit('Subnet'), /"Subnets per VPC".*L-407747CB/],
  'ec2:AllocateAddress': [awsErrors.ec2Limit('Address'), /"EC2-VPC Elastic IPs".* --service-code ec2 .*L-0263D0A3/],
  'ec2:CreateNatGateway': [awsErrors.ec2Limit('NatGateway'), /"NAT gateways per Availability Zone".*L-FE5A380F/],
  'ec2:CreateVpcEndpoint': [awsErrors.ec2Limit('VpcEndpoint'), /"Gateway VPC endpoints per Region".*L-1B52E74A/],
  'ec2:CreateLaunchTemplate': [awsErrors.ec2Limit('LaunchTemplate'), /Service Quotas shows which/],
  'eks:CreateCluster': [awsErrors.resourceLimit, /"Clusters".* --service-code eks --quota-code L-1194D53C/],
  'eks:CreateNodegroup': [awsErrors.resourceLimit, /"Managed node groups per cluster".*L-6D54EA21/],
  'eks:CreateAddon': [awsErrors.resourceLimit, /Service Quotas shows which/],
  'eks:CreateAccessEntry': [awsErrors.resourceLimit, /Service Quotas shows which/],
  'eks:CreatePodIdentityAssociation': [awsErrors.resourceLimit, /Service Quotas shows which/],
  's3:CreateBucket': [awsErrors.tooManyBuckets, /"General purpose buckets".* --service-code s3 .*L-DC2B2D3D/],
};

/** Provision until it fails, compensate as the workflow does. @returns the failure, and what the compensation said */
async function fail(service: string, operation: string, fault: Fault): Promise<{ error: FleetError; said: string[] }> {
  const site = faulty.site();
  faulty.proxy.inject({ service, operation, times: 1000, fault });
  const error = await site.provision(REQUEST).then(
    () => expect.unreachable(`${operation} was not refused`),
    (reason: FleetError) => reason,
  );
  return { error, said: await site.compensate() };
}

const split = (name: string) => name.split(':') as [service: string, operation: string];

test('every call that makes something has its quota here', () => {
  const makes = points.filter(({ operation }) => /^(?:Create|Allocate)/.test(operation));
  const names = new Set(makes.map(({ service, operation }) => `${service}:${operation}`));
  expect([...names].filter((name) => QUOTAS[name] === undefined)).toEqual([]);
});

describe('a quota is reached', () => {
  const all = Object.keys(QUOTAS);
  test.each(ALL ? all : sampled(all, 3, SEED))('by %s: it is named, and nothing is left', async (name) => {
    const [fault, says] = QUOTAS[name] ?? [awsErrors.limit, /never/];
    const { error, said } = await fail(...split(name), fault);
    expect(error.code).toBe('CloudQuotaReached');
    expect(error.message).toContain(`to ${name}:`);
    expect(error.message).toMatch(says);
    expect(said).toEqual([]);
    expect(await faulty.inventory()).toEqual(before);
  });
});

describe('a permission is missing', () => {
  test(
    'for any call that changes something: the call and the permission are named, and nothing is left',
    async () => {
      const all = [...new Set(points.map(({ service, operation }) => `${service}:${operation}`))];
      for (const name of ALL ? all : sampled(all, 3, SEED)) {
        const [service, operation] = split(name);
        const denied = awsErrors.accessDenied(service, operation);
        const { error, said } = await fail(service, operation, denied);
        expect(error.code, name).toBe('CloudDenied');
        expect(error.message, name).toContain(`to ${name}:`);
        expect(error.message, name).toMatch(/lacks the permission [a-z0-9]+:\w+; docs\/iam has its whole policy/);
        expect(said, name).toEqual([]);
        expect(await faulty.inventory(), name).toEqual(before);
      }
    },
    ALL ? 600_000 : 60_000,
  );

  test('that a call needs besides its own: that one is named', async () => {
    const { error } = await fail('eks', 'CreateCluster', {
      kind: 'error',
      status: 403,
      code: 'AccessDeniedException',
      message:
        'User: arn:aws:sts::123456789012:assumed-role/fleet/w is not authorized to perform: iam:PassRole on resource: x',
    });
    expect(error.message).toContain('lacks the permission iam:PassRole');
    expect(await faulty.inventory()).toEqual(before);
  });
});

describe('a permission is missing, and those to remove things too', () => {
  /** Main route tables come and go with their VPC, security groups with the EKS cluster, interfaces with gateways. */
  const ids = (items: readonly string[]) =>
    items.filter((item) => !/^(?:rtb|sg|eni) /.test(item)).map((item) => item.split(' ')[1] ?? '');

  test.each([
    ['nothing may be removed', /^(?:Delete|Release|Detach|Disassociate)/],
    ['nothing may be removed or even looked at', /./],
  ])('%s: what is left is named by kind and id; allowed again, it goes', async (_what, operation) => {
    const site = faulty.site();
    const denied = (what: RegExp) =>
      (['ec2', 'eks', 'iam', 's3', 'sts'] as const).map((service) => ({
        service,
        operation: what,
        times: 10_000,
        fault: awsErrors.accessDenied(service),
      }));
    faulty.proxy.inject(...denied(/^CreatePodIdentityAssociation$/));
    await expect(site.provision(REQUEST)).rejects.toMatchObject({ code: 'CloudDenied' });
    faulty.proxy.inject(...denied(operation));
    site.patience = 3;
    const said = (await site.compensate()).join('\n');
    const left = (await faulty.inventory()).filter((item) => !before.includes(item));
    expect(left.length).toBeGreaterThan(14);
    expect(ids(left).filter((id) => !said.includes(id))).toEqual([]);
    site.patience = 60;
    expect(await site.compensate()).toEqual([]);
    expect(await faulty.inventory()).toEqual(before);
    expect(await site.ledger()).toEqual([]);
  });
});
