/**
 * Copy a snapshot into the bucket part by part.
 *
 * Parts of which the memory budget holds several are read whole by several lanes and sent from the buffer they were read
 * into. Larger ones pass through: small frames are read ahead, hashed in order and sent on while the part is being read.
 */
import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { FleetError } from '../domain/errors.ts';
import { base64Crc32 } from './crc32.ts';
import { InOrderDigest } from './in-order-digest.ts';
import { sendBuffered, waitAlive, type PartWork } from './buffered-parts.ts';
import { sendStreamed } from './streamed-parts.ts';
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

/**
 * Bytes of a part such that the object fits into the store's limit of parts, with a margin of 1 %.
 *
 * @param maxParts 10,000 in S3, fewer in some stores
 */
export function partSizeFor(size: number, configured: number, maxParts = 10_000): number {
  const most = Math.max(1, Math.floor(maxParts * 0.99));
  return Math.max(configured, Math.ceil(size / most / MiB) * MiB);
}

/**
 * Relay the whole source into `key`.
 *
 * 1. What the store already has of this key (finished, or parts of an open upload) is compared with the source by
 *    CRC32 and sent only where it differs.
 * 2. The source is read and hashed completely each time, in order: the hash's state cannot be kept over a crash, and
 *    reading is cheaper than sending.
 * 3. Memory: at most lanes x part size out of the shared budget; for parts that pass through, as many frames as the
 *    budget has, whatever the size of a part.
 * 4. On failure the open upload stays, for the next attempt, unless that is useless; whoever gives up for good aborts
 *    it.
 */
export async function relay(options: RelayOptions): Promise<RelayResult> {
  const { source, store, key, partSize, signal } = options;
  const count = Math.max(1, Math.ceil(source.size / partSize));
  const finished = await store.head(key);
  const upload = finished === undefined ? await openUpload(store, key) : undefined;
  const held = new Map(upload?.parts.map((part) => [part.partNumber, part]));
  const order = new InOrderDigest(options.sha256 ?? true);
  let sent = 0;
  const done = new Map<number, UploadedPart>();
  const ended = new AbortController();
  const work: PartWork = {
    ...options,
    size: Math.min(partSize, source.size),
    count,
    upload: upload && { key, uploadId: upload.uploadId },
    held,
    order,
    signal: AbortSignal.any([signal, ended.signal]),
    fail: (error) => ended.abort(error),
    done: (part) => done.set(part.partNumber, part),
    sent: (bytes) => {
      sent += bytes;
    },
  };
  // Two, so that one can be read while the other is sent.
  const fits = work.size * Math.min(options.lanes, 2) <= options.buffers.budget;
  try {
    await (fits || !store.takesTrailers ? sendBuffered(work) : sendStreamed(work));
  } catch (error) {
    const reason: unknown = signal.aborted ? signal.reason : ended.signal.aborted ? ended.signal.reason : error;
    // The backup may be long committed, and nobody come back for the upload: when there is nothing in it to take up, or
    // the snapshot is gone, it goes.
    if (upload?.isNew === true && (done.size === 0 || FleetError.is(reason, 'SnapshotVanished'))) {
      await store.abortUpload({ key, uploadId: upload.uploadId });
    }
    throw reason;
  }

  const digest = order.result();
  if (upload === undefined) {
    if (await isSame(options, finished, digest)) return { ...digest, sent };
    throw new FleetError('IntegrityMismatch', `${key} holds other bytes than the snapshot it was made from.`);
  }
  const parts = [...done.values()].sort((a, b) => a.partNumber - b.partNumber);
  // Putting many parts together takes a store seconds to minutes.
  const completing = store.completeUpload({ key, uploadId: upload.uploadId }, parts, source.size);
  const completed = await waitAlive(completing, options.onProgress);
  if (completed === undefined) {
    // The key appeared meanwhile: a completion whose answer was lost, or an attempt that was thought dead.
    await store.abortUpload({ key, uploadId: upload.uploadId });
    if (!(await isSame(options, await store.head(key), digest))) {
      throw new FleetError('IntegrityMismatch', `${key} was written by someone else with other bytes.`);
    }
  } else if (completed.crc32 !== undefined && completed.crc32 !== digest.crc32) {
    throw new FleetError('IntegrityMismatch', `${key} got CRC32 ${completed.crc32}, sent was ${digest.crc32}.`);
  }
  return { ...digest, sent };
}

/** Whether the object has the bytes of the source; it is read again where the store has no checksum of the whole. */
async function isSame(
  { source, store, key, signal, onProgress }: RelayOptions,
  found: { size: number; crc32: string | undefined } | undefined,
  digest: { sha256: string; crc32: string },
): Promise<boolean> {
  if (found?.size !== source.size) return false;
  if (found.crc32 !== undefined) return found.crc32 === digest.crc32;
  const sha256 = createHash('sha256');
  let crc = 0;
  let size = 0;
  for await (const chunk of (await store.read(key, signal)) ?? []) {
    sha256.update(chunk);
    crc = crc32(chunk, crc);
    size += chunk.length;
    onProgress(chunk.length);
  }
  const isWhole = size === source.size && base64Crc32(crc) === digest.crc32;
  return isWhole && (digest.sha256 === '' || sha256.digest('hex') === digest.sha256);
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
