/** What every activity needs from its context: the signal that ends it, and who runs it. */
import { Context } from '@temporalio/activity';

/** Aborts when the activity is cancelled, times out or the worker stops. */
export function signal(): AbortSignal {
  return Context.current().cancellationSignal;
}

/** The workflow that runs this activity. */
export function workflowRun(): { workflowId: string; runId: string } {
  const { workflowExecution } = Context.current().info;
  if (workflowExecution === undefined) throw new Error('This activity runs in workflows only.');
  return workflowExecution;
}

/** 1 for the first attempt. */
export function attempt(): number {
  return Context.current().info.attempt;
}

const kept = new WeakMap<Context, object>();

/** What every heartbeat of this activity carries from now on, as it is then: the next attempt finds it. */
export function keepInHeartbeats(details: object): void {
  kept.set(Context.current(), details);
}

/**
 * Heartbeats of this activity that tell how far it is, besides what it keeps in all of them. Bound to the activity when
 * this is called: a callback of a socket that an earlier activity opened runs in that one's context.
 */
export function heartbeats(): (progress: object) => void {
  const context = Context.current();
  return (progress) => context.heartbeat({ ...kept.get(context), ...progress });
}
