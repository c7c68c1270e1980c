/**
 * More machines and fewer, and none while a cluster sleeps.
 *
 * EKS gives a managed node group's size to an Auto Scaling group, which chooses the machines that go: from the zone with
 * the most, the oldest first, whatever runs on them. EKS evicts the pods there for 15 minutes at most and heeds the
 * disruption budget for no longer (Amazon EKS User Guide, "Managed node groups"). A volume is of one zone, so an evicted
 * peer may find no machine. Therefore machines with peers on them are protected from scale-in first, and the group is
 * kept from rebalancing its zones, which would take them one after the other.
 */
import type { Nodegroup, Update } from '@aws-sdk/client-eks';
import type { Aws } from '../src/clients/aws/clients.ts';
import { isExisting } from '../src/clients/aws/errors.ts';
import type { MachineInfo } from '../src/clients/kubernetes.ts';
import { issuesText, judgeRunning, type HealthIssue } from '../src/domain/aws-issues.ts';
import { machinesToKeep, machinesToStart } from '../src/domain/aws-machines.ts';
import { carries, clientToken, eksNameOf } from '../src/domain/aws-names.ts';
import type { AwsSpec, NodeTaint } from '../src/domain/aws.ts';
import { FleetError } from '../src/domain/errors.ts';
import { namespaceOf, type ClusterRef } from '../src/domain/naming.ts';
import { ordinalOf } from '../src/domain/scaling-plan.ts';
import { Ledger } from './aws-ledger.ts';
import { describeGroup, groupName, taintsOf } from './aws-node-groups.ts';
import { workflowRun } from './context.ts';
import type { ActivityDeps } from './deps.ts';
import { POD_SELECTOR } from './peers.ts';

/** A change of a node group that has begun. */
export interface MachineChange {
  /** Machines that there will be; more than asked for where peers run on more. */
  readonly machines: number;
  /** EKS' id of the update; absent where the group was as it should be. */
  readonly update?: string;
  /** Instances that were protected from scale-in, until the change is over. */
  readonly shielded: readonly string[];
}

type Where = ClusterRef & { readonly aws: AwsSpec };

/** SetInstanceProtection takes so many at a time. */
const PROTECTED_AT_ONCE = 50;

