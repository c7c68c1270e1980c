/**
 * The recipe of an incremental shard: how its snapshot is put together, byte by byte, from blocks in packs.
 *
 * Binary, and deflated in the bucket; numbers are LEB128 unless a width is named, and never above 2^53:
 *
 *     "QFRECIP1"
 *     1 <length> <bytes>                                in place
 *     2 <length>                                        zeros
 *     3 <pack> <offset> <length> <CRC32, 4 bytes LE>    from a pack; the CRC is of these bytes
 *     0
 *     <packs>, each: <length of path> <path> <bytes of the object> <blocks> <SHA-256 of its index> <bytes used here>
 *     <block size> <bytes of the snapshot> <SHA-256 of the snapshot>
 *     <offset of "<packs>", 4 bytes LE> "QFRECEND"
 *
 * A path is relative to the cluster's prefix in the bucket: `<backup>/data/<attempt>/…`.
 */
import { FleetError } from './errors.ts';
import { isKeyBelow } from './json-guard.ts';
import { isBackupId } from './naming.ts';
import { HASH_BYTES } from './block-index.ts';

/** One pack that a recipe refers to. */
export interface RecipePack {
  readonly path: string;
  /** Bytes of the object. */
  readonly size: number;
  readonly blocks: number;
  readonly indexHash: Uint8Array;
  /** Bytes of the snapshot that come from it. */
  readonly used: number;
}

export interface RecipeExtent {
  readonly pack: number;
  readonly offset: number;
  readonly length: number;
  readonly crc32: number;
}

export type RecipeStep =
  { readonly inline: Uint8Array } | { readonly zeros: number } | { readonly extent: RecipeExtent };

export interface Recipe {
  readonly packs: readonly RecipePack[];
  readonly blockSize: number;
  /** Bytes of the snapshot. */
  readonly size: number;
  readonly sha256: Uint8Array;
  steps(): Generator<RecipeStep>;
}

const HEAD = ascii('QFRECIP1');
const TAIL = ascii('QFRECEND');
const [END, INLINE, ZEROS, EXTENT] = [0, 1, 2, 3];

/** Grows as it is written to. */
class Bytes {
  #bytes = new Uint8Array(64 * 1024);
  length = 0;

  number(value: number): void {
    let rest = value;
    while (rest >= 128) {
      this.byte((rest % 128) + 128);
      rest = Math.floor(rest / 128);
    }
    this.byte(rest);
  }

  u32(value: number): void {
    for (let shift = 0; shift < 32; shift += 8) this.byte((value >>> shift) & 0xff);
  }

  byte(value: number): void {
    this.#reserve(1);
    this.#bytes[this.length] = value;
    this.length += 1;
  }

  bytes(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, this.length);
    this.length += bytes.length;
  }

  view(): Uint8Array {
    return this.#bytes.subarray(0, this.length);
  }

  clear(): void {
    this.length = 0;
  }

  #reserve(count: number): void {
    if (this.length + count <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(this.#bytes.length * 2, this.length + count));
    grown.set(this.view());
    this.#bytes = grown;
  }
}

/** Writes a recipe step by step; neighbours that belong together become one. */
export class RecipeWriter {
  readonly #out = new Bytes();
  readonly #inline = new Bytes();
  readonly #crc32: (bytes: Uint8Array, crc: number) => number;
  #zeros = 0;
  #extent: { pack: number; offset: number; length: number; crc32: number } | undefined;
  readonly #used: number[] = [];
  #size = 0;

  /** @param crc32 as zlib's, continued from an earlier value */
  constructor(crc32: (bytes: Uint8Array, crc: number) => number) {
    this.#crc32 = crc32;
    this.#out.bytes(HEAD);
  }

