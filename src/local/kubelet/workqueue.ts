import { pause } from '../wait.ts';
import { describe, type Log } from './api.ts';

/**
 * Runs one job at a time per key and keeps only the newest of those waiting: callers describe a level ("make it so"), not
 * an edge. A job that throws is tried again with back-off until a newer one replaces it or the queue is closed.
 */
export class Workqueue {
  readonly #waiting = new Map<string, () => Promise<void>>();
  readonly #running = new Map<string, Promise<void>>();
  readonly #closed = new AbortController();
  readonly #log: Log;

  constructor(log: Log) {
    this.#log = log;
  }

  add(key: string, job: () => Promise<void>): void {
    if (this.#closed.signal.aborted) return;
    this.#waiting.set(key, job);
    if (this.#running.has(key)) return;
    // A microtask later, so that the entry is there before the job can add to the queue itself.
    this.#running.set(
      key,
      Promise.resolve().then(() => this.#drain(key)),
    );
  }

  /** Resolves when nothing waits or runs under this key. */
  async idle(key: string): Promise<void> {
    await this.#running.get(key);
  }

  /** Lets running jobs end, starts no other. */
  async close(): Promise<void> {
    this.#closed.abort();
    await Promise.all(this.#running.values());
  }

  async #drain(key: string): Promise<void> {
    let delay = 100;
    for (let job = this.#waiting.get(key); job && !this.#closed.signal.aborted; job = this.#waiting.get(key)) {
      this.#waiting.delete(key);
      try {
        await job();
        delay = 100;
      } catch (error) {
        if (this.#closed.signal.aborted) break;
        this.#log(`${key}: ${describe(error)}; again in ${delay} ms`);
        await pause(delay, this.#closed.signal);
        if (this.#closed.signal.aborted) break;
        delay = Math.min(delay * 2, 10_000);
        if (!this.#waiting.has(key)) this.#waiting.set(key, job);
      }
    }
    // In the same breath as the last look at what waits: a job added later must find nobody running.
    this.#running.delete(key);
  }
}
