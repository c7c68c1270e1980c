/** Inputs typed by hand, checked before anything happens. */
import { toWorkflowFailure } from './failures.ts';

/** @throws ApplicationFailure `InvalidInput` naming every bad field */
export function checked<T>(input: unknown, parse: (input: unknown) => T): T {
  try {
    return parse(input);
  } catch (error) {
    throw toWorkflowFailure(error);
  }
}
