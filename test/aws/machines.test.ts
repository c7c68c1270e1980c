/** The machines of a node group are nodes of the local Kubernetes, for as long as the group wants them. */
import { CoreV1Api, KubeConfig, type V1Node } from '@kubernetes/client-node';
import {
  CreateClusterCommand,
  CreateNodegroupCommand,
  DeleteClusterCommand,
  DeleteNodegroupCommand,
  DescribeClusterCommand,
  DescribeNodegroupCommand,
  UpdateNodegroupConfigCommand,
} from '@aws-sdk/client-eks';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { AutoScalingClient, SetInstanceProtectionCommand } from '@aws-sdk/client-auto-scaling';
import { startAwsEmulators, type AwsEmulators } from '../../src/local/aws/emulators.ts';
import type { AwsFront } from '../../src/local/aws/front.ts';
import { until } from '../support/fleet.ts';
import { clients, makeNetwork, ROLE, settings, startFront } from './support.ts';

const serial = ({ metadata }: V1Node) => Number(metadata?.name?.split('-').at(-1));

let aws: AwsEmulators;
let front: AwsFront;
const config = new KubeConfig();

beforeAll(async () => {
  config.loadFromFile(inject('localEnv')['KUBECONFIG'] ?? '');
  aws = await startAwsEmulators({ managedPolicies: false });
  front = await startFront(aws);
}, 300_000);
afterAll(async () => {
  await front.close();
  await aws.stop();
});

test('made when the group is active, more and fewer with it, gone with it', async () => {
  const { ec2, eks } = clients(front.proxy);
  const core = config.makeApiClient(CoreV1Api);
  const { subnetIds } = await makeNetwork(ec2);
  const group = { clusterName: 'machines', nodegroupName: 'workers' };
  const name = { name: 'machines' };
  const clusterIs = async (status: string) =>
    (await eks.send(new DescribeClusterCommand(name))).cluster?.status === status;
  const groupIs = async (status: string) =>
    (await eks.send(new DescribeNodegroupCommand(group))).nodegroup?.status === status;
  const nodes = async () =>
    (await core.listNode({ labelSelector: 'eks.amazonaws.com/nodegroup=workers' })).items.filter(({ status }) =>
      status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True'),
    );
  const ready = (count: number) => until(`${count} nodes`, async () => (await nodes()).length === count);

  await eks.send(new CreateClusterCommand({ ...name, roleArn: ROLE, resourcesVpcConfig: { subnetIds } }));
  await until('the cluster', () => clusterIs('ACTIVE'));
  await eks.send(
    new CreateNodegroupCommand({
      ...group,
      nodeRole: ROLE,
      subnets: subnetIds,
      instanceTypes: ['m6i.large'],
      scalingConfig: { minSize: 0, desiredSize: 2, maxSize: 3 },
      labels: { pool: 'qdrant' },
      taints: [{ key: 'qdrant', value: 'only', effect: 'NO_SCHEDULE' }],
    }),
  );
  expect(await nodes()).toEqual([]);
  await until('the group', () => groupIs('ACTIVE'));
  await ready(2);
  const [first, second] = await nodes();
  expect([first, second].map((node) => node?.metadata?.labels?.['topology.kubernetes.io/zone'])).toEqual([
    'us-east-1a',
    'us-east-1b',
  ]);
  expect(first?.metadata?.labels).toMatchObject({
    'kubernetes.io/hostname': first?.metadata?.name,
    'node.kubernetes.io/instance-type': 'm6i.large',
    pool: 'qdrant',
  });
  expect(first?.spec?.taints).toContainEqual({ key: 'qdrant', value: 'only', effect: 'NoSchedule' });

  await eks.send(new UpdateNodegroupConfigCommand({ ...group, scalingConfig: { desiredSize: 3 } }));
  await until('the update', () => groupIs('ACTIVE'));
  await ready(3);

  // A smaller group takes the oldest of the zone with the most, unless that is protected; none of two others is then.
  const names = async () => new Set((await nodes()).map(({ metadata }) => metadata?.name));
  const [oldest, , youngest] = (await nodes()).toSorted((a, b) => serial(a) - serial(b));
  const { autoScalingGroups = [] } = (await eks.send(new DescribeNodegroupCommand(group))).nodegroup?.resources ?? {};
  const autoScaling = new AutoScalingClient(settings(front.proxy.url));
  const protect = (node: V1Node | undefined, name = autoScalingGroups[0]?.name) =>
    autoScaling.send(
      new SetInstanceProtectionCommand({
        AutoScalingGroupName: name,
        InstanceIds: [node?.spec?.providerID?.split('/').at(-1) ?? ''],
        ProtectedFromScaleIn: true,
      }),
    );
  await expect(protect(oldest, 'eks-of-nobody')).rejects.toThrow(/AutoScalingGroup name not found/);
  await protect(oldest);
  await eks.send(new UpdateNodegroupConfigCommand({ ...group, scalingConfig: { desiredSize: 2 } }));
  await until('the update', () => groupIs('ACTIVE'));
  await ready(2);
  expect(await names()).toEqual(new Set([oldest, second].map((node) => node?.metadata?.name)));
  expect(youngest?.metadata?.labels?.['topology.kubernetes.io/zone']).toBe('us-east-1a');

  await eks.send(new DeleteNodegroupCommand(group));
  await ready(0);
  await until('the deletion', () => groupIs('gone').catch(() => true));
  await eks.send(new DeleteClusterCommand(name));
  expect((await core.listNode({ labelSelector: 'eks.amazonaws.com/nodegroup=workers' })).items).toEqual([]);
});
