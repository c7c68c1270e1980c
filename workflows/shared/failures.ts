/** Failures as workflows see and end with them. */
import { ApplicationFailure, isCancellation, TemporalFailure } from '@temporalio/workflow';
import { FleetError, isErrorCode, messageOf, type ErrorCode } from '../../src/domain/errors.ts';

/** A code and a sentence, out of whatever Temporal wrapped around them. */
export interface Reason {
  readonly code: ErrorCode;
  readonly message: string;
}

/** The innermost failure with a code of the closed set. */
export function reasonOf(error: unknown): Reason {
  let reason: Reason | undefined;
  for (let at = error; at instanceof Error; at = at.cause) {
    if (FleetError.is(at)) reason = { code: at.code, message: at.message };
    else if (at instanceof ApplicationFailure && isErrorCode(at.type)) reason = { code: at.type, message: at.message };
    if (at.cause === at) break;
  }
  return reason ?? { code: 'Internal', message: messageOf(error) };
}

export function hasCode(error: unknown, code: ErrorCode): boolean {
  return error instanceof TemporalFailure && reasonOf(error).code === code;
}

/** Whether an error is the end of a workflow, rather than a fault in its code, which Temporal retries until mended. */
export function isFailure(error: unknown): boolean {
  return error instanceof TemporalFailure || FleetError.is(error);
}

/** The failure that a workflow ends with: the code as its type, at the top, where the CLI and the UI show it. */
export function toWorkflowFailure(error: unknown, leftovers: readonly string[] = []): unknown {
  if (isCancellation(error) && leftovers.length === 0) return error;
  const { code, message } = reasonOf(error);
  const tail = leftovers.length === 0 ? '' : ` Left behind: ${leftovers.join('; ')}.`;
  return ApplicationFailure.create({
    type: code,
    message: `${message}${tail}`,
    nonRetryable: true,
    ...(FleetError.is(error) && error.fields.length > 0 && { details: [error.fields] }),
    ...(error instanceof TemporalFailure && { cause: error }),
  });
}
