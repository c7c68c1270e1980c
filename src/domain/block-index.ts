/** Blocks that are in the bucket already, by their SHA-256. A hash table in two typed arrays: 44 bytes a block. */

export const HASH_BYTES = 32;

export interface BlockPlace {
  /** Number of the pack, as its owner counts them. */
  readonly pack: number;
  readonly offset: number;
}

export class BlockIndex {
  readonly #capacity: number;
  #size = 0;
  /** Hash, then the pack and the offset, both 32 bits. */
  #hashes: Uint8Array;
  #places: Uint32Array;
  /** Number of an entry plus one; 0 is free. Never more than half full. */
  #slots: Uint32Array;

  /** @param capacity entries; what is added beyond is forgotten, so that memory is bounded */
  constructor(capacity: number) {
    this.#capacity = capacity;
    const first = Math.min(capacity, 1024);
    this.#hashes = new Uint8Array(first * HASH_BYTES);
    this.#places = new Uint32Array(first * 2);
    this.#slots = new Uint32Array(slotsFor(first));
  }

  get size(): number {
    return this.#size;
  }

  /** Remember a block. The first place wins; @returns false when it was known or there is no room. */
  add(hash: Uint8Array, place: BlockPlace): boolean {
    const slot = this.#slot(hash);
    if (this.#slots[slot] !== 0 || this.#size === this.#capacity) return false;
    if (this.#size * HASH_BYTES === this.#hashes.length) {
      this.#grow();
      return this.add(hash, place);
    }
    this.#hashes.set(hash, this.#size * HASH_BYTES);
    this.#places[this.#size * 2] = place.pack;
    this.#places[this.#size * 2 + 1] = place.offset;
    this.#size += 1;
    this.#slots[slot] = this.#size;
    return true;
  }

  find(hash: Uint8Array): BlockPlace | undefined {
    const entry = this.#slots[this.#slot(hash)] ?? 0;
    if (entry === 0) return undefined;
    return { pack: this.#places[(entry - 1) * 2] ?? 0, offset: this.#places[(entry - 1) * 2 + 1] ?? 0 };
  }

  /** Where the hash is, or where it would go. */
  #slot(hash: Uint8Array): number {
    const mask = this.#slots.length - 1;
    let slot = (((hash[0] ?? 0) << 24) | ((hash[1] ?? 0) << 16) | ((hash[2] ?? 0) << 8) | (hash[3] ?? 0)) & mask;
    for (;;) {
      const entry = this.#slots[slot] ?? 0;
      if (entry === 0) return slot;
      const at = (entry - 1) * HASH_BYTES;
      if (Buffer.compare(this.#hashes.subarray(at, at + HASH_BYTES), hash) === 0) return slot;
      slot = (slot + 1) & mask;
    }
  }

  #grow(): void {
    const room = Math.min(this.#capacity, (this.#hashes.length / HASH_BYTES) * 2);
    const hashes = new Uint8Array(room * HASH_BYTES);
    hashes.set(this.#hashes);
    const places = new Uint32Array(room * 2);
    places.set(this.#places);
    this.#hashes = hashes;
    this.#places = places;
    this.#slots = new Uint32Array(slotsFor(room));
    for (let entry = 0; entry < this.#size; entry += 1) {
      const at = entry * HASH_BYTES;
      this.#slots[this.#slot(hashes.subarray(at, at + HASH_BYTES))] = entry + 1;
    }
  }
}

/** A power of two, at least twice the entries. */
function slotsFor(entries: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(entries, 1) * 2));
}
