/** Cuts a shard snapshot into what a recipe says in place and blocks that are looked up and stored. */
import { TarWalker, type TarSink } from './tar-walker.ts';

/** Gets the whole stream, in order. The bytes are only lent. */
export interface BlockSink {
  /** Bytes that the recipe holds itself. */
  inline(bytes: Uint8Array): void;
  /** So many zeros. */
  zeros(count: number): void;
  /** Content, at most one block long. */
  block(bytes: Uint8Array): void;
}

export const MIN_BLOCK = 4096;
const MAX_BLOCK = 4 * 1024 * 1024;
/** Blocks of one shard that are kept in memory, about 12 MiB; larger shards get larger blocks. */
export const MAX_BLOCKS = 2 ** 18;
/** Bytes that a recipe holds itself; a stream with more of them is cut without a look at what is in it. */
const MAX_INLINE = 8 * 1024 * 1024;
/** Less than this is shorter in place than by reference. */
const MIN_REFERENCE = 256;

/**
 * Bytes of a block: small, since a changed point costs its whole block, but so large that the shard has no more than
 * `MAX_BLOCKS`.
 *
 * @param previous of the last backup of this shard; kept while it is at most 4 times off, because blocks of two sizes
 *   have nothing in common
 */
export function blockSizeFor(size: number, previous?: number): number {
  let ideal = MIN_BLOCK;
  while (ideal < MAX_BLOCK && size / ideal > MAX_BLOCKS) ideal *= 2;
  if (previous === undefined) return ideal;
  return previous >= ideal / 4 && previous <= ideal * 4 ? previous : ideal;
}

export class BlockCutter implements TarSink {
  readonly #sink: BlockSink;
  readonly #blockSize: number;
  readonly #walker: TarWalker;
  readonly #zeros: Uint8Array;
  /** The beginning of a block whose rest has not come yet. */
  readonly #carry: Uint8Array;
  #carried = 0;
  /** Bytes until the current block ends. */
  #toCut = 0;
  #inline = 0;
  #plain = false;

  constructor(sink: BlockSink, blockSize: number) {
    this.#sink = sink;
    this.#blockSize = blockSize;
    this.#carry = new Uint8Array(blockSize);
    this.#zeros = new Uint8Array(blockSize);
    this.#walker = new TarWalker(this, blockSize);
  }

  push(chunk: Uint8Array): void {
    if (this.#plain) this.#cut(chunk);
    else this.#walker.push(chunk);
  }

  finish(): void {
    this.#walker.finish();
    this.#flush();
  }

  skeleton(bytes: Uint8Array): void {
    if (this.#plain) return this.#cut(bytes);
    if (this.#isZero(bytes)) return this.#sink.zeros(bytes.length);
    this.#say(bytes);
  }

  begin(offset: number): void {
    if (this.#plain) return;
    this.#toCut = this.#blockSize - (offset % this.#blockSize);
  }

  content(bytes: Uint8Array): void {
    this.#cut(bytes);
  }

  end(): void {
    if (!this.#plain) this.#flush();
  }

  #cut(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      const part = bytes.subarray(at, at + this.#toCut);
      at += part.length;
      this.#toCut -= part.length;
      if (this.#carried === 0 && this.#toCut === 0) {
        this.#emit(part);
      } else {
        this.#carry.set(part, this.#carried);
        this.#carried += part.length;
        if (this.#toCut === 0) this.#flush();
      }
      if (this.#toCut === 0) this.#toCut = this.#blockSize;
    }
  }

  #flush(): void {
    const carried = this.#carry.subarray(0, this.#carried);
    this.#carried = 0;
    if (carried.length > 0) this.#emit(carried);
  }

  #emit(block: Uint8Array): void {
    if (this.#isZero(block)) this.#sink.zeros(block.length);
    else if (block.length < MIN_REFERENCE && !this.#plain) this.#say(block);
    else this.#sink.block(block);
  }

  #say(bytes: Uint8Array): void {
    this.#sink.inline(bytes);
    this.#inline += bytes.length;
    if (this.#inline < MAX_INLINE) return;
    // From here on one endless run.
    this.#plain = true;
    this.#toCut = this.#blockSize;
  }

  #isZero(bytes: Uint8Array): boolean {
    if (bytes[0] !== 0 || bytes[bytes.length - 1] !== 0) return false;
    for (let at = 0; at < bytes.length; at += this.#zeros.length) {
      const part = bytes.subarray(at, at + this.#zeros.length);
      if (Buffer.compare(part, this.#zeros.subarray(0, part.length)) !== 0) return false;
    }
    return true;
  }
}
