/** The frame around every public workflow: registered, visible step by step, ended with a code, cleaned up. */
import {
  CancellationScope,
  CancelledFailure,
  defineQuery,
  isCancellation,
  log,
  patched,
  setCurrentDetails,
  setHandler,
  upsertSearchAttributes,
  workflowInfo,
} from '@temporalio/workflow';
import type { OperationEnd } from '../../activities/catalog.ts';
import { FleetError, messageOf } from '../../src/domain/errors.ts';
import { stepTable, type OperationKind, type Progress, type Step } from '../../src/domain/operation.ts';
import type { ClusterRef } from '../../src/domain/naming.ts';
import { publicFailure } from '../../src/domain/public-failure.ts';
import { FLEET_PHASE, SCHEDULED_START_TIME, startAttributes } from '../../src/temporal-search-attributes.ts';
import { persistent, recorded } from './activity-proxies.ts';
import { isFailure, leftoversOf, reasonOf, toWorkflowFailure, type Reason } from './failures.ts';
import { Saga } from './saga.ts';
import { Tidying, type Tidied } from './tidying.ts';

/** Answers how far an operation is. Every public workflow has it. */
const progressQuery = defineQuery<Progress>('progress');

interface OperationOptions {
  readonly kind: OperationKind;
  readonly ref: ClusterRef;
  /** Names of the steps, in order. */
  readonly steps: readonly string[];
}

/** What a workflow's body works with. */
export class Operation {
  /** What would hurt users when it stayed: undone when the operation fails or is cancelled. */
  readonly saga = new Saga();
  /** What hurts nobody: done whatever way the operation ends. */
  readonly tidying: Tidying;
  readonly #kind: OperationKind;
  readonly #ref: ClusterRef;
  #steps: Step[];
  #phase = 'starting';
  #part = 0;
  #isPastReturn = false;
  #warnings: readonly string[] = [];

  constructor({ kind, ref, steps }: OperationOptions) {
    this.#kind = kind;
    this.#ref = ref;
    this.#steps = steps.map((name) => ({ name, phase: 'pending' }));
    this.tidying = new Tidying(ref);
    setHandler(progressQuery, () => this.progress());
  }

  /**
   * Run one step. Its result may say something to show beside the step.
   *
   * @param describe a sentence about the result
   */
  async step<T>(name: string, run: () => Promise<T>, describe?: (result: T) => string): Promise<T> {
    this.#part = 0;
    this.#enter(name);
    this.#set(name, { phase: 'running', startedAt: now() });
    try {
      const result = await run();
      this.#set(name, { phase: 'done', finishedAt: now(), ...(describe && { message: describe(result) }) });
      return result;
    } catch (error) {
      if (isFailure(error)) {
        const message = isCancellation(error) ? 'cancelled' : stepMessage(reasonOf(error));
        this.#set(name, { phase: 'failed', finishedAt: now(), message: message.slice(0, 500) });
      }
      throw error;
    }
  }

