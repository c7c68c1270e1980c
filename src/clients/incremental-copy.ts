/** Copy a snapshot into the bucket as blocks: those that are there already are only referred to. */
import { createHash, hash } from 'node:crypto';
import { crc32, deflateRawSync } from 'node:zlib';
import { BlockCutter, MAX_BLOCKS } from '../domain/block-cutter.ts';
import { BlockIndex } from '../domain/block-index.ts';
import { FleetError } from '../domain/errors.ts';
import { RecipeWriter } from '../domain/shard-recipe.ts';
import { readAhead } from './ahead.ts';
import { base64Crc32, combineCrc32 } from './crc32.ts';
import { enter, PackWriter, readPackIndex, type Pack } from './packs.ts';
import type { BackupStore } from './s3.ts';
import type { SnapshotSource } from './snapshot-source.ts';
import type { BufferPool, RateLimiter } from './transfer-budget.ts';

export interface IncrementalCopyOptions {
  readonly source: SnapshotSource;
  readonly store: BackupStore;
  /** Prefix of all keys of the cluster. */
  readonly root: string;
  /** Where new packs go, relative to `root`; packs that an earlier attempt left there are used. */
  readonly folder: string;
  /** Packs of earlier backups that may be referred to. */
  readonly known: readonly Pack[];
  readonly blockSize: number;
  /** Bytes of a part. */
  readonly partSize: number;
  /** Reads at a time. */
  readonly lanes: number;
  readonly buffers: BufferPool;
  readonly limiter?: RateLimiter;
  readonly signal: AbortSignal;
  /** Called with the bytes of each read chunk and of each sent part. */
  readonly onProgress: (bytes: number) => void;
}

export interface IncrementalCopy {
  /** Hex, over the whole snapshot. */
  readonly sha256: string;
  /** Base64, over the whole snapshot. */
  readonly crc32: string;
  /** Compressed, as it is stored. */
  readonly recipe: Buffer;
  /** Bytes of packs that this call sent. */
  readonly sent: number;
  /** Bytes of all packs of this backup that the recipe refers to, those of earlier attempts too. */
  readonly written: number;
}

const MiB = 1024 * 1024;
/** Bytes of one read. */
const CHUNK = MiB;
/** Indexes that are read at a time. */
const INDEX_LANES = 4;

/**
 * Memory: two parts and `lanes` chunks, taken from the budget at once, the table of known blocks (at most 12 MiB), and the
 * recipe (at most some MiB). None of it grows with the shard.
 */
export async function copyIncrementally(options: IncrementalCopyOptions): Promise<IncrementalCopy> {
  const { store, root, folder, blockSize, buffers, signal, onProgress } = options;
  const partSize = Math.max(options.partSize, blockSize + CHUNK);
  const whole = await aliveWhile(buffers.take(2 * partSize + options.lanes * CHUNK, signal), onProgress);
  try {
    const index = new BlockIndex(MAX_BLOCKS);
    const packs = await knownPacks(options, index);
    const writer = new PackWriter({
      store,
      root,
      folder,
      first: packs.length,
      buffers: [whole.subarray(0, partSize), whole.subarray(partSize, 2 * partSize)],
      signal,
      onSent: onProgress,
    });
    try {
      const recipe = new RecipeWriter(crc32);
      const cutter = new BlockCutter(
        {
          inline: (bytes) => recipe.inline(bytes),
          zeros: (count) => recipe.zeros(count),
          block: (bytes) => {
            const digest = hash('sha256', bytes, 'buffer');
            let place = index.find(digest);
            if (place === undefined) {
              place = writer.append(bytes, digest);
              index.add(digest, place);
            }
            recipe.extent(place.pack, place.offset, bytes);
          },
        },
        blockSize,
      );
      const sha256 = createHash('sha256');
      let sum = 0;
      const chunks = whole.subarray(2 * partSize);
      for await (const { bytes, crc } of chunksOf(options, chunks)) {
        // Room for the chunk and for the beginning of a block that was held back.
        await writer.room(bytes.length + blockSize);
        sha256.update(bytes);
        sum = combineCrc32(sum, crc, bytes.length);
        cutter.push(bytes);
      }
      await writer.room(blockSize);
      cutter.finish();
      await writer.finish();
      const digest = sha256.digest();
      const all = [...packs, ...writer.packs];
      const text = recipe.finish(all, { blockSize, sha256: digest });
      const own = all.filter(({ path }, number) => path.startsWith(folder) && recipe.uses(number));
      return {
        sha256: digest.toString('hex'),
        crc32: base64Crc32(sum),
        recipe: deflateRawSync(text),
        sent: writer.sent,
        written: own.reduce((bytes, { size }) => bytes + size, 0),
      };
    } catch (error) {
      await writer.abandon();
      throw error;
    }
  } finally {
    buffers.give(whole);
  }
}

/** The packs whose blocks may be referred to; what cannot be read is left out, and its blocks are written anew. */
async function knownPacks(options: IncrementalCopyOptions, index: BlockIndex): Promise<Pack[]> {
  const { store, root, folder, known, signal, onProgress } = options;
  const left: { path: string; size: number }[] = [];
  for await (const { key, size } of store.list(`${root}${folder}`)) {
    if (key.endsWith('.pack')) left.push({ path: key.slice(root.length), size });
  }
  const packs: Pack[] = [];
  const queue = [...left, ...known].values();
  const lane = async (): Promise<void> => {
    for (const pack of queue) {
      if (index.size === MAX_BLOCKS) return;
      const entries: [Uint8Array, number][] = [];
      const found = await unlessBroken(
        readPackIndex({ store, root, signal }, pack, (...entry) => void entries.push(entry)),
      );
      onProgress(0);
      if (found === undefined) continue;
      const add = enter(index, packs.length);
      packs.push(found);
      for (const entry of entries) add(...entry);
    }
  };
  await Promise.all(Array.from({ length: INDEX_LANES }, lane));
  return packs;
}

async function unlessBroken<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading;
  } catch (error) {
    if (FleetError.is(error, 'IntegrityMismatch')) return undefined;
    throw error;
  }
}

async function* chunksOf(
  { source, lanes, signal, onProgress, limiter }: IncrementalCopyOptions,
  memory: Buffer,
): AsyncGenerator<{ bytes: Buffer; crc: number }> {
  let next = 0;
  const begin = (abort: AbortSignal) => {
    if (next * CHUNK >= source.size) return undefined;
    const slot = (next % lanes) * CHUNK;
    const start = next * CHUNK;
    next += 1;
    const bytes = memory.subarray(slot, slot + Math.min(CHUNK, source.size - start));
    return source.readInto(bytes, start, abort, onProgress, limiter).then((crc) => ({ bytes, crc }));
  };
  yield* readAhead(lanes, begin, () => undefined, signal);
}

/** Other streams may have the memory for long; this one is well meanwhile. */
async function aliveWhile<T>(waiting: Promise<T>, onProgress: (bytes: number) => void): Promise<T> {
  const timer = setInterval(() => onProgress(0), 2000);
  try {
    return await waiting;
  } finally {
    clearInterval(timer);
  }
}
