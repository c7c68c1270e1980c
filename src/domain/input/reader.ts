/**
 * Reads JSON that people type, field by field, and names every bad field at once. Hand-written and free of libraries: a
 * schema library would add a megabyte to the workflow bundle. All checks are linear in the size of the input.
 */
import { FleetError, type FieldError } from '../errors.ts';
import { formatProblem, type Format } from './formats.ts';
import type { Range } from './limits.ts';
import { typeOf } from './echo.ts';
import { foreignMap, isReservedName, memberPath } from './names.ts';
import { joined, Problems, type Problem } from './problems.ts';
import { checkStructure } from './structure.ts';

/**
 * Check `input` and return what `read` makes of it.
 *
 * @throws FleetError `InvalidInput` that lists the bad fields by their JSON path, unknown fields included
 */
export function readInput<T>(input: unknown, read: (reader: Reader) => T): T {
  const problems = new Problems();
  // What is no input at all is not looked at any closer.
  if (!checkStructure(input, problems)) throw invalidInput(problems);
  const reader = new Reader(input, '', problems);
  const value = read(reader);
  reader.refuseUnknown();
  if (problems.count > 0) throw invalidInput(problems);
  return value;
}

/** `InvalidInput` over bad fields. What is refused after the input was read was well-formed. */
export function invalidInput({
  fields,
  count = fields.length,
  wellFormed = true,
}: {
  readonly fields: readonly FieldError[];
  readonly count?: number;
  readonly wellFormed?: boolean;
}): FleetError {
  const places = fields.map(({ field, detail }) => `${field === '' ? 'input' : field}: ${detail}`);
  return new FleetError('InvalidInput', joined(places, count), { fields, more: count - fields.length, wellFormed });
}

export type Check = (text: string) => Problem | undefined;
type Optional<K extends string, V> = { [key in K]?: V };

/** How a text is checked: by its format, and by what a format cannot say. */
type TextRule = Format | Check;

/** Reads one JSON object; remembers which fields were asked for, so that the others can be refused. */
export class Reader {
  readonly #object: Readonly<Record<string, unknown>>;
  readonly #path: string;
  readonly #problems: Problems;
  readonly #asked = new Set<string>();

  constructor(input: unknown, path: string, problems: Problems) {
    this.#path = path;
    this.#problems = problems;
    if (isObject(input)) {
      this.#object = input;
    } else {
      this.#object = {};
      problems.add(path, 'must be one JSON object');
    }
  }

  bad(field: string, problem: Problem): void {
    this.#problems.add(this.#at(field), problem);
  }

  /** The field is right by itself, and wrong beside others. */
  conflict(field: string, detail: string): void {
    this.bad(field, { conflict: detail });
  }

