/** The schedule in Temporal by which certificates are renewed. One for all workers of a task queue. */
import type { Client } from '@temporalio/client';
import { keepSchedule, removeSchedule } from './temporal-schedule.ts';

interface Renewal {
  readonly taskQueue: string;
  /** Between two looks; 0 for none. */
  readonly hours: number;
}

/** Make the schedule, or bring it up to date, or remove it. One that somebody paused stays paused. */
export async function keepRenewing(client: Client, { taskQueue, hours }: Renewal): Promise<void> {
  const scheduleId = `renew-certificates-${taskQueue}`;
  if (hours === 0) return removeSchedule(client, scheduleId);
  const every = hours * 3_600_000;
  await keepSchedule(client, {
    scheduleId,
    spec: { intervals: [{ every }], jitter: every / 4 },
    action: {
      type: 'startWorkflow',
      workflowType: 'RenewCertificates',
      workflowId: scheduleId,
      taskQueue,
      args: [{}],
      workflowExecutionTimeout: '6h',
      staticSummary: 'Renew the certificates that are due',
    },
    // A look that was missed while nothing ran is made up for.
    policies: { overlap: 'SKIP', catchupWindow: '1 day', pauseOnFailure: false },
  });
}
