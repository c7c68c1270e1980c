/** The infrastructure of a cluster on AWS: its rooms in order, and out of them in reverse. */
import type { AwsSpec } from '../../src/domain/aws.ts';
import type { ClusterRef } from '../../src/domain/naming.ts';
import { control, patient, polled } from './activity-proxies.ts';
import { hasCode } from './failures.ts';
import type { Operation } from './operation.ts';

export const AWS_STEPS = {
  plan: 'Plan the infrastructure',
  roles: 'Create the roles',
  network: 'Create the network',
  controlPlane: 'Create the control plane',
  machines: 'Create the machines',
  access: 'Grant access',
  bucket: 'Create the backup bucket',
} as const;

export const AWS_REMOVAL_STEPS = {
  drain: 'Wait for the volumes to go',
  machines: 'Remove the machines',
  controlPlane: 'Remove the control plane',
  network: 'Remove the network',
  access: 'Remove the roles',
  bucket: 'Remove the backup bucket',
} as const;

/** Seconds that EKS and EC2 may take, with much to spare: a control plane takes about ten minutes. */
const SECONDS = {
  settle: 900,
  network: 900,
  controlPlane: 2700,
  machines: 2700,
  removal: 3600,
  drain: 300,
  stuck: 120,
} as const;

/**
 * Make what the request asks for and does not leave to others. An activity sends a dozen calls, each of which AWS may
 * throttle, so that they are limited by time and not by attempts. Each room's removal is registered before the room is
 * begun, and removes only what this operation made.
 */
export async function provisionAws(operation: Operation, ref: ClusterRef, spec: AwsSpec): Promise<void> {
  const { saga } = operation;
  const { create, region } = spec;
  const eks = { ...(spec.eksCluster !== undefined && { eksCluster: spec.eksCluster }) };
  const own = { ...ref, region, onlyOwn: true };
  /**
   * Register the removal of a room. After one that failed for good the rooms below it will hardly go, since it stands
   * on them: they are tried, but not waited for by the hour.
   */
  let stuck = false;
  const undo = (what: string, run: (seconds: number) => Promise<unknown>) =>
    saga.add(`${what} of ${ref.tenant}/${ref.cluster} in ${region}`, async () => {
      try {
        await run(stuck ? SECONDS.stuck : SECONDS.removal);
      } catch (error) {
        stuck = true;
        throw error;
      }
    });

  const plan = await operation.step(
    AWS_STEPS.plan,
    () => control.planInfrastructure({ ...ref, spec }),
    ({ zones, unchecked }) => {
      const where = zones.length === 0 ? region : zones.map(({ name }) => name).join(', ');
      return unchecked.length === 0 ? where : `${where}; could not ask for ${unchecked.join(' and ')}`;
    },
  );

  undo('roles and access', (seconds) =>
    control.deleteAccess.executeWithOptions(patient(Math.min(seconds, SECONDS.settle), 'Remove the roles'), [
      { ...own, ...eks },
    ]),
  );
  const roles = await operation.step(AWS_STEPS.roles, () =>
    control.ensureRoles.executeWithOptions(patient(SECONDS.settle, `IAM roles in ${plan.account}`), [{ ...ref, plan }]),
  );

  if (create.network) {
    undo('network', (seconds) =>
      control.deleteNetwork.executeWithOptions(patient(seconds, 'Remove the network'), [own]),
    );
  }
  const network = await operation.step(
    AWS_STEPS.network,
    () =>
      control.ensureNetwork.executeWithOptions(
        patient(SECONDS.network, create.network ? `VPC ${spec.cidr} in ${region}` : `VPC ${spec.vpcId}, as it is`),
        [{ ...ref, plan }],
      ),
    ({ vpcId, privateSubnetIds }) => `${vpcId}, ${privateSubnetIds.length} private subnets`,
  );

  if (create.controlPlane) {
    undo('EKS cluster', (seconds) =>
      control.deleteControlPlane.executeWithOptions(patient(seconds, 'Remove the EKS cluster'), [own]),
    );
  }
  const { eksCluster } = await operation.step(
    AWS_STEPS.controlPlane,
    async () => {
      const { eksCluster } = await control.ensureControlPlane.executeWithOptions(
        patient(SECONDS.settle, `EKS ${spec.kubernetesVersion} in ${region}`),
        [{ ...ref, plan, network, roles }],
      );
      // The gateways come up while the control plane does, and nodes need both.
      await control.awaitNetwork.executeWithOptions(
        patient(SECONDS.network, 'NAT gateways available, routes to them'),
        [{ ...ref, plan, network }],
      );
      const awaited = { ...ref, region, eksCluster };
      const found = await control.awaitControlPlane.executeWithOptions(
        patient(SECONDS.controlPlane, `EKS cluster ${eksCluster} active`),
        [awaited],
      );
      if (create.controlPlane) await addons('beforeNodes', eksCluster);
      return { eksCluster, ...found };
    },
    ({ eksCluster, version }) => `${eksCluster}, Kubernetes ${version}`,
  );

  if (create.nodeGroups) {
    undo('machines', (seconds) =>
      control.deleteNodeGroups.executeWithOptions(patient(seconds, 'Remove the machines'), [{ ...own, ...eks }]),
    );
  }
  await operation.step(AWS_STEPS.machines, async () => {
    if (create.nodeGroups) {
      const about = `${spec.nodeCount} x ${spec.instanceType}`;
      await control.ensureNodeGroups.executeWithOptions(patient(SECONDS.settle, `Node group, ${about}`), [
        { ...ref, plan, network, roles, eksCluster },
      ]);
      await control.awaitNodeGroups.executeWithOptions(patient(SECONDS.machines, `${about} running`), [
        { ...ref, plan, eksCluster },
      ]);
    }
    if (create.controlPlane) await addons('afterNodes', eksCluster);
    // With an EKS cluster of our own it goes when that does.
    if (!create.controlPlane) {
      saga.add(`storage class and volumes of ${ref.tenant}/${ref.cluster}`, () =>
        control.drainVolumes.executeWithOptions(polled(SECONDS.drain, 'Volumes removed by Kubernetes'), [own]),
      );
    }
    await control.ensureStorageClass.executeWithOptions(patient(SECONDS.settle, 'Storage class, encrypted gp3'), [
      { ...ref, spec },
    ]);
  });

  await operation.step(
    AWS_STEPS.access,
    () =>
      control.ensureClusterAccess.executeWithOptions(patient(SECONDS.settle, `Access to ${eksCluster}`), [
        { ...ref, plan, eksCluster, roles },
      ]),
    ({ principals }) => `${principals} more administrators`,
  );

  if (!create.backupBucket) return operation.skip(AWS_STEPS.bucket, 'not asked for');
  saga.add(`backup bucket of ${ref.tenant}/${ref.cluster} in ${region}`, () =>
    control.deleteBackupBucket.executeWithOptions(patient(SECONDS.settle, 'Remove the empty bucket'), [own]),
  );
  await operation.step(
    AWS_STEPS.bucket,
    () =>
      control.ensureBackupBucket.executeWithOptions(patient(SECONDS.settle, 'Bucket, versioned, locked, encrypted'), [
        { ...ref, plan },
      ]),
    ({ bucket }) => bucket,
  );

  async function addons(phase: 'beforeNodes' | 'afterNodes', eksCluster: string): Promise<void> {
    const summary = phase === 'beforeNodes' ? 'Add-ons that nodes need' : 'Add-ons that need nodes';
    await control.ensureAddons.executeWithOptions(patient(SECONDS.machines, summary), [
      { ...ref, plan, eksCluster, phase, roles },
    ]);
  }
}

