import type { ClusterPhase, ClusterSpec } from '../src/domain/cluster.ts';
import { FleetError } from '../src/domain/errors.ts';
import { parseResumeInput, parseSuspendInput } from '../src/domain/input.ts';
import type { ClusterRef } from '../src/domain/naming.ts';
import { control } from './shared/activity-proxies.ts';
import { hasMachines, startMachines, stopMachines, trimMachines } from './shared/aws-machines.ts';
import { Change } from './shared/change.ts';
import { checked } from './shared/input.ts';
import { runOperation, type Ended } from './shared/operation.ts';

const LEASE = 'Take the lease';
const SUSPEND = {
  stop: 'Stop the pods',
  schedules: 'Pause the schedules',
  gone: 'Wait until the pods are gone',
} as const;
const STOP_MACHINES = 'Stop the machines';
const START_MACHINES = 'Start the machines';
const RESUME = {
  start: 'Start the pods',
  whole: 'Wait until the cluster is whole',
  schedules: 'Resume the schedules',
} as const;

/**
 * Stop a cluster and keep it: no pods run, data, volume claims, API key and backups stay, schedules are paused. Machines
 * that were made for it are stopped too.
 *
 * Point of no return: the pods are told to stop. What fails later leaves the cluster suspended; the same again goes on.
 *
 * Input: `{"tenant":"acme","cluster":"docs"}`.
 */
export async function SuspendCluster(
  input: unknown,
): Promise<Ended<{ tenant: string; cluster: string; schedules: number }>> {
  const ref = checked(input, parseSuspendInput);
  return runOperation({ kind: 'suspend', ref, steps: [LEASE, ...Object.values(SUSPEND)] }, async (operation) => {
    await operation.step(LEASE, () => control.takeLease({ ...ref, mode: 'exclusive' }));
    const spec = specOf(ref, await control.loadCluster(ref));
    const change = new Change(ref, spec);
    const machines = hasMachines(spec);
    if (machines) operation.expect([STOP_MACHINES]);
    return change.settle(async () => {
      await change.enter('SUSPENDING');
      await operation.step(SUSPEND.stop, () => change.apply({ suspended: true }));
      // Only now: a schedule that fires before finds the cluster busy, and one that is paused too early may stay so.
      const { schedules } = await operation.step(
        SUSPEND.schedules,
        () => control.pauseSchedules(ref),
        (paused) => `${paused.schedules} paused`,
      );
      await operation.step(SUSPEND.gone, () => change.awaitPodsGone(0));
      if (machines) await operation.step(STOP_MACHINES, () => stopMachines(ref, change.spec));
      return { ...ref, schedules };
    }, operation);
  });
}

/**
 * Start a suspended cluster again, and come back when every replica is Active.
 *
 * Point of no return: the pods are told to start. What fails later leaves them running; the same again goes on.
 *
 * Input: `{"tenant":"acme","cluster":"docs"}`.
 */
export async function ResumeCluster(
  input: unknown,
): Promise<Ended<{ tenant: string; cluster: string; schedules: number }>> {
  const { readyTimeoutSeconds, ...ref } = checked(input, parseResumeInput);
  return runOperation({ kind: 'resume', ref, steps: [LEASE, ...Object.values(RESUME)] }, async (operation) => {
    await operation.step(LEASE, () => control.takeLease({ ...ref, mode: 'exclusive' }));
    const spec = specOf(ref, await control.loadCluster(ref));
    const change = new Change(ref, spec, readyTimeoutSeconds);
    const machines = hasMachines(spec);
    if (machines) operation.insert([START_MACHINES], RESUME.start);
    return change.settle(async () => {
      await change.enter('RESUMING');
      const started = machines ? await operation.step(START_MACHINES, () => startMachines(ref, spec)) : 0;
      // It may have slept for as long as its certificate was good.
      const issued = spec.tls === true ? await control.ensureCertificates(ref) : undefined;
      await operation.step(RESUME.start, () =>
        change.apply({ suspended: false, ...(issued && { certificateRevision: issued.revision }) }),
      );
      await operation.step(RESUME.whole, async () => {
        await change.awaitWhole();
        await trimMachines(ref, spec, started);
      });
      const { schedules } = await operation.step(
        RESUME.schedules,
        () => control.unpauseSchedules(ref),
        (running) => `${running.schedules} resumed`,
      );
      return { ...ref, schedules };
    }, operation);
  });
}

interface Loaded {
  readonly spec: ClusterSpec;
  readonly phase: ClusterPhase;
  readonly deleteAfter?: string;
}

/** A removal that has begun may have taken volumes with it already; one that can still be taken back has not. */
function specOf({ tenant, cluster }: ClusterRef, { spec, phase, deleteAfter }: Loaded): ClusterSpec {
  if (phase !== 'DELETING' || Date.parse(deleteAfter ?? '') > Date.now()) return spec;
  throw new FleetError(
    'UpdateRefused',
    `${tenant}/${cluster} is being deleted; delete it again to bring that to its end.`,
  );
}
