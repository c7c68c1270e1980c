/** The machines of a cluster on AWS while it lives: there before pods need them, gone after the last has left them. */
import { CancellationScope, log } from '@temporalio/workflow';
import type { MachineStep } from '../../src/domain/aws-machines.ts';
import type { AwsSpec } from '../../src/domain/aws.ts';
import type { ClusterSpec } from '../../src/domain/cluster.ts';
import type { ClusterRef } from '../../src/domain/naming.ts';
import type { UpdateStep } from '../../src/domain/update-plan.ts';
import { control, patient } from './activity-proxies.ts';
import type { Change } from './change.ts';
import { isFailure, reasonOf } from './failures.ts';

/** Seconds that EKS may take to change a node group and its machines to join or to be drained. */
const SECONDS = 2700;

export function isMachineStep(step: UpdateStep): step is MachineStep {
  return step.kind.endsWith('-machines');
}

/** What a step does, in words; also its name. */
export function machineWords(step: MachineStep): string {
  switch (step.kind) {
    case 'configure-machines':
      return 'Label and taint the machines';
    case 'add-machines':
      return step.added > 0
        ? `Add ${step.added} machines, ${step.machines} in all`
        : `Keep ${step.machines} machines${step.follow ? '' : ', whatever the number of nodes'}`;
    default:
      return `Remove ${step.removed} machines, keep ${step.machines}`;
  }
}

/** Perform a step of an update, and write down what there is then. */
export async function changeMachines(change: Change, step: MachineStep): Promise<void> {
  const { ref, spec } = change;
  const { aws } = spec;
  if (aws === undefined) return;
  if (step.kind === 'configure-machines') {
    const { labels, taints } = step;
    await change.enter('UPDATING');
    const begun = await control.configureMachines({ ...ref, aws, labels, taints });
    await awaitMachines(ref, aws, begun);
    await change.record({ aws: { ...aws, labels, taints } });
    return;
  }
  await change.enter('SCALING');
  if (step.kind === 'add-machines') await grow(ref, aws, aws.nodeCount, step.machines);
  else await resize(ref, aws, step.machines);
  await change.record({ aws: { ...aws, nodeCount: step.machines, followNodes: step.follow } });
  if (step.kind === 'remove-machines') await change.awaitWhole();
}

/** Whether a cluster has machines of its own that can be put to sleep with it. */
export function hasMachines({ aws }: ClusterSpec): boolean {
  return aws?.create.nodeGroups === true;
}

/** Stop all machines of a cluster whose pods are gone; volumes stay. */
export async function stopMachines(ref: ClusterRef, { aws }: ClusterSpec): Promise<void> {
  if (aws !== undefined) await resize(ref, aws, 0);
}

/** Start the machines of a cluster that sleeps. @returns how many, which may be more than it is to have */
export async function startMachines(ref: ClusterRef, { aws, suspended }: ClusterSpec): Promise<number> {
  if (aws === undefined) return 0;
  // One that was woken before has volumes on machines already.
  const asleep = suspended === true;
  const { machines } = asleep ? await control.machinesToWake({ ...ref, aws }) : { machines: aws.nodeCount };
  await grow(ref, aws, asleep ? 0 : aws.nodeCount, machines);
  return machines;
}

/** Give back what was started only to have a machine in each zone that needs one. */
export async function trimMachines(ref: ClusterRef, { aws }: ClusterSpec, started: number): Promise<void> {
  if (aws !== undefined && started > aws.nodeCount) await resize(ref, aws, aws.nodeCount);
}

/** More machines, or as many as before: what cannot be had in full is given back. */
async function grow(ref: ClusterRef, aws: AwsSpec, from: number, to: number): Promise<void> {
  try {
    await resize(ref, aws, to);
  } catch (error) {
    if (!isFailure(error)) throw error;
    await CancellationScope.nonCancellable(async () => {
      try {
        await resize(ref, aws, from);
      } catch (problem) {
        if (!isFailure(problem)) throw problem;
        // The failure that came first is the one to tell; the same change, repeated, sets the number again.
        log.error('could not go back to the former number of machines', { ...reasonOf(problem) });
      }
    });
    throw error;
  }
}

async function resize(ref: ClusterRef, aws: AwsSpec, machines: number): Promise<void> {
  const options = patient(SECONDS, machines === 0 ? 'No machines' : `${machines} x ${aws.instanceType}`);
  const begun = await control.setMachines.executeWithOptions(options, [{ ...ref, aws, machines }]);
  await awaitMachines(ref, aws, begun);
}

async function awaitMachines(ref: ClusterRef, aws: AwsSpec, begun: Begun): Promise<void> {
  const { machines } = begun;
  const options = patient(SECONDS, machines === 0 ? 'All machines gone' : `${machines} machines joined`);
  await control.awaitMachines.executeWithOptions(options, [{ ...ref, aws, ...begun }]);
}

type Begun = Awaited<ReturnType<typeof control.setMachines>>;
