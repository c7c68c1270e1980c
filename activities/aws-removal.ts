/** Removing what may refuse to go: the rest goes all the same, and what is left is told by kind and id. */
import { isInUse, isNotFound } from '../src/clients/aws/errors.ts';
import { FleetError, isRetryable, messageOf } from '../src/domain/errors.ts';
import type { Ledger } from './aws-ledger.ts';

export class Removal {
  /** What is in the way, in words. */
  readonly blockers: string[] = [];
  /** Calls that AWS will refuse again. */
  readonly refusals: FleetError[] = [];

  /** Send a call that removes something. Only what is worth repeating at once is thrown. */
  async attempt(what: string, send: () => Promise<unknown>): Promise<void> {
    try {
      await send();
    } catch (error) {
      if (isNotFound(error)) return;
      if (isInUse(error)) this.blockers.push(`${what} is still in use (${messageOf(error)}).`);
      else this.refuse(error, `${what} could not be removed. `);
    }
  }

  /** Keep a refusal for the end; throw anything else. */
  refuse(error: unknown, before = ''): void {
    if (!FleetError.is(error) || isRetryable(error.code)) throw error;
    this.refusals.push(new FleetError(error.code, before + error.message, { cause: error }));
  }
}

/**
 * Run a removal to its end, whatever AWS refuses on the way.
 *
 * @param kinds what the ledger knows by when AWS may not even be asked what is left
 * @param run does it, and returns `kind id` of what is left
 * @throws FleetError with the code of the first refusal, naming what is left
 */
export async function removing(
  ledger: Ledger,
  kinds: readonly string[],
  onlyOwn: boolean,
  run: (removal: Removal) => Promise<readonly string[]>,
): Promise<void> {
  const removal = new Removal();
  let left: readonly string[] | undefined;
  try {
    left = await run(removal);
  } catch (error) {
    removal.refuse(error);
  }
  const [refusal] = removal.refusals;
  if (refusal === undefined || left?.length === 0) return;
  const known = left ?? (await ledger.recorded(kinds, onlyOwn));
  const which = left === undefined ? 'What is left of these could not be asked' : 'Not removed';
  const list = known.length === 0 ? 'none is known' : known.join(', ');
  throw new FleetError(refusal.code, `${refusal.message} ${which}: ${list}.`, { cause: refusal });
}
