/** kill -9 of the worker at every activity of an operation, one after the other, and how long each loss lasted. */
import { WorkflowFailedError, type WorkflowHandle } from '@temporalio/client';
import { CancelledFailure } from '@temporalio/common';
import { exited, until, type Fleet } from './fleet.ts';
import { hangs, within } from './hanging.ts';

/** Seconds until the next place has to be reached, or the operation has to end. */
const BOUND = 240;

export interface Crashes {
  /** As the table names it. */
  readonly name: string;
  readonly type: string;
  /** Called before each run. */
  readonly prepare: () => Promise<Record<string, unknown>>;
  /** What is wrong after a run. */
  readonly check: (result: Record<string, unknown>) => Promise<readonly string[]>;
  /** Places besides those before and after each activity. */
  readonly more?: readonly string[];
  /** Only these activities; default: all that a run without a crash goes through. */
  readonly only?: readonly string[];
  /** The operation is cancelled when the worker died here, so that the places are those of its clean-up. */
  readonly cancelAt?: string;
  /** The code that it has to fail with. */
  readonly fails?: string;
  /** For the worker. */
  readonly env?: Record<string, string>;
  /** Called with the operation when it was started. */
  readonly started?: (handle: WorkflowHandle) => Promise<void>;
}

export interface Kill {
  readonly operation: string;
  /** `<activity>:<before|after>` */
  readonly place: string;
  readonly at: number;
  /** Milliseconds from the kill until the same step was done; `undefined` for one that nobody had to repeat. */
  recovery?: number;
}

export interface CrashReport {
  readonly kills: readonly Kill[];
  readonly violations: readonly string[];
}

/** Run the operation once unharmed to learn its activities, then once killed before each, once killed after each. */
export async function crash(fleet: Fleet, crashes: Crashes): Promise<CrashReport> {
  const kills: Kill[] = [];
  const violations: string[] = [];
  const activities = crashes.only ?? (await survey(fleet, crashes));
  for (const when of ['before', 'after'] as const) {
    const places = [...activities.map((name) => `${name}:${when}`)];
    if (when === 'before')
      places.splice(places.findLastIndex((place) => place.startsWith('transfer')) + 1, 0, ...(crashes.more ?? []));
    const run = await once(fleet, crashes, places);
    kills.push(...run.kills);
    violations.push(...run.violations.map((what) => `${crashes.name}, killed ${when} each activity: ${what}`));
  }
  return { kills, violations };
}

/** @returns names of the activities, in the order in which they first began */
async function survey(fleet: Fleet, { type, prepare, check, started, env = {} }: Crashes): Promise<string[]> {
  const input = await prepare();
  const worker = await fleet.worker({ env });
  const handle = await fleet.start(type, { tenant: fleet.tenant, ...input });
  await started?.(handle);
  const result = await within(BOUND, handle);
  const wrong = await check(result);
  if (wrong.length > 0) throw new Error(`${type} without a crash: ${wrong.join('; ')}`);
  worker.kill('SIGTERM');
  await exited(worker);
  const steps = (await stepsOf(fleet, handle.workflowId)).toSorted((a, b) => a.scheduled - b.scheduled);
  return [...new Set(steps.map(({ activity }) => activity))];
}

