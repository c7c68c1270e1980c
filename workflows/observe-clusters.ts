import { continueAsNew, log, setCurrentDetails } from '@temporalio/workflow';
import { parseObserveInput } from '../src/domain/input.ts';
import { looking } from './shared/activity-proxies.ts';
import { isFailure, reasonOf } from './shared/failures.ts';
import { checked } from './shared/input.ts';

/** Pages that one run looks at; what is left is for the run that it continues as. */
const PAGES = 100;
/** Pages that are looked at at a time, by as many activities. */
const LANES = 4;

interface Totals {
  /** Clusters that were looked at. */
  readonly looked: number;
  /** Clusters whose phase is another one than before. */
  readonly changed: number;
  /** Clusters that nobody could see. */
  readonly unseen: number;
  /** Pages that nobody could look at. */
  readonly failed: number;
  /** Operations that had ended without saying so. */
  readonly ended: number;
}

/**
 * Look at all clusters once and record how they are: phase, conditions, when that was. Clusters that an operation changes
 * are left to it. Operations whose workflow was ended from outside are ended in the catalogue. A schedule of the worker's
 * starts this every `FLEET_OBSERVE_SECONDS`.
 *
 * Input: `{}`, or `{"tenant":"acme"}` for the clusters of one tenant.
 */
export async function ObserveClusters(input: unknown): Promise<Totals> {
  const { tenant, after } = checked(input, parseObserveInput);
  const scope = tenant === undefined ? {} : { tenant };
  const ended = after === undefined ? await endLost() : 0;
  const { pages, next } = await looking.listClustersToObserve({
    ...scope,
    limit: PAGES,
    ...(after !== undefined && { after }),
  });
  const seen = { looked: 0, changed: 0, unseen: 0, failed: 0 };
  const queue = pages.values();
  const lane = async (): Promise<void> => {
    for (const page of queue) {
      try {
        const { looked, changed, unseen } = await looking.observeClusters(page);
        seen.looked += looked;
        seen.changed += changed;
        seen.unseen += unseen;
      } catch (error) {
        if (!isFailure(error)) throw error;
        seen.failed += 1;
        log.warn('could not look at a page of clusters', { ...reasonOf(error) });
      }
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  const { looked, changed, unseen, failed } = seen;
  setCurrentDetails(
    `${looked} clusters looked at, ${changed} changed, ${unseen} not seen, ${failed} pages failed; ${ended} operations ended`,
  );
  if (next !== undefined) await continueAsNew<typeof ObserveClusters>({ ...scope, after: next });
  return { ...seen, ended };

  /** The looks do not wait for it: what it could not end is left for the next time. */
  async function endLost(): Promise<number> {
    let total = 0;
    try {
      let from: string | undefined;
      do {
        const part = await looking.endLostOperations({ ...scope, ...(from !== undefined && { after: from }) });
        total += part.ended;
        from = part.after;
      } while (from !== undefined);
    } catch (error) {
      if (!isFailure(error)) throw error;
      log.warn('could not end the operations whose workflow is gone', { ...reasonOf(error) });
    }
    return total;
  }
}
