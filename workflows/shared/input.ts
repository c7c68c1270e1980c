/** Inputs typed by hand, checked before anything happens. */
import { patched } from '@temporalio/workflow';
import { toWorkflowFailure } from './failures.ts';

/**
 * A run whose input an earlier version let in goes on with it: the guards may have become stricter since, and on replay
 * they must not fail what is half done. Raise this name whenever they do.
 */
const GUARDS = 'input-guards-2026-11-28';

/** @throws ApplicationFailure `InvalidInput` naming every bad field */
export function checked<T>(input: unknown, parse: (input: unknown) => T): T {
  try {
    return parse(input);
  } catch (error) {
    // False exactly on replay of a run that these guards have not seen when it began.
    if (!patched(GUARDS)) return input as T;
    throw toWorkflowFailure(error);
  }
}
