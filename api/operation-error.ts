/** Why an operation ended without a result, as a code of the closed set. */
import { WorkflowFailedError, type WorkflowExecutionStatusName } from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import { isErrorCode } from '../src/domain/errors.ts';
import { publicFailure } from '../src/domain/public-failure.ts';
import type { ApiDeps } from './context.ts';
import { callTemporal } from './temporal.ts';

export interface OperationError {
  readonly code: string;
  readonly title: string;
  readonly detail: string;
}

const ENDS = {
  CANCELLED: ['Cancelled', 'The operation was cancelled', 'Somebody cancelled it; what it had made was removed.'],
  TERMINATED: ['Terminated', 'The operation was terminated', 'It was ended in Temporal without a chance to clean up.'],
  TIMED_OUT: ['TimedOut', 'The operation ran out of time', 'Temporal ended it at its time limit, without cleaning up.'],
} as const;

/** The error of a workflow that ended otherwise than by failing. */
export function endError(status: keyof typeof ENDS): OperationError {
  const [code, title, detail] = ENDS[status];
  return { code, title, detail };
}

/** A failure by its recorded code, without what is for operators only. */
export function fleetFailure(code: string, message: string, workflowId: string): OperationError {
  return publicFailure(code, message, `operation "${workflowId}"`);
}

export async function failureOf(
  { temporal }: ApiDeps,
  workflowId: string,
  runId: string,
  status: WorkflowExecutionStatusName,
): Promise<OperationError> {
  if (status === 'CANCELLED' || status === 'TERMINATED' || status === 'TIMED_OUT') return endError(status);
  const handle = temporal.workflow.getHandle(workflowId, runId, { followRuns: false });
  try {
    await callTemporal(temporal, () => handle.result());
  } catch (error) {
    if (!(error instanceof WorkflowFailedError)) throw error;
    const failure = stated(error.cause);
    return fleetFailure(failure?.type ?? '', failure?.message ?? '', workflowId);
  }
  return fleetFailure('', '', workflowId);
}

/**
 * The outermost failure with a known code: what the workflow itself ended with, leftovers included. Activity and child
 * workflow failures around a code are no statement of their own and are looked through.
 */
function stated(error: unknown): ApplicationFailure | undefined {
  if (!(error instanceof Error)) return undefined;
  return error instanceof ApplicationFailure && isErrorCode(error.type) ? error : stated(error.cause);
}
