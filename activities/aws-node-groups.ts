/** The machines: one managed node group over all zones, from a launch template. */
import type { Nodegroup, Taint } from '@aws-sdk/client-eks';
import type { Aws } from '../src/clients/aws/clients.ts';
import { ifThere } from '../src/clients/aws/answers.ts';
import { awsErrorName, isExisting, isInUse, isNotFound } from '../src/clients/aws/errors.ts';
import { findEc2, tagList } from '../src/clients/aws/inventory.ts';
import { issuesText, judge } from '../src/domain/aws-issues.ts';
import { carries, eksNameOf, NODE_GROUP, type Tags } from '../src/domain/aws-names.ts';
import type { AwsPlan, NetworkIds } from '../src/domain/aws-plan.ts';
import type { NodeTaint } from '../src/domain/aws.ts';
import { FleetError } from '../src/domain/errors.ts';
import type { ClusterRef } from '../src/domain/naming.ts';
import type { RoleArns } from './aws-access.ts';
import { Ledger } from './aws-ledger.ts';
import { removing, type Removal } from './aws-removal.ts';
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
        name: `${eksCluster}/${nodegroupName}`,
        read: async () => (await describeGroup(aws, eksCluster, nodegroupName))?.tags ?? undefined,
        create: (tags, clientRequestToken) =>
          ledger.settling(() =>
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
              taints: taintsOf(spec.taints),
              tags: { ...tags },
            }),
          ),
      });
    },

    /**
     * @throws FleetError `InfrastructureNotReady` until the machines are there, `CapacityUnavailable`,
     *   `CloudQuotaReached` or `InfrastructureFailed` when they cannot be, with what EKS says about it
     */
    async awaitNodeGroups(input: ClusterRef & { plan: AwsPlan; eksCluster: string }): Promise<{ machines: number }> {
      const { plan, eksCluster, ...ref } = input;
      const { spec } = plan;
      const aws = await deps.aws.of(plan.region);
      const group = await describeGroup(aws, eksCluster, groupName(ref, eksCluster));
      const about = `Node group of "${eksCluster}" (${spec.nodeCount} x ${spec.instanceType})`;
      if (group?.status === 'ACTIVE') return { machines: group.scalingConfig?.desiredSize ?? spec.nodeCount };
      const issues = group?.health?.issues ?? [];
      const said = issues.length === 0 ? '' : `: ${issuesText(issues)}`;
      if (/^(?:CREATE_FAILED|DEGRADED|DELETING|DELETE_FAILED)$/.test(group?.status ?? '')) {
        const { code, remedy } = judge(issues);
        const zones = plan.zones.length === 0 ? '' : ` in ${plan.zones.map(({ name }) => name).join(', ')}`;
        const reason = said === '' ? ': EKS names no reason' : said;
        throw new FleetError(code, `${about} is ${group?.status}${zones}${reason}. ${remedy}`);
      }
      throw new FleetError('InfrastructureNotReady', `${about} is ${group?.status ?? 'not listed yet'}${said}.`);
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
      await removing(ledger, [KIND, TEMPLATE], onlyOwn, async (removal) => {
        const left = [...(await deleteGroup(aws, ledger, scope, eksCluster, groupName(input, eksCluster), removal))];
        // A launch template and volumes cannot go before the machines, which may still appear.
        const pending = await ledger.unsettled([KIND]);
        if (pending !== undefined) {
          throw new FleetError('InfrastructureNotReady', `Node group of "${eksCluster}" may still appear.`);
        }
        const templates = await findEc2(aws, TEMPLATE, scope);
        await ledger.seen(templates.map(({ slot }) => slot));
        for (const { id } of templates) {
          await removal.attempt(`Launch template ${id}`, () => aws.ec2.deleteLaunchTemplate({ LaunchTemplateId: id }));
        }
        await deleteVolumes(aws, scope, removal);
        if (removal.refusals.length === 0) return [];
        for (const kind of [TEMPLATE, 'volume'] as const) {
          left.push(...(await findEc2(aws, kind, scope)).map(({ id }) => `${kind} ${id}`));
        }
        return left;
      });
      if ((await ledger.unsettled([TEMPLATE])) !== undefined) {
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

/** @returns what AWS refused to remove @throws FleetError while it is on its way, or keeps failing */
async function deleteGroup(
  aws: Aws,
  ledger: Ledger,
  scope: Tags,
  clusterName: string,
  nodegroupName: string,
  removal: Removal,
): Promise<readonly string[]> {
  const found = await describeGroup(aws, clusterName, nodegroupName);
  if (found === undefined || !carries(found.tags ?? {}, scope)) return [];
  const about = `Node group "${nodegroupName}" of "${clusterName}"`;
  await ledger.seen([`node-group/${NODE_GROUP}`]);
  // Asking again is how a deletion that failed is tried again.
  if (found.status !== 'DELETING') {
    try {
      await aws.eks.deleteNodegroup({ clusterName, nodegroupName });
    } catch (error) {
      // While it is being made; EKS takes the request later.
      if (!isExisting(error) && !isNotFound(error) && awsErrorName(error) !== 'InvalidRequestException') {
        removal.refuse(error, `${about} could not be removed. `);
        return [`${KIND} ${clusterName}/${nodegroupName}`];
      }
    }
  }
  const left = await describeGroup(aws, clusterName, nodegroupName);
  if (left === undefined) return [];
  const issues = left.health?.issues?.length ? left.health.issues : (found.health?.issues ?? []);
  if (found.status === 'DELETE_FAILED' || left.status === 'DELETE_FAILED') {
    const said = issues.length === 0 ? 'EKS names no reason' : issuesText(issues);
    const message = `${about} could not be removed: ${said}. ${judge(issues).remedy} It is tried again.`;
    throw new FleetError('InfrastructureBlocked', message);
  }
  throw new FleetError('InfrastructureNotReady', `${about} is ${left.status}.`);
}

async function deleteVolumes(aws: Aws, scope: Tags, removal: Removal): Promise<void> {
  const busy: string[] = [];
  for (const { id } of await findEc2(aws, 'volume', scope)) {
    await removal.attempt(`Volume ${id}`, async () => {
      try {
        await aws.ec2.deleteVolume({ VolumeId: id });
      } catch (error) {
        if (!isInUse(error) && awsErrorName(error) !== 'IncorrectState') throw error;
        busy.push(id);
      }
    });
  }
  if (busy.length > 0) {
    throw new FleetError('InfrastructureBlocked', `Volumes ${busy.join(', ')} are still attached to a machine.`);
  }
}

/** As EKS takes them. */
export function taintsOf(taints: readonly NodeTaint[]): Taint[] {
  return taints.map(({ key, value, effect }) => ({ key, effect, ...(value !== undefined && { value }) }));
}

export async function describeGroup(
  { eks }: Aws,
  clusterName: string,
  nodegroupName: string,
): Promise<Nodegroup | undefined> {
  return (await ifThere(() => eks.describeNodegroup({ clusterName, nodegroupName })))?.nodegroup;
}

/** Graviton's families have a "g" behind the generation: m7g, c6gn, r8gd, im4gn, x2gd, t4g. */
function isArm(instanceType: string): boolean {
  return /^(?:a1|[a-z]+\d+g[a-z]*)\./.test(instanceType);
}
