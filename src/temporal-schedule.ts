/** A schedule of the worker's own in Temporal. One for all workers of a task queue. */
import { ScheduleAlreadyRunning, ScheduleNotFoundError, type Client, type ScheduleOptions } from '@temporalio/client';

/**
 * Make the schedule, or bring it up to date. Repeating is harmless, also by several workers at once. One that somebody
 * paused stays paused.
 */
export async function keepSchedule(client: Client, options: ScheduleOptions): Promise<void> {
  try {
    await client.schedule.create(options);
  } catch (error) {
    if (!(error instanceof ScheduleAlreadyRunning)) throw error;
    const { scheduleId, spec, action, policies } = options;
    await client.schedule
      .getHandle(scheduleId)
      .update(({ state }) => ({ spec, action, ...(policies !== undefined && { policies }), state }));
  }
}

/** Succeeds when there is none. */
export async function removeSchedule(client: Client, scheduleId: string): Promise<void> {
  try {
    await client.schedule.getHandle(scheduleId).delete();
  } catch (error) {
    if (!(error instanceof ScheduleNotFoundError)) throw error;
  }
}
