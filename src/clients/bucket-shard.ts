/** A shard as one object in the bucket, read ahead by several ranged GETs. */
import { readRange } from './object-range.ts';
import type { BackupStore } from './s3.ts';
import type { ShardBytes } from './shard-relay.ts';
import type { BufferPool, RateLimiter } from './transfer-budget.ts';

export interface BucketShardOptions {
  readonly store: BackupStore;
  readonly key: string;
  /** Bytes. */
  readonly size: number;
  /** Bytes of one read. */
  readonly rangeSize: number;
  /** Reads at a time, and with `rangeSize` the bytes that are read ahead. */
  readonly lanes: number;
  readonly buffers: BufferPool;
  readonly limiter?: RateLimiter;
}

export class BucketShard implements ShardBytes {
  readonly size: number;
  readonly #options: BucketShardOptions;

  constructor(options: BucketShardOptions) {
    this.size = options.size;
    this.#options = options;
  }

  /**
   * Memory: at most `lanes` buffers of `rangeSize`, out of the budget that all streams of the process share. Buffers
   * are taken in the order of the ranges, so that the range that is due always has one and streams cannot wait for each
   * other in a circle.
   *
   * @throws FleetError `StoreUnavailable`, `StoreDenied`, or `IntegrityMismatch` when the object is gone or has another size
   */
  async *stream(signal: AbortSignal): AsyncGenerator<Buffer> {
    const { store, key, rangeSize, lanes, buffers, limiter } = this.#options;
    const ended = new AbortController();
    const abort = AbortSignal.any([signal, ended.signal]);
    const ahead: Promise<{ buffer: Buffer; length: number }>[] = [];
    let next = 0;
    let taken: Promise<unknown> = Promise.resolve();
    const readAhead = () => {
      while (ahead.length < lanes && next < this.size) {
        const start = next;
        const length = Math.min(rangeSize, this.size - start);
        next += length;
        const buffer = taken.then(() => buffers.take(Math.min(rangeSize, this.size), abort));
        taken = buffer;
        const read = buffer.then(async (whole) => {
          try {
            await readRange(whole.subarray(0, length), start, { store, key, size: this.size, signal: abort, limiter });
            return { buffer: whole, length };
          } catch (error) {
            buffers.give(whole);
            throw error;
          }
        });
        // Whoever waits for it sees the failure; it must not count as unhandled before.
        read.catch(() => undefined);
        ahead.push(read);
      }
    };
    try {
      readAhead();
      for (let due = ahead.shift(); due !== undefined; due = ahead.shift()) {
        const { buffer, length } = await due;
        try {
          yield buffer.subarray(0, length);
        } finally {
          buffers.give(buffer);
        }
        readAhead();
      }
    } finally {
      ended.abort(new Error('the stream has ended'));
      for (const read of await Promise.allSettled(ahead)) {
        if (read.status === 'fulfilled') buffers.give(read.value.buffer);
      }
    }
  }
}
