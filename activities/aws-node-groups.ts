/** The machines: one managed node group over all zones, from a launch template. */
import type { Nodegroup } from '@aws-sdk/client-eks';
import type { Aws } from '../src/clients/aws/clients.ts';
import { awsErrorName, isExisting, isInUse, isNotFound } from '../src/clients/aws/errors.ts';
import { findEc2, tagList } from '../src/clients/aws/inventory.ts';
import { carries, eksNameOf, NODE_GROUP, type Tags } from '../src/domain/aws-names.ts';
import type { AwsPlan, NetworkIds } from '../src/domain/aws-plan.ts';
import { FleetError } from '../src/domain/errors.ts';
import type { ClusterRef } from '../src/domain/naming.ts';
import type { RoleArns } from './aws-access.ts';
import { Ledger } from './aws-ledger.ts';
import type { ActivityDeps } from './deps.ts';

const KIND = 'eks-node-group';
const TEMPLATE = 'launch-template';

export function createAwsNodeGroupActivities(deps: ActivityDeps) {
  return {
    /** Have the node group, on its way or ready. */
    async ensureNodeGroups(
      input: ClusterRef & { plan: AwsPlan; network: NetworkIds; roles: RoleArns; eksCluster: string },
    ): Promise<void> {
      const { plan, network, roles, eksCluster, ...ref } = input;
      const { spec } = plan;
      const { aws, ledger } = await open(ref, plan.region);
      const template = await ensureLaunchTemplate(aws, ledger, spec.machineVolumeGiB);
      const nodegroupName = groupName(ref, eksCluster);
      await ledger.obtainNamed({
        slot: `node-group/${NODE_GROUP}`,
        kind: KIND,
        name: nodegroupName,
        read: async () => (await describeGroup(aws, eksCluster, nodegroupName))?.tags ?? undefined,
        create: (tags, clientRequestToken) =>
          aws.eks.createNodegroup({
            clusterName: eksCluster,
            nodegroupName,
            clientRequestToken,
            subnets: [...network.privateSubnetIds],
            nodeRole: roles.node,
            scalingConfig: { minSize: spec.nodeCount, maxSize: spec.nodeCount, desiredSize: spec.nodeCount },
            instanceTypes: [spec.instanceType],
            amiType: isArm(spec.instanceType) ? 'AL2023_ARM_64_STANDARD' : 'AL2023_x86_64_STANDARD',
            launchTemplate: { id: template },
            // One machine at a time: a peer has to be back before the next one goes.
            updateConfig: { maxUnavailable: 1 },
            labels: { ...spec.labels },
            taints: spec.taints.map(({ key, value, effect }) => ({
              key,
              effect,
              ...(value !== undefined && { value }),
            })),
            tags: { ...tags },
          }),
      });
    },

    /**
     * @throws FleetError `InfrastructureNotReady` until the machines are there, `CapacityUnavailable` or
     *   `InfrastructureFailed` when they cannot be, with what EKS says about it
     */
    async awaitNodeGroups(input: ClusterRef & { plan: AwsPlan; eksCluster: string }): Promise<{ machines: number }> {
      const { plan, eksCluster, ...ref } = input;
      const { spec } = plan;
      const aws = await deps.aws.of(plan.region);
      const group = await describeGroup(aws, eksCluster, groupName(ref, eksCluster));
      const issues = (group?.health?.issues ?? []).map(({ code, message }) => `${code}: ${message}`).join('; ');
      const about = `Node group of "${eksCluster}" (${spec.nodeCount} x ${spec.instanceType})`;
      if (group?.status === 'ACTIVE') return { machines: group.scalingConfig?.desiredSize ?? spec.nodeCount };
      if (group?.status === 'CREATE_FAILED' || group?.status === 'DEGRADED') {
        if (
          /InsufficientInstanceCapacity|InsufficientFreeAddresses|UnsupportedAvailabilityZone|capacity/i.test(issues)
        ) {
          const zones = plan.zones.map(({ name }) => name).join(', ');
          throw new FleetError(
            'CapacityUnavailable',
            `${about} could not start in ${zones}: ${issues}. Choose another "aws.instanceType" or other "aws.availabilityZones".`,
          );
        }
        throw new FleetError(
          'InfrastructureFailed',
          `${about} is ${group.status}: ${issues || 'EKS names no reason'}.`,
        );
      }
      throw new FleetError(
        'InfrastructureNotReady',
        `${about} is ${group?.status ?? 'not listed yet'}${issues === '' ? '' : `: ${issues}`}.`,
      );
    },

    /**
     * Remove the machines, their launch template, and volumes that outlived their pods.
     *
     * @param input `onlyOwn`: only what this very operation made, or the `operation` that is named
     * @throws FleetError `InfrastructureNotReady` or `InfrastructureBlocked` while something is left
     */
    async deleteNodeGroups(
      input: ClusterRef & { region: string; eksCluster?: string; onlyOwn?: boolean; operation?: string },
    ): Promise<void> {
      const { aws, ledger } = await open(input, input.region, input.operation);
      const onlyOwn = input.onlyOwn === true;
      const scope = ledger.scope(onlyOwn);
      const eksCluster = input.eksCluster ?? eksNameOf(input);
      await deleteGroup(aws, scope, eksCluster, groupName(input, eksCluster));
      const pending = await ledger.unsettled([KIND, TEMPLATE]);
      if (pending !== undefined && pending.kind === KIND) {
        throw new FleetError(
          'InfrastructureNotReady',
          `Node group of "${eksCluster}" may still appear; looking for it.`,
        );
      }
      for (const { id } of await findEc2(aws, TEMPLATE, scope)) {
        await aws.ec2.deleteLaunchTemplate({ LaunchTemplateId: id });
      }
      await deleteVolumes(aws, scope);
      if (pending !== undefined) {
        throw new FleetError('InfrastructureNotReady', `A launch template may still appear; looking for it.`);
      }
      await ledger.forgetKinds([KIND, TEMPLATE], onlyOwn);
    },
  };

  async function open(ref: ClusterRef, region: string, of?: string) {
    return { aws: await deps.aws.of(region), ledger: await Ledger.open(deps, ref, region, of) };
  }
}

