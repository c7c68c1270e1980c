import { availableParallelism } from 'node:os';
import type { Step } from './recipes.ts';

type Log = (line: string) => void;

/**
 * Tells a person how far a long installation is: a line when a step begins or ends and, in between, one every
 * `everyMs`. Whole lines only, so that a terminal and a log file both stay readable.
 */
export class Progress {
  readonly #log: Log;
  readonly #steps: readonly Step[];
  readonly #started = Date.now();
  readonly #running = new Map<Step, number>();
  readonly #done = new Set<Step>();
  readonly #timer: NodeJS.Timeout;

  constructor(steps: readonly Step[], log: Log, everyMs = 15_000) {
    this.#steps = steps;
    this.#log = log;
    this.#timer = setInterval(() => this.#report(), everyMs);
    this.#timer.unref();
  }

  async during<T>(step: Step, work: () => Promise<T>): Promise<T> {
    this.#running.set(step, Date.now());
    this.#log(`${this.#clock()} ${step.label}: started`);
    try {
      const result = await work();
      this.#done.add(step);
      this.#log(`${this.#clock()} ${step.label}: done in ${duration(this.#elapsed(step))}, ${this.#left()}`);
      return result;
    } finally {
      this.#running.delete(step);
    }
  }

  end(): void {
    clearInterval(this.#timer);
  }

  #report(): void {
    const running = [...this.#running.keys()].map((step) => `${step.label} (${duration(this.#elapsed(step))})`);
    const waiting = this.#steps.length - this.#done.size - this.#running.size;
    const next = waiting === 0 ? '' : `, ${waiting} more to come`;
    this.#log(`${this.#clock()} ${running.join(' and ')}${next}; ${this.#left()}`);
  }

  /**
   * What is left at the pace seen so far: the known durations are of one machine, this may be a faster or a slower
   * one. No more cores make it faster than in proportion; a step that a cache has shortened says nothing of the next.
   */
  #left(): string {
    const elapsed = (Date.now() - this.#started) / 1000;
    const total = sum(this.#steps.map((step) => step.seconds));
    const finished = sum([...this.#done].map((step) => step.seconds));
    // A step that runs counts by its own clock, and never quite as finished.
    const begun = sum([...this.#running.keys()].map((step) => Math.min(this.#elapsed(step) / 2, step.seconds * 0.9)));
    if (total - finished === 0) return 'nothing left';
    const best = 1 / Math.max(2, availableParallelism());
    const pace = finished + begun > 20 ? Math.max(best, elapsed / (finished + begun)) : 1;
    return `about ${duration(Math.max(5, (total - finished - begun) * pace))} left`;
  }

  #elapsed(step: Step): number {
    return (Date.now() - (this.#running.get(step) ?? Date.now())) / 1000;
  }

  #clock(): string {
    const seconds = Math.round((Date.now() - this.#started) / 1000);
    return `[${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}]`;
  }
}

/** Seconds as a person says them: `40 s`, `3 min`. */
export function duration(seconds: number): string {
  return seconds < 120 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