export function createAwsScalingActivities(deps: ActivityDeps) {
  return {
    /**
     * Have the node group want so many machines. With 0 the pods have to be gone and their volumes detached.
     *
     * @throws FleetError `InfrastructureNotReady` while an earlier update runs, `ClusterNotReady` while pods or volumes
     *   are still on the machines, `ResourceNotOurs`, `InfrastructureFailed` where there is no node group
     */
    async setMachines({ machines: wanted, ...where }: Where & { machines: number }): Promise<MachineChange> {
      const { client, eksCluster, name, group } = await open(where);
      const size = group.scalingConfig?.desiredSize ?? 0;
      if (wanted === 0) await requireEmpty(where, eksCluster, name);
      const shrinks = wanted > 0 && (wanted < size || wanted < where.aws.nodeCount);
      const shielded = shrinks ? await shield(client, group, where, name) : [];
      const machines = machinesToKeep(wanted, shielded.length);
      const scalingConfig = { minSize: machines, maxSize: Math.max(machines, 1), desiredSize: machines };
      const is = group.scalingConfig;
      if (is?.minSize === machines && is.maxSize === scalingConfig.maxSize && is.desiredSize === machines) {
        return { machines, shielded };
      }
      const update = await begin(client, {
        clusterName: eksCluster,
        nodegroupName: name,
        scalingConfig,
        clientRequestToken: clientToken(workflowRun().runId, `machines/${size}/${machines}`),
      });
      return { machines, update, shielded };
    },

    /** Have the labels and taints on the machines; nothing is restarted. */
    async configureMachines(
      input: Where & { labels: AwsSpec['labels']; taints: readonly NodeTaint[] },
    ): Promise<MachineChange> {
      const { labels, taints, ...where } = input;
      const { client, eksCluster, name, group } = await open(where);
      const machines = group.scalingConfig?.desiredSize ?? where.aws.nodeCount;
      const removeLabels = Object.keys(group.labels ?? {}).filter((key) => !Object.hasOwn(labels, key));
      const wanted = taintsOf(taints);
      const removeTaints = (group.taints ?? []).filter(
        ({ key, effect }) => !wanted.some((taint) => taint.key === key && taint.effect === effect),
      );
      const update = await begin(client, {
        clusterName: eksCluster,
        nodegroupName: name,
        labels: { addOrUpdateLabels: { ...labels }, removeLabels },
        taints: { addOrUpdateTaints: wanted, removeTaints },
        clientRequestToken: clientToken(workflowRun().runId, 'machines/labels'),
      });
      return { machines, update, shielded: [] };
    },

    /**
     * See to it that a change has come about and the machines have joined, or gone.
     *
     * @throws FleetError `InfrastructureNotReady` until then; `CapacityUnavailable`, `CloudQuotaReached` or
     *   `InfrastructureFailed` when it cannot, with what EKS says about it
     */
    async awaitMachines({
      machines,
      update: updateId,
      shielded,
      ...where
    }: Where & MachineChange): Promise<{ machines: number }> {
      const { client, eksCluster, name, group, about } = await open(where, { anyState: true });
      const issues = group.health?.issues ?? [];
      if (updateId !== undefined) {
        const found = await client.eks.describeUpdate({ name: eksCluster, nodegroupName: name, updateId });
        requireDone(about, where.aws, found.update, issues);
      }
      const joined = await joinedMachines(where, name);
      const ready = joined.filter((machine) => machine.ready).length;
      if (ready === machines && joined.length === machines) {
        const left = shielded.filter((instance) => joined.some((machine) => machine.instance === instance));
        await protect(client, group, left, false);
        return { machines };
      }
      if (issues.length > 0 && ready < machines) throw failure(about, where.aws, issues);
      throw new FleetError(
        'InfrastructureNotReady',
        `${about} has ${joined.length} machines, ${ready} of them ready; there are to be ${machines}.`,
      );
    },

    /** How many machines to start for a cluster that sleeps, so that each zone has what its volumes need. */
    async machinesToWake(where: Where): Promise<{ machines: number }> {
      const { client, group } = await open(where, { anyState: true });
      const { kubernetes } = await deps.clusters.of(where);
      const ofPeer = new Map<number, string>();
      for (const { claim, zone } of await kubernetes.volumePlaces(namespaceOf(where))) {
        if (zone !== undefined) ofPeer.set(ordinalOf(claim), zone);
      }
      const volumes: Record<string, number> = {};
      for (const zone of ofPeer.values()) volumes[zone] = (volumes[zone] ?? 0) + 1;
      const { Subnets = [] } = await client.ec2.describeSubnets({ SubnetIds: group.subnets ?? [] });
      const zones = new Set(Subnets.map(({ AvailabilityZone }) => AvailabilityZone));
      return { machines: machinesToStart(where.aws.nodeCount, volumes, zones.size) };
    },
  };

  /** The cluster's node group, which has to be ours. */
  async function open(where: Where, { anyState = false } = {}) {
    const { region, instanceType } = where.aws;
    const client = await deps.aws.of(region);
    const eksCluster = where.aws.eksCluster ?? eksNameOf(where);
    const name = groupName(where, eksCluster);
    const group = await describeGroup(client, eksCluster, name);
    const about = `Node group "${name}" of "${eksCluster}" (${instanceType})`;
    if (group === undefined) throw new FleetError('InfrastructureFailed', `${about} does not exist any more.`);
    const ledger = await Ledger.open(deps, where, region);
    if (!carries(group.tags ?? {}, ledger.scope(false))) throw ledger.notOurs('node group', name, group.tags ?? {});
    if (!anyState && group.status !== 'ACTIVE' && group.status !== 'DEGRADED') {
      throw new FleetError('InfrastructureNotReady', `${about} is ${group.status}.`);
    }
    return { client, eksCluster, name, group, about };
  }

  async function joinedMachines(where: Where, group: string): Promise<MachineInfo[]> {
    const { kubernetes } = await deps.clusters.of(where);
    return kubernetes.machines(`eks.amazonaws.com/nodegroup=${group}`);
  }

  /** Names of the machines that run a peer. */
  async function busyMachines(where: Where): Promise<Set<string>> {
    const { kubernetes } = await deps.clusters.of(where);
    return new Set((await kubernetes.podPlaces(namespaceOf(where), POD_SELECTOR)).map(({ node }) => node));
  }

  async function requireEmpty(where: Where, eksCluster: string, name: string): Promise<void> {
    const busy = await busyMachines(where);
    const machines = await joinedMachines(where, name);
    const used = machines.filter((machine) => busy.has(machine.name));
    if (used.length > 0) {
      throw new FleetError('ClusterNotReady', `${used.length} machines of "${eksCluster}" still run pods.`);
    }
    // Their driver runs on the machines, and detaches them in good order.
    const { kubernetes } = await deps.clusters.of(where);
    const attached = await kubernetes.attachedVolumes();
    const volumes = (await kubernetes.volumePlaces(namespaceOf(where))).filter(({ volume }) => attached.has(volume));
    if (volumes.length > 0) {
      throw new FleetError('ClusterNotReady', `${volumes.length} volumes of "${eksCluster}" are still attached.`);
    }
  }

  /** Keep the machines that run peers from being chosen. @returns their instances */
  async function shield(client: Aws, group: Nodegroup, where: Where, name: string): Promise<string[]> {
    const busy = await busyMachines(where);
    const machines = (await joinedMachines(where, name)).filter((machine) => busy.has(machine.name));
    const unknown = machines.find(({ instance }) => instance === '');
    if (unknown !== undefined) {
      throw new FleetError('InfrastructureNotReady', `Kubernetes does not say yet which instance ${unknown.name} is.`);
    }
    const instances = machines.map(({ instance }) => instance).sort();
    for (const { name: AutoScalingGroupName } of group.resources?.autoScalingGroups ?? []) {
      await client.autoscaling.suspendProcesses({ AutoScalingGroupName, ScalingProcesses: ['AZRebalance'] });
    }
    await protect(client, group, instances, true);
    return instances;
  }
}

