/** Parts that fit into the memory budget: several lanes, each with one buffer that it reads into and sends from. */
import { base64Crc32 } from './crc32.ts';
import type { InOrderDigest } from './in-order-digest.ts';
import type { BackupStore, UploadedPart } from './s3.ts';
import type { SnapshotSource } from './snapshot-source.ts';
import type { BufferPool, RateLimiter } from './transfer-budget.ts';

/** The parts of one object on their way, and what becomes of them. */
export interface PartWork {
  readonly source: SnapshotSource;
  readonly store: BackupStore;
  /** Absent when the object is there already, and only has to be compared. */
  readonly upload: { readonly key: string; readonly uploadId: string } | undefined;
  /** What the store has of the upload, by part number. */
  readonly held: ReadonlyMap<number, UploadedPart>;
  readonly partSize: number;
  /** Bytes of the largest part. */
  readonly size: number;
  readonly count: number;
  readonly lanes: number;
  readonly buffers: BufferPool;
  readonly limiter?: RateLimiter;
  readonly order: InOrderDigest;
  /** Ends all lanes: from outside, or by `fail`, so that nothing is still being sent when the caller goes on. */
  readonly signal: AbortSignal;
  readonly fail: (error: unknown) => void;
  readonly done: (part: UploadedPart) => void;
  readonly sent: (bytes: number) => void;
  readonly onProgress: (bytes: number) => void;
}

export async function sendBuffered(work: PartWork): Promise<void> {
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < work.count) {
      const buffer = await waitAlive(work.buffers.take(work.size, work.signal), work.onProgress);
      try {
        // Taken with the buffer in hand: parts before this one then have theirs too, and cannot be waiting for it.
        const index = next;
        next += 1;
        if (index < work.count) await sendPart(work, index, buffer.subarray(0, bytesOf(work, index)));
      } finally {
        work.buffers.give(buffer);
      }
    }
  };
  const lanes = Array.from({ length: Math.min(work.lanes, work.count) }, () => lane().catch(work.fail));
  await Promise.all(lanes);
  work.signal.throwIfAborted();
}

async function sendPart(work: PartWork, index: number, body: Buffer): Promise<void> {
  const { store, upload, signal, onProgress } = work;
  const crc = await work.source.readInto(body, index * work.partSize, signal, onProgress, work.limiter);
  await work.order.turn(index, body, crc, signal);
  if (upload === undefined) return;
  const part = { partNumber: index + 1, body, crc32: base64Crc32(crc) };
  const old = work.held.get(part.partNumber);
  if (old !== undefined && old.size === body.length && old.crc32 === part.crc32) {
    work.done(old);
  } else {
    work.done(await store.uploadPart(upload, part, signal));
    work.sent(body.length);
  }
  onProgress(body.length);
}

/** Bytes of the part with this index, from 0 on. */
export function bytesOf({ source, partSize }: PartWork, index: number): number {
  return Math.min(partSize, source.size - index * partSize);
}

/** Other streams may have the buffers for long; this one is well meanwhile. */
export async function waitAlive<T>(waiting: Promise<T>, onProgress: (bytes: number) => void): Promise<T> {
  const timer = setInterval(() => onProgress(0), 2000);
  try {
    return await waiting;
  } finally {
    clearInterval(timer);
  }
}
