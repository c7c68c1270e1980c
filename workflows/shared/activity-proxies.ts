/**
 * The activities as workflows call them. Every proxy names its timeouts and retries, and waits for a cancelled
 * activity to end: otherwise clean-up would run beside the very call it undoes.
 */
import { ActivityCancellationType, proxyActivities, type ActivityOptions } from '@temporalio/workflow';
import type { Activities } from '../../activities/index.ts';

const COMMON = {
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
  heartbeatTimeout: '10s',
} as const satisfies ActivityOptions;

/** Short calls that change or read something. They are repeated for some minutes, and then the operation fails. */
const CONTROL = {
  ...COMMON,
  startToCloseTimeout: '5m',
  retry: { initialInterval: '500ms', backoffCoefficient: 2, maximumInterval: '20s', maximumAttempts: 8 },
} as const satisfies ActivityOptions;

/** Calls that must get through: the clean-up, and the record of how an operation ended. */
const PERSISTENT = {
  ...CONTROL,
  retry: { initialInterval: '500ms', backoffCoefficient: 2, maximumInterval: '30s', maximumAttempts: 20 },
} as const satisfies ActivityOptions;

/** First look at the outside world: a store or a cluster that is down should be told soon. */
const PREFLIGHT = { ...CONTROL, retry: { ...CONTROL.retry, maximumAttempts: 4 } } as const satisfies ActivityOptions;

export const control = proxyActivities<Activities>(CONTROL);
export const persistent = proxyActivities<Activities>(PERSISTENT);
export const preflight = proxyActivities<Activities>(PREFLIGHT);

/** The options of one control activity, with what the Temporal UI shows beside it. */
export function described(summary: string): ActivityOptions {
  return { ...CONTROL, summary: summary.slice(0, 200) };
}

/** Poll by retry at a steady pace until it no longer fails with a `wait` code, for at most `seconds`. */
export function polled(seconds: number, summary: string): ActivityOptions {
  return {
    ...COMMON,
    startToCloseTimeout: '1m',
    scheduleToCloseTimeout: seconds * 1000,
    // Options given at a call are merged into the proxy's, so its number of attempts has to be lifted here.
    retry: { initialInterval: '500ms', backoffCoefficient: 1, maximumAttempts: Number.POSITIVE_INFINITY },
    summary: summary.slice(0, 200),
  };
}

/** Making a snapshot takes as long as the node's disk needs. */
export function snapshotting(summary: string): ActivityOptions {
  return {
    ...COMMON,
    startToCloseTimeout: '12h',
    retry: { initialInterval: '500ms', backoffCoefficient: 1.5, maximumInterval: '10s', maximumAttempts: 20 },
    summary: summary.slice(0, 200),
  };
}

/** A byte stream: long, on the queue near the cluster, given up when no byte moves. */
export function streaming(taskQueue: string, summary: string): ActivityOptions {
  return {
    ...COMMON,
    taskQueue,
    startToCloseTimeout: '24h',
    // Longer than the source's own stall timeout, so that the stream reports its reason itself.
    heartbeatTimeout: '15s',
    retry: {
      initialInterval: '500ms',
      maximumInterval: '10s',
      maximumAttempts: 10,
      // A new snapshot is needed then, not another try.
      nonRetryableErrorTypes: ['SnapshotVanished'],
    },
    summary: summary.slice(0, 200),
  };
}

/** Recoveries of one shard must not overlap, so none is ever repeated by Temporal. */
export function once(summary: string): ActivityOptions {
  return { ...COMMON, startToCloseTimeout: '12h', retry: { maximumAttempts: 1 }, summary: summary.slice(0, 200) };
}
