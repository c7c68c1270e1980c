/** The proxy adds to either emulator what AWS does: time, faults, tokens, updates. Against the SDK, on both. */
import {
  AllocateAddressCommand,
  CreateNatGatewayCommand,
  CreateVpcCommand,
  DeleteNatGatewayCommand,
  DeleteSubnetCommand,
  DescribeInstanceTypeOfferingsCommand,
  DescribeNatGatewaysCommand,
  DescribeNetworkInterfacesCommand,
  DescribeSecurityGroupsCommand,
  DescribeVpcsCommand,
  ReleaseAddressCommand,
} from '@aws-sdk/client-ec2';
import {
  CreateAddonCommand,
  CreateClusterCommand,
  CreateNodegroupCommand,
  DeleteClusterCommand,
  DeleteNodegroupCommand,
  DescribeAddonCommand,
  DescribeAddonVersionsCommand,
  DescribeClusterCommand,
  DescribeClusterVersionsCommand,
  DescribeNodegroupCommand,
  DescribeUpdateCommand,
  ListClustersCommand,
  ListNodegroupsCommand,
  UpdateAddonCommand,
  UpdateClusterConfigCommand,
  UpdateClusterVersionCommand,
  UpdateNodegroupConfigCommand,
  UpdateNodegroupVersionCommand,
  type EKSClient,
} from '@aws-sdk/client-eks';
import { CreateRoleCommand, GetRoleCommand } from '@aws-sdk/client-iam';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { EMULATORS, startAwsEmulators, type AwsEmulators } from '../../src/local/aws/emulators.ts';
import { awsErrors } from '../../src/local/aws/proxy/faults.ts';
import { nodegroupIssues } from '../../src/local/aws/proxy/pace.ts';
import { AwsProxy } from '../../src/local/aws/proxy/proxy.ts';
import { clients, errorOf, makeNetwork, ROLE } from './support.ts';

let aws: AwsEmulators;
beforeAll(async () => {
  aws = await startAwsEmulators({ managedPolicies: false });
}, 300_000);
afterAll(() => aws.stop());

const TOKEN = 'provision-acme-digits-0001-control-plane';

