import { parseDeleteInput } from '../src/domain/input.ts';
import type { ClusterRef } from '../src/domain/naming.ts';
import { control, described, polled } from './shared/activity-proxies.ts';
import { checked } from './shared/input.ts';
import { AWS_REMOVAL_STEPS, awsKubernetesExists, removeAws } from './shared/aws-infrastructure.ts';
import { runOperation, type Operation } from './shared/operation.ts';
import { REMOVAL_SECONDS } from './provision-cluster.ts';

const STEPS = {
  lease: 'Take the lease',
  mark: 'Mark the cluster',
  chart: 'Uninstall the chart',
  volumes: 'Remove the volumes',
  namespace: 'Remove the namespace',
  forget: 'Forget the cluster and its schedules',
} as const;

/**
 * Remove a cluster with its data. Its backups stay. When a step fails the cluster stays in phase DELETING, and
 * deleting it again goes on from there.
 *
 * Input: `{"tenant":"acme","cluster":"docs"}`.
 */
export async function DeleteCluster(input: unknown): Promise<{ tenant: string; cluster: string; schedules: number }> {
  const ref = checked(input, parseDeleteInput);
  return runOperation({ kind: 'delete', ref, steps: Object.values(STEPS) }, async (operation) => {
    await operation.step(STEPS.lease, () => control.takeLease({ ...ref, mode: 'exclusive' }));
    const { aws } = await operation.step(STEPS.mark, async () => {
      const { spec } = await control.loadCluster(ref);
      await control.setClusterPhase({ ...ref, phase: 'DELETING' });
      return spec;
    });
    if (aws !== undefined) operation.insert(Object.values(AWS_REMOVAL_STEPS), STEPS.forget);
    // Not so when an earlier removal was interrupted.
    const inKubernetes = aws === undefined || (await awsKubernetesExists(ref, aws));
    if (inKubernetes) await leaveKubernetes(operation, ref);
    else
      for (const step of [STEPS.chart, STEPS.volumes, STEPS.namespace])
        operation.skip(step, 'the control plane is gone');
    if (aws !== undefined) await removeAws(operation, ref, aws, inKubernetes);
    const { schedules } = await operation.step(
      STEPS.forget,
      () => control.forgetCluster(ref),
      (forgotten) => `${forgotten.schedules} schedules removed`,
    );
    return { ...ref, schedules };
  });
}

async function leaveKubernetes(operation: Operation, ref: ClusterRef): Promise<void> {
  await operation.step(STEPS.chart, () =>
    control.uninstallRelease.executeWithOptions(described(`Helm release of ${ref.tenant}/${ref.cluster}`), [ref]),
  );
  await operation.step(STEPS.volumes, () => control.deleteVolumeClaims(ref));
  await operation.step(STEPS.namespace, () =>
    control.removeNamespace.executeWithOptions(polled(REMOVAL_SECONDS, 'Wait until the namespace is gone'), [ref]),
  );
}
