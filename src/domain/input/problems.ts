/** The bad fields of an input, as many as an answer has room for. */
import type { FieldError } from '../errors.ts';
import { ANSWERS } from './limits.ts';
import { shown } from './echo.ts';

export class Problems {
  readonly fields: FieldError[] = [];
  /** All that were found, also those that are not listed. */
  count = 0;

  add(field: string, detail: string): void {
    this.count += 1;
    if (this.fields.length < ANSWERS.errors) {
      this.fields.push({ field: shown(field, ANSWERS.pathLength), detail });
    }
  }

  /** Take over what another one found. */
  merge(other: { readonly fields: readonly FieldError[]; readonly count: number }): void {
    for (const { field, detail } of other.fields) this.add(field, detail);
    this.count += other.count - other.fields.length;
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
