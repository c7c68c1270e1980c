/** The commit protocol, checked over every interleaving; and the checker, checked against protocols that are wrong. */
import { describe, expect, test } from 'vitest';
import { BACKUP_STATES } from '../../src/domain/backup.ts';
import { allowedChanges, BROKEN_VARIANTS, check, PROTOCOL, recordChanges } from '../support/commit-model.ts';

describe('commit protocol', () => {
  test('no interleaving lists a backup without its data or takes the data from under a restore', () => {
    const { states, violation } = check(PROTOCOL);
    expect(violation).toBeUndefined();
    console.log(`commit protocol: ${states} states, no violation`);
    expect(states).toBeGreaterThan(10_000);
  });

  test.each(Object.entries(BROKEN_VARIANTS))('refuted: %s', (_name, change) => {
    const { violation } = check({ ...PROTOCOL, ...change });
    expect(violation?.at(0)).toBe('start');
    expect(violation?.length).toBeGreaterThan(3);
  });

  test('the model changes the record exactly as the code allows it', () => {
    expect(recordChanges(PROTOCOL)).toEqual(allowedChanges(BACKUP_STATES));
  });
});
