/** The schedule in Temporal by which all clusters are looked at again and again. One for all workers of a task queue. */
import type { Client, ScheduleOptions } from '@temporalio/client';
import { keepSchedule, removeSchedule } from './temporal-schedule.ts';

interface Observation {
  readonly taskQueue: string;
  /** Between two looks; 0 for none. */
  readonly seconds: number;
  /** Only the clusters of this tenant. */
  readonly tenant?: string;
}

export function observationScheduleId(taskQueue: string): string {
  return `observe-clusters-${taskQueue}`;
}

/**
 * Make the schedule, or bring it up to date, or remove it. Repeating is harmless, also by several workers at once. One
 * that somebody paused stays paused.
 */
export async function keepObserving(client: Client, observation: Observation): Promise<void> {
  const { taskQueue, seconds } = observation;
  if (seconds === 0) await removeSchedule(client, observationScheduleId(taskQueue));
  else await keepSchedule(client, scheduleOf(observation));
}

function scheduleOf({ taskQueue, seconds, tenant }: Observation) {
  const every = seconds * 1000;
  return {
    scheduleId: observationScheduleId(taskQueue),
    spec: { intervals: [{ every }], jitter: Math.min(every / 4, 10_000) },
    action: {
      type: 'startWorkflow',
      workflowType: 'ObserveClusters',
      // Temporal appends the time of the run.
      workflowId: observationScheduleId(taskQueue),
      taskQueue,
      args: [tenant === undefined ? {} : { tenant }],
      // One that hangs keeps the next from starting.
      workflowExecutionTimeout: '10m',
      staticSummary: 'Look at all clusters',
    },
    // What was missed is not made up for: the next look says how the clusters are then.
    policies: { overlap: 'SKIP', catchupWindow: '1m', pauseOnFailure: false },
  } satisfies ScheduleOptions;
}
