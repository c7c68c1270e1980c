/** The bad fields of an input, as many as an answer has room for. */
import type { FieldError } from '../errors.ts';
import { ANSWERS } from './limits.ts';
import { shown } from './echo.ts';

/**
 * What is wrong with a field: by itself, which the OpenAPI document says as well, or only in how it goes together with
 * others or with the world (`conflict`), which no schema can say.
 */
export type Problem = string | { readonly conflict: string };

export class Problems {
  readonly fields: FieldError[] = [];
  /** All that were found, also those that are not listed. */
  count = 0;
  /** Those of them that no schema can say. */
  conflicts = 0;

  add(field: string, problem: Problem): void {
    const detail = typeof problem === 'string' ? problem : problem.conflict;
    this.count += 1;
    if (typeof problem !== 'string') this.conflicts += 1;
    if (this.fields.length < ANSWERS.errors) {
      this.fields.push({ field: shown(field, ANSWERS.pathLength), detail });
    }
  }

  /** Take over what another one found. */
  merge({ fields, more, wellFormed }: { fields: readonly FieldError[]; more: number; wellFormed: boolean }): void {
    for (const { field, detail } of fields) this.add(field, detail);
    this.count += more;
    if (wellFormed) this.conflicts += fields.length + more;
  }

  /** Every field by itself is as it should be. */
  get wellFormed(): boolean {
    return this.conflicts === this.count;
  }
}

/** `places` as one line of bounded length, with how many more there are. */
export function joined(places: readonly string[], count: number): string {
  let text = '';
  let listed = 0;
  for (const place of places) {
    const next = listed === 0 ? place : `${text}; ${place}`;
    if (listed > 0 && next.length > ANSWERS.messageLength) break;
    text = next;
    listed += 1;
  }
  return count > listed ? `${text}; and ${count - listed} more` : text;
}
