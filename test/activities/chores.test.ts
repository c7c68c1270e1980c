/** What operations could not tidy, worked off on a real PostgreSQL and a real store. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ChoreLeft } from '../../src/domain/chores.ts';
import { backupKeys } from '../../src/domain/naming.ts';
import { Parts } from './support.ts';

const BACKUP = '20261121T030000Z-1a2b3c4d';

let parts: Parts;
beforeAll(async () => {
  parts = await Parts.open();
});
afterAll(() => parts.close());

let clusters = 0;
function fresh() {
  clusters += 1;
  const ref = { tenant: parts.tenant, cluster: `c${clusters}` };
  const holder = `${parts.tenant}-restore-${clusters}`;
  return {
    ref,
    holder,
    keys: backupKeys({ ...ref, prefix: '', backup: BACKUP }),
    /** The operation `holder` ends, and leaves these. */
    leave: (...left: readonly Omit<ChoreLeft, 'tenant' | 'cluster' | 'why'>[]) => {
      const chores = left.map((chore) => ({ ...ref, ...chore, why: 'No store.' }));
      return parts.as(holder, (activities) => activities.endOperation({ state: 'done', chores }));
    },
    sweep: () => parts.as(`${holder}-sweep`, (activities) => activities.workOffChores(ref)),
    rows: () =>
      parts.catalog.run('read the chores', (db) =>
        db
          .selectFrom('chores')
          .selectAll()
          .where('cluster', '=', ref.cluster)
          .where('tenant', '=', ref.tenant)
          .execute(),
      ),
  };
}

describe('chores', () => {
  test('the lease that a restore left goes, once; that of a later run of the same operation stays', async () => {
    const { holder, keys, leave, sweep, rows } = fresh();
    const lease = (runId: string) => parts.store.putJson(keys.lease(holder), JSON.stringify({ holder, runId }));
    const chore = { kind: 'backup-lease', what: { backup: BACKUP, holder } } as const;
    await lease(`run-of-${holder}`);
    await leave(chore);
    await leave(chore);
    expect(await rows()).toHaveLength(1);
    expect(await sweep()).toEqual({ done: 1, left: 0 });
    expect(await parts.store.getJson(keys.lease(holder))).toBeUndefined();
    expect(await rows()).toEqual([]);
    expect(await sweep()).toEqual({ done: 0, left: 0 });

    await lease('another run');
    await leave(chore);
    expect(await sweep()).toEqual({ done: 1, left: 0 });
    expect(await parts.store.getJson(keys.lease(holder))).toBeDefined();
  });

  test('a committed backup that is not in the list gets into it; one that never was committed does not', async () => {
    const { ref, keys, leave, sweep } = fresh();
    const chore = { kind: 'backup-index', what: { backup: BACKUP } } as const;
    await leave(chore);
    expect(await sweep()).toEqual({ done: 1, left: 0 });
    expect(await parts.catalog.backups(ref, { limit: 10 })).toEqual([]);

    const totals = { collections: 1, shards: 2, bytes: 3, points: 4 };
    const record = { formatVersion: 1, backup: BACKUP, state: 'COMMITTED', revision: 1, attempt: 'r', totals };
    await parts.store.putJson(keys.commit, JSON.stringify({ ...record, changedAt: '2026-11-21T03:05:00.000Z' }));
    await leave(chore);
    await sweep();
    expect(await parts.catalog.backups(ref, { limit: 10 })).toMatchObject([{ backup: BACKUP, totals }]);
  });

  test('what fails stays, with its last error and the number of attempts, and keeps nothing else from being done', async () => {
    const { holder, leave, sweep, rows } = fresh();
    await leave(
      { kind: 'backup-index', what: { backup: 'no backup' } },
      { kind: 'backup-lease', what: { backup: BACKUP, holder } },
    );
    expect(await sweep()).toEqual({ done: 1, left: 1 });
    expect(await sweep()).toEqual({ done: 0, left: 1 });
    expect(await rows()).toMatchObject([
      { kind: 'backup-index', attempts: 2, last_error: '"no backup" is no backup.' },
    ]);
  });

  test('uploads of a backup that is not committed are left to its own removal', async () => {
    const { leave, sweep } = fresh();
    await leave({ kind: 'backup-uploads', what: { backup: BACKUP, attempt: 'r' } });
    expect(await sweep()).toEqual({ done: 1, left: 0 });
  });
});
