/** Guards for JSON that somebody else may have written: types, bounds and names, in one pass over the value. */
import { FleetError } from './errors.ts';
import { isReservedName } from './input/names.ts';

/** Most levels of a value that is passed on as it is. */
const MAX_DEPTH = 32;
/** Most values in one that is passed on as it is. */
const MAX_NODES = 200_000;

/** Reads one JSON object. Every complaint is an `IntegrityMismatch` that names the object and the place in it. */
export class JsonGuard {
  readonly #where: string;

  /** @param where the key of the object in the bucket */
  constructor(where: string) {
    this.#where = where;
  }

  /** @throws FleetError `IntegrityMismatch` */
  bad(path: string, problem: string): never {
    throw new FleetError('IntegrityMismatch', `${this.#where} is not believed: ${path} ${problem}.`);
  }

  object(value: unknown, path: string): Readonly<Record<string, unknown>> {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) this.bad(path, 'is no object');
    return value as Readonly<Record<string, unknown>>;
  }

  list(value: unknown, path: string, max: number): readonly unknown[] {
    if (!Array.isArray(value)) this.bad(path, 'is no list');
    if (value.length > max) this.bad(path, `has more than ${max} entries`);
    return value as readonly unknown[];
  }

  /** @param max in UTF-16 units */
  text(value: unknown, path: string, max: number, pattern?: RegExp): string {
    if (typeof value !== 'string') this.bad(path, 'is no text');
    if (value.length === 0 || value.length > max) this.bad(path, `has not 1 to ${max} characters`);
    if (pattern?.test(value) === false) this.bad(path, 'is not of the form that it must have');
    return value;
  }

  integer(value: unknown, path: string, min: number, max: number): number {
    if (!Number.isSafeInteger(value) || (value as number) < min || (value as number) > max) {
      this.bad(path, `is no whole number from ${min} to ${max}`);
    }
    return value as number;
  }

  oneOf<T>(value: unknown, path: string, known: readonly T[]): T {
    if (!known.includes(value as T)) this.bad(path, `is none of ${known.join(', ')}`);
    return value as T;
  }

  same(value: unknown, path: string, wanted: string): void {
    if (value !== wanted) this.bad(path, `is not "${wanted}"`);
  }

  /** ISO 8601, or what Qdrant writes. */
  time(value: unknown, path: string): string {
    const text = this.text(value, path, 64);
    if (Number.isNaN(Date.parse(text))) this.bad(path, 'is no time');
    return text;
  }

  sha256(value: unknown, path: string): string {
    return this.text(value, path, 64, /^[0-9a-f]{64}$/);
  }

  /** A part of a key: an attempt or a peer. */
  segment(value: unknown, path: string): string {
    const text = this.text(value, path, 255);
    if (!isSegment(text) || text.includes('/')) this.bad(path, 'cannot be part of a key');
    return text;
  }

  /** A key below a folder that ends in `/`. */
  keyBelow(value: unknown, path: string, folder: string): string {
    const key = this.text(value, path, 1024);
    if (!isKeyBelow(key, folder)) this.bad(path, `is no key below ${folder}`);
    return key;
  }

  /**
   * An object that is passed on as it is: bounded in depth and size, and without a key that sets a prototype. Names that
   * users of Qdrant give (a payload index, a vector, metadata) stand in it as keys, and may be `constructor`: whoever
   * looks one up asks for an own property.
   *
   * @param most values in it
   */
  verbatim(value: unknown, path: string, most = MAX_NODES): Readonly<Record<string, unknown>> {
    return this.#bounded(value, path, most, (key) => key === '__proto__');
  }

  /** The same for an object whose keys are the fleet's own names: none of them reaches a prototype. */
  own(value: unknown, path: string, most = MAX_NODES): Readonly<Record<string, unknown>> {
    return this.#bounded(value, path, most, isReservedName);
  }

  #bounded(
    value: unknown,
    path: string,
    most: number,
    refused: (key: string) => boolean,
  ): Readonly<Record<string, unknown>> {
    const whole = this.object(value, path);
    let nodes = 0;
    const visit = (inner: unknown, depth: number): void => {
      nodes += 1;
      if (nodes > most) this.bad(path, `has more than ${most} values`);
      if (depth > MAX_DEPTH) this.bad(path, `is more than ${MAX_DEPTH} levels deep`);
      if (typeof inner !== 'object' || inner === null) return;
      for (const [key, next] of Object.entries(inner)) {
        if (refused(key)) this.bad(path, `has a key "${key}"`);
        visit(next, depth + 1);
      }
    };
    visit(whole, 0);
    return whole;
  }
}

/**
 * Whether an S3 key lies below a folder. Keys with empty segments, `.`, `..`, control characters or backslashes do not:
 * a store or a proxy may read them as another key.
 *
 * @param folder ends in `/`
 */
export function isKeyBelow(key: string, folder: string): boolean {
  if (key.length > 1024 || key.length <= folder.length || !key.startsWith(folder)) return false;
  return key.slice(folder.length).split('/').every(isSegment);
}

function isSegment(segment: string): boolean {
  // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
  return segment !== '' && segment !== '.' && segment !== '..' && !/[\u0000-\u001F\u007F\\]/.test(segment);
}
