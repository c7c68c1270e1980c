/**
 * Tidying: what is left over when an operation ends and hurts nobody, such as a lease on a backup. Unlike what a saga
 * undoes it is done whatever way the operation ends, and it decides nothing:
 *
 * 1. One try while the operation holds the cluster.
 * 2. Then the cluster is let go of, and what failed is tried again for a short while.
 * 3. What still failed is handed over to the next sweep, as a chore in the catalogue. The operation ends as it would have.
 */
import { CancellationScope, isCancellation, log, patched, type ActivityOptions } from '@temporalio/workflow';
import type { Chore, ChoreLeft } from '../../src/domain/chores.ts';
import type { ClusterRef } from '../../src/domain/naming.ts';
import { briefly, persistent, tryOnce } from './activity-proxies.ts';
import { isFailure, reasonOf } from './failures.ts';

interface Tidy {
  /** It was tried once already, and failed. */
  readonly failed?: boolean;
  /** What is tidied, for people. */
  readonly what: string;
  readonly chore: Chore;
  readonly run: (options: ActivityOptions) => Promise<unknown>;
}

/** What tidying came to. */
export interface Tidied {
  readonly chores: readonly ChoreLeft[];
  /** Sentences about what is handed over. */
  readonly warnings: readonly string[];
}

export class Tidying {
  readonly #ref: ClusterRef;
  readonly #tidies: Tidy[] = [];
  #isShielded = false;
  #handedOver: readonly ChoreLeft[] = [];
  #warnings: readonly string[] = [];

  constructor(ref: ClusterRef) {
    this.#ref = ref;
  }

  /** Register before the step that makes it necessary. @param run has to succeed when there is nothing to do */
  add(what: string, chore: Chore, run: Tidy['run']): void {
    this.#tidies.push({ what, chore, run });
  }

  /** The operation has passed its point of no return: a cancellation changes nothing any more. */
  shield(): void {
    this.#isShielded = true;
  }

  /** Tidy at once, by one try; what fails is tried again when the operation ends. */
  async now(what: string, chore: Chore, run: Tidy['run']): Promise<void> {
    const once = () => run(tryOnce(`Tidy up: ${what}`));
    try {
      await (this.#isShielded ? CancellationScope.nonCancellable(once) : once());
    } catch (error) {
      if (!isFailure(error)) throw error;
      if (isCancellation(error) || !patched('tidying-is-handed-over')) throw error;
      this.#tidies.push({ what, chore, run, failed: true });
    }
  }

  /** Leave something to the next sweep. */
  handOver(what: string, chore: Chore, why: string): void {
    this.#handedOver = [...this.#handedOver, { ...chore, why: why.slice(0, 1000) }];
    this.#warnings = [
      ...this.#warnings,
      `Could not tidy up: ${what} (${why}) The next sweep of ${chore.tenant}/${chore.cluster} does it.`,
    ];
  }

  get isEmpty(): boolean {
    return this.#tidies.length === 0;
  }

  /** @throws only in runs that began before tidying was handed over, for which it was a step like others */
  async tidyUp(): Promise<Tidied> {
    const failed = this.#tidies.filter((tidy) => tidy.failed === true);
    for (const tidy of this.#tidies.filter((other) => other.failed !== true)) {
      try {
        await tidy.run(tryOnce(`Tidy up: ${tidy.what}`));
      } catch (error) {
        if (!isFailure(error)) throw error;
        if (isCancellation(error) || !patched('tidying-is-handed-over')) throw error;
        failed.push(tidy);
      }
    }
    if (failed.length > 0) {
      await this.#letGo();
      await Promise.all(failed.map((tidy) => this.#tryAgain(tidy)));
    }
    return { chores: this.#handedOver, warnings: this.#warnings };
  }

  /** Nobody has to wait for the cluster while we try again. */
  async #letGo(): Promise<void> {
    try {
      await persistent.releaseLease.executeWithOptions(briefly('Let go of the cluster'), [this.#ref]);
    } catch (error) {
      if (!isFailure(error)) throw error;
      // It goes with the operation's end.
      log.warn('could not let go of the lease before tidying', { ...reasonOf(error) });
    }
  }

  async #tryAgain({ what, chore, run }: Tidy): Promise<void> {
    try {
      await run(briefly(`Tidy up: ${what}`));
    } catch (error) {
      if (!isFailure(error)) throw error;
      const { message } = reasonOf(error);
      log.warn(`could not tidy: ${what}`, { message });
      this.handOver(what, chore, message);
    }
  }
}
