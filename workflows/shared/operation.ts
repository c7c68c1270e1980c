/** The frame around every public workflow: registered, visible step by step, ended with a code, cleaned up. */
import {
  CancellationScope,
  CancelledFailure,
  defineQuery,
  isCancellation,
  log,
  setCurrentDetails,
  setHandler,
  upsertSearchAttributes,
} from '@temporalio/workflow';
import type { OperationEnd } from '../../activities/catalog.ts';
import { FleetError, messageOf } from '../../src/domain/errors.ts';
import { stepTable, type OperationKind, type Progress, type Step } from '../../src/domain/operation.ts';
import type { ClusterRef } from '../../src/domain/naming.ts';
import { FLEET_PHASE, startAttributes } from '../../src/temporal-search-attributes.ts';
import { persistent } from './activity-proxies.ts';
import { isFailure, leftoversOf, reasonOf, toWorkflowFailure } from './failures.ts';
import { Saga } from './saga.ts';

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
  readonly saga = new Saga();
  readonly #kind: OperationKind;
  readonly #ref: ClusterRef;
  #steps: Step[];
  #phase = 'starting';
  #part = 0;

  constructor({ kind, ref, steps }: OperationOptions) {
    this.#kind = kind;
    this.#ref = ref;
    this.#steps = steps.map((name) => ({ name, phase: 'pending' }));
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
        const message = isCancellation(error) ? 'cancelled' : reasonOf(error).message;
        this.#set(name, { phase: 'failed', finishedAt: now(), message: message.slice(0, 500) });
      }
      throw error;
    }
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
      percent: Math.floor((100 * (finished + running)) / Math.max(1, this.#steps.length)),
    };
  }

  #enter(phase: string): void {
    this.#phase = phase;
    upsertSearchAttributes([{ key: FLEET_PHASE, value: phase }]);
  }

  #set(name: string, change: Partial<Step>): void {
    this.#steps = this.#steps.map((step) => (step.name === name ? { ...step, ...change } : step));
    setCurrentDetails(stepTable(this.#steps));
  }
}

/**
 * Run an operation. Whatever way it ends, its leases are let go and its end is recorded; when it does not come to its
 * end, what it made is removed first.
 *
 * @throws ApplicationFailure whose type is a code of the closed set, or CancelledFailure
 */
export async function runOperation<T extends Record<string, unknown>>(
  options: OperationOptions,
  body: (operation: Operation) => Promise<T>,
): Promise<T> {
  const { kind, ref } = options;
  const operation = new Operation(options);
  upsertSearchAttributes(startAttributes({ ...ref, kind }));
  let result: T;
  try {
    await persistent.registerOperation({ ...ref, kind });
    result = await body(operation);
    // An activity that ignores cancellation lets the body come to its end; being cancelled has to win all the same.
    if (CancellationScope.current().consideredCancelled) throw new CancelledFailure('The operation was cancelled.');
  } catch (error) {
    if (!isFailure(error)) throw error;
    const reason = endingOf(error, CancellationScope.current().consideredCancelled);
    throw await CancellationScope.nonCancellable(() => giveUp(operation, reason, leftoversOf(error)));
  }
  // Outside of the `try`: what was made stays, even when nobody could be told.
  operation.finish('done');
  await CancellationScope.nonCancellable(() => recordEnd({ state: 'done', result }));
  return result;
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
  if (!operation.saga.isEmpty) operation.finish('cleaning up');
  const leftovers = await operation.saga.compensate();
  const failure = toWorkflowFailure(error, [...left, ...leftovers]);
  const state = isCancellation(failure) ? 'cancelled' : 'failed';
  operation.finish(state);
  const { code, message } = reasonOf(failure);
  await recordEnd({ state, error: { code: state === 'cancelled' ? 'Cancelled' : code, message } });
  return failure;
}

/** The catalogue should know; when it cannot be reached for long, what happened stands, and the lease is taken over. */
async function recordEnd(end: OperationEnd): Promise<void> {
  try {
    await persistent.endOperation(end);
  } catch (error) {
    if (!isFailure(error)) throw error;
    log.error('could not record the end of the operation', { ...reasonOf(error) });
  }
}

/** Workflow time, ISO 8601; deterministic in the sandbox. */
function now(): string {
  return new Date().toISOString();
}
