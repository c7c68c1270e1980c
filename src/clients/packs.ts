/**
 * Packs: objects of some tens of MiB that hold blocks of shards.
 *
 *     <block> <block> …  <index>  <SHA-256 of the index>  <number of blocks, 4 bytes LE>  "QFPACK01"
 *
 * The index has 36 bytes a block: its length (4 bytes LE) and its SHA-256. Blocks lie one after the other from byte 0. A
 * pack is an object only when it is complete, so what a killed attempt finished is found by its index.
 */
import { createHash, randomUUID } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { HASH_BYTES, type BlockIndex, type BlockPlace } from '../domain/block-index.ts';
import { FleetError } from '../domain/errors.ts';
import type { RecipePack } from '../domain/shard-recipe.ts';
import { base64Crc32, combineCrc32 } from './crc32.ts';
import { readRange } from './object-range.ts';
import type { BackupStore, UploadedPart } from './s3.ts';

export type Pack = Omit<RecipePack, 'used'>;

const MiB = 1024 * 1024;
/** Bytes of blocks after which a pack is closed. */
const PACK_BYTES = 32 * MiB;
const MAGIC = 'QFPACK01';
const ENTRY = 4 + HASH_BYTES;
/** Entries of the largest index that is read. */
const MAX_BLOCKS = 2 ** 21;
const TRAILER = HASH_BYTES + 4 + MAGIC.length;

export interface PackWriterOptions {
  readonly store: BackupStore;
  /** Prefix of all keys of the cluster; paths of packs are relative to it. */
  readonly root: string;
  /** Where the packs go, relative to `root`, with a slash at its end. */
  readonly folder: string;
  /** Number of the first pack. */
  readonly first: number;
  /** Two or more, of at least 5 MiB and of one size. */
  readonly buffers: readonly Buffer[];
  readonly signal: AbortSignal;
  /** Called with the bytes of each part that was sent. */
  readonly onSent: (bytes: number) => void;
}

interface OpenPack {
  readonly path: string;
  readonly key: string;
  readonly index: Buffer[];
  blocks: number;
  /** Bytes of blocks so far. */
  data: number;
  size: number;
  crc32: number;
  uploadId: Promise<string> | undefined;
  readonly parts: Promise<UploadedPart>[];
}

/** Puts blocks into packs, part by part; memory: the buffers it was given and the index of one pack. */
export class PackWriter {
  readonly #options: PackWriterOptions;
  readonly #free: Buffer[];
  #current: Buffer | undefined;
  #filled = 0;
  #open: OpenPack | undefined;
  /** One part is on its way for each buffer that is neither free nor being filled. */
  readonly #sending = new Set<Promise<void>>();
  #failure: unknown;
  readonly packs: Pack[] = [];
  /** Bytes sent. */
  sent = 0;

  constructor(options: PackWriterOptions) {
    this.#options = options;
    this.#free = [...options.buffers];
  }