async function once(fleet: Fleet, crashes: Crashes, places: readonly string[]): Promise<CrashReport> {
  const { name, type, prepare, check, cancelAt, started, fails, env = {} } = crashes;
  const kills: Kill[] = [];
  const violations: string[] = [];
  const handle = await fleet.start(type, { tenant: fleet.tenant, ...(await prepare()) });
  await started?.(handle);
  try {
    for (const place of cancelAt === undefined ? places : [cancelAt, ...places]) {
      const worker = await fleet.worker({ failpoint: place, env });
      const signal = await Promise.race([exited(worker), ended(handle), pause(BOUND)]);
      if (signal !== 'SIGKILL') {
        const why = signal === 'ended' ? 'the operation had ended' : await hangs(handle);
        violations.push(`the worker was not killed at ${place}: ${why}`);
        worker.kill('SIGKILL');
        await exited(worker);
        if (signal !== 'ended') break;
        continue;
      }
      if (place === cancelAt) await handle.cancel();
      else kills.push({ operation: name, place, at: Date.now() });
    }
    const last = await fleet.worker({ env });
    const result = await within(BOUND, handle, cancelAt !== undefined).catch((error: unknown) => {
      const failure =
        error instanceof Error && error.cause instanceof WorkflowFailedError ? error.cause.cause : undefined;
      if (fails === undefined || (failure as { type?: string } | undefined)?.type !== fails) throw error;
      return {};
    });
    violations.push(...(await check(result)));
    last.kill('SIGTERM');
    await exited(last);
  } catch (error) {
    violations.push(error instanceof Error ? error.message : String(error));
    await handle.terminate('the crash matrix gave it up').catch(() => undefined);
  }
  const steps = await stepsOf(fleet, handle.workflowId);
  for (const kill of kills) {
    const repeated = steps.filter(
      ({ activity, attempt, completed }) => activity === kill.place.split(':')[0] && attempt > 1 && completed > kill.at,
    );
    if (repeated.length > 0) kill.recovery = Math.min(...repeated.map(({ completed }) => completed)) - kill.at;
  }
  return { kills, violations };
}

/** A user who cancels in the middle of an activity, and the same operation again after that. */
export interface Cancellation {
  /** `<operation>: <activity>` */
  readonly place: string;
  /** Milliseconds from the cancellation until the operation had ended. */
  readonly took: number;
  /** How it ended: a cancellation that comes too late changes nothing. */
  readonly as: 'cancelled' | 'done';
}

/**
 * Cancel the operation while each of its activities runs, one run per activity, and then run it again to its end.
 *
 * @param settled what is wrong right after the cancellation
 */
export async function cancelEverywhere(
  fleet: Fleet,
  crashes: Crashes,
  settled: () => Promise<readonly string[]>,
): Promise<{ cancellations: Cancellation[]; violations: string[] }> {
  const cancellations: Cancellation[] = [];
  const violations: string[] = [];
  const { name, type, prepare, check, env = {} } = crashes;
  for (const activity of crashes.only ?? (await survey(fleet, crashes))) {
    const place = `${name}: ${activity}`;
    const input = { tenant: fleet.tenant, ...(await prepare()) };
    const from = fleet.log.length;
    const worker = await fleet.worker({ failpoint: `${activity}:hold`, env });
    try {
      const handle = await fleet.start(type, input);
      await crashes.started?.(handle);
      await until(`${place} is reached`, () => Promise.resolve(fleet.log.slice(from).includes('held\n')), BOUND);
      await handle.cancel();
      const at = Date.now();
      worker.kill('SIGWINCH');
      const result = await Promise.race([handle.result().catch((error: unknown) => error), pause(BOUND)]);
      if (result === 'late') throw new Error(`no end within ${BOUND} s; ${await hangs(handle)}`);
      const cancelled = result instanceof WorkflowFailedError && result.cause instanceof CancelledFailure;
      if (result instanceof Error && !cancelled) {
        const cause = result.cause instanceof Error ? result.cause.message : result.message;
        violations.push(`${place}, cancelled: it failed instead: ${cause}`);
      }
      cancellations.push({ place, took: Date.now() - at, as: cancelled ? 'cancelled' : 'done' });
      violations.push(...(await settled()).map((what) => `${place}, cancelled: ${what}`));
      const again = await fleet.start(type, input);
      await crashes.started?.(again);
      violations.push(
        ...(await check(await within(BOUND, again))).map((what) => `${place}, cancelled, repeated: ${what}`),
      );
    } catch (error) {
      violations.push(`${place}, cancelled: ${error instanceof Error ? error.message : String(error)}`);
    }
    worker.kill('SIGTERM');
    await exited(worker);
  }
  return { cancellations, violations };
}

async function ended(handle: WorkflowHandle): Promise<'ended'> {
  try {
    await handle.result();
  } catch (error) {
    if (!(error instanceof WorkflowFailedError) || error.cause instanceof CancelledFailure) return 'ended';
  }
  return 'ended';
}

function pause(seconds: number): Promise<'late'> {
  return new Promise((resolve) => {
    setTimeout(() => resolve('late'), seconds * 1000).unref();
  });
}

