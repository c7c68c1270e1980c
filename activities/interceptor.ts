/** Around every activity: steady heartbeats, and failures with a code of the closed set. */
import { CancelledFailure, CompleteAsyncError, Context } from '@temporalio/activity';
import { ApplicationFailure, TemporalFailure } from '@temporalio/common';
import type { ActivityExecuteInput, ActivityInboundCallsInterceptor, Next } from '@temporalio/worker';
import { FleetError, isErrorCode, isRetryable, messageOf } from '../src/domain/errors.ts';

/** Activities that report the bytes they move, so that a stuck stream is seen. */
const HEARTBEAT_THEMSELVES = new Set(['transferShardSnapshot', 'copyShardPack', 'relayReplica']);

/** Answers that only mean "ask again". */
const EXPECTED = new Set<string>(['ClusterNotReady', 'InfrastructureNotReady', 'InfrastructureBlocked']);

export class FleetActivityInterceptor implements ActivityInboundCallsInterceptor {
  async execute(input: ActivityExecuteInput, next: Next<ActivityInboundCallsInterceptor, 'execute'>): Promise<unknown> {
    const context = Context.current();
    const { heartbeatTimeoutMs, activityType } = context.info;
    // A killed worker is noticed, and a cancellation delivered, by heartbeats only.
    const beat =
      heartbeatTimeoutMs === undefined || HEARTBEAT_THEMSELVES.has(activityType)
        ? undefined
        : setInterval(() => context.heartbeat(), heartbeatTimeoutMs / 4);
    try {
      return await next(input);
    } catch (error) {
      throw toFailure(error, context.cancellationSignal);
    } finally {
      clearInterval(beat);
    }
  }
}

/** A failure that Temporal understands: `type` is the code, retried or not by the code's class. */
function toFailure(error: unknown, signal?: AbortSignal): unknown {
  if (error instanceof TemporalFailure || error instanceof CompleteAsyncError) return error;
  if (signal?.aborted === true && isAbort(error)) {
    return signal.reason instanceof CancelledFailure ? signal.reason : new CancelledFailure('CANCELLED');
  }
  if (FleetError.is(error)) {
    return ApplicationFailure.create({
      message: error.message,
      type: error.code,
      nonRetryable: !isRetryable(error.code),
      ...(error.fields.length > 0 && { details: [error.fields] }),
      // Expected answers should not look like faults in logs and metrics.
      ...(EXPECTED.has(error.code) && { category: 'BENIGN' as const }),
    });
  }
  const name = error instanceof Error ? error.name : 'Error';
  return ApplicationFailure.create({
    message: messageOf(error),
    type: isErrorCode(name) ? name : 'Internal',
    nonRetryable: error instanceof TypeError || error instanceof RangeError || error instanceof ReferenceError,
    ...(error instanceof Error && { cause: error }),
  });
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && (error.name === 'AbortError' || error.name === 'CancelledFailure');
}
