/**
 * AWS takes the request and cannot make it, or cannot remove it: a zone without capacity, a control plane, gateway or
 * add-on that fails. The failure says why and what to do, nothing is left, and the same request succeeds afterwards.
 *
 * FLEET_TEST_AWS=all has every failure; otherwise a few, chosen by FLEET_TEST_SEED.
 */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { AwsPlan } from '../../src/domain/aws-plan.ts';
import type { FleetError } from '../../src/domain/errors.ts';
import { awsErrors, type FaultRule } from '../../src/local/aws/proxy/faults.ts';
import { nodegroupIssues, type Hold, type Issue } from '../../src/local/aws/proxy/pace.ts';
import { until } from '../support/fleet.ts';
import { FaultyAccount, more, REQUEST, sampled } from './faulty.ts';
import type { Site } from './site.ts';

const ALL = process.env['FLEET_TEST_AWS'] === 'all';
const SEED = Number(process.env['FLEET_TEST_SEED'] ?? 1);

let faulty: FaultyAccount;
let clean: Record<string, number>;

beforeAll(async () => {
  faulty = await FaultyAccount.open('ministack');
  const site = faulty.site();
  const before = await faulty.inventory();
  await site.provision(REQUEST);
  clean = more(before, await faulty.inventory());
  await site.remove();
}, 300_000);
afterAll(() => faulty.close());

const issue = (code: string, message: string): Issue => ({ code, message, resourceIds: ['thing-1'] });

interface Failure {
  readonly hold?: Hold;
  readonly rule?: FaultRule;
  readonly code: string;
  readonly says: readonly RegExp[];
}

const group = (...fails: Issue[]): Hold => ({ kind: 'nodegroup', during: 'create', fails });
const FAILURES: Readonly<Record<string, Failure>> = {
  'a node group without capacity in its zone': {
    hold: group(nodegroupIssues.insufficientCapacity()),
    code: 'CapacityUnavailable',
    says: [
      /3 x m6i.large\) is CREATE_FAILED in us-east-1a, us-east-1b: AsgInstanceLaunchFailures/,
      /"aws.instanceType"/,
    ],
  },
  'a node group beyond the quota of machines': {
    hold: group(nodegroupIssues.vcpuQuota()),
    code: 'CloudQuotaReached',
    says: [/"Running On-Demand Standard instances \(vCPUs\)"/, /L-1216C47A/],
  },
  'a node group whose machines do not join': {
    hold: group(nodegroupIssues.nodesDoNotJoin()),
    code: 'InfrastructureFailed',
    says: [/NodeCreationFailure: Instances failed to join/, /route out/],
  },
  'a node group in subnets without addresses': {
    hold: group(issue('InsufficientFreeAddresses', 'One or more of the subnets has no free addresses.')),
    code: 'CapacityUnavailable',
    says: [/larger "aws.cidr"/],
  },
  'a zone that cannot hold a control plane': {
    rule: { operation: 'CreateCluster', fault: awsErrors.unsupportedZone },
    code: 'CapacityUnavailable',
    says: [/eks:CreateCluster/, /us-east-1e/, /"aws.availabilityZones"/],
  },
  'a control plane that fails': {
    hold: { kind: 'cluster', during: 'create', fails: [issue('InternalFailure', 'Something went wrong.')] },
    code: 'InfrastructureFailed',
    says: [/is FAILED: InternalFailure: Something went wrong/, /try again/],
  },
  'a NAT gateway that fails': {
    hold: {
      kind: 'nat-gateway',
      during: 'create',
      fails: [issue('InsufficientFreeAddressesInSubnet', 'Subnet has insufficient free addresses')],
    },
    code: 'InfrastructureFailed',
    says: [/NAT gateway nat-\w+ is failed: InsufficientFreeAddressesInSubnet/, /larger "aws.cidr"/],
  },
};