describe.each(EMULATORS)('in front of %s', (emulator) => {
  let proxy: AwsProxy;
  let api: ReturnType<typeof clients>;
  let subnetIds: string[];
  beforeAll(async () => {
    proxy = await AwsProxy.listen({ routes: { '*': aws.urls[emulator] ?? '' } });
    api = clients(proxy);
  });
  beforeEach(async () => {
    await aws.reset(emulator);
    proxy.reset();
    ({ subnetIds } = await makeNetwork(api.ec2));
    proxy.log.length = 0;
  });
  afterAll(() => proxy.close());

  const create = (more: Record<string, unknown> = {}) =>
    api.eks.send(
      new CreateClusterCommand({
        name: 'one',
        roleArn: ROLE,
        version: '1.33',
        resourcesVpcConfig: { subnetIds },
        ...more,
      }),
    );
  const describeCluster = async (name = 'one') => (await api.eks.send(new DescribeClusterCommand({ name }))).cluster;
  const active = () => until(async () => (await describeCluster())?.status === 'ACTIVE');
  const group = { clusterName: 'one', nodegroupName: 'workers' };
  const createGroup = (more: Record<string, unknown> = {}) =>
    api.eks.send(
      new CreateNodegroupCommand({
        ...group,
        nodeRole: ROLE,
        subnets: subnetIds,
        scalingConfig: { minSize: 1, desiredSize: 2, maxSize: 4 },
        labels: { pool: 'qdrant', old: 'yes' },
        ...more,
      }),
    );
  const describeGroup = async () => (await api.eks.send(new DescribeNodegroupCommand(group))).nodegroup;
  const ready = async () => {
    await create();
    await active();
    await createGroup();
    await until(async () => (await describeGroup())?.status === 'ACTIVE');
  };

  test('a cluster is made, described, and deleted, each in its time', async () => {
    proxy.hold(
      { kind: 'cluster', during: 'create', describes: 2 },
      { kind: 'cluster', during: 'delete', describes: 2 },
    );
    expect((await create()).cluster?.status).toBe('CREATING');
    expect(await errorOf(createGroup())).toBe('InvalidRequestException');
    expect(await errorOf(api.eks.send(new DeleteClusterCommand({ name: 'one' })))).toBe('ResourceInUseException');
    const seen = [await describeCluster(), await describeCluster(), await describeCluster()];
    expect(seen.map((cluster) => cluster?.status)).toEqual(['CREATING', 'CREATING', 'ACTIVE']);
    expect(seen[0]?.endpoint).toBeUndefined();
    expect(seen[2]?.endpoint).toMatch(/^https:/);

    expect((await api.eks.send(new DeleteClusterCommand({ name: 'one' }))).cluster?.status).toBe('DELETING');
    expect((await api.eks.send(new ListClustersCommand({}))).clusters).toEqual(['one']);
    expect(await errorOf(create())).toBe('ResourceInUseException');
    expect((await describeCluster())?.status).toBe('DELETING');
    expect((await describeCluster())?.status).toBe('DELETING');
    expect(await errorOf(describeCluster())).toBe('ResourceNotFoundException');
    expect((await api.eks.send(new ListClustersCommand({}))).clusters).toEqual([]);
  });

  test("a cluster stands in its subnets' VPC, in two zones, with a security group that goes with it", async () => {
    const [first = ''] = subnetIds;
    expect(await errorOf(create({ resourcesVpcConfig: { subnetIds: [first] } }))).toBe('InvalidParameterException');
    expect(await errorOf(create({ version: '9.99' }))).toBe('InvalidParameterException');
    await create();
    await active();
    const groups = async () => {
      const filter = { Filters: [{ Name: 'tag:aws:eks:cluster-name', Values: ['one'] }] };
      return (await api.ec2.send(new DescribeSecurityGroupsCommand(filter))).SecurityGroups ?? [];
    };
    const network = (await describeCluster())?.resourcesVpcConfig;
    expect(await groups()).toMatchObject([{ GroupId: network?.clusterSecurityGroupId, VpcId: network?.vpcId }]);
    await api.eks.send(new DeleteClusterCommand({ name: 'one' }));
    expect(await groups()).toEqual([]);
  });

  test('a node group fails for its reasons, and can be deleted then; its cluster only after it', async () => {
    await create();
    await active();
    proxy.hold({ kind: 'nodegroup', during: 'create', fails: [nodegroupIssues.insufficientCapacity()] });
    await createGroup();
    await describeGroup();
    const failed = await describeGroup();
    expect(failed).toMatchObject({
      status: 'CREATE_FAILED',
      health: { issues: [{ code: 'AsgInstanceLaunchFailures' }] },
    });
    expect((await describeGroup())?.status).toBe('CREATE_FAILED');
    expect(await errorOf(api.eks.send(new DeleteClusterCommand({ name: 'one' })))).toBe('ResourceInUseException');
    await api.eks.send(new DeleteNodegroupCommand(group));
    expect((await api.eks.send(new ListNodegroupsCommand({ clusterName: 'one' }))).nodegroups).toEqual(['workers']);
    expect(await errorOf(api.eks.send(new DeleteClusterCommand({ name: 'one' })))).toBe('ResourceInUseException');
    await until(async () => (await errorOf(describeGroup())) === 'ResourceNotFoundException');
    await api.eks.send(new DeleteClusterCommand({ name: 'one' }));
  });

  test('a deletion that fails leaves the node group, and can be tried again', async () => {
    await ready();
    const issue = { code: 'Ec2SecurityGroupDeletionFailure', message: 'in use', resourceIds: ['sg-0a'] };
    proxy.hold({ kind: 'nodegroup', during: 'delete', fails: [issue] });
    await api.eks.send(new DeleteNodegroupCommand(group));
    expect((await describeGroup())?.status).toBe('DELETING');
    expect(await describeGroup()).toMatchObject({ status: 'DELETE_FAILED', health: { issues: [issue] } });
    await api.eks.send(new DeleteNodegroupCommand(group));
    await until(async () => (await errorOf(describeGroup())) === 'ResourceNotFoundException');
  });

  test('a cluster is upgraded one minor version at a time, and its nodes after it', async () => {
    await ready();
    const upgrade = (version: string) => api.eks.send(new UpdateClusterVersionCommand({ name: 'one', version }));
    expect(await errorOf(upgrade('1.35'))).toBe('InvalidParameterException');
    const nodes = { ...group, version: '1.34' };
    expect(await errorOf(api.eks.send(new UpdateNodegroupVersionCommand(nodes)))).toBe('InvalidParameterException');

    proxy.hold({ kind: 'cluster', during: 'update', describes: 2 });
    const { update } = await upgrade('1.34');
    const ask = { name: 'one', updateId: update?.id ?? '' };
    expect(update).toMatchObject({ status: 'InProgress', type: 'VersionUpdate' });
    expect(await errorOf(upgrade('1.34'))).toBe('ResourceInUseException');
    expect(await describeCluster()).toMatchObject({ status: 'UPDATING', version: '1.33' });
    expect((await api.eks.send(new DescribeUpdateCommand(ask))).update?.status).toBe('InProgress');
    expect((await api.eks.send(new DescribeUpdateCommand(ask))).update?.status).toBe('Successful');
    expect(await describeCluster()).toMatchObject({ status: 'ACTIVE', version: '1.34' });

    await api.eks.send(new UpdateNodegroupVersionCommand(nodes));
    expect((await describeGroup())?.status).toBe('UPDATING');
    expect(await describeGroup()).toMatchObject({ status: 'ACTIVE', version: '1.34' });
  });

  test('an update that fails says why, and changes nothing', async () => {
    await ready();
    proxy.hold({ kind: 'nodegroup', during: 'update', fails: [{ code: 'PodEvictionFailure', message: 'a budget' }] });
    const { update } = await api.eks.send(
      new UpdateNodegroupConfigCommand({ ...group, scalingConfig: { desiredSize: 3 } }),
    );
    await describeGroup();
    const ask = { name: 'one', nodegroupName: 'workers', updateId: update?.id ?? '' };
    const ended = (await api.eks.send(new DescribeUpdateCommand(ask))).update;
    expect(ended).toMatchObject({ status: 'Failed', errors: [{ errorCode: 'PodEvictionFailure' }] });
    expect(await describeGroup()).toMatchObject({ status: 'ACTIVE', scalingConfig: { desiredSize: 2 } });
  });

  test('sizes, labels and taints of a node group are changed; a size out of its bounds is refused', async () => {
    await ready();
    const change = (config: object) => api.eks.send(new UpdateNodegroupConfigCommand({ ...group, ...config }));
    expect(await errorOf(change({ scalingConfig: { desiredSize: 9 } }))).toBe('InvalidParameterException');
    await change({
      scalingConfig: { desiredSize: 4 },
      labels: { addOrUpdateLabels: { tier: 'gold' }, removeLabels: ['old'] },
      taints: { addOrUpdateTaints: [{ key: 'qdrant', value: 'only', effect: 'NO_SCHEDULE' }] },
    });
    await until(async () => (await describeGroup())?.status === 'ACTIVE');
    expect(await describeGroup()).toMatchObject({
      scalingConfig: { minSize: 1, desiredSize: 4, maxSize: 4 },
      taints: [{ key: 'qdrant', value: 'only', effect: 'NO_SCHEDULE' }],
    });
    expect((await describeGroup())?.labels).toEqual({ pool: 'qdrant', tier: 'gold' });
  });

  test('deletion protection keeps a cluster, until it is switched off', async () => {
    await create({ deletionProtection: true });
    await active();
    const remove = () => api.eks.send(new DeleteClusterCommand({ name: 'one' }));
    expect(await errorOf(remove())).toBe('InvalidRequestException');
    await api.eks.send(new UpdateClusterConfigCommand({ name: 'one', deletionProtection: false }));
    await active();
    await remove();
  });

  test('versions, instance types', async () => {
    const { clusterVersions = [] } = await api.eks.send(new DescribeClusterVersionsCommand({}));
    expect(clusterVersions.filter(({ defaultVersion }) => defaultVersion)).toHaveLength(1);
    const asked = { addonName: 'aws-ebs-csi-driver', kubernetesVersion: '1.34' };
    const { addons } = await api.eks.send(new DescribeAddonVersionsCommand(asked));
    expect(addons?.[0]?.addonVersions?.[0]?.compatibilities).toMatchObject([
      { clusterVersion: '1.34', defaultVersion: true },
    ]);
    const types = async (type: string) => {
      const Filters = [{ Name: 'instance-type', Values: [type] }];
      const command = new DescribeInstanceTypeOfferingsCommand({ LocationType: 'availability-zone', Filters });
      return (await api.ec2.send(command)).InstanceTypeOfferings;
    };
    expect((await types('m6i.large'))?.map(({ Location }) => Location)).toContain('us-east-1a');
    expect(await types('m99.huge')).toEqual([]);
  });

  test('the same token gets the first answer again, with other parameters it is refused', async () => {
    const first = await create({ clientRequestToken: TOKEN });
    expect((await create({ clientRequestToken: TOKEN })).cluster?.arn).toBe(first.cluster?.arn);
    expect(await errorOf(create({ clientRequestToken: TOKEN, version: '1.34' }))).toBe('IdempotentParameterMismatch');
    expect(await errorOf(create({ clientRequestToken: `${TOKEN}-2` }))).toBe('ResourceInUseException');
    expect(await errorOf(create({ name: 'two', clientRequestToken: 'short' }))).toBe('InvalidParameterException');

    const nat = async (SubnetId = '', token = TOKEN) => {
      const { AllocationId } = await address;
      return api.ec2.send(new CreateNatGatewayCommand({ SubnetId, AllocationId, ClientToken: token }));
    };
    const address = api.ec2.send(new AllocateAddressCommand({ Domain: 'vpc' }));
    const [a, b] = await Promise.all([nat(subnetIds[0]), nat(subnetIds[0])]);
    expect(a.NatGateway?.NatGatewayId).toBe(b.NatGateway?.NatGatewayId);
    expect(await errorOf(nat(subnetIds[1]))).toBe('IdempotentParameterMismatch');
    expect((await api.ec2.send(new DescribeNatGatewaysCommand({}))).NatGateways).toHaveLength(1);
  });

  test('an answer that is lost was acted upon; the token of the retry finds it', async () => {
    proxy.inject({ operation: 'CreateCluster', fault: { kind: 'lose-reply' } });
    const retrying = clients(proxy, 2).eks;
    const { cluster } = await retrying.send(
      new CreateClusterCommand({
        name: 'one',
        roleArn: ROLE,
        resourcesVpcConfig: { subnetIds },
        clientRequestToken: TOKEN,
      }),
    );
    expect(cluster?.name).toBe('one');
    expect(proxy.log.filter(({ operation }) => operation === 'CreateCluster').map(({ status }) => status)).toEqual([
      0, 200,
    ]);

    // Without a token there are two.
    proxy.inject({ operation: 'CreateVpc', fault: { kind: 'lose-reply' } });
    const vpcs = async () => ((await api.ec2.send(new DescribeVpcsCommand({}))).Vpcs ?? []).length;
    const before = await vpcs();
    await clients(proxy, 2).ec2.send(new CreateVpcCommand({ CidrBlock: '10.8.0.0/16' }));
    expect(await vpcs()).toBe(before + 2);
  });

  test('what was created is not seen at once', async () => {
    proxy.lag({ operation: 'CreateVpc', describes: 2 }, { operation: 'CreateRole', describes: 1 });
    const { Vpc } = await api.ec2.send(new CreateVpcCommand({ CidrBlock: '10.7.0.0/16' }));
    const id = Vpc?.VpcId ?? '';
    const ask = { VpcIds: [id] };
    expect(await errorOf(api.ec2.send(new DescribeVpcsCommand(ask)))).toBe('InvalidVpcID.NotFound');
    const listed = async () => ((await api.ec2.send(new DescribeVpcsCommand({}))).Vpcs ?? []).map(({ VpcId }) => VpcId);
    expect(await listed()).not.toContain(id);
    expect(await listed()).toContain(id);

    const trust = JSON.stringify({ Version: '2012-10-17', Statement: [] });
    await api.iam.send(new CreateRoleCommand({ RoleName: 'late', AssumeRolePolicyDocument: trust }));
    expect(await errorOf(api.iam.send(new GetRoleCommand({ RoleName: 'late' })))).toBe('NoSuchEntityException');
    expect((await api.iam.send(new GetRoleCommand({ RoleName: 'late' }))).Role?.RoleName).toBe('late');

    proxy.lag({ operation: 'CreateCluster', describes: 1 });
    await create();
    expect(await errorOf(describeCluster())).toBe('ResourceNotFoundException');
    expect((await describeCluster())?.status).toBe('CREATING');
  });

  test('a NAT gateway takes its time, and keeps its subnet and its address until it is gone', async () => {
    const [SubnetId = ''] = subnetIds;
    const { AllocationId } = await api.ec2.send(new AllocateAddressCommand({ Domain: 'vpc' }));
    const { NatGateway } = await api.ec2.send(new CreateNatGatewayCommand({ SubnetId, AllocationId }));
    const id = NatGateway?.NatGatewayId ?? '';
    const state = async () =>
      (await api.ec2.send(new DescribeNatGatewaysCommand({ NatGatewayIds: [id] }))).NatGateways?.[0]?.State;
    expect([NatGateway?.State, await state(), await state()]).toEqual(['pending', 'pending', 'available']);
    expect(await errorOf(api.ec2.send(new DeleteSubnetCommand({ SubnetId })))).toBe('DependencyViolation');
    await api.ec2.send(new DeleteNatGatewayCommand({ NatGatewayId: id }));
    expect(await errorOf(api.ec2.send(new ReleaseAddressCommand({ AllocationId })))).toBe('InvalidIPAddress.InUse');
    expect(await state()).toBe('deleting');
    expect(await state()).toBe('deleted');
    expect((await api.ec2.send(new DescribeNetworkInterfacesCommand({}))).NetworkInterfaces).toEqual([]);
    await api.ec2.send(new ReleaseAddressCommand({ AllocationId }));
    await api.ec2.send(new DeleteSubnetCommand({ SubnetId }));

    proxy.hold({
      kind: 'nat-gateway',
      during: 'create',
      describes: 0,
      fails: [{ code: 'InsufficientFreeAddressesInSubnet', message: 'Subnet has insufficient free addresses' }],
    });
    const again = await api.ec2.send(new AllocateAddressCommand({ Domain: 'vpc' }));
    const failed = await api.ec2.send(
      new CreateNatGatewayCommand({ SubnetId: subnetIds[1], AllocationId: again.AllocationId }),
    );
    expect(failed.NatGateway).toMatchObject({ State: 'failed', FailureCode: 'InsufficientFreeAddressesInSubnet' });
  });

  test('every call is in the log: service, operation, resource, status', async () => {
    await create();
    await errorOf(describeCluster('none'));
    const { Vpc } = await api.ec2.send(new CreateVpcCommand({ CidrBlock: '10.6.0.0/16' }));
    expect(
      proxy.log.map(({ service, operation, resource, status, errorCode }) => [
        service,
        operation,
        resource,
        status,
        errorCode,
      ]),
    ).toEqual([
      ['eks', 'CreateCluster', 'one', 200, undefined],
      ['eks', 'DescribeCluster', 'none', 404, 'ResourceNotFoundException'],
      ['ec2', 'CreateVpc', Vpc?.VpcId, 200, undefined],
    ]);
    expect([...proxy.counts()]).toEqual([
      ['ec2:CreateVpc', 1],
      ['eks:CreateCluster', 1],
      ['eks:DescribeCluster', 1],
    ]);
    expect(JSON.stringify(proxy.log)).not.toContain('Signature');
  });
});

