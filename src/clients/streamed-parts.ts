/**
 * Parts that are too large to hold: small frames are read ahead in order, hashed, and sent on at once, with the CRC32
 * behind the part. Memory does not depend on the part's size.
 *
 * 1. The file is read in order, because SHA-256 can only be had in order. While the end of one part is still going out
 *    the next one is begun, as long as the budget has frames.
 * 2. What was sent is forgotten. A part that did not arrive is read again by its range.
 */
import { FleetError } from '../domain/errors.ts';
import { base64Crc32, combineCrc32 } from './crc32.ts';
import { bytesOf, waitAlive, type PartWork } from './buffered-parts.ts';
import { readAhead } from './read-ahead.ts';
import type { StreamedPart, UploadedPart } from './s3.ts';

/** Bytes of a frame: large enough that a request for each costs little. */
const FRAME = 1024 * 1024;
/** Times that a part is sent again. */
const REPEATS = 2;

type Upload = NonNullable<PartWork['upload']>;

export async function sendStreamed(work: PartWork): Promise<void> {
  const sending = new Set<Promise<void>>();
  try {
    for (let index = 0; index < work.count; index += 1) {
      while (sending.size >= work.lanes) await Promise.race(sending);
      work.signal.throwIfAborted();
      const finish = await passOn(work, index);
      const rest = finish()
        .catch(work.fail)
        .finally(() => sending.delete(rest));
      sending.add(rest);
    }
  } catch (error) {
    work.fail(error);
  }
  await Promise.all(sending);
  work.signal.throwIfAborted();
}

/** Read a part, hash it and send it on. @returns what is left to do when all its bytes are read */
async function passOn(work: PartWork, index: number): Promise<() => Promise<void>> {
  const { upload, order, store, signal } = work;
  const partNumber = index + 1;
  const size = bytesOf(work, index);
  const old = work.held.get(partNumber);
  // One that is there already is read first, and sent only when it differs.
  const isNew = upload !== undefined && old === undefined;
  const stream = isNew ? await store.streamPart(upload, { partNumber, size, chunkSize: FRAME }, signal) : undefined;
  const crc32 = await pump(work, index, stream, (bytes, crc) => order.add(bytes, crc));
  return async () => {
    if (upload === undefined) return;
    if (old?.size === size && old.crc32 === crc32) return work.done(old);
    work.done((await stream?.end(crc32)) ?? (await sendAgain(work, upload, index, crc32)));
    work.sent(size);
  };
}

/** Read the part again and send it, as often as that may help; then from memory, by the way that tells why not. */
async function sendAgain(work: PartWork, upload: Upload, index: number, crc32: string): Promise<UploadedPart> {
  const { store, signal, buffers } = work;
  const partNumber = index + 1;
  const size = bytesOf(work, index);
  for (let repeat = 0; repeat < REPEATS && store.takesTrailers; repeat += 1) {
    // A question by the way: it takes fresh credentials when the old ones have expired.
    const parts = await store.listParts(upload);
    signal.throwIfAborted();
    if (parts === undefined) throw new FleetError('StoreUnavailable', `The upload of ${upload.key} is gone.`);
    const stream = await store.streamPart(upload, { partNumber, size, chunkSize: FRAME, isRepeat: true }, signal);
    if (stream === undefined) break;
    expectSame(await pump(work, index, stream), crc32, upload.key);
    const part = await stream.end(crc32);
    if (part !== undefined) return part;
  }
  const buffer = await waitAlive(buffers.take(size, signal), work.onProgress);
  try {
    const body = buffer.subarray(0, size);
    const crc = await work.source.readInto(body, index * work.partSize, signal, work.onProgress, work.limiter);
    expectSame(base64Crc32(crc), crc32, upload.key);
    return await store.uploadPart(upload, { partNumber, body, crc32 }, signal);
  } finally {
    buffers.give(buffer);
  }
}

/** @returns the part's CRC32 in base64 */
async function pump(
  work: PartWork,
  index: number,
  stream: StreamedPart | undefined,
  onFrame: (bytes: Buffer, crc: number) => void = () => undefined,
): Promise<string> {
  const range = { start: index * work.partSize, size: bytesOf(work, index), frameSize: FRAME };
  let whole = 0;
  for await (const { bytes, crc, release } of readAhead({ ...work, ...range })) {
    onFrame(bytes, crc);
    whole = combineCrc32(whole, crc, bytes.length);
    if (stream === undefined) {
      release();
      continue;
    }
    stream.write(bytes, () => {
      release();
      work.onProgress(bytes.length);
    });
  }
  return base64Crc32(whole);
}

function expectSame(found: string, first: string, key: string): void {
  if (found === first) return;
  throw new FleetError(
    'IntegrityMismatch',
    `A part of ${key} had CRC32 ${first} when it was read first, then ${found}.`,
  );
}
