/** The schedule in Temporal by which certificates are renewed. One for all workers of a task queue. */
import { ScheduleAlreadyRunning, ScheduleNotFoundError, type Client, type ScheduleOptions } from '@temporalio/client';

interface Renewal {
  readonly taskQueue: string;
  /** Between two looks; 0 for none. */
  readonly hours: number;
}

/** Make the schedule, or bring it up to date, or remove it. One that somebody paused stays paused. */
export async function keepRenewing(client: Client, { taskQueue, hours }: Renewal): Promise<void> {
  const scheduleId = `renew-certificates-${taskQueue}`;
  const handle = client.schedule.getHandle(scheduleId);
  if (hours === 0) {
    await handle.delete().catch((error: unknown) => {
      if (!(error instanceof ScheduleNotFoundError)) throw error;
    });
    return;
  }
  const every = hours * 3_600_000;
  const options = {
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
  } satisfies ScheduleOptions;
  try {
    await client.schedule.create(options);
  } catch (error) {
    if (!(error instanceof ScheduleAlreadyRunning)) throw error;
    const { spec, action, policies } = options;
    await handle.update(({ state }) => ({ spec, action, policies, state }));
  }
}
