/** Backups that share blocks, checked over every interleaving; and the checker, against protocols that are wrong. */
import { describe, expect, test } from 'vitest';
import { BROKEN_SHARING, CASTS, checkSharing, SHARING } from '../support/incremental-model.ts';

describe('shared blocks', () => {
  test.each(Object.entries(CASTS))('nothing that is listed or being restored misses data: %s', (name, cast) => {
    const { states, violation } = checkSharing(SHARING, cast);
    expect(violation).toBeUndefined();
    console.log(`shared blocks, ${name}: ${states} states, no violation`);
    expect(states).toBeGreaterThan(5000);
  });

  test.each(Object.entries(BROKEN_SHARING))('refuted: %s', (_name, change) => {
    const verdicts = Object.values(CASTS).map((cast) => checkSharing({ ...SHARING, ...change }, cast));
    const violation = verdicts.find((verdict) => verdict.violation !== undefined)?.violation;
    expect(violation?.at(0)).toBe('start');
    expect(violation?.length).toBeGreaterThan(5);
  });
});