  /**
   * Call when users have what they asked for. From here on nothing is undone and a cancellation changes nothing: what
   * follows runs by {@link afterwards}. `docs/points-of-no-return.md` has the point of each workflow.
   *
   * Runs that passed it before there were such points go on as they began.
   */
  pointOfNoReturn(): void {
    if (this.#isPastReturn || !patched('point-of-no-return')) return;
    this.#isPastReturn = true;
    this.saga.commit();
    this.tidying.shield();
  }

  get isPastReturn(): boolean {
    return this.#isPastReturn;
  }

  /**
   * Something good to have after the point of no return. It cannot be cancelled, and when it fails the operation is done
   * all the same, with a warning.
   *
   * @param what what is not so when it fails, for the warning
   */
  async afterwards<T>(what: string, run: () => Promise<T>): Promise<T | undefined> {
    if (!this.#isPastReturn) return run();
    try {
      return await CancellationScope.nonCancellable(run);
    } catch (error) {
      if (!isFailure(error)) throw error;
      const { message } = reasonOf(error);
      log.warn(`could not after the point of no return: ${what}`, { message });
      this.warn(`${what}: ${message}`);
      return undefined;
    }
  }

  /** Tell users about something that does not keep the operation from its end. */
  warn(message: string): void {
    this.#warnings = [...this.#warnings, message.slice(0, 500)];
    this.#show();
  }

  get warnings(): readonly string[] {
    return this.#warnings;
  }

  /** Steps that are known only now, in front of one that is. */
  insert(names: readonly string[], before: string): void {
    const at = this.#steps.findIndex(({ name }) => name === before);
    this.#steps = this.#steps.toSpliced(at, 0, ...names.map((name) => ({ name, phase: 'pending' as const })));
  }

  /** Add steps that became known on the way. */
  expect(names: readonly string[]): void {
    this.#steps = [...this.#steps, ...names.map((name): Step => ({ name, phase: 'pending' }))];
  }

  skip(name: string, why: string): void {
    this.#set(name, { phase: 'skipped', message: why });
  }

  /** How far the running step is: `done` of `total`, and a word about it. */
  advance(name: string, done: number, total: number, unit: string): void {
    this.#part = total === 0 ? 1 : done / total;
    this.#set(name, { message: `${done} of ${total} ${unit}` });
  }

  /** What the running step waits for. */
  say(name: string, message: string): void {
    this.#set(name, { message: message.slice(0, 500) });
  }

  finish(phase: 'done' | 'failed' | 'cancelled' | 'cleaning up'): void {
    this.#enter(phase);
  }

  progress(): Progress {
    const finished = this.#steps.filter(({ phase }) => phase === 'done' || phase === 'skipped').length;
    const running = this.#steps.some(({ phase }) => phase === 'running') ? this.#part : 0;
    return {
      kind: this.#kind,
      ...this.#ref,
      phase: this.#phase,
      steps: this.#steps,
      ...(this.#warnings.length > 0 && { warnings: this.#warnings }),
      percent: Math.floor((100 * (finished + running)) / Math.max(1, this.#steps.length)),
    };
  }

  #enter(phase: string): void {
    this.#phase = phase;
    upsertSearchAttributes([{ key: FLEET_PHASE, value: phase }]);
  }

  #set(name: string, change: Partial<Step>): void {
    this.#steps = this.#steps.map((step) => (step.name === name ? { ...step, ...change } : step));
    this.#show();
  }

  #show(): void {
    setCurrentDetails(stepTable(this.#steps, this.#warnings));
  }
}

/** What an operation answers: what its body answered, and the warnings, where there are any. */
export type Ended<T> = T & { readonly warnings?: readonly string[] };

/**
 * Run an operation. Whatever way it ends, its leases are let go and its end is recorded; when it does not come to its
 * point of no return, what it made is removed first.
 *
 * @throws ApplicationFailure whose type is a code of the closed set, or CancelledFailure
 */
export async function runOperation<T extends Record<string, unknown>>(
  options: OperationOptions,
  body: (operation: Operation) => Promise<T>,
): Promise<Ended<T>> {
  const { kind, ref } = options;
  const operation = new Operation(options);
  upsertSearchAttributes(startAttributes({ ...ref, kind }));
  let answer: T;
  let tidied: Tidied;
  try {
    await persistent.registerOperation({ ...ref, kind, counted: isCounted() });
    answer = await body(operation);
    // An activity that ignores cancellation lets the body come to its end; being cancelled has to win all the same.
    if (!operation.isPastReturn && CancellationScope.current().consideredCancelled) {
      throw new CancelledFailure('The operation was cancelled.');
    }
    const tidyUp = () => operation.tidying.tidyUp();
    tidied = await (operation.isPastReturn ? CancellationScope.nonCancellable(tidyUp) : tidyUp());
  } catch (error) {
    if (!isFailure(error)) throw error;
    const cancelled = CancellationScope.current().consideredCancelled && !operation.isPastReturn;
    const reason = endingOf(error, cancelled);
    throw await CancellationScope.nonCancellable(() => giveUp(operation, reason, leftoversOf(error)));
  }
  // Outside of the `try`: what was made stays, even when nobody could be told.
  for (const warning of tidied.warnings) operation.warn(warning);
  const { warnings } = operation;
  const result: Ended<T> = warnings.length === 0 ? answer : { ...answer, warnings };
  operation.finish('done');
  await CancellationScope.nonCancellable(() => recordEnd({ state: 'done', result }, tidied));
  return result;
}

/** The step's message reaches tenants, the history does not: an outage and what nobody foresaw show their title. */
function stepMessage({ code, message }: Reason): string {
  return publicFailure(code, message, 'the workflow').detail;
}

/** Neither a part of another operation nor what a schedule started takes from the tenant's quota of operations. */
function isCounted(): boolean {
  const { parent, typedSearchAttributes } = workflowInfo();
  return parent === undefined && typedSearchAttributes.get(SCHEDULED_START_TIME) === undefined;
}

/** Why the operation ends: cancelled exactly when somebody asked for it, whatever the body ran into then. */
function endingOf(error: unknown, cancelled: boolean): unknown {
  // An activity between two attempts answers a cancellation with the failure of its last one.
  if (cancelled) return new CancelledFailure('The operation was cancelled.');
  if (!isCancellation(error)) return error;
  return new FleetError('Internal', `A part of the operation was cancelled on its own: ${messageOf(error)}`);
}

/** @param left what a part of the operation could not remove; a cancellation does not tell that by itself */
async function giveUp(operation: Operation, error: unknown, left: readonly string[]): Promise<unknown> {
  const { saga, tidying } = operation;
  if (!saga.isEmpty || !tidying.isEmpty) operation.finish('cleaning up');
  const undone = await saga.compensate();
  const tidied = await tidyAfterFailure(tidying);
  for (const warning of [...undone.told, ...tidied.warnings]) operation.warn(warning);
  // A failure that somebody has to look after is more than what led to it.
  const told =
    undone.incomplete && !isCancellation(error) ? new FleetError('CleanupIncomplete', reasonOf(error).message) : error;
  const failure = toWorkflowFailure(told, [...left, ...undone.left, ...tidied.left], undone.told);
  const state = isCancellation(failure) ? 'cancelled' : 'failed';
  operation.finish(state);
  const { code, message } = reasonOf(failure);
  await recordEnd({ state, error: { code: state === 'cancelled' ? 'Cancelled' : code, message } }, tidied);
  return failure;
}

/** What is handed over to a sweep is no part of the failure. `left` is what runs of an older kind leave behind. */
async function tidyAfterFailure(tidying: Tidying): Promise<Tidied & { readonly left: readonly string[] }> {
  try {
    return { ...(await tidying.tidyUp()), left: [] };
  } catch (error) {
    if (!isFailure(error)) throw error;
    return { chores: [], warnings: [], left: [reasonOf(error).message] };
  }
}

/** The catalogue should know; when it cannot be reached for long, what happened stands, and the lease is taken over. */
async function recordEnd(end: OperationEnd, { chores }: Tidied): Promise<void> {
  try {
    await persistent.endOperation.executeWithOptions(recorded('Record the end, let go of the leases'), [
      { ...end, ...(chores.length > 0 && { chores }) },
    ]);
  } catch (error) {
    if (!isFailure(error)) throw error;
    log.error('could not record the end of the operation', { ...reasonOf(error) });
  }
}

/** Workflow time, ISO 8601; deterministic in the sandbox. */
function now(): string {
  return new Date().toISOString();
}
