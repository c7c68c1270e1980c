/** What operations could not tidy, done by a sweep of the cluster. */
import type { Selectable } from 'kysely';
import type { Database } from '../src/clients/catalog.ts';
import { FleetError } from '../src/domain/errors.ts';
import { backupKeys, backupTimeOf, inBucket, isBackupId, type ClusterRef } from '../src/domain/naming.ts';
import { locate } from './backup-buckets.ts';
import { readRecord } from './backup-records.ts';
import { removeStrays } from './backup-strays.ts';
import { indexBackup } from './catalog.ts';
import type { ActivityDeps } from './deps.ts';

type ChoreRow = Selectable<Database['chores']>;

/** Chores that are worked off at a time; the rest is the next sweep's. */
const LIMIT = 200;

export function createChoreActivities(deps: ActivityDeps) {
  const { catalog, stores } = deps;
  return {
    /** Do what operations on the cluster could not tidy: one try each. What fails stays for the next sweep. */
    async workOffChores({ tenant, cluster }: ClusterRef): Promise<{ done: number; left: number }> {
      const rows = await catalog.run('read the chores', (db) =>
        db
          .selectFrom('chores')
          .selectAll()
          .where('tenant', '=', tenant)
          .where('cluster', '=', cluster)
          .orderBy('since')
          .limit(LIMIT)
          .execute(),
      );
      let done = 0;
      for (const row of rows) {
        try {
          await work(row);
        } catch (error) {
          if (!FleetError.is(error) || error.code === 'CatalogUnavailable') throw error;
          await keep(row, error.message);
          continue;
        }
        await drop(row);
        done += 1;
      }
      return { done, left: rows.length - done };
    },
  };

  async function work({ tenant, cluster, kind, what, operation_run: run }: ChoreRow): Promise<void> {
    const { backup = '', holder = '', attempt = '' } = what;
    if (!isBackupId(backup)) throw new FleetError('Internal', `"${backup}" is no backup.`);
    const location = await locate(deps, { tenant, cluster, backup });
    const store = stores.of(location);
    switch (kind) {
      case 'backup-lease': {
        const key = backupKeys(location).lease(holder);
        const lease = await store.getJson(key);
        // A later run of the same operation has a lease of its own.
        if ((lease?.body as { runId?: unknown } | undefined)?.runId === run) await store.deleteKeys([key]);
        return;
      }
      case 'backup-index': {
        const found = await readRecord(store, location);
        // Without a record it was never committed; the sweep collects it.
        if (found === undefined) return;
        const { state, totals, changedAt: deletingSince, purgeAfter } = found.record;
        const createdAt = backupTimeOf(backup).toISOString();
        await indexBackup(catalog, {
          ...{ tenant, cluster, backup, state, createdAt },
          ...inBucket(location),
          ...(totals !== undefined && { totals }),
          ...(state === 'DELETING' && { deletingSince, ...(purgeAfter !== undefined && { purgeAfter }) }),
        });
        return;
      }
      case 'backup-uploads':
        await removeStrays(store, location, attempt);
        return;
    }
  }

  async function keep(row: ChoreRow, why: string): Promise<void> {
    await catalog.run('keep a chore', (db) =>
      db
        .updateTable('chores')
        .set({ attempts: row.attempts + 1, last_error: why.slice(0, 1000) })
        .where('operation_run', '=', row.operation_run)
        .where('number', '=', row.number)
        .execute(),
    );
  }

  async function drop(row: ChoreRow): Promise<void> {
    await catalog.run('drop a chore', (db) =>
      db.deleteFrom('chores').where('operation_run', '=', row.operation_run).where('number', '=', row.number).execute(),
    );
  }
}