describe('it cannot be made', () => {
  const names = Object.keys(FAILURES);
  test.each(ALL ? names : sampled(names, 3, SEED))(
    '%s: why, and nothing is left; the same request succeeds afterwards',
    async (name) => {
      const { hold, rule, code, says } = FAILURES[name] ?? { code: '', says: [] };
      const site = faulty.site();
      await faulty.canaries(site, true);
      const before = await faulty.inventory();
      if (hold !== undefined) faulty.proxy.hold(hold);
      if (rule !== undefined) faulty.proxy.inject(rule);
      const error = await failureOf(site);
      expect(error.code).toBe(code);
      for (const pattern of says) expect(error.message).toMatch(pattern);
      expect(await site.compensate()).toEqual([]);
      expect(await faulty.inventory()).toEqual(before);
      expect(await site.ledger()).toEqual([]);

      const again = faulty.site(site);
      await again.provision(REQUEST);
      expect(more(before, await faulty.inventory())).toEqual(clean);
      // The canaries are of another operation on a cluster of this name.
      await again.remove({ onlyOwn: true });
      expect(await faulty.inventory()).toEqual(before);
    },
  );

  test('an add-on that fails is made again, and only when it fails for the third time everything is given up', async () => {
    const fails = [issue('ClusterUnreachable', 'The API server did not answer.')];
    const hold: Hold = { kind: 'addon', during: 'create', resource: /coredns$/, fails };
    const before = await faulty.inventory();
    const patient = faulty.site();
    faulty.proxy.log.length = 0;
    faulty.proxy.hold(hold, hold);
    await patient.provision(REQUEST);
    expect(faulty.proxy.counts().get('eks:DeleteAddon')).toBe(2);
    await patient.remove();
    expect(await faulty.inventory()).toEqual(before);

    const site = faulty.site();
    faulty.proxy.hold(hold, hold, hold);
    const error = await failureOf(site);
    expect(error).toMatchObject({ code: 'InfrastructureFailed' });
    expect(error.message).toMatch(/"coredns" of .* failed 3 times: ClusterUnreachable: The API server did not answer/);
    expect(await site.compensate()).toEqual([]);
    expect(await faulty.inventory()).toEqual(before);
  });

  test('EKS does not see the role yet: it is asked again', async () => {
    const message = 'Role with arn: arn:aws:iam::123456789012:role/x, could not be assumed because it does not exist';
    const fault = { kind: 'error', status: 400, code: 'InvalidParameterException', message } as const;
    const before = await faulty.inventory();
    const site = faulty.site();
    faulty.proxy.inject({ operation: 'CreateCluster', times: 3, fault }, { operation: 'CreateNodegroup', fault });
    await site.provision(REQUEST);
    expect(site.failures.filter((error) => error.message.includes('EKS does not see yet'))).toHaveLength(4);
    await site.remove();
    expect(await faulty.inventory()).toEqual(before);
  });

  test('another run of the same workflow id begins anew where its first one could not clean up', async () => {
    const before = await faulty.inventory();
    const site = faulty.site();
    faulty.proxy.hold(group(nodegroupIssues.insufficientCapacity()));
    await failureOf(site);
    // The network goes but for its VPC, which nobody may delete.
    const denied = { operation: 'DeleteVpc', times: 99, fault: awsErrors.accessDenied('ec2', 'DeleteVpc') };
    faulty.proxy.inject(denied);
    expect(await site.compensate()).toEqual([expect.stringMatching(/DeleteVpc.* Not removed: vpc vpc-\w+\.$/)]);
    expect(more(before, await faulty.inventory())).toMatchObject({ vpc: 1 });
    site.runId = `second-run-of-${site.operation}`;
    await site.provision(REQUEST);
    expect(more(before, await faulty.inventory())).toEqual(clean);
    await site.remove();
    expect(await faulty.inventory()).toEqual(before);
  });
});

const update = (hold: Pick<Hold, 'fails' | 'degrades'>): Hold => ({ kind: 'nodegroup', during: 'update', ...hold });
const NO_MORE: Readonly<Record<string, Failure>> = {
  'no capacity in the zone': {
    hold: update({ fails: [nodegroupIssues.insufficientCapacity()] }),
    code: 'CapacityUnavailable',
    says: [/"workers" of .* \(m6i.large\) could not be changed: AsgInst/, /than m6i.large and restore a backup/],
  },
  'the quota of machines': {
    hold: update({ fails: [nodegroupIssues.vcpuQuota()] }),
    code: 'CloudQuotaReached',
    says: [/VcpuLimitExceeded/, /"Running On-Demand Standard instances \(vCPUs\)"/, /L-1216C47A/],
  },
  'the quota of machines, told by the group after its update': {
    hold: update({ degrades: [nodegroupIssues.vcpuQuota()] }),
    code: 'CloudQuotaReached',
    says: [/VcpuLimitExceeded/, /"Running On-Demand Standard instances \(vCPUs\)"/, /L-1216C47A/],
  },
  'the quota of network interfaces': {
    hold: update({ fails: [issue('EniLimitReached', 'No more elastic network interfaces.')] }),
    code: 'CloudQuotaReached',
    says: [/"Network interfaces per Region"/],
  },
  'no addresses in the subnets': {
    hold: update({
      fails: [issue('AsgInstanceLaunchFailures', 'Could not launch. InsufficientFreeAddressesInSubnet - none left.')],
    }),
    code: 'CapacityUnavailable',
    says: [/Free addresses in the subnets, or make a cluster with a larger "aws.cidr"/],
  },
  'a role that lost its permission': {
    hold: update({ fails: [issue('AccessDenied', 'Not authorized to launch instances.')] }),
    code: 'InfrastructureFailed',
    says: [/AccessDenied: Not authorized/, /docs\/iam/],
  },
};