  /** Wait until `append` has room for so many bytes: at most as many as a buffer has. */
  async room(bytes: number): Promise<void> {
    this.#throw();
    if (this.#open !== undefined && this.#open.data >= PACK_BYTES) await this.#close(this.#open);
    while (this.#free.length === 0 && this.#left() < bytes) {
      await Promise.race(this.#sending);
      this.#throw();
    }
  }

  append(block: Uint8Array, hash: Uint8Array): BlockPlace {
    this.#open ??= this.#begin();
    const pack = this.#open;
    const place = { pack: this.#options.first + this.packs.length, offset: pack.data };
    const entry = Buffer.alloc(ENTRY);
    entry.writeUInt32LE(block.length);
    entry.set(hash, 4);
    pack.index.push(entry);
    pack.blocks += 1;
    pack.data += block.length;
    this.#write(pack, block);
    return place;
  }

  /** The last pack is complete. */
  async finish(): Promise<void> {
    this.#throw();
    if (this.#open !== undefined) await this.#close(this.#open);
  }

  /** Nothing more comes: wait for what is on its way, and let go of the pack that is not complete. */
  async abandon(): Promise<void> {
    await Promise.allSettled(this.#sending);
    const uploadId = await this.#open?.uploadId?.catch(() => undefined);
    if (this.#open !== undefined && uploadId !== undefined) {
      await this.#options.store.abortUpload({ key: this.#open.key, uploadId });
    }
    this.#open = undefined;
  }

  #begin(): OpenPack {
    const { root, folder } = this.#options;
    // Each attempt has names of its own: one that was taken for dead may still be writing.
    const path = `${folder}${randomUUID()}.pack`;
    const start = { index: [], blocks: 0, data: 0, size: 0, crc32: 0, uploadId: undefined, parts: [] };
    return { path, key: `${root}${path}`, ...start };
  }

  async #close(pack: OpenPack): Promise<void> {
    const index = Buffer.concat(pack.index);
    const indexHash = createHash('sha256').update(index).digest();
    const trailer = Buffer.alloc(TRAILER);
    trailer.set(indexHash);
    trailer.writeUInt32LE(pack.blocks, HASH_BYTES);
    trailer.write(MAGIC, HASH_BYTES + 4, 'latin1');
    const tail = Buffer.concat([index, trailer]);
    const step = this.#options.buffers[0]?.length ?? 0;
    for (let at = 0; at < tail.length; at += step) {
      const part = tail.subarray(at, at + step);
      while (this.#free.length === 0 && this.#left() < part.length) {
        await Promise.race(this.#sending);
        this.#throw();
      }
      this.#write(pack, part);
    }
    this.#send(pack);
    const parts = await Promise.all(pack.parts);
    await this.#complete(pack, parts, await (pack.uploadId as Promise<string>));
    this.packs.push({ path: pack.path, size: pack.size, blocks: pack.blocks, indexHash });
    this.#open = undefined;
  }

  async #complete({ key, size, crc32: sum }: OpenPack, parts: UploadedPart[], uploadId: string): Promise<void> {
    const { store } = this.#options;
    const wanted = base64Crc32(sum);
    const completed = await store.completeUpload({ key, uploadId }, parts, size);
    // An answer that was lost: the key is of this attempt alone.
    const found = completed === undefined ? await store.head(key) : { size, crc32: completed.crc32 };
    if (found?.size !== size || (found.crc32 !== undefined && found.crc32 !== wanted)) {
      throw new FleetError('IntegrityMismatch', `${key} is not stored as it was sent.`);
    }
  }

  #left(): number {
    return this.#current === undefined ? 0 : this.#current.length - this.#filled;
  }

  #write(pack: OpenPack, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      if (this.#current === undefined) {
        this.#current = this.#free.pop();
        this.#filled = 0;
        if (this.#current === undefined) throw new Error('A block was appended without room for it.');
      }
      const part = bytes.subarray(at, at + this.#left());
      this.#current.set(part, this.#filled);
      this.#filled += part.length;
      at += part.length;
      if (this.#left() === 0) this.#send(pack);
    }
  }

  /** Send what is in the current buffer as the next part. */
  #send(pack: OpenPack): void {
    const buffer = this.#current;
    if (buffer === undefined || this.#filled === 0) return;
    const { store, signal, onSent } = this.#options;
    const { key } = pack;
    const body = buffer.subarray(0, this.#filled);
    const sum = crc32(body);
    pack.crc32 = combineCrc32(pack.crc32, sum, body.length);
    pack.size += body.length;
    const partNumber = pack.parts.length + 1;
    pack.uploadId ??= store.createUpload(key);
    const { uploadId } = pack;
    const part = (async () => {
      const id = await uploadId;
      return store.uploadPart({ key, uploadId: id }, { partNumber, body, crc32: base64Crc32(sum) }, signal);
    })();
    pack.parts.push(part);
    this.#current = undefined;
    const sending: Promise<void> = part
      .then(
        () => {
          this.sent += body.length;
          onSent(body.length);
        },
        (error: unknown) => {
          this.#failure ??= error;
        },
      )
      .finally(() => {
        this.#free.push(buffer);
        this.#sending.delete(sending);
      });
    this.#sending.add(sending);
  }

  #throw(): void {
    this.#options.signal.throwIfAborted();
    if (this.#failure !== undefined) throw this.#failure;
  }
}

/**
 * Learn which blocks a pack holds.
 *
 * @param known what a recipe says of it; without it the pack speaks for itself
 * @returns the pack, or `undefined` when it is not what it should be: its blocks are then written anew
 */
export async function readPackIndex(
  options: { store: BackupStore; root: string; signal: AbortSignal },
  pack: Pick<Pack, 'path' | 'size'> & Partial<Pack>,
  onBlock: (hash: Uint8Array, offset: number) => void,
): Promise<Pack | undefined> {
  const { path, size } = pack;
  const range = { ...options, key: `${options.root}${path}`, size };
  let { blocks } = pack;
  if (blocks === undefined) {
    if (size < TRAILER) return undefined;
    const trailer = Buffer.alloc(TRAILER);
    await readRange(trailer, size - TRAILER, range);
    blocks = trailer.readUInt32LE(HASH_BYTES);
  }
  if (blocks > MAX_BLOCKS || size < TRAILER) return undefined;
  const tail = Buffer.alloc(Math.min(size, blocks * ENTRY + TRAILER));
  await readRange(tail, size - tail.length, range);
  const index = tail.subarray(0, -TRAILER);
  const trailer = tail.subarray(-TRAILER);
  const indexHash = createHash('sha256').update(index).digest();
  const isWhole =
    index.length === blocks * ENTRY &&
    indexHash.equals(trailer.subarray(0, HASH_BYTES)) &&
    trailer.toString('latin1', HASH_BYTES + 4) === MAGIC &&
    (pack.indexHash === undefined || indexHash.equals(pack.indexHash));
  if (!isWhole) return undefined;
  let offset = 0;
  for (let at = 0; at < index.length; at += ENTRY) {
    onBlock(index.subarray(at + 4, at + ENTRY), offset);
    offset += index.readUInt32LE(at);
  }
  return { path, size, blocks, indexHash };
}

/** Enter all blocks of a pack that are not known yet. */
export function enter(index: BlockIndex, pack: number): (hash: Uint8Array, offset: number) => void {
  return (hash, offset) => void index.add(hash, { pack, offset });
}