async function protect(client: Aws, group: Nodegroup, instances: readonly string[], protectedNow: boolean) {
  const [scaling] = group.resources?.autoScalingGroups ?? [];
  for (let from = 0; from < instances.length; from += PROTECTED_AT_ONCE) {
    await client.autoscaling.setInstanceProtection({
      AutoScalingGroupName: scaling?.name,
      InstanceIds: instances.slice(from, from + PROTECTED_AT_ONCE),
      ProtectedFromScaleIn: protectedNow,
    });
  }
}

/** @returns the update's id */
async function begin({ eks }: Aws, request: Parameters<Aws['eks']['updateNodegroupConfig']>[0]): Promise<string> {
  try {
    const { update } = await eks.updateNodegroupConfig(request);
    return update?.id ?? '';
  } catch (error) {
    if (!isExisting(error)) throw error;
    throw new FleetError('InfrastructureNotReady', 'Another update of the node group is under way.', { cause: error });
  }
}

function requireDone(about: string, spec: AwsSpec, update: Update | undefined, health: readonly HealthIssue[]): void {
  if (update?.status === 'Successful') return;
  if (update?.status === 'Failed' || update?.status === 'Cancelled') {
    const errors = (update.errors ?? []).map(
      ({ errorCode: code, errorMessage: message, resourceIds }): HealthIssue => ({ code, message, resourceIds }),
    );
    throw failure(about, spec, [...errors, ...health], `its update is ${update.status}`);
  }
  const said = health.length === 0 ? '' : `: ${issuesText(health)}`;
  throw new FleetError(
    'InfrastructureNotReady',
    `${about}: its update is ${update?.status ?? 'not listed yet'}${said}.`,
  );
}

/** @param otherwise what is known where AWS names no reason */
function failure(about: string, { instanceType }: AwsSpec, issues: readonly HealthIssue[], otherwise = ''): FleetError {
  const { code, remedy } = judgeRunning(issues, instanceType);
  const why = issues.length === 0 ? `${otherwise}, and EKS names no reason` : issuesText(issues);
  return new FleetError(code, `${about} could not be changed: ${why}. ${remedy}`);
}
