import { setTimeout as sleep } from 'node:timers/promises';
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
    this.#running.set(
      key,
      this.#drain(key).finally(() => this.#running.delete(key)),
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
    for (let job = this.#waiting.get(key); job; job = this.#waiting.get(key)) {
      this.#waiting.delete(key);
      try {
        await job();
        delay = 100;
      } catch (error) {
        if (this.#closed.signal.aborted) return;
        this.#log(`${key}: ${describe(error)}; again in ${delay} ms`);
        await sleep(delay, undefined, { signal: this.#closed.signal }).catch(() => undefined);
        if (this.#closed.signal.aborted) return;
        delay = Math.min(delay * 2, 10_000);
        if (!this.#waiting.has(key)) this.#waiting.set(key, job);
      }
    }
  }
}
