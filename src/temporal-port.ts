/** What the activities ask Temporal itself, over a client. */
import {
  WorkflowFailedError,
  WorkflowNotFoundError,
  type Client,
  type WorkflowExecutionStatusName,
} from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import type { TemporalPort } from '../activities/deps.ts';
import { isOpenRun, isOpenStatus } from './temporal-runs.ts';
import { ENDED_OUTSIDE, type Ending } from './domain/abandoned.ts';

export function temporalPort(client: Client): TemporalPort {
  return {
    isOpen: (workflowId, runId) => isOpenRun(client, workflowId, runId),
    async ending(workflowId, startedAt) {
      const handle = client.workflow.getHandle(workflowId);
      try {
        const { status, closeTime, runId } = await handle.describe();
        if (isOpenStatus(status.name)) return undefined;
        const how = await endOf(client, workflowId, runId, status.name);
        return { ...how, ...(closeTime !== undefined && { at: closeTime }) };
      } catch (error) {
        if (!(error instanceof WorkflowNotFoundError)) throw error;
        // One that has just begun is unknown to another namespace only.
        if (Date.now() - startedAt.getTime() < FORGOTTEN_MS) return undefined;
        const message = 'Temporal does not know the workflow any more, so nobody can say how it ended.';
        return { state: 'failed', error: { code: 'Internal', message } };
      }
    },
    async deleteSchedules(tenant, cluster) {
      let count = 0;
      for await (const { scheduleId } of client.schedule.list({ query: schedulesOf(tenant, cluster) })) {
        await client.schedule.getHandle(scheduleId).delete();
        count += 1;
      }
      return count;
    },
    async pauseSchedules(tenant, cluster) {
      let count = 0;
      for await (const { scheduleId, state } of client.schedule.list({ query: schedulesOf(tenant, cluster) })) {
        if (state.paused) continue;
        await client.schedule.getHandle(scheduleId).pause(SUSPENDED);
        count += 1;
      }
      return count;
    },
    async unpauseSchedules(tenant, cluster) {
      let count = 0;
      for await (const { scheduleId } of client.schedule.list({ query: schedulesOf(tenant, cluster) })) {
        const handle = client.schedule.getHandle(scheduleId);
        // Lists may be behind; the description is not.
        const { state } = await handle.describe();
        if (!state.paused || state.note !== SUSPENDED) continue;
        await handle.unpause();
        count += 1;
      }
      return count;
    },
  };
}

/** Milliseconds for which Temporal keeps every workflow that has ended, at the least. */
const FORGOTTEN_MS = 24 * 3_600_000;

async function endOf(
  client: Client,
  workflowId: string,
  runId: string,
  status: WorkflowExecutionStatusName,
): Promise<Ending> {
  if (status === 'CANCELLED') return { state: 'cancelled' };
  if (status === 'TERMINATED' || status === 'TIMED_OUT') {
    const message = 'It was ended in Temporal without a chance to clean up.';
    return { state: 'failed', error: { code: ENDED_OUTSIDE[status], message } };
  }
  try {
    await client.workflow.getHandle(workflowId, runId, { followRuns: false }).result();
    return { state: 'done' };
  } catch (error) {
    if (!(error instanceof WorkflowFailedError)) throw error;
    const { cause } = error;
    const code = cause instanceof ApplicationFailure ? (cause.type ?? 'Internal') : 'Internal';
    return { state: 'failed', error: { code, message: cause?.message ?? error.message } };
  }
}

/** The note on a schedule that was paused together with its cluster. */
const SUSPENDED = 'paused while the cluster is suspended';

function schedulesOf(tenant: string, cluster: string): string {
  return `FleetTenant = "${tenant}" AND FleetCluster = "${cluster}"`;
}