/** In an EKS cluster of our own it is alone; in somebody else's its name says whose it is. */
export function groupName(ref: ClusterRef, eksCluster: string): string {
  return eksCluster === eksNameOf(ref) ? NODE_GROUP : eksNameOf(ref);
}

/** Encrypted root volumes, IMDSv2 out of reach for pods, and tags on what EC2 makes of it. */
async function ensureLaunchTemplate({ ec2, ...aws }: Aws, ledger: Ledger, volumeGiB: number): Promise<string> {
  return ledger.obtain({
    slot: TEMPLATE,
    kind: TEMPLATE,
    hasToken: true,
    find: async (tags) => (await findEc2({ ec2, ...aws }, TEMPLATE, tags)).map(({ id }) => id),
    create: async (tags, ClientToken) => {
      const { LaunchTemplate } = await ec2.createLaunchTemplate({
        LaunchTemplateName: eksNameOf(ledger.owner),
        ClientToken,
        TagSpecifications: [{ ResourceType: TEMPLATE, Tags: tagList(tags) }],
        LaunchTemplateData: {
          MetadataOptions: { HttpTokens: 'required', HttpPutResponseHopLimit: 1 },
          BlockDeviceMappings: [
            {
              DeviceName: '/dev/xvda',
              Ebs: { VolumeType: 'gp3', VolumeSize: volumeGiB, Encrypted: true, DeleteOnTermination: true },
            },
          ],
          TagSpecifications: [
            { ResourceType: 'instance', Tags: tagList(ledger.tags('machine')) },
            { ResourceType: 'volume', Tags: tagList(ledger.tags('machine')) },
          ],
        },
      });
      return LaunchTemplate?.LaunchTemplateId ?? '';
    },
    remove: (LaunchTemplateId) => ec2.deleteLaunchTemplate({ LaunchTemplateId }),
  });
}

async function deleteGroup(aws: Aws, scope: Tags, clusterName: string, nodegroupName: string): Promise<void> {
  const found = await describeGroup(aws, clusterName, nodegroupName);
  if (found === undefined || !carries(found.tags ?? {}, scope)) return;
  if (found.status !== 'DELETING') {
    try {
      await aws.eks.deleteNodegroup({ clusterName, nodegroupName });
    } catch (error) {
      // While it is being made; EKS takes the request later.
      if (!isExisting(error) && !isNotFound(error) && awsErrorName(error) !== 'InvalidRequestException') throw error;
    }
  }
  const left = await describeGroup(aws, clusterName, nodegroupName);
  if (left !== undefined) {
    throw new FleetError('InfrastructureNotReady', `Node group of "${clusterName}" is ${left.status}.`);
  }
}

async function deleteVolumes(aws: Aws, scope: Tags): Promise<void> {
  const busy: string[] = [];
  for (const { id } of await findEc2(aws, 'volume', scope)) {
    try {
      await aws.ec2.deleteVolume({ VolumeId: id });
    } catch (error) {
      if (isNotFound(error)) continue;
      if (!isInUse(error) && !/VolumeInUse|IncorrectState/.test(awsErrorName(error))) throw error;
      busy.push(id);
    }
  }
  if (busy.length > 0) {
    throw new FleetError('InfrastructureBlocked', `Volumes ${busy.join(', ')} are still attached to a machine.`);
  }
}

export async function describeGroup(
  { eks }: Aws,
  clusterName: string,
  nodegroupName: string,
): Promise<Nodegroup | undefined> {
  try {
    return (await eks.describeNodegroup({ clusterName, nodegroupName })).nodegroup;
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

/** Graviton's families have a "g" behind the generation: m7g, c6gn, r8gd, im4gn, x2gd, t4g. */
function isArm(instanceType: string): boolean {
  return /^(?:a1|[a-z]+\d+g[a-z]*)\./.test(instanceType);
}