  required(field: string, rule: TextRule): string {
    const value = this.text(field, rule)[field];
    if (value === undefined && this.#value(field) === undefined) this.bad(field, 'is needed');
    return value ?? '';
  }

  text<K extends string>(field: K, rule: TextRule): Optional<K, string> {
    return this.#optional(field, (value) => this.#text(field, value, rule));
  }

  integer<K extends string>(field: K, range: Range): Optional<K, number> {
    return this.#optional(field, (value) => {
      if (!Number.isInteger(value)) return this.bad(field, `must be a whole number, is ${typeOf(value)}`);
      return this.#inRange(field, value as number, range);
    });
  }

  number<K extends string>(field: K, range: Range): Optional<K, number> {
    return this.#optional(field, (value) => {
      if (typeof value !== 'number') return this.bad(field, `must be a number, is ${typeOf(value)}`);
      return this.#inRange(field, value, range);
    });
  }

  boolean<K extends string>(field: K): Optional<K, boolean> {
    return this.#optional(field, (value) =>
      typeof value === 'boolean' ? value : this.bad(field, `must be true or false, is ${typeOf(value)}`),
    );
  }

  oneOf<K extends string, V extends string>(field: K, known: readonly V[]): Optional<K, V> {
    return this.#optional(field, (value) => {
      const found = known.find((item) => item === value);
      return found ?? this.bad(field, `must be one of ${known.join(', ')}`);
    });
  }

  requiredOneOf<V extends string>(field: string, known: readonly [V, ...V[]]): V {
    const value = this.oneOf(field, known)[field];
    if (value === undefined && this.#value(field) === undefined) this.bad(field, 'is needed');
    return value ?? known[0];
  }

  object<K extends string, V>(field: K, read: (reader: Reader) => V): Optional<K, V> {
    return this.#optional(field, (value) => this.#nested(value, field, read));
  }

  list<K extends string, V>(field: K, { max }: { max: number }, read: (reader: Reader) => V): Optional<K, V[]> {
    return this.#optional(field, (value) => {
      if (!Array.isArray(value)) return this.bad(field, `must be a list, is ${typeOf(value)}`);
      if (value.length > max) return this.bad(field, `must have at most ${max} items, has ${value.length}`);
      return value.map((item, index) => this.#nested(item, `${field}[${index}]`, read));
    });
  }

  strings<K extends string>(
    field: K,
    { min, max, each }: { min: number; max: number; each: TextRule },
  ): Optional<K, string[]> {
    return this.#optional(field, (value) => {
      if (!Array.isArray(value)) return this.bad(field, 'must be a list of strings');
      if (value.length < min) return this.bad(field, `must name at least ${min}; leave the field out for the default`);
      if (value.length > max) return this.bad(field, `must name at most ${max}, names ${value.length}`);
      const texts = value.map((item: unknown, index) => this.#text(`${field}[${index}]`, item, each) ?? '');
      if (new Set(value).size < value.length) return this.bad(field, 'must not name anything twice');
      return texts;
    });
  }

  /** A map of texts to texts. It has no prototype. */
  map<K extends string>(
    field: K,
    { max, key, value: rule }: { max: number; key: TextRule; value: TextRule },
  ): Optional<K, Record<string, string>> {
    return this.entries(field, max, (name, value, at) => {
      const problem = problemOf(key, name);
      return problem === undefined ? this.#text(at, value, rule) : this.bad(at, problem);
    });
  }

  /** A map whose values `read` makes or refuses. It has no prototype. */
  entries<K extends string, V>(
    field: K,
    max: number,
    read: (name: string, value: unknown, at: string) => V | void,
  ): Optional<K, Record<string, V>> {
    return this.#optional(field, (value) => {
      if (!isObject(value)) return this.bad(field, `must be an object of values by name, is ${typeOf(value)}`);
      const entries = Object.entries(value);
      if (entries.length > max) return this.bad(field, `must have at most ${max} entries, has ${entries.length}`);
      const map = foreignMap<V>();
      for (const [name, item] of entries) {
        const at = memberPath(field, name);
        const result = isReservedName(name) ? this.bad(at, RESERVED) : read(name, item, at);
        if (result !== undefined) map[name] = result;
      }
      return map;
    });
  }

  refuseUnknown(): void {
    for (const field of Object.keys(this.#object)) {
      if (!this.#asked.has(field)) {
        this.#problems.add(memberPath(this.#path, field), `is not known here; known: ${[...this.#asked].join(', ')}`);
      }
    }
  }

  #text(field: string, value: unknown, rule: TextRule): string | void {
    if (typeof value !== 'string') return this.bad(field, `must be a string, is ${typeOf(value)}`);
    const problem = problemOf(rule, value);
    return problem === undefined ? value : this.bad(field, problem);
  }

  /** `null` is refused like any other wrong type: what is not to be said is left out. */
  #optional<K extends string, V>(field: K, read: (value: unknown) => V | void): Optional<K, V> {
    this.#asked.add(field);
    const value = this.#value(field);
    if (value === undefined) return {};
    const result = read(value);
    return result === undefined ? {} : ({ [field]: result } as Optional<K, V>);
  }

  #value(field: string): unknown {
    return Object.hasOwn(this.#object, field) ? this.#object[field] : undefined;
  }

  #inRange(field: string, value: number, { min, max }: Range): number | void {
    return value >= min && value <= max ? value : this.bad(field, `must be from ${min} to ${max}, is ${value}`);
  }

  #nested<V>(value: unknown, field: string, read: (reader: Reader) => V): V {
    const inner = new Reader(value, this.#at(field), this.#problems);
    const result = read(inner);
    inner.refuseUnknown();
    return result;
  }

  #at(field: string): string {
    return this.#path === '' ? field : `${this.#path}.${field}`;
  }
}

const RESERVED = 'must not be used as a name';

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function problemOf(rule: TextRule, text: string): Problem | undefined {
  return typeof rule === 'function' ? rule(text) : formatProblem(rule, text);
}
