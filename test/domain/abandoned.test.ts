/** What is said of a cluster whose phase nobody changes any more. */
import { describe, expect, test } from 'vitest';
import { doneWithoutPhase } from '../../src/domain/abandoned.ts';

describe('a phase that an operation left', () => {
  const past = (kind: string, state: string) => ({ id: kind, kind, state, error_code: null });

  test('after the last change was done, it is only out of date: a finished cluster is not called failed', () => {
    expect(doneWithoutPhase([past('provision', 'done')])).toBe(true);
    expect(doneWithoutPhase([past('backup', 'failed'), past('restore', 'done'), past('update', 'failed')])).toBe(true);
  });

  test('after anything else it is not', () => {
    expect(doneWithoutPhase([past('provision', 'failed')])).toBe(false);
    expect(doneWithoutPhase([past('backup', 'done'), past('update', 'cancelled'), past('provision', 'done')])).toBe(
      false,
    );
    expect(doneWithoutPhase([])).toBe(false);
  });
});