  inline(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    if (this.#inline.length === 0) this.#close();
    this.#inline.bytes(bytes);
    this.#size += bytes.length;
  }

  zeros(count: number): void {
    if (this.#zeros === 0) this.#close();
    this.#zeros += count;
    this.#size += count;
  }

  /** @param bytes what lies there */
  extent(pack: number, offset: number, bytes: Uint8Array): void {
    const last = this.#extent;
    if (last?.pack === pack && last.offset + last.length === offset) {
      last.length += bytes.length;
      last.crc32 = this.#crc32(bytes, last.crc32);
    } else {
      this.#close();
      this.#extent = { pack, offset, length: bytes.length, crc32: this.#crc32(bytes, 0) };
    }
    this.#used[pack] = (this.#used[pack] ?? 0) + bytes.length;
    this.#size += bytes.length;
  }

  /** Whether anything comes from this pack. */
  uses(pack: number): boolean {
    return (this.#used[pack] ?? 0) > 0;
  }

  /**
   * @param packs all packs, by the numbers that were used; those that nothing came from are left out
   * @returns the whole recipe
   */
  finish(
    packs: readonly Omit<RecipePack, 'used'>[],
    { blockSize, sha256 }: { blockSize: number; sha256: Uint8Array },
  ): Uint8Array {
    this.#close();
    this.#out.byte(END);
    const table = this.#out.length;
    // The numbers stay, so that nothing written has to be changed; an unused pack is an empty path.
    this.#out.number(this.#used.length);
    for (let pack = 0; pack < this.#used.length; pack += 1) {
      const used = this.#used[pack] ?? 0;
      const { path, size, blocks, indexHash } = used === 0 ? NOTHING : (packs[pack] ?? NOTHING);
      const name = new TextEncoder().encode(path);
      this.#out.number(name.length);
      this.#out.bytes(name);
      this.#out.number(size);
      this.#out.number(blocks);
      this.#out.bytes(indexHash);
      this.#out.number(used);
    }
    this.#out.number(blockSize);
    this.#out.number(this.#size);
    this.#out.bytes(sha256);
    this.#out.u32(table);
    this.#out.bytes(TAIL);
    return this.#out.view();
  }

  /** What is under way is complete. */
  #close(): void {
    if (this.#inline.length > 0) {
      this.#out.byte(INLINE);
      this.#out.number(this.#inline.length);
      this.#out.bytes(this.#inline.view());
      this.#inline.clear();
    }
    if (this.#zeros > 0) {
      this.#out.byte(ZEROS);
      this.#out.number(this.#zeros);
      this.#zeros = 0;
    }
    if (this.#extent !== undefined) {
      const { pack, offset, length, crc32 } = this.#extent;
      this.#out.byte(EXTENT);
      this.#out.number(pack);
      this.#out.number(offset);
      this.#out.number(length);
      this.#out.u32(crc32);
      this.#extent = undefined;
    }
  }
}

const NOTHING = { path: '', size: 0, blocks: 0, indexHash: new Uint8Array(HASH_BYTES) };

class Reader {
  readonly #bytes: Uint8Array;
  readonly #where: string;
  #at: number;

  constructor(bytes: Uint8Array, at: number, where: string) {
    this.#bytes = bytes;
    this.#at = at;
    this.#where = where;
  }

  number(): number {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = this.byte();
      value += (byte & 0x7f) * scale;
      if (value > Number.MAX_SAFE_INTEGER) throw this.broken('a number is too large');
      if (byte < 128) return value;
    }
  }

  u32(): number {
    const [a = 0, b = 0, c = 0, d = 0] = this.bytes(4);
    return (a | (b << 8) | (c << 16) | (d << 24)) >>> 0;
  }

  byte(): number {
    return this.bytes(1)[0] ?? 0;
  }

  bytes(count: number): Uint8Array {
    const found = this.#bytes.subarray(this.#at, this.#at + count);
    if (found.length !== count) throw this.broken('it ends too early');
    this.#at += count;
    return found;
  }

  get position(): number {
    return this.#at;
  }

  broken(why: string): FleetError {
    return new FleetError('IntegrityMismatch', `${this.#where} is no recipe of a shard: ${why}.`);
  }
}

/**
 * Read a recipe whose SHA-256 was found to be right. All its steps are looked at once, so that what it refers to lies
 * within the packs and the lengths add up.
 *
 * @throws FleetError `IntegrityMismatch` when it is none
 */
export function readRecipe(bytes: Uint8Array, where: string): Recipe {
  const end = new Reader(bytes, Math.max(0, bytes.length - 4 - TAIL.length), where);
  const table = end.u32();
  if (!same(end.bytes(TAIL.length), TAIL)) throw end.broken('its end is missing');
  const tail = new Reader(bytes, table, where);
  const count = tail.number();
  if (count > bytes.length) throw tail.broken('it has more packs than bytes');
  const packs: RecipePack[] = [];
  for (let index = 0; index < count; index += 1) {
    const path = new TextDecoder().decode(tail.bytes(tail.number()));
    packs.push({
      path,
      size: tail.number(),
      blocks: tail.number(),
      indexHash: tail.bytes(HASH_BYTES),
      used: tail.number(),
    });
  }
  const blockSize = tail.number();
  const size = tail.number();
  const sha256 = tail.bytes(HASH_BYTES);
  const recipe = { packs, blockSize, size, sha256, steps: () => steps(bytes, table, where) };
  let total = 0;
  for (const step of recipe.steps()) {
    if ('extent' in step) {
      const { pack, offset, length } = step.extent;
      if (offset + length > (packs[pack]?.size ?? 0)) throw tail.broken('it reads beyond a pack');
      total += length;
    } else {
      total += 'zeros' in step ? step.zeros : step.inline.length;
    }
  }
  if (total !== size) throw tail.broken(`its steps give ${total} bytes, not ${size}`);
  return recipe;
}

function* steps(bytes: Uint8Array, table: number, where: string): Generator<RecipeStep> {
  const reader = new Reader(bytes.subarray(0, table), 0, where);
  if (!same(reader.bytes(HEAD.length), HEAD)) throw reader.broken('its head is missing');
  for (;;) {
    const kind = reader.byte();
    if (kind === END) break;
    if (kind === INLINE) yield { inline: reader.bytes(reader.number()) };
    else if (kind === ZEROS) yield { zeros: reader.number() };
    else if (kind === EXTENT) {
      const extent = { pack: reader.number(), offset: reader.number(), length: reader.number(), crc32: reader.u32() };
      yield { extent };
    } else throw reader.broken(`it has a step of kind ${kind}`);
  }
  if (reader.position !== table) throw reader.broken('it has steps after its end');
}

/** Bytes of the largest pack and entries of the largest index; ours have some 32 MiB. */
const MAX_PACK = { bytes: 2 ** 31, blocks: 2 ** 21 } as const;

/**
 * Why a recipe must not refer to a pack, if so: its path has to lie below the data of a backup of the same cluster.
 *
 * @param backups which backups; default any
 */
export function packProblem(pack: RecipePack, backups?: ReadonlySet<string>): string | undefined {
  const { path, size, blocks } = pack;
  if (path === '') return size === 0 ? undefined : 'has no path';
  const backup = backupOfPack(pack);
  if (!isBackupId(backup) || !isKeyBelow(path, `${backup}/data/`)) return 'lies outside of the data of a backup';
  if (backups?.has(backup) === false) return `is of backup ${backup}, which the record does not name`;
  return size > MAX_PACK.bytes || blocks > MAX_PACK.blocks ? 'is larger than any pack' : undefined;
}

/** The backup that a pack belongs to. */
export function backupOfPack({ path }: Pick<RecipePack, 'path'>): string {
  return path.split('/')[0] ?? '';
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

function ascii(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
