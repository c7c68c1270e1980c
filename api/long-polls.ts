/** How many requests of each tenant this process keeps open for as long as something is awaited. */
import type { Quotas } from '../src/domain/quota.ts';
import { requireBelow } from '../src/domain/quota.ts';

export class LongPolls {
  readonly #open = new Map<string, number>();

  of(tenant: string): number {
    return this.#open.get(tenant) ?? 0;
  }

  /** @throws FleetError `QuotaReached` when the tenant has as many open as it may */
  async hold<T>(tenant: string, quotas: Quotas, wait: () => Promise<T>): Promise<T> {
    requireBelow(tenant, quotas, 'longPolls', this.of(tenant));
    this.#open.set(tenant, this.of(tenant) + 1);
    try {
      return await wait();
    } finally {
      const left = this.of(tenant) - 1;
      if (left === 0) this.#open.delete(tenant);
      else this.#open.set(tenant, left);
    }
  }
}
