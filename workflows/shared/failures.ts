/** Failures as workflows see and end with them. */
import { ApplicationFailure, isCancellation, TemporalFailure, TimeoutFailure } from '@temporalio/workflow';
import { FleetError, isErrorCode, messageOf, type ErrorCode } from '../../src/domain/errors.ts';

/** A code and a sentence, out of whatever Temporal wrapped around them. */
export interface Reason {
  readonly code: ErrorCode;
  readonly message: string;
}

/** The outermost failure with a code of the closed set: a child's also tells what the child left behind. */
export function reasonOf(error: unknown): Reason {
  let unexpected: Reason | undefined;
  for (let at = error; at instanceof Error; at = at.cause) {
    const { code, message } = told(at);
    if (isErrorCode(code) && code !== 'Internal') return { code, message };
    if (code === 'Internal') unexpected ??= { code, message };
    if (at.cause === at) break;
  }
  return unexpected ?? { code: 'Internal', message: messageOf(error) };
}

function told(error: Error): { code?: unknown; message: string } {
  if (FleetError.is(error)) return { code: error.code, message: error.message };
  if (error instanceof ApplicationFailure) return { code: error.type, message: error.message };
  // What was waited for until the time was up: the last attempt's failure, which the SDK keeps in its raw form only.
  const last = error instanceof TimeoutFailure ? error.failure?.cause : undefined;
  if (last?.applicationFailureInfo) return { code: last.applicationFailureInfo.type, message: last.message ?? '' };
  return { message: error.message };
}

export function hasCode(error: unknown, code: ErrorCode): boolean {
  return error instanceof TemporalFailure && reasonOf(error).code === code;
}

/** Whether an error is the end of a workflow, rather than a fault in its code, which Temporal retries until mended. */
export function isFailure(error: unknown): boolean {
  return error instanceof TemporalFailure || FleetError.is(error);
}

/**
 * The failure that a workflow ends with: the code as its type, at the top, where the CLI and the UI show it. A
 * cancellation that left something behind is a failure, so that somebody looks.
 *
 * @param leftovers what was left, besides what a child left; all of it is told in the message, and in `details[1]`
 * @param told sentences about what was undone, for the message
 */
export function toWorkflowFailure(
  error: unknown,
  leftovers: readonly string[] = [],
  told: readonly string[] = [],
): unknown {
  const cancelled = isCancellation(error);
  const before = leftoversOf(error);
  const left = [...new Set([...before, ...leftovers])];
  if (cancelled && left.length === 0) return error;
  const { code, message } = cancelled
    ? { code: 'CleanupIncomplete' as const, message: messageOf(error) }
    : reasonOf(error);
  const bare = before.length > 0 && message.endsWith(tail(before)) ? message.slice(0, -tail(before).length) : message;
  const fields = FleetError.is(error) ? error.fields : [];
  return ApplicationFailure.create({
    type: code,
    message: `${[bare, ...told].join(' ')}${tail(left)}`,
    nonRetryable: true,
    ...((fields.length > 0 || left.length > 0) && { details: left.length > 0 ? [fields, left] : [fields] }),
    ...(error instanceof TemporalFailure && { cause: error }),
  });
}

/** What a failed part of the operation says that it could not remove. */
export function leftoversOf(error: unknown): readonly string[] {
  for (let at = error; at instanceof Error; at = at.cause) {
    const left: unknown = at instanceof ApplicationFailure ? at.details?.[1] : undefined;
    if (Array.isArray(left)) return left.map(String);
    if (at.cause === at) break;
  }
  return [];
}

function tail(leftovers: readonly string[]): string {
  return leftovers.length === 0 ? '' : ` Left behind: ${leftovers.join('; ')}.`;
}
