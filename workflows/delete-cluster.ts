import {
  CancellationScope,
  condition,
  defineSignal,
  executeChild,
  setHandler,
  workflowInfo,
} from '@temporalio/workflow';
import { FleetError } from '../src/domain/errors.ts';
import { parseDeleteInput } from '../src/domain/input.ts';
import type { ClusterRef } from '../src/domain/naming.ts';
import { BackupCluster } from './backup-cluster.ts';
import { control, described, polled } from './shared/activity-proxies.ts';
import { Change } from './shared/change.ts';
import { isFailure } from './shared/failures.ts';
import { checked } from './shared/input.ts';
import { AWS_REMOVAL_STEPS, awsKubernetesExists, removeAws } from './shared/aws-infrastructure.ts';
import { hasMachines, startMachines, stopMachines, trimMachines } from './shared/aws-machines.ts';
import { runOperation, type Ended, type Operation } from './shared/operation.ts';
import { REMOVAL_SECONDS } from './provision-cluster.ts';

const STEPS = {
  lease: 'Take the lease',
  mark: 'Mark the cluster',
  chart: 'Uninstall the chart',
  volumes: 'Remove the volumes',
  namespace: 'Remove the namespace',
  forget: 'Forget the cluster and its schedules',
} as const;

const FINAL_BACKUP = 'Back up';
const UNDO = 'Suspended until the deletion can no longer be taken back';

interface Deleted extends ClusterRef {
  /** Backup schedules that went with it. */
  readonly schedules: number;
  /** It was taken back. */
  readonly undone?: boolean;
  /** The final backup. */
  readonly backup?: string;
  /** The cluster's own bucket, which stays with the backups in it. */
  readonly bucket?: string;
}

/** Takes a deletion back while its `undoHours` run. */
const undeleteSignal = defineSignal('undelete');

/**
 * Remove a cluster with its data. Its backups stay. When a step fails the cluster stays in phase DELETING, and
 * deleting it again goes on from there.
 *
 * With `finalBackup` a backup is committed before anything goes. With `undoHours` the cluster is suspended for so long,
 * and the signal `undelete`, or a cancellation, brings it back.
 *
 * Points of no return: the final backup is committed, and stays; `undoHours` are over, and the removal can only go on,
 * by deleting the cluster again where it stopped; nothing of it is left, and only the catalogue has to forget it.
 *
 * Input: `{"tenant":"acme","cluster":"docs"}`; see `DeleteInput` for the rest.
 */
export async function DeleteCluster(input: unknown): Promise<Ended<Deleted>> {
  const { finalBackup = false, undoHours = 0, ...ref } = checked(input, parseDeleteInput);
  let undelete = false;
  setHandler(undeleteSignal, () => {
    undelete = true;
  });
  return runOperation({ kind: 'delete', ref, steps: Object.values(STEPS) }, async (operation) => {
    if (finalBackup) operation.insert([FINAL_BACKUP], STEPS.mark);
    if (undoHours > 0) operation.insert([UNDO], STEPS.chart);
    await operation.step(STEPS.lease, () => control.takeLease({ ...ref, mode: 'exclusive' }));
    const backup = finalBackup ? await operation.step(FINAL_BACKUP, () => backUp(ref)) : undefined;
    const deleteAfter = new Date(Date.now() + undoHours * 3_600_000).toISOString();
    const spec = await operation.step(STEPS.mark, async () => {
      const { spec: found } = await control.loadCluster(ref);
      await control.setClusterPhase({ ...ref, phase: 'DELETING', ...(undoHours > 0 && { deleteAfter }) });
      return found;
    });
    if (
      undoHours > 0 &&
      (await operation.step(UNDO, () => undone(operation, new Change(ref, spec), deleteAfter, () => undelete)))
    ) {
      for (const step of [STEPS.chart, STEPS.volumes, STEPS.namespace, STEPS.forget])
        operation.skip(step, 'taken back');
      return { ...ref, schedules: 0, undone: true, ...(backup !== undefined && { backup }) };
    }
    const { aws } = spec;
    if (aws !== undefined) operation.insert(Object.values(AWS_REMOVAL_STEPS), STEPS.forget);
    // Not so when an earlier removal was interrupted.
    const inKubernetes = aws === undefined || (await awsKubernetesExists(ref, aws));
    if (inKubernetes) await leaveKubernetes(operation, ref);
    else
      for (const step of [STEPS.chart, STEPS.volumes, STEPS.namespace])
        operation.skip(step, 'the control plane is gone');
    // No machine runs the driver that would remove the volumes; they go after the node group.
    const asleep = undoHours > 0 || spec.suspended === true;
    const canDrain = inKubernetes && !(asleep && hasMachines(spec) && aws?.create.controlPlane === true);
    const kept = aws === undefined ? null : (await removeAws(operation, ref, aws, canDrain)).kept;
    operation.pointOfNoReturn();
    const forget = () =>
      operation.step(
        STEPS.forget,
        () => control.forgetCluster(ref),
        (forgotten) => `${forgotten.schedules} schedules removed`,
      );
    // Nothing of it is left; a cancellation comes too late, and a failure means that it has to be deleted again.
    const { schedules } = await (operation.isPastReturn ? CancellationScope.nonCancellable(forget) : forget());
    return { ...ref, schedules, ...(backup !== undefined && { backup }), ...(kept !== null && { bucket: kept }) };
  });
}

/** @returns the id of the backup */
async function backUp(ref: ClusterRef): Promise<string> {
  const { spec } = await control.loadCluster(ref);
  if (spec.suspended === true) {
    throw new FleetError(
      'ClusterSuspended',
      `${ref.tenant}/${ref.cluster} is suspended, so there is nothing to back up from; resume it first, or delete it without finalBackup.`,
    );
  }
  const { backup } = await executeChild(BackupCluster, {
    workflowId: `${workflowInfo().workflowId}/backup`,
    args: [ref],
    staticSummary: `Last backup of ${ref.tenant}/${ref.cluster}`,
  });
  return backup;
}

/** Keep the cluster asleep until its time is up, or bring it back. */
async function undone(
  operation: Operation,
  change: Change,
  deleteAfter: string,
  asked: () => boolean,
): Promise<boolean> {
  const { ref, spec } = change;
  const asleep = spec.suspended === true;
  try {
    if (!asleep) {
      await change.apply({ suspended: true });
      await control.pauseSchedules(ref);
      if (hasMachines(spec)) {
        await change.awaitPodsGone(0);
        await stopMachines(ref, change.spec);
      }
    }
    if (!(await condition(asked, Math.max(Date.parse(deleteAfter) - Date.now(), 1)))) return false;
    await change.settle(bringBack, operation);
    return true;
  } catch (error) {
    if (!isFailure(error)) throw error;
    // Whatever stops a deletion before its time leaves a cluster that works.
    await CancellationScope.nonCancellable(() => change.settle(bringBack));
    throw error;
  }

  async function bringBack(): Promise<void> {
    if (asleep) return;
    await change.enter('RESUMING');
    const started = hasMachines(spec) ? await startMachines(ref, change.spec) : 0;
    await change.apply({ suspended: false });
    await change.awaitWhole();
    await trimMachines(ref, spec, started);
    await control.unpauseSchedules(ref);
  }
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
