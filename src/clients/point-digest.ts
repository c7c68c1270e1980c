/**
 * The digest of one point as the REST API returns it, byte for byte that of src/verify/point_digest.py, which takes it
 * from the engine. The form is described there.
 */
import { createHash, type Hash } from 'node:crypto';

/** Hex SHA-256 over the canonical form of a point's payload and all its vectors. */
export function pointDigest(payload: unknown, vector: unknown): string {
  const hash = createHash('sha256');
  writeValue(hash, payload ?? {});
  writeVectors(hash, vector);
  return hash.digest('hex');
}

function writeValue(hash: Hash, value: unknown): void {
  if (value === null || value === undefined) hash.update('n');
  else if (typeof value === 'boolean') hash.update(value ? 't' : 'f');
  else if (typeof value === 'number') {
    const bytes = Buffer.alloc(8);
    // The sum makes a 0 of a -0.
    bytes.writeDoubleBE(value + 0);
    hash.update('d').update(bytes);
  } else if (typeof value === 'string') writeText(hash, value);
  else if (Array.isArray(value)) {
    hash.update('l').update(length(value.length));
    for (const item of value) writeValue(hash, item);
  } else writeObject(hash, 'o', value as Record<string, unknown>, writeValue);
}

function writeObject(
  hash: Hash,
  letter: string,
  object: Readonly<Record<string, unknown>>,
  write: (hash: Hash, value: unknown) => void,
): void {
  const entries = Object.entries(object).map(([key, value]) => ({ key, raw: Buffer.from(key), value }));
  hash.update(letter).update(length(entries.length));
  for (const { key, value } of entries.sort((a, b) => Buffer.compare(a.raw, b.raw))) {
    writeText(hash, key);
    write(hash, value);
  }
}

function writeText(hash: Hash, text: string): void {
  const raw = Buffer.from(text);
  hash.update('s').update(length(raw.length)).update(raw);
}

/** One without a name is called ''. */
function writeVectors(hash: Hash, vector: unknown): void {
  const none = vector === undefined || vector === null;
  const named = Array.isArray(vector) ? { '': vector as unknown } : none ? {} : (vector as Record<string, unknown>);
  writeObject(hash, 'v', named, writeVector);
}

function writeVector(hash: Hash, vector: unknown): void {
  if (!Array.isArray(vector)) return writeSparse(hash, vector as SparseVector);
  if (!Array.isArray(vector[0])) return writeDense(hash, vector as number[]);
  hash.update('m').update(length(vector.length));
  for (const row of vector) writeDense(hash, row as number[]);
}

interface SparseVector {
  readonly indices: readonly number[];
  readonly values: readonly number[];
}

function writeSparse(hash: Hash, { indices, values }: SparseVector): void {
  const entries = indices.map((index, at) => [index, values[at] ?? 0] as const).sort(([a], [b]) => a - b);
  hash.update('p').update(length(entries.length));
  const bytes = Buffer.alloc(8);
  for (const [index, value] of entries) {
    bytes.writeUInt32BE(index);
    bytes.writeFloatBE(value + 0, 4);
    hash.update(Buffer.from(bytes));
  }
}

function writeDense(hash: Hash, vector: readonly number[]): void {
  const bytes = Buffer.alloc(4 * vector.length);
  for (const [index, value] of vector.entries()) bytes.writeFloatBE(value + 0, 4 * index);
  hash.update('x').update(length(vector.length)).update(bytes);
}

function length(count: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(count);
  return bytes;
}
