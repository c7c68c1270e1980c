/** Names that come from outside and are used as keys. */

/** Keys that lead to a prototype instead of a property where code follows a path of names. */
const RESERVED = ['__proto__', 'prototype', 'constructor'] as const;

const RESERVED_NAMES: ReadonlySet<string> = new Set(RESERVED);

/** Whether `name` must not be a key. */
export function isReservedName(name: string): boolean {
  return RESERVED_NAMES.has(name);
}

/** The start of a pattern that refuses the reserved names, for maps whose keys are free otherwise. */
export const NOT_RESERVED = `(?!(?:${RESERVED.join('|')})$)`;

/** A map whose keys come from outside. It has no prototype, so that no key means anything by itself. */
export function foreignMap<V>(entries: Iterable<readonly [string, V]> = []): Record<string, V> {
  const map = Object.create(null) as Record<string, V>;
  for (const [key, value] of entries) map[key] = value;
  return map;
}

/** The path of a member: `labels.disk`, and `labels["example.com/disk"]` where a name is more than one word. */
export function memberPath(path: string, key: string): string {
  if (!/^[A-Za-z0-9_-]+$/.test(key)) return `${path}[${JSON.stringify(key)}]`;
  return path === '' ? key : `${path}.${key}`;
}