describe('it cannot have more machines', () => {
  let site: Site;
  let plan: AwsPlan;
  let eksCluster = '';
  let before: string[];
  beforeAll(async () => {
    before = await faulty.inventory();
    site = faulty.site();
    ({ plan, eksCluster } = await site.provision(REQUEST));
  });
  // Machines of which nobody in Kubernetes knows: other tests' groups have the same name, and fewer.
  const machines = 9;

  test.each(Object.keys(NO_MORE))('%s: why, and what to do about a cluster that runs', async (name) => {
    const { hold, code, says } = NO_MORE[name] ?? { code: '', says: [] };
    const where = { ...site.ref, aws: plan.spec };
    const nodegroupName = 'workers';
    const size = async () => {
      const { eks } = await faulty.account.aws();
      return (await eks.describeNodegroup({ clusterName: eksCluster, nodegroupName })).nodegroup?.scalingConfig;
    };
    if (hold !== undefined) faulty.proxy.hold(hold);
    // Each change is a run of its own, which its client tokens derive from.
    site.runId = randomUUID();
    const begun = await site.run((a) => a.setMachines({ ...where, machines }));
    const error = await site
      .run((a) => a.awaitMachines({ ...where, ...begun }))
      .then(
        () => expect.unreachable('they are there'),
        (failure: FleetError) => failure,
      );
    expect(error.code).toBe(code);
    for (const pattern of says) expect(error.message).toMatch(pattern);
    // The way back, as the workflow goes it.
    await site.run((a) => a.setMachines({ ...where, machines: 3 }));
    await until('the update is over', async () => (await size())?.desiredSize === 3);
  });

  test('and all goes in the end', async () => {
    await site.remove();
    expect(await faulty.inventory()).toEqual(before);
  });
});

describe('it cannot be removed', () => {
  test('a node group whose deletion fails: its issues are told, it is tried again, and all goes in the end', async () => {
    const before = await faulty.inventory();
    const site = faulty.site();
    await site.provision(REQUEST);
    const fails = [
      issue('Ec2SecurityGroupDeletionFailure', 'DependencyViolation: resource sg-1 has a dependent object'),
    ];
    const hold: Hold = { kind: 'nodegroup', during: 'delete', describes: 1, fails };
    faulty.proxy.hold(hold, hold);
    await site.remove();
    const told = site.failures.filter((error) => (error as FleetError).code === 'InfrastructureBlocked');
    expect(told[0]?.message).toMatch(
      /"workers" of .* Ec2SecurityGroupDeletionFailure: Depend.*what else uses the security/,
    );
    expect(await faulty.inventory()).toEqual(before);
  });

  test('a control plane whose deletion fails, or that is protected, or has machines of others: told by name', async () => {
    const before = await faulty.inventory();
    const site = faulty.site();
    const { network, roles, eksCluster } = await site.provision(REQUEST);
    const { eks } = await faulty.account.aws();
    // A node group of somebody else's in our cluster.
    const nodegroupName = 'theirs';
    const { privateSubnetIds: subnets } = network;
    await eks.createNodegroup({ clusterName: eksCluster, nodegroupName, subnets: [...subnets], nodeRole: roles.node });
    await eks.describeNodegroup({ clusterName: eksCluster, nodegroupName });
    site.patience = 12;
    await expect(site.remove()).rejects.toMatchObject({
      code: 'InfrastructureBlocked',
      message: expect.stringMatching(/cannot be removed: .*nodegroups attached.* It has the node groups theirs;/),
    });
    expect((await eks.listNodegroups({ clusterName: eksCluster })).nodegroups).toEqual(['theirs']);
    await eks.deleteNodegroup({ clusterName: eksCluster, nodegroupName });
    await eks.describeNodegroup({ clusterName: eksCluster, nodegroupName });

    await eks.updateClusterConfig({ name: eksCluster, deletionProtection: true });
    await expect(site.remove()).rejects.toMatchObject({ message: expect.stringContaining('deletion protection') });
    await eks.updateClusterConfig({ name: eksCluster, deletionProtection: false });

    faulty.proxy.hold({ kind: 'cluster', during: 'delete', fails: [issue('InternalFailure', 'No luck.')] });
    site.patience = 60;
    await site.remove();
    expect(site.failures.map(({ message }) => message).join()).toContain('It failed before: InternalFailure: No luck.');
    expect(await faulty.inventory()).toEqual(before);
  });
});

async function failureOf(site: Site): Promise<FleetError> {
  return site.provision(REQUEST).then(
    () => expect.unreachable('it was made'),
    (error: FleetError) => error,
  );
}
