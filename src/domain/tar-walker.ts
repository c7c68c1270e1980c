/**
 * Finds the file contents within a shard snapshot: a tar of tars, read as a stream. Blocks that are cut at each file's
 * own start come out the same in the next snapshot, although the headers around them differ.
 *
 * Nothing relies on it being right: every byte is handed on exactly once and in order, whatever it is taken for.
 */

/** Gets every byte of the stream, in order. */
export interface TarSink {
  /** Headers, padding, ends of archives. */
  skeleton(bytes: Uint8Array): void;
  /** A run of content begins at this offset within its file; blocks are cut at multiples of their size from there. */
  begin(offset: number): void;
  /** More of the run. */
  content(bytes: Uint8Array): void;
  /** The run has ended. */
  end(): void;
}

const BLOCK = 512;
/** A segment's tar inside the shard's; anything deeper is a file. */
const MAX_DEPTH = 2;
/** Longer names and pax records than this are no names. */
const MAX_OPAQUE = 1024 * 1024;
/** Extents of a sparse file whose places are kept; a file with more is cut as if it had no holes. */
const MAX_EXTENTS = 65_536;

/** What comes next. */
type Expected = 'header' | 'extents' | 'opaque' | 'content' | 'padding' | 'rest';

interface Extent {
  readonly offset: number;
  readonly length: number;
}

/** An archive that is being read. */
interface Level {
  /** Bytes that are left of it. */
  left: number;
  /** Bytes of padding after it, in the archive around it. */
  readonly padding: number;
}

interface Header {
  readonly type: string;
  readonly name: string;
  readonly size: number;
}

export class TarWalker {
  readonly #sink: TarSink;
  /** Holes of at least this many bytes begin a new run, so that blocks stay where they were when a hole is filled. */
  readonly #minHole: number;
  readonly #levels: Level[] = [{ left: Number.POSITIVE_INFINITY, padding: 0 }];
  readonly #header = new Uint8Array(BLOCK);
  #headerFilled = 0;
  #expected: Expected = 'header';
  /** Bytes that are left of what is expected. */
  #left = 0;
  #padding = 0;
  #inRun = false;
  #extents: Extent[] = [];
  /** Runs of the current file that are still to come. */
  #runs: Extent[] = [];
  #stored = 0;

  /** @param minHole bytes; the size of a block is right */
  constructor(sink: TarSink, minHole: number) {
    this.#sink = sink;
    this.#minHole = minHole;
  }

