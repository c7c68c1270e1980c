/** A range of a snapshot in order, read ahead by several ranged GETs into small buffers. */
import { FleetError } from '../domain/errors.ts';
import { waitAlive } from './buffered-parts.ts';
import type { SnapshotSource } from './snapshot-source.ts';
import type { BufferPool, RateLimiter } from './transfer-budget.ts';

export interface Frame {
  readonly bytes: Buffer;
  readonly crc: number;
  /** Gives the memory back. The reader's to call, once, when nothing looks at the bytes any more. */
  readonly release: () => void;
}

export interface ReadAheadOptions {
  readonly source: SnapshotSource;
  readonly start: number;
  readonly size: number;
  /** Bytes of all frames but the last. */
  readonly frameSize: number;
  /** Reads at a time. */
  readonly lanes: number;
  readonly buffers: BufferPool;
  readonly limiter?: RateLimiter | undefined;
  readonly signal: AbortSignal;
  readonly onProgress: (bytes: number) => void;
}

/** Times that one frame is asked for. */
const ATTEMPTS = 2;

/**
 * Buffers are taken in the order of the frames: the one that is due always has its own, so that streams that share the
 * pool cannot wait for each other in a circle.
 *
 * @throws FleetError `SnapshotVanished` or `QdrantUnavailable`
 */
export async function* readAhead(options: ReadAheadOptions): AsyncGenerator<Frame> {
  const { start, size, frameSize, lanes, buffers } = options;
  const ended = new AbortController();
  const signal = AbortSignal.any([options.signal, ended.signal]);
  const ahead: Promise<Frame>[] = [];
  let next = 0;
  let taken: Promise<unknown> = Promise.resolve();

  const begin = (at: number): Promise<Frame> => {
    const buffer = taken.then(() => waitAlive(buffers.take(frameSize, signal), options.onProgress));
    taken = buffer;
    const frame = buffer.then(async (whole) => {
      const release = () => buffers.give(whole);
      try {
        const bytes = whole.subarray(0, Math.min(frameSize, size - at));
        return { bytes, crc: await readFrame(options, bytes, start + at, signal), release };
      } catch (error) {
        release();
        throw error;
      }
    });
    // Whoever waits for it sees the failure; it must not count as unhandled before.
    frame.catch(() => undefined);
    return frame;
  };
  const fill = () => {
    for (; ahead.length < lanes && next < size; next += frameSize) ahead.push(begin(next));
  };

  try {
    fill();
    for (let due = ahead.shift(); due !== undefined; due = ahead.shift()) {
      const frame = await due;
      fill();
      yield frame;
    }
  } finally {
    ended.abort(new Error('the reading has ended'));
    for (const frame of await Promise.allSettled(ahead)) {
      if (frame.status === 'fulfilled') frame.value.release();
    }
  }
}

async function readFrame(
  { source, limiter, onProgress }: ReadAheadOptions,
  bytes: Buffer,
  start: number,
  signal: AbortSignal,
): Promise<number> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await source.readInto(bytes, start, signal, onProgress, limiter);
    } catch (error) {
      const passing = FleetError.is(error, 'QdrantUnavailable') && !signal.aborted;
      if (!passing || attempt === ATTEMPTS) throw error;
    }
  }
}
