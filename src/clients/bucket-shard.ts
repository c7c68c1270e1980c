/** A shard as one object in the bucket, read ahead by several ranged GETs. */
import { FleetError, messageOf } from '../domain/errors.ts';
import { exchange } from './raw-http.ts';
import { contentRange, type ResponseHead } from './response-head.ts';
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

/** Times that one range is asked for. */
const ATTEMPTS = 3;
/** Seconds that the URL of a range may be used; each read signs its own. */
const URL_LIFETIME = 900;

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
    const { rangeSize, lanes, buffers } = this.#options;
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
            await this.#read(whole.subarray(0, length), start, abort);
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

  async #read(target: Buffer, start: number, signal: AbortSignal): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#readOnce(target, start, signal);
      } catch (error) {
        if (signal.aborted) throw signal.reason;
        if (FleetError.is(error) && error.code !== 'StoreUnavailable') throw error;
        if (attempt === ATTEMPTS) throw error;
      }
    }
  }

  async #readOnce(target: Buffer, start: number, signal: AbortSignal): Promise<void> {
    const { store, key, limiter } = this.#options;
    const { size } = this;
    const end = start + target.length - 1;
    const what = `bytes ${start}-${end} of ${key}`;
    const accept = (head: ResponseHead) => {
      if (head.status === 200 && target.length === size) return;
      const range = contentRange(head);
      if (head.status === 206 && range?.start === start && range.end === end && range.size === size) return;
      throw unusable(what, head.status, range?.size, size);
    };
    const url = await store.presignOwnRead(key, URL_LIFETIME);
    try {
      const headers = { range: `bytes=${start}-${end}` };
      await exchange({
        url: new URL(url),
        ca: store.ca,
        headers,
        target,
        accept,
        signal,
        limiter,
        onBytes: () => undefined,
      });
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (FleetError.is(error)) throw error;
      // Never the cause: it may tell the signed URL.
      throw new FleetError('StoreUnavailable', `Reading ${what} broke off: ${messageOf(error).split('http')[0]}`);
    }
  }
}

function unusable(what: string, status: number, found: number | undefined, wanted: number): FleetError {
  if (status === 403) {
    return new FleetError(
      'StoreDenied',
      `The store did not let us read ${what}. Check the credentials and their policy.`,
    );
  }
  if (status === 404 || status === 416 || (status === 206 && found !== wanted)) {
    const size = found === undefined ? '' : ` with ${found} bytes`;
    return new FleetError(
      'IntegrityMismatch',
      `The store answered ${status}${size} to a read of ${what}; the backup has ${wanted}.`,
    );
  }
  return new FleetError('StoreUnavailable', `The store answered ${status} to a read of ${what}.`);
}
