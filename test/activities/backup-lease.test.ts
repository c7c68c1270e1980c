/** The lease on a backup is renewed by a timer while something long runs: on its own, with a short interval. */
import { describe, expect, test } from 'vitest';
import { withLease } from '../../activities/restore-source.ts';
import type { BackupStore } from '../../src/clients/s3.ts';
import { FleetError } from '../../src/domain/errors.ts';
import { backupKeys, type BackupLocation } from '../../src/domain/naming.ts';
import { environment } from './support.ts';

const AT: BackupLocation = { tenant: 'acme', cluster: 'docs', prefix: '', backup: '20261121T030000Z-1a2b3c4d' };

/** A store that only takes leases, and counts them. */
function leases(fails: (count: number) => boolean = () => false) {
  const puts: { key: string; body: string }[] = [];
  const waiting: { count: number; done: () => void }[] = [];
  const store = {
    putJson: (key: string, body: string) => {
      puts.push({ key, body });
      for (const { count, done } of waiting) if (puts.length >= count) done();
      if (fails(puts.length)) return Promise.reject(new FleetError('StoreUnavailable', 'Not now.'));
      return Promise.resolve(true);
    },
  };
  const saw = (count: number) => new Promise<void>((done) => waiting.push({ count, done }));
  return { puts, saw, store: store as unknown as BackupStore };
}

describe.concurrent('withLease', () => {
  test('renews as long as the work takes, and not after it', async () => {
    const { puts, saw, store } = leases();
    const answer = await environment('restore').run(() =>
      withLease(
        store,
        AT,
        async () => {
          await saw(5);
          return 'done';
        },
        5,
      ),
    );
    expect(answer).toBe('done');
    const [first] = puts;
    expect(new Set(puts.map(({ key }) => key))).toEqual(new Set([backupKeys(AT).lease('restore')]));
    expect(JSON.parse(first?.body ?? '')).toMatchObject({ holder: 'restore', runId: 'run-of-restore' });
    const count = puts.length;
    await new Promise((later) => setTimeout(later, 30));
    expect(puts).toHaveLength(count);
  });

  test('a renewal that fails is made good by the next one', async () => {
    const { puts, saw, store } = leases((count) => count === 2 || count === 3);
    await environment('restore').run(() => withLease(store, AT, () => saw(5), 5));
    expect(puts.length).toBeGreaterThanOrEqual(5);
  });

  test('without the first lease nothing begins', async () => {
    const { store } = leases(() => true);
    let begun = false;
    const run = environment('restore').run(() =>
      withLease(store, AT, () => {
        begun = true;
        return Promise.resolve();
      }),
    );
    await expect(run).rejects.toMatchObject({ code: 'StoreUnavailable' });
    expect(begun).toBe(false);
  });
});