describe('faults', () => {
  let proxy: AwsProxy;
  let api: ReturnType<typeof clients>;
  beforeAll(async () => {
    await aws.reset('ministack');
    proxy = await AwsProxy.listen({ routes: { '*': aws.urls.ministack ?? '' } });
    api = clients(proxy);
  });
  afterAll(() => proxy.close());

  test.each([
    ['eks', awsErrors.throttling('eks'), 'ThrottlingException'],
    ['eks', awsErrors.unavailable('eks'), 'ServiceUnavailableException'],
    ['eks', awsErrors.accessDenied('eks', 'ListClusters'), 'AccessDeniedException'],
    ['eks', awsErrors.resourceLimit, 'ResourceLimitExceededException'],
    ['ec2', awsErrors.throttling('ec2'), 'RequestLimitExceeded'],
    ['ec2', awsErrors.internal('ec2'), 'InternalError'],
    ['ec2', awsErrors.ec2Limit('Vpc'), 'VpcLimitExceeded'],
    ['ec2', awsErrors.accessDenied('ec2', 'DescribeVpcs'), 'UnauthorizedOperation'],
    ['iam', awsErrors.throttling('iam'), 'Throttling'],
    ['iam', awsErrors.accessDenied('iam', 'GetRole'), 'AccessDenied'],
    ['iam', awsErrors.limit, 'LimitExceededException'],
  ])('%s is refused with %o', async (service, fault, name) => {
    proxy.reset();
    proxy.inject({ service, skip: 1, times: 2, fault });
    const call = () =>
      service === 'eks'
        ? api.eks.send(new ListClustersCommand({}))
        : service === 'ec2'
          ? api.ec2.send(new DescribeVpcsCommand({}))
          : api.iam.send(new GetRoleCommand({ RoleName: 'nobody' }));
    const names = [];
    for (let round = 0; round < 4; round += 1) names.push(await errorOf(call()));
    const [calm = ''] = names;
    expect(names).toEqual([calm, name, name, calm]);
    expect(calm).not.toBe(name);
  });

  test('connections are reset, pages answer instead of AWS', async () => {
    const list = (attempts = 1) => clients(proxy, attempts).eks.send(new ListClustersCommand({}));
    proxy.inject({ operation: 'ListClusters', fault: { kind: 'reset' } });
    expect(await errorOf(list())).not.toBe('none');
    proxy.inject({ operation: /^List/, times: 2, fault: { kind: 'page', status: 502 } });
    expect(await errorOf(list())).not.toBe('none');
    expect((await list(2)).clusters).toEqual([]);
  });
});

