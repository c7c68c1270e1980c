/** An incremental shard, put together byte by byte from its recipe and the packs that it refers to. */
import { createHash } from 'node:crypto';
import { crc32, inflateRawSync } from 'node:zlib';
import { FleetError } from '../domain/errors.ts';
import { packProblem, readRecipe, type Recipe, type RecipeExtent, type RecipeStep } from '../domain/shard-recipe.ts';
import { readAhead } from './ahead.ts';
import { readRange } from './object-range.ts';
import type { BackupStore } from './s3.ts';
import type { ShardBytes } from './shard-relay.ts';
import type { BufferPool, RateLimiter } from './transfer-budget.ts';

export interface RecipeRef {
  readonly key: string;
  /** Bytes of the recipe. */
  readonly size: number;
  /** Hex, of the recipe. */
  readonly sha256: string;
}

export interface IncrementalShardOptions {
  readonly store: BackupStore;
  /** Prefix of all keys of the cluster. */
  readonly root: string;
  readonly recipe: RecipeRef;
  /** Whose packs the recipe may refer to; default: those of any backup of the cluster. */
  readonly backups?: readonly string[] | undefined;
  /** Bytes of the snapshot. */
  readonly size: number;
  /** Windows that are read at a time. */
  readonly lanes: number;
  readonly buffers: BufferPool;
  readonly limiter?: RateLimiter;
}

const MiB = 1024 * 1024;
/** Bytes of the snapshot that are put together at a time. */
const WINDOW = 4 * MiB;
/** Pieces of one pack that are no further apart than this are read in one go. */
const MAX_GAP = 32 * 1024;
/** No recipe is larger: what it says in place and its references are both bounded. */
const MAX_RECIPE = 64 * MiB;

/**
 * @param backups whose packs it may refer to; default: those of any backup of the cluster
 * @throws FleetError `IntegrityMismatch` when it is gone, not the one that was committed, or refers to anything but packs
 *   of these backups
 */
export async function fetchRecipe(
  store: BackupStore,
  { key, size, sha256 }: RecipeRef,
  signal: AbortSignal,
  backups?: readonly string[],
): Promise<Recipe> {
  if (size > MAX_RECIPE) throw new FleetError('IntegrityMismatch', `${key} cannot be a recipe: it has ${size} bytes.`);
  const bytes = Buffer.alloc(size);
  await readRange(bytes, 0, { store, key, size, signal });
  const found = createHash('sha256').update(bytes).digest('hex');
  if (found !== sha256) {
    throw new FleetError('IntegrityMismatch', `${key} hashes to ${found}, committed was ${sha256}.`, { object: key });
  }
  // Headers of tars are most of it, and they are nearly empty.
  const recipe = readRecipe(inflated(bytes, key), key);
  const known = backups === undefined ? undefined : new Set(backups);
  for (const pack of recipe.packs) {
    if (packProblem(pack, known) === undefined) continue;
    throw new FleetError('IntegrityMismatch', `${key} is not believed: a pack of it ${packProblem(pack, known)}.`);
  }
  return recipe;
}

function inflated(bytes: Buffer, key: string): Uint8Array {
  try {
    return inflateRawSync(bytes, { maxOutputLength: MAX_RECIPE });
  } catch (error) {
    throw new FleetError('IntegrityMismatch', `${key} is no recipe: it cannot be unpacked.`, { cause: error });
  }
}

/** Part of an extent that lies in one window. */
interface Piece {
  readonly extent: RecipeExtent;
  /** In the pack. */
  readonly offset: number;
  readonly length: number;
  /** In the window. */
  readonly at: number;
}

/** So many bytes of the snapshot, and where they come from. */
interface Window {
  length: number;
  readonly inline: { readonly at: number; readonly bytes: Uint8Array }[];
  readonly zeros: { readonly at: number; readonly length: number }[];
  readonly pieces: Piece[];
}

/** One read of a pack that serves one piece or several. */
interface Span {
  readonly pack: number;
  start: number;
  end: number;
  readonly pieces: Piece[];
}

export class IncrementalShard implements ShardBytes {
  readonly size: number;
  readonly #options: IncrementalShardOptions;

  constructor(options: IncrementalShardOptions) {
    this.size = options.size;
    this.#options = options;
  }