/** Whether the cluster can still be taken out of Kubernetes. */
export function awsKubernetesExists(ref: ClusterRef, { region, eksCluster }: AwsSpec): Promise<boolean> {
  return control.controlPlaneExists({ ...ref, region, ...(eksCluster !== undefined && { eksCluster }) });
}

/**
 * Remove all that a cluster has on AWS. Call when nothing of it is left in Kubernetes.
 *
 * @param canDrain whether the driver of the volumes still runs, and removes them by itself
 * @returns the bucket that stays, since it holds backups
 */
export async function removeAws(
  operation: Operation,
  ref: ClusterRef,
  spec: AwsSpec,
  canDrain: boolean,
): Promise<{ kept: string | null }> {
  const { region, eksCluster } = spec;
  const where = { ...ref, region };
  const eks = { ...(eksCluster !== undefined && { eksCluster }) };
  const steps = AWS_REMOVAL_STEPS;
  if (canDrain) {
    await operation.step(steps.drain, async () => {
      try {
        await control.drainVolumes.executeWithOptions(polled(SECONDS.drain, 'Volumes removed by Kubernetes'), [where]);
      } catch (error) {
        // What Kubernetes did not remove goes after the machines.
        if (!hasCode(error, 'InfrastructureBlocked')) throw error;
      }
    });
  } else operation.skip(steps.drain, 'nothing runs any more that would remove them');
  await operation.step(steps.machines, () =>
    control.deleteNodeGroups.executeWithOptions(patient(SECONDS.removal, `Machines in ${region}`), [
      { ...where, ...eks },
    ]),
  );
  await operation.step(steps.controlPlane, () =>
    control.deleteControlPlane.executeWithOptions(patient(SECONDS.removal, `EKS cluster in ${region}`), [where]),
  );
  await operation.step(steps.network, () =>
    control.deleteNetwork.executeWithOptions(patient(SECONDS.removal, `Network in ${region}`), [where]),
  );
  await operation.step(steps.access, () =>
    control.deleteAccess.executeWithOptions(patient(SECONDS.settle, `IAM roles of ${ref.tenant}/${ref.cluster}`), [
      { ...where, ...eks },
    ]),
  );
  return operation.step(
    steps.bucket,
    () => control.deleteBackupBucket.executeWithOptions(patient(SECONDS.settle, 'Remove the empty bucket'), [where]),
    ({ kept }) => (kept === null ? 'none left' : `${kept} stays: it holds backups`),
  );
}