test('an add-on is updated as what it is, and shows it', async () => {
  const proxy = await AwsProxy.listen({ routes: { eks: aws.urls.ministack ?? '', '*': aws.urls.moto ?? '' } });
  await aws.reset();
  const { eks, ec2 } = clients(proxy);
  const { subnetIds } = await makeNetwork(ec2);
  await eks.send(new CreateClusterCommand({ name: 'one', roleArn: ROLE, resourcesVpcConfig: { subnetIds } }));
  const addon = { clusterName: 'one', addonName: 'vpc-cni' };
  await until(async () => (await eks.send(new DescribeClusterCommand({ name: 'one' }))).cluster?.status === 'ACTIVE');
  await eks.send(new CreateAddonCommand({ ...addon, addonVersion: 'v1.20.4-eksbuild.2' }));
  expect(await settled(eks, addon)).toBe('v1.20.4-eksbuild.2');
  await eks.send(new UpdateAddonCommand({ ...addon, addonVersion: 'v1.21.1-eksbuild.1' }));
  expect(await settled(eks, addon)).toBe('v1.21.1-eksbuild.1');
  await proxy.close();
});

async function settled(eks: EKSClient, addon: { clusterName: string; addonName: string }): Promise<string | undefined> {
  let version: string | undefined;
  await until(async () => {
    const found = (await eks.send(new DescribeAddonCommand(addon))).addon;
    version = found?.addonVersion;
    return found?.status === 'ACTIVE';
  });
  return version;
}

/** Asks again until it holds; what the proxy counts are describes, so there is nothing to wait for in between. */
async function until(holds: () => Promise<boolean>): Promise<void> {
  for (let asked = 0; asked < 20; asked += 1) if (await holds()) return;
  throw new Error('It did not come true in 20 describes.');
}