  /**
   * Each extent is held against its CRC32 as soon as its last byte is there, so that a damaged pack ends the stream and
   * is named. Whoever reads the whole compares the SHA-256.
   *
   * Memory: `lanes` windows of at most 8 MiB, out of the budget that all streams share, and the recipe. A window's
   * memory is taken at once, so that streams cannot wait for each other in a circle.
   *
   * @throws FleetError `StoreUnavailable`, `StoreDenied`, or `IntegrityMismatch`
   */
  async *stream(signal: AbortSignal): AsyncGenerator<Buffer> {
    const { store, lanes, buffers } = this.#options;
    const recipe = await fetchRecipe(store, this.#options.recipe, signal, this.#options.backups);
    if (recipe.size !== this.size) {
      throw new FleetError(
        'IntegrityMismatch',
        `${this.#options.recipe.key} is of a snapshot of ${recipe.size} bytes, committed were ${this.size}.`,
      );
    }
    const windows = windowsOf(recipe.steps());
    let taken: Promise<unknown> = Promise.resolve();
    const begin = (abort: AbortSignal) => {
      const next = windows.next();
      if (next.done === true) return undefined;
      const window = next.value;
      const spans = spansOf(window.pieces);
      const memory = taken.then(() => buffers.take(memoryOf(window, spans), abort));
      taken = memory;
      return memory.then(async (buffer) => {
        try {
          await this.#fill(recipe, window, spans, buffer, abort);
          return { window, buffer };
        } catch (error) {
          buffers.give(buffer);
          throw error;
        }
      });
    };
    const sums = new Map<RecipeExtent, number>();
    const filled = readAhead(lanes, begin, ({ buffer }) => buffers.give(buffer), signal);
    for await (const { window, buffer } of filled) {
      this.#check(recipe, window, buffer, sums);
      yield buffer.subarray(0, window.length);
    }
  }

  async #fill(recipe: Recipe, window: Window, spans: readonly Span[], buffer: Buffer, signal: AbortSignal) {
    for (const { at, bytes } of window.inline) buffer.set(bytes, at);
    for (const { at, length } of window.zeros) buffer.fill(0, at, at + length);
    const { store, root, limiter } = this.#options;
    let scratch = window.length;
    const reads = spans.map(async ({ pack, start, end, pieces }) => {
      const { path = '', size = 0 } = recipe.packs[pack] ?? {};
      const [only] = pieces;
      const isDirect = pieces.length === 1 && only !== undefined;
      const from = isDirect ? only.at : scratch;
      if (!isDirect) scratch += end - start;
      const target = buffer.subarray(from, from + end - start);
      await readRange(target, start, { store, key: `${root}${path}`, size, signal, limiter });
      if (isDirect) return;
      for (const { offset, length, at } of pieces) target.copy(buffer, at, offset - start, offset - start + length);
    });
    const outcomes = await Promise.allSettled(reads);
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  }

  #check(recipe: Recipe, { pieces }: Window, buffer: Buffer, sums: Map<RecipeExtent, number>): void {
    for (const { extent, offset, length, at } of pieces) {
      const sum = crc32(buffer.subarray(at, at + length), sums.get(extent) ?? 0);
      if (offset + length < extent.offset + extent.length) {
        sums.set(extent, sum);
        continue;
      }
      sums.delete(extent);
      if (sum === extent.crc32) continue;
      const key = `${this.#options.root}${recipe.packs[extent.pack]?.path ?? ''}`;
      const where = `bytes ${extent.offset}-${extent.offset + extent.length - 1} of ${key}`;
      const told = `${where} are damaged: their CRC32 is not the one of the recipe.`;
      throw new FleetError('IntegrityMismatch', told, { object: key });
    }
  }
}

function* windowsOf(steps: Iterable<RecipeStep>): Generator<Window> {
  const empty = (): Window => ({ length: 0, inline: [], zeros: [], pieces: [] });
  let window = empty();
  for (const step of steps) {
    const total = 'extent' in step ? step.extent.length : 'zeros' in step ? step.zeros : step.inline.length;
    for (let done = 0; done < total;) {
      const length = Math.min(total - done, WINDOW - window.length);
      const at = window.length;
      if ('inline' in step) window.inline.push({ at, bytes: step.inline.subarray(done, done + length) });
      else if ('zeros' in step) window.zeros.push({ at, length });
      else window.pieces.push({ extent: step.extent, offset: step.extent.offset + done, length, at });
      window.length += length;
      done += length;
      if (window.length < WINDOW) continue;
      yield window;
      window = empty();
    }
  }
  if (window.length > 0) yield window;
}

/** The reads that bring all pieces; no more than twice the bytes of the window are read. */
function spansOf(pieces: readonly Piece[]): Span[] {
  const sorted = pieces.toSorted((a, b) => a.extent.pack - b.extent.pack || a.offset - b.offset);
  const spans: Span[] = [];
  let spare = WINDOW;
  for (const piece of sorted) {
    const { pack } = piece.extent;
    const last = spans.at(-1);
    const end = piece.offset + piece.length;
    const gap = last?.pack === pack ? piece.offset - last.end : Number.POSITIVE_INFINITY;
    // Pieces overlap where a block is there more than once.
    if (last !== undefined && gap <= MAX_GAP && gap <= spare) {
      spare -= Math.max(0, gap);
      last.end = Math.max(last.end, end);
      last.pieces.push(piece);
    } else {
      spans.push({ pack, start: piece.offset, end, pieces: [piece] });
    }
  }
  return spans;
}

function memoryOf({ length }: Window, spans: readonly Span[]): number {
  const scratch = spans.filter(({ pieces }) => pieces.length > 1);
  const bytes = length + scratch.reduce((sum, { start, end }) => sum + end - start, 0);
  // Of few sizes, so that the buffers of one window do for the next.
  return length < WINDOW ? Math.max(1, bytes) : Math.ceil(bytes / WINDOW) * WINDOW;
}
