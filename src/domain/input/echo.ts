/** What an answer repeats of an input. */
import { ANSWERS } from './limits.ts';

/** A text as it is repeated to the caller: cut, and without characters that could not be shown or stored. */
export function shown(text: string, maxLength: number): string {
  const cut = text.length > maxLength ? `${text.slice(0, maxLength)}…` : text;
  // oxlint-disable-next-line no-control-regex -- control characters take six bytes each in JSON
  return cut.toWellFormed().replaceAll(/[\u0000-\u001F\u007F-\u009F]/g, '\uFFFD');
}

/** The type of a value, and the beginning of it. */
export function typeOf(value: unknown): string {
  if (typeof value === 'string') return `string "${shown(value, ANSWERS.echoLength)}"`;
  if (typeof value === 'number' || typeof value === 'boolean') return `${typeof value} ${value}`;
  if (value === null) return 'null; leave the field out instead';
  return Array.isArray(value) ? 'a list' : 'an object';
}
