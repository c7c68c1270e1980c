/** What all streams of a process share: bytes a second and bytes in memory. */

/** Bytes that may be ahead of the rate, as milliseconds of it. */
const BURST = 100;

/** A token bucket that lends: whoever spent more than there was waits until it is paid. */
export class RateLimiter {
  /** Bytes of one read: small against the rate, so that reads of many streams interleave. */
  readonly slice: number;
  readonly #perMillisecond: number;
  readonly #now: () => number;
  /** When all that was spent is paid. */
  #paidAt = Number.NEGATIVE_INFINITY;

  constructor(bytesPerSecond: number, now: () => number = () => performance.now()) {
    this.#perMillisecond = bytesPerSecond / 1000;
    this.#now = now;
    this.slice = Math.max(16 * 1024, Math.min(1024 * 1024, Math.floor(bytesPerSecond / 50)));
  }

  /** Take bytes that were read; returns the milliseconds to wait before the next read. */
  spend(bytes: number): number {
    const now = this.#now();
    this.#paidAt = Math.max(this.#paidAt, now - BURST) + bytes / this.#perMillisecond;
    return Math.max(0, this.#paidAt - now);
  }
}

interface Waiting {
  readonly size: number;
  readonly give: (buffer: Buffer) => void;
}

/**
 * Part buffers, kept between transfers: memory outside the heap is given back late, so it is better not let go.
 *
 * All buffers together stay within the budget, with one exception: a single buffer larger than it is made when no other
 * is in use. Who comes first is served first, so that no stream starves.
 */
export class BufferPool {
  /** Bytes. */
  readonly budget: number;
  readonly #free: Buffer[] = [];
  readonly #queue: Waiting[] = [];
  /** Bytes of all buffers, those in use and those that are free. */
  #total = 0;
  #inUse = 0;

  constructor(budget = Number.POSITIVE_INFINITY) {
    this.budget = budget;
  }

  /** Bytes of all buffers that exist. */
  get bytes(): number {
    return this.#total;
  }

  /**
   * A buffer of at least `size` bytes, as soon as the budget has one.
   *
   * @param signal ends the wait by its reason
   */
  async take(size: number, signal?: AbortSignal): Promise<Buffer> {
    signal?.throwIfAborted();
    if (this.#queue.length === 0) {
      const buffer = this.#find(size);
      if (buffer !== undefined) return buffer;
    }
    return new Promise<Buffer>((resolve, reject) => {
      const waiting: Waiting = {
        size,
        give: (buffer) => {
          signal?.removeEventListener('abort', onAbort);
          resolve(buffer);
        },
      };
      const onAbort = () => {
        this.#queue.splice(this.#queue.indexOf(waiting), 1);
        this.#serve();
        reject(signal?.reason as Error);
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#queue.push(waiting);
    });
  }

  give(buffer: Buffer): void {
    this.#inUse -= 1;
    this.#free.push(buffer);
    this.#serve();
  }

  #serve(): void {
    for (let next = this.#queue[0]; next !== undefined; next = this.#queue[0]) {
      const buffer = this.#find(next.size);
      if (buffer === undefined) return;
      this.#queue.shift();
      next.give(buffer);
    }
  }

  #find(size: number): Buffer | undefined {
    // The smallest that fits; the last given one is the most likely to be in a cache.
    let best = -1;
    for (const [index, { length }] of this.#free.entries()) {
      if (length >= size && length <= (this.#free[best]?.length ?? Number.POSITIVE_INFINITY)) best = index;
    }
    const [found] = best === -1 ? [] : this.#free.splice(best, 1);
    const buffer = found ?? this.#make(size);
    if (buffer !== undefined) this.#inUse += 1;
    return buffer;
  }

  #make(size: number): Buffer | undefined {
    // Free ones that are too small make room.
    const idle = this.#free.reduce((sum, { length }) => sum + length, 0);
    if (this.#inUse > 0 && this.#total - idle + size > this.budget) return undefined;
    while (this.#total + size > this.budget && this.#free.length > 0) this.#total -= this.#free.pop()?.length ?? 0;
    this.#total += size;
    return Buffer.allocUnsafeSlow(size);
  }
}