interface Step {
  readonly activity: string;
  readonly attempt: number;
  /** Milliseconds since the epoch. */
  readonly scheduled: number;
  readonly completed: number;
}

/** All completed activities of a workflow and its children. */
async function stepsOf(fleet: Fleet, workflowId: string, runId?: string): Promise<Step[]> {
  const { events = [] } = await fleet.client.workflow.getHandle(workflowId, runId).fetchHistory();
  const found: Step[] = [];
  const scheduled = new Map<string, { activity: string; at: number }>();
  const attempts = new Map<string, number>();
  for (const event of events ?? []) {
    const at = Number(event.eventTime?.seconds ?? 0) * 1000 + (event.eventTime?.nanos ?? 0) / 1e6;
    const begun = event.activityTaskScheduledEventAttributes;
    if (begun) scheduled.set(String(event.eventId), { activity: begun.activityType?.name ?? '', at });
    const started = event.activityTaskStartedEventAttributes;
    if (started) attempts.set(String(started.scheduledEventId), started.attempt ?? 1);
    const done = event.activityTaskCompletedEventAttributes;
    const step = done && scheduled.get(String(done.scheduledEventId));
    if (step) {
      const attempt = attempts.get(String(done.scheduledEventId)) ?? 1;
      found.push({ activity: step.activity, attempt, scheduled: step.at, completed: at });
    }
    const child = event.childWorkflowExecutionStartedEventAttributes?.workflowExecution;
    if (child?.workflowId) found.push(...(await stepsOf(fleet, child.workflowId, child.runId ?? undefined)));
  }
  return found;
}

/** Those of the changes of a running cluster: killed and cancelled in crash-life.test.ts. */
export const LIFE_ACTIVITIES = [
  'recordSpec',
  'pauseSchedules',
  'unpauseSchedules',
  'planClusterUpdate',
  'inspectCluster',
  'planShardMoves',
  'moveShard',
  'removePeers',
  'awaitPodsGone',
  'removeSurplusClaims',
  'nextPodToRestart',
  'restartPod',
  'stageApiKey',
  'growVolumeClaims',
  'awaitVolumesGrown',
  'releaseStatefulSet',
  'abortShardMoves',
  'inspectRollout',
] as const;

/** One row per operation and one for all. */
export function crashTable(kills: readonly Kill[], violations: readonly string[]): string {
  const byOperation = Map.groupBy(kills, ({ operation }) => operation);
  const row = (name: string, of: readonly Kill[]) => {
    const times = of.flatMap(({ recovery }) => (recovery === undefined ? [] : [recovery])).toSorted((a, b) => a - b);
    const cell = (value: number | undefined) =>
      (value === undefined ? '-' : `${(value / 1000).toFixed(1)} s`).padStart(8);
    return `${name.padEnd(36)} ${String(of.length).padStart(5)} ${cell(times[Math.floor(times.length / 2)])} ${cell(times.at(-1))}`;
  };
  return [
    `${'kill -9 of the worker'.padEnd(36)} kills   median      max   (from the kill until the same step is done)`,
    ...[...byOperation].map(([name, of]) => row(name, of)),
    row('all', kills),
    `Violations: ${violations.length}`,
    ...violations.map((what) => `  ${what}`),
  ].join('\n');
}

/** One operation's part of a campaign, as it is done. */
export function tell(what: string, wrong: readonly string[]): void {
  console.log([`${what}: ${wrong.length} violations`, ...wrong.map((each) => `  ${each}`)].join('\n'));
}

/** All cancellations in a line. */
export function cancellationsLine(cancellations: readonly Cancellation[]): string {
  const times = cancellations.map(({ took }) => took).toSorted((a, b) => a - b);
  const middle = times[Math.floor(times.length / 2)] ?? 0;
  return (
    `Cancelled ${cancellations.length} times, ${cancellations.filter(({ as }) => as === 'cancelled').length} in time; ` +
    `ended after ${(middle / 1000).toFixed(1)} s (median), ${((times.at(-1) ?? 0) / 1000).toFixed(1)} s at most`
  );
}
