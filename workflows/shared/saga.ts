/** Compensation: what has to be undone, in reverse order, when an operation does not come to its end. */
import { log } from '@temporalio/workflow';
import { reasonOf } from './failures.ts';

interface Compensation {
  /** What is removed, for the report when it cannot be. */
  readonly what: string;
  /** May answer a sentence about what it did, for the failure. */
  readonly undo: () => Promise<unknown>;
}

/**
 * 1. A compensation is registered before its step begins: the step may have happened although its answer was lost.
 * 2. It must succeed when there is nothing to undo, and touch only what this operation made.
 * 3. All of them run, last first, even when one fails; what is left is reported.
 * 4. After the operation's point of no return none of them runs: what they would remove belongs to users now.
 */
export class Saga {
  #compensations: readonly Compensation[] = [];

  add(what: string, undo: () => Promise<unknown>): void {
    this.#compensations = [...this.#compensations, { what, undo }];
  }

  get isEmpty(): boolean {
    return this.#compensations.length === 0;
  }

  /** Forget everything that could be undone. */
  commit(): void {
    this.#compensations = [];
  }

  /**
   * Call inside a non-cancellable scope.
   *
   * @returns `left`: what could not be undone, with the reason; `told`: what compensations say that they did;
   *   `incomplete`: one of them says that somebody has to look
   */
  async compensate(): Promise<{ left: string[]; told: string[]; incomplete: boolean }> {
    const left: string[] = [];
    const told: string[] = [];
    let incomplete = false;
    for (const { what, undo } of this.#compensations.toReversed()) {
      try {
        const answer = await undo();
        if (typeof answer === 'string') told.push(answer);
      } catch (error) {
        const { code, message } = reasonOf(error);
        if (code === 'CleanupIncomplete') incomplete = true;
        log.error(`could not undo: ${what}`, { message });
        left.push(`${what} (${message})`);
      }
    }
    return { left, told, incomplete };
  }
}
