/** What holds for any JSON that comes in, whatever it is for. Linear in its size, and free of recursion. */
import type { Problems } from './problems.ts';
import { isReservedName, memberPath } from './names.ts';
import { STRUCTURE } from './limits.ts';

/**
 * Note what no input may have:
 *
 * 1. A key that leads to a prototype.
 * 2. More depth or more values than any input needs.
 * 3. Text that a database or a file system cannot hold: NUL, or half of a surrogate pair.
 *
 * Objects and lists only. Returns whether all is well.
 */
export function checkStructure(input: unknown, problems: Problems): boolean {
  const before = problems.count;
  const waiting: [value: unknown, path: string, depth: number][] = [[input, '', 1]];
  let values = 0;
  const visit = (value: unknown, path: string, depth: number): void => {
    if (typeof value === 'string') checkText(value, path, problems);
    else if (typeof value === 'object' && value !== null) waiting.push([value, path, depth]);
  };
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const [value, path, depth] = next;
    if (typeof value !== 'object' || value === null) continue;
    if (depth > STRUCTURE.depth) {
      problems.add(path, `is nested more than ${STRUCTURE.depth} levels deep`);
      continue;
    }
    const entries = Object.entries(value);
    values += entries.length;
    if (values > STRUCTURE.values) {
      problems.add('', `holds more than ${STRUCTURE.values} values`);
      break;
    }
    for (const [key, item] of entries) {
      if (Array.isArray(value)) {
        visit(item, `${path}[${key}]`, depth + 1);
        continue;
      }
      const at = memberPath(path, key);
      if (isReservedName(key)) problems.add(at, 'must not be used as a name');
      else if (!isStorable(key)) problems.add(at, UNSTORABLE);
      else visit(item, at, depth + 1);
    }
  }
  return problems.count === before;
}

function checkText(text: string, path: string, problems: Problems): void {
  if (!isStorable(text)) problems.add(path, UNSTORABLE);
}

const UNSTORABLE = 'must not contain NUL or half of a surrogate pair';

/** Whether PostgreSQL, Kubernetes and a store can hold the text. */
function isStorable(text: string): boolean {
  return !text.includes('\0') && text.isWellFormed();
}
