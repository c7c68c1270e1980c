/**
 * Imported first by the worker and the API: whatever code follows a path of foreign names to a prototype by mistake, the
 * prototype cannot be changed for everybody else in the process.
 *
 * What is frozen: the prototypes (and constructors) of plain objects, functions, lists, texts, numbers, booleans, maps,
 * sets, promises, dates, patterns and errors, and `Object.prototype.__proto__` is gone.
 *
 * Libraries that we use give objects of their own a `constructor`, `toString`, `name` or `hasOwnProperty` by assignment
 * (`exports.hasOwnProperty = …` in @temporalio/common), which a frozen prototype forbids. Hence the properties of plain
 * objects, functions and errors become accessors whose setter puts the value on the object itself, as if nothing were
 * frozen. Those of lists, maps and promises stay plain, since engines have short cuts for them: assigning to them on an
 * object of one's own throws in strict code, and nothing that we use does.
 *
 * Not frozen: `globalThis` and what hangs from it by name (undici puts its dispatcher there, Temporal its runtime), and
 * the intrinsics of the contexts in which workflows run, which Temporal's SDK keeps apart from these.
 */

/** All properties of these may be overridden; of the others, only what every object has. */
const OPEN: readonly object[] = [Object, Function, Error, TypeError, RangeError, SyntaxError, ReferenceError];
const COMMON = ['constructor', 'toString', 'toLocaleString', 'valueOf'];

const INTRINSICS: readonly object[] = [
  Object,
  Function,
  Array,
  String,
  Number,
  Boolean,
  Map,
  Set,
  Promise,
  Date,
  RegExp,
  Error,
  TypeError,
  RangeError,
  SyntaxError,
  ReferenceError,
  AggregateError,
];

function prototypeOf(intrinsic: object): object {
  return (intrinsic as { prototype: object }).prototype;
}

/** Let an object have `key` by assignment although its prototype is frozen. */
function allowOverride(prototype: object, key: PropertyKey): void {
  const found = Object.getOwnPropertyDescriptor(prototype, key);
  if (found === undefined || !('value' in found) || !found.configurable) return;
  const value: unknown = found.value;
  Object.defineProperty(prototype, key, {
    configurable: false,
    enumerable: found.enumerable ?? false,
    get: () => value,
    set(this: object, own: unknown) {
      if (this === prototype) throw new TypeError(`${String(key)} of a frozen prototype cannot be changed`);
      Object.defineProperty(this, key, { value: own, writable: true, enumerable: true, configurable: true });
    },
  });
}

function freezeIntrinsics(): void {
  // oxlint-disable-next-line typescript/no-dynamic-delete -- what `--disable-proto=delete` does
  delete (Object.prototype as unknown as Record<string, unknown>)['__proto__'];
  for (const intrinsic of INTRINSICS) {
    const prototype = prototypeOf(intrinsic);
    const keys = OPEN.includes(intrinsic) ? Object.getOwnPropertyNames(prototype) : COMMON;
    for (const key of keys) allowOverride(prototype, key);
    Object.freeze(prototype);
  }
}

freezeIntrinsics();