  /** The next bytes of the stream. Slices of them are handed to the sink, which must not keep them. */
  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) at += this.#take(chunk.subarray(at));
  }

  /** The stream has ended, wherever that is. */
  finish(): void {
    this.#endRun();
  }

  /** @returns how many of the bytes were used; at least one */
  #take(bytes: Uint8Array): number {
    switch (this.#expected) {
      case 'header':
      case 'extents':
        return this.#takeHeader(bytes);
      case 'opaque':
      case 'padding':
        return this.#takeSkeleton(bytes);
      default:
        return this.#takeContent(bytes);
    }
  }

  #takeHeader(bytes: Uint8Array): number {
    if (this.#headerFilled === 0 && this.#level.left < BLOCK) return this.#giveUp();
    const part = bytes.subarray(0, BLOCK - this.#headerFilled);
    this.#header.set(part, this.#headerFilled);
    this.#headerFilled += part.length;
    this.#spend(part.length);
    this.#sink.skeleton(part);
    if (this.#headerFilled === BLOCK) {
      this.#headerFilled = 0;
      if (this.#expected === 'extents') this.#onExtents(this.#header);
      else this.#onHeader(this.#header);
    }
    return part.length;
  }

  #takeSkeleton(bytes: Uint8Array): number {
    const part = bytes.subarray(0, this.#left);
    this.#sink.skeleton(part);
    this.#spend(part.length);
    this.#left -= part.length;
    if (this.#left === 0) this.#next();
    return part.length;
  }

  #takeContent(bytes: Uint8Array): number {
    if (!this.#inRun) {
      const run = this.#runs.shift() ?? { offset: 0, length: this.#left };
      this.#left = run.length;
      this.#sink.begin(run.offset);
      this.#inRun = true;
    }
    const part = bytes.subarray(0, Math.min(this.#left, bytes.length));
    this.#sink.content(part);
    this.#spend(part.length);
    this.#left -= part.length;
    if (this.#left === 0) {
      this.#endRun();
      this.#next();
    }
    return part.length;
  }

  #onHeader(block: Uint8Array): void {
    if (block.every((byte) => byte === 0)) return this.#toHeader();
    const header = parseHeader(block);
    if (header === undefined) return void this.#giveUp();
    const { type, size, name } = header;
    const padding = (BLOCK - (size % BLOCK)) % BLOCK;
    if (size + padding > this.#level.left) return void this.#giveUp();
    this.#padding = padding;
    if ('LKxg'.includes(type) && size <= MAX_OPAQUE) return this.#expect('opaque', size);
    if (type === 'S') return this.#onSparse(block, size);
    if (type === '0' && name.endsWith('.tar') && size > 0 && this.#levels.length < MAX_DEPTH) {
      this.#spend(size);
      this.#padding = 0;
      this.#levels.push({ left: size, padding });
      return this.#toHeader();
    }
    this.#runs = size === 0 ? [] : [{ offset: 0, length: size }];
    return this.#expect('content', size);
  }

  #onSparse(block: Uint8Array, size: number): void {
    this.#extents = [];
    this.#stored = size;
    this.#addExtents(block, 386, 4);
    if (block[482] === 0) this.#onMap();
    else this.#expected = 'extents';
  }

  #onExtents(block: Uint8Array): void {
    this.#addExtents(block, 0, 21);
    if (block[504] === 0) this.#onMap();
  }

  #addExtents(block: Uint8Array, start: number, count: number): void {
    for (let index = 0; index < count && this.#extents.length <= MAX_EXTENTS; index += 1) {
      const at = start + index * 24;
      const offset = parseNumber(block.subarray(at, at + 12));
      const length = parseNumber(block.subarray(at + 12, at + 24));
      if (offset !== undefined && length !== undefined && length > 0) this.#extents.push({ offset, length });
    }
  }

  /** The map of a sparse file is complete: its extents become runs, those beside each other one. */
  #onMap(): void {
    const runs: Extent[] = [];
    let stored = 0;
    for (const { offset, length } of this.#extents) {
      const last = runs.at(-1);
      const end = last === undefined ? -1 : last.offset + last.length;
      stored += length;
      if (last !== undefined && offset >= end && offset - end < this.#minHole) {
        runs[runs.length - 1] = { offset: last.offset, length: last.length + length };
      } else {
        runs.push({ offset, length });
      }
    }
    const isRight = stored === this.#stored && this.#extents.length <= MAX_EXTENTS;
    const whole = this.#stored === 0 ? [] : [{ offset: 0, length: this.#stored }];
    this.#runs = isRight ? runs : whole;
    this.#extents = [];
    // The blocks of the map count towards the archive, not towards the member.
    const padding = (BLOCK - (this.#stored % BLOCK)) % BLOCK;
    if (this.#stored + padding > this.#level.left) return void this.#giveUp();
    this.#expect('content', this.#stored);
  }

  /** Expect `size` bytes of something; none of them means that it is over already. */
  #expect(expected: Expected, size: number): void {
    this.#expected = expected;
    this.#left = size;
    if (size === 0) this.#next();
  }

  /** What was expected is over: more runs of the file, its padding, or the next header. */
  #next(): void {
    if (this.#expected === 'content' && this.#runs.length > 0) {
      // The run's own length is taken when its first byte is there.
      this.#left = this.#runs[0]?.length ?? 0;
      return;
    }
    if (this.#expected !== 'padding' && this.#expected !== 'rest' && this.#padding > 0) {
      const padding = this.#padding;
      this.#padding = 0;
      return this.#expect('padding', padding);
    }
    this.#padding = 0;
    this.#toHeader();
  }

  /** The next header, of the archive around this one when nothing is left of it. */
  #toHeader(): void {
    this.#expected = 'header';
    const level = this.#level;
    if (level.left > 0 || this.#levels.length === 1) return;
    this.#levels.pop();
    if (level.padding > 0) this.#expect('padding', level.padding);
  }

  /** This archive cannot be followed any further: what is left of it is content. */
  #giveUp(): number {
    const { left } = this.#level;
    this.#runs = [];
    this.#padding = 0;
    this.#headerFilled = 0;
    if (left === 0) {
      this.#toHeader();
    } else {
      this.#expected = 'rest';
      this.#left = left;
    }
    return 0;
  }

  #endRun(): void {
    if (!this.#inRun) return;
    this.#inRun = false;
    this.#sink.end();
  }

  #spend(bytes: number): void {
    this.#level.left -= bytes;
  }

  get #level(): Level {
    return this.#levels.at(-1) as Level;
  }
}

/** A member's header, or `undefined` when this is none. */
function parseHeader(block: Uint8Array): Header | undefined {
  const wanted = parseNumber(block.subarray(148, 156));
  let sum = 8 * 32;
  for (const [index, byte] of block.entries()) if (index < 148 || index >= 156) sum += byte;
  const size = parseNumber(block.subarray(124, 136));
  if (wanted !== sum || size === undefined) return undefined;
  const flag = block[156] ?? 0;
  const type = flag === 0 || flag === 0x37 ? '0' : String.fromCharCode(flag);
  const name = block.subarray(0, 100);
  const end = name.indexOf(0);
  return { type, size, name: String.fromCharCode(...name.subarray(0, end === -1 ? 100 : end)) };
}

/** A tar number: octal digits, or big-endian bytes where the first bit is set. */
function parseNumber(field: Uint8Array): number | undefined {
  if (((field[0] ?? 0) & 0x80) !== 0) {
    let value = (field[0] ?? 0) & 0x7f;
    for (const byte of field.subarray(1)) {
      value = value * 256 + byte;
      if (value > Number.MAX_SAFE_INTEGER) return undefined;
    }
    return value;
  }
  const text = String.fromCharCode(...field)
    .replace(/[\0 ]+$/, '')
    .trimStart();
  return /^[0-7]*$/.test(text) ? Number.parseInt(text === '' ? '0' : text, 8) : undefined;
}
