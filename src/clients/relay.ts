/** Copy a snapshot into the bucket part by part: several lanes, each with one buffer that it reads into and sends from. */
import { createHash, type Hash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { FleetError } from '../domain/errors.ts';
import { base64Crc32, combineCrc32 } from './crc32.ts';
import type { BackupStore, UploadedPart } from './s3.ts';
import type { SnapshotSource } from './snapshot-source.ts';
import type { BufferPool, RateLimiter } from './transfer-budget.ts';

export { BufferPool, RateLimiter } from './transfer-budget.ts';

export interface RelayOptions {
  readonly source: SnapshotSource;
  readonly store: BackupStore;
  readonly key: string;
  /** Bytes. */
  readonly partSize: number;
  readonly lanes: number;
  readonly buffers: BufferPool;
  /** Shared with all other streams, as `buffers`. */
  readonly limiter?: RateLimiter;
  /** `false` leaves out the SHA-256, to measure what it costs. */
  readonly sha256?: boolean;
  readonly signal: AbortSignal;
  /** Called with the bytes of each read chunk and of each sent part. */
  readonly onProgress: (bytes: number) => void;
}

export interface RelayResult {
  /** Hex, over the whole object. */
  readonly sha256: string;
  /** Base64, over the whole object. */
  readonly crc32: string;
  /** Bytes sent by this call. */
  readonly sent: number;
}

const MiB = 1024 * 1024;
/** S3 allows 10,000 parts; a few are left as a margin. */
const MAX_PARTS = 9900;

/** Bytes of a part such that the object fits into S3's limit of 10,000 parts. */
export function partSizeFor(size: number, configured: number): number {
  return Math.max(configured, Math.ceil(size / MAX_PARTS / MiB) * MiB);
}

/**
 * Relay the whole source into `key`.
 *
 * 1. What the store already has of this key (finished, or parts of an open upload) is compared with the source by
 *    CRC32 and sent only where it differs.
 * 2. The source is read and hashed completely each time, in order: the hash's state cannot be kept over a crash, and
 *    reading is cheaper than sending.
 * 3. On failure the open upload stays, for the next attempt, unless that is useless; whoever gives up for good aborts
 *    it.
 */
export async function relay(options: RelayOptions): Promise<RelayResult> {
  const { source, store, key, partSize, signal } = options;
  const count = Math.max(1, Math.ceil(source.size / partSize));
  const finished = await store.head(key);
  const upload = finished === undefined ? await openUpload(store, key) : undefined;
  const held = new Map(upload?.parts.map((part) => [part.partNumber, part]));
  const order = new InOrderDigest(options.sha256 ?? true);
  const done = new Map<number, UploadedPart>();
  let next = 0;
  let sent = 0;

  // One lane's failure ends the others, so that nothing is still being sent when the caller goes on.
  const failed = new AbortController();
  const abort = AbortSignal.any([signal, failed.signal]);

  const relayPart = async (index: number, body: Buffer): Promise<void> => {
    const start = index * partSize;
    const crc = await source.readInto(body, start, abort, options.onProgress, options.limiter);
    await order.turn(index, body, crc, abort);
    if (upload === undefined) return;
    const checksum = base64Crc32(crc);
    const partNumber = index + 1;
    const old = held.get(partNumber);
    if (old !== undefined && old.size === body.length && old.crc32 === checksum) {
      done.set(partNumber, old);
    } else {
      const { uploadId } = upload;
      done.set(partNumber, await store.uploadPart({ key, uploadId }, { partNumber, body, crc32: checksum }, abort));
      sent += body.length;
    }
    options.onProgress(body.length);
  };

  const lane = async (): Promise<void> => {
    try {
      while (next < count) {
        const size = Math.min(partSize, source.size);
        const buffer = await waitAlive(options.buffers.take(size, abort), options.onProgress);
        try {
          // Taken with the buffer in hand: parts before this one then have theirs too, and cannot be waiting for it.
          const index = next;
          next += 1;
          if (index < count) {
            await relayPart(index, buffer.subarray(0, Math.min(partSize, source.size - index * partSize)));
          }
        } finally {
          options.buffers.give(buffer);
        }
      }
    } catch (error) {
      failed.abort(error);
      throw error;
    }
  };
  const lanes = Array.from({ length: Math.min(options.lanes, count) }, lane);
  const outcomes = await Promise.allSettled(lanes);
  const failure = outcomes.find((outcome) => outcome.status === 'rejected');
  if (failure !== undefined) {
    const reason: unknown = signal.aborted ? signal.reason : firstCause(failed.signal, failure.reason);
    // The backup may be long committed, and nobody come back for the upload: when there is nothing in it to take up, or
    // the snapshot is gone, it goes.
    if (upload?.isNew === true && (done.size === 0 || FleetError.is(reason, 'SnapshotVanished'))) {
      await store.abortUpload({ key, uploadId: upload.uploadId });
    }
    throw reason;
  }

  const digest = order.result();
  if (upload === undefined) {
    if (finished?.size === source.size && finished.crc32 === digest.crc32) return { ...digest, sent };
    throw new FleetError('IntegrityMismatch', `${key} holds other bytes than the snapshot it was made from.`);
  }
  const parts = [...done.values()].sort((a, b) => a.partNumber - b.partNumber);
  const completed = await store.completeUpload({ key, uploadId: upload.uploadId }, parts, source.size);
  if (completed === undefined) {
    // The key appeared meanwhile: a completion whose answer was lost, or an attempt that was thought dead.
    await store.abortUpload({ key, uploadId: upload.uploadId });
    const there = await store.head(key);
    if (there?.size !== source.size || there.crc32 !== digest.crc32) {
      throw new FleetError('IntegrityMismatch', `${key} was written by someone else with other bytes.`);
    }
  } else if (completed.crc32 !== undefined && completed.crc32 !== digest.crc32) {
    throw new FleetError('IntegrityMismatch', `${key} got CRC32 ${completed.crc32}, sent was ${digest.crc32}.`);
  }
  return { ...digest, sent };
}

/** Take up the upload that an earlier attempt left for this key, or begin one. */
async function openUpload(
  store: BackupStore,
  key: string,
): Promise<{ uploadId: string; parts: UploadedPart[]; isNew: boolean }> {
  const open = (await store.openUploads(key)).filter((upload) => upload.key === key);
  open.sort((a, b) => a.initiated.getTime() - b.initiated.getTime());
  for (const { uploadId } of open) {
    const parts = await store.listParts({ key, uploadId });
    if (parts !== undefined) return { uploadId, parts, isNew: false };
  }
  return { uploadId: await store.createUpload(key), parts: [], isNew: true };
}

/** The failure that ended the others, rather than their aborts. */
function firstCause(ended: AbortSignal, fallback: unknown): unknown {
  return ended.aborted ? ended.reason : fallback;
}

/** Other streams may have the buffers for long; this one is well meanwhile. */
async function waitAlive<T>(waiting: Promise<T>, onProgress: (bytes: number) => void): Promise<T> {
  const timer = setInterval(() => onProgress(0), 2000);
  try {
    return await waiting;
  } finally {
    clearInterval(timer);
  }
}

/** Bytes hashed at a stretch: 2 ms, then others get their turn. */
const STRETCH = 4 * MiB;

/** Hashes parts in their order, although lanes read them in any. */
class InOrderDigest {
  readonly #sha256: Hash | undefined;
  #crc = 0;
  #index = 0;
  readonly #waiting = new Map<number, () => void>();

  constructor(sha256: boolean) {
    this.#sha256 = sha256 ? createHash('sha256') : undefined;
  }

  /** Wait for the parts before `index`, then hash this one. */
  async turn(index: number, body: Buffer, crc: number, signal: AbortSignal): Promise<void> {
    if (this.#index !== index) {
      await new Promise<void>((resolve, reject) => {
        const onAbort = () => reject(signal.reason as Error);
        if (signal.aborted) return onAbort();
        signal.addEventListener('abort', onAbort, { once: true });
        this.#waiting.set(index, () => {
          signal.removeEventListener('abort', onAbort);
          resolve();
        });
      });
    }
    for (let at = 0; at < body.length && this.#sha256 !== undefined; at += STRETCH) {
      if (at > 0) await nextTurn();
      this.#sha256.update(body.subarray(at, at + STRETCH));
    }
    this.#crc = combineCrc32(this.#crc, crc, body.length);
    this.#index += 1;
    const wake = this.#waiting.get(this.#index);
    this.#waiting.delete(this.#index);
    wake?.();
  }

  result(): { sha256: string; crc32: string } {
    return { sha256: this.#sha256?.digest('hex') ?? '', crc32: base64Crc32(this.#crc) };
  }
}
