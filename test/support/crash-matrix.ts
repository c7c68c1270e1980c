/** kill -9 of the worker at every activity of an operation, one after the other, and how long each loss lasted. */
import { WorkflowFailedError, type WorkflowHandle } from '@temporalio/client';
import { CancelledFailure } from '@temporalio/common';
import { exited, type Fleet } from './fleet.ts';
import { hangs, within } from './hanging.ts';

/** Seconds until the next place has to be reached, or the operation has to end. */
const BOUND = 150;

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
  /** For the worker. */
  readonly env?: Record<string, string>;
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
async function survey(fleet: Fleet, { type, prepare, check, env = {} }: Crashes): Promise<string[]> {
  const worker = await fleet.worker({ env });
  const handle = await fleet.start(type, { tenant: fleet.tenant, ...(await prepare()) });
  const result = await within(BOUND, handle);
  const wrong = await check(result);
  if (wrong.length > 0) throw new Error(`${type} without a crash: ${wrong.join('; ')}`);
  worker.kill('SIGTERM');
  await exited(worker);
  const steps = (await stepsOf(fleet, handle.workflowId)).toSorted((a, b) => a.scheduled - b.scheduled);
  return [...new Set(steps.map(({ activity }) => activity))];
}

async function once(fleet: Fleet, crashes: Crashes, places: readonly string[]): Promise<CrashReport> {
  const { name, type, prepare, check, cancelAt, env = {} } = crashes;
  const kills: Kill[] = [];
  const violations: string[] = [];
  const handle = await fleet.start(type, { tenant: fleet.tenant, ...(await prepare()) });
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
    const result = await within(BOUND, handle, cancelAt !== undefined);
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
