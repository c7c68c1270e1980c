/** What bounds all byte streams of a worker process together. */
import { BufferPool, RateLimiter } from '../src/clients/transfer-budget.ts';
import type { Config } from '../src/config.ts';

export interface TransferBudget {
  readonly buffers: BufferPool;
  readonly limiter?: RateLimiter;
}

const budgets = new WeakMap<Config, TransferBudget>();

/** One for each configuration, and with it one for the process. */
export function transferBudget(config: Config): TransferBudget {
  const known = budgets.get(config);
  if (known !== undefined) return known;
  const rate = config.FLEET_TRANSFER_BYTES_PER_SECOND;
  const budget = {
    buffers: new BufferPool(config.FLEET_TRANSFER_BUFFER_BYTES),
    ...(rate !== undefined && { limiter: new RateLimiter(rate) }),
  };
  budgets.set(config, budget);
  return budget;
}
