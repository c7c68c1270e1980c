/**
 * Looking at all clusters again and again, so that the catalogue says how they are and not how an operation left them.
 *
 * 1. A look never overwrites what an operation writes: it is recorded only when no operation holds the cluster and its
 *    row is the one that was read before the look, in one transaction under the lock of the leases.
 * 2. A cluster that does not answer costs its own few seconds, and no other cluster's.
 */
import { Context } from '@temporalio/activity';
import { sql, type ExpressionBuilder, type Kysely, type Transaction } from 'kysely';
import type { ClusterRow, Database } from '../src/clients/catalog.ts';
import type { ClusterPhase } from '../src/domain/cluster.ts';
import { conditionsOf, failureIn, WATCHED, type ClusterState } from '../src/domain/conditions.ts';
import { messageOf } from '../src/domain/errors.ts';
import { abandonedWords, doneWithoutPhase, failedByItself, type Ending } from '../src/domain/abandoned.ts';
import { clusterKey, type ClusterRef } from '../src/domain/naming.ts';
import { signal } from './context.ts';
import type { ActivityDeps } from './deps.ts';
import { mapInLanes } from './lanes.ts';
import { healthOrReason, type Sight } from './look.ts';

/** Clusters of one page, which one activity looks at. */
export const PAGE = 100;
/** Clusters that are looked at at a time. */
const LANES = 20;
/** Milliseconds that a look may take, and that a peer has for each answer. */
const LOOK_MS = 8000;
const PATIENCE_MS = 3000;
/** Operations that are asked about at a time. */
const OPERATIONS = 500;

/** Which clusters: those of a tenant, or all. */
interface Scope {
  readonly tenant?: string;
}

interface PageInput extends Scope {
  /** The cluster after which the page begins; absent for the first. */
  readonly after?: ClusterRef;
}

export interface Observed {
  readonly looked: number;
  /** Clusters whose phase is another one than before. */
  readonly changed: number;
  /** Clusters that nobody could see, or that an operation changed meanwhile. */
  readonly unseen: number;
}

export function createObservationActivities(deps: ActivityDeps) {
  const { catalog, temporal } = deps;
  /** Clusters at which this process looks right now. */
  const looking = new Set<string>();
  return {
    /**
     * End the operations in the catalogue whose workflow has ended without saying so: it was terminated, ran out of time,
     * or could not reach the catalogue. Their leases go with them.
     */
    async endLostOperations({ tenant, after }: Scope & { after?: string }): Promise<{ ended: number; after?: string }> {
      const rows = await catalog.run('read the running operations', (db) =>
        db
          .selectFrom('operations')
          .select(['id', 'run_id', 'started_at'])
          .where('state', '=', 'running')
          .$if(tenant !== undefined, (query) => query.where('tenant', '=', tenant ?? ''))
          .$if(after !== undefined, (query) => query.where('id', '>', after ?? ''))
          .orderBy('id')
          .limit(OPERATIONS)
          .execute(),
      );
      const ended = await mapInLanes(rows, LANES, async ({ id, run_id, started_at }) => {
        const ending = await temporal.ending(id, started_at);
        return ending !== undefined && (await catalog.run('end an operation', (db) => end(db, id, run_id, ending)));
      });
      const last = rows.length === OPERATIONS ? rows.at(-1)?.id : undefined;
      return { ended: ended.filter(Boolean).length, ...(last !== undefined && { after: last }) };
    },

    /** Where the pages begin, `limit` of them at most; `next` is where those begin that did not fit. */
    async listClustersToObserve({
      tenant,
      after,
      limit,
    }: PageInput & { limit: number }): Promise<{ pages: PageInput[]; next?: ClusterRef }> {
      const starts = await catalog.run('list the clusters', (db) => {
        const numbered = db
          .selectFrom('clusters')
          .select(['tenant', 'cluster', sql<string>`row_number() over (order by tenant, cluster)`.as('number')])
          .where((eb) => beyond(eb, after))
          .$if(tenant !== undefined, (query) => query.where('tenant', '=', tenant ?? ''));
        return db
          .selectFrom(numbered.as('numbered'))
          .select(['tenant', 'cluster'])
          .where(sql<boolean>`number % ${sql.lit(PAGE)} = 0`)
          .orderBy('tenant')
          .orderBy('cluster')
          .limit(limit)
          .execute();
      });
      const next = starts.length === limit ? starts.at(-1) : undefined;
      const firsts = [after, ...(next === undefined ? starts : starts.slice(0, -1))];
      return {
        pages: firsts.map((first) => ({
          ...(tenant !== undefined && { tenant }),
          ...(first !== undefined && { after: first }),
        })),
        ...(next !== undefined && { next }),
      };
    },

    /** Look at the clusters of one page and record what is seen. */
    async observeClusters({ tenant, after }: PageInput): Promise<Observed> {
      const rows = await catalog.run('read a page of clusters', (db) =>
        db
          .selectFrom('clusters')
          .selectAll()
          .where((eb) => beyond(eb, after))
          .$if(tenant !== undefined, (query) => query.where('tenant', '=', tenant ?? ''))
          .orderBy('tenant')
          .orderBy('cluster')
          .limit(PAGE)
          .execute(),
      );
      const outcomes = await mapInLanes(rows, LANES, async (row) => {
        Context.current().heartbeat({ cluster: row.cluster });
        return observeCluster(row);
      });
      const count = (outcome: Outcome) => outcomes.filter((each) => each === outcome).length;
      return {
        looked: outcomes.length - count('left alone'),
        changed: count('changed'),
        unseen: count('unseen'),
      };
    },
  };

  async function observeCluster(row: ClusterRow): Promise<Outcome> {
    const ref = { tenant: row.tenant, cluster: row.cluster };
    if (await catalog.run('read the leases', (db) => busy(db, row))) return 'left alone';
    if (WATCHED.includes(row.phase)) return record(row, await see(row));
    if (row.phase === 'FAILED_TO_CREATE') return 'left alone';
    // Nobody changes it any more, and whoever did has not left a phase that stays.
    const operations = await recentOperations(ref);
    if (row.phase === 'DELETING' && failedByItself(operations)) return 'left alone';
    if (doneWithoutPhase(operations)) return record(row, await see(row));
    const failure = abandonedWords(operations);
    if (row.phase === 'CREATING') return record(row, undefined, { phase: 'FAILED_TO_CREATE', failure });
    return record(row, await see(row), { failure });
  }

  /** A look that takes too long says so; while the rest of it still runs no other one begins. */
  async function see(row: ClusterRow): Promise<Sight | { unseen: string }> {
    const key = clusterKey(row);
    if (looking.has(key)) return { unseen: 'An earlier look at it has not ended yet.' };
    const late = AbortSignal.timeout(LOOK_MS);
    const { promise, reject } = Promise.withResolvers<never>();
    const stop = () => reject(new Error(`The look did not end within ${LOOK_MS / 1000} s.`));
    late.addEventListener('abort', stop, { once: true });
    const options = { remembered: row.identities, patience: PATIENCE_MS };
    looking.add(key);
    const sight = healthOrReason(deps, row, row.spec, options, AbortSignal.any([late, signal()]));
    const over = () => void looking.delete(key);
    sight.then(over, over);
    try {
      return await Promise.race([sight, promise]);
    } catch (error) {
      if (signal().aborted) throw error;
      return { unseen: messageOf(error) };
    } finally {
      late.removeEventListener('abort', stop);
    }
  }

  /** Write down what was seen, unless the cluster has changed since it was read or somebody changes it now. */
  async function record(
    row: ClusterRow,
    sight: Sight | { unseen: string } | undefined,
    change: Partial<ClusterState> = {},
  ): Promise<Outcome> {
    return catalog.run('record a look', (db) =>
      db.transaction().execute(async (tx) => {
        if (!(await lockedLeases(tx, row)) || (await busy(tx, row))) return 'left alone';
        const now = await tx
          .selectFrom('clusters')
          .selectAll()
          .where('tenant', '=', row.tenant)
          .where('cluster', '=', row.cluster)
          .forUpdate()
          .executeTakeFirst();
        if (now?.phase !== row.phase || now.updated_at.getTime() !== row.updated_at.getTime()) return 'left alone';
        const seen = sight !== undefined && 'health' in sight ? sight : undefined;
        const phase = change.phase ?? phaseOf(row, seen);
        const failure = change.failure ?? failureIn(now.conditions);
        const at = new Date();
        const state: ClusterState = {
          phase,
          ...seen?.health,
          ...(sight !== undefined && 'unseen' in sight && { unseen: sight.unseen }),
          ...(failure !== undefined && { failure }),
        };
        await tx
          .updateTable('clusters')
          .set({
            phase,
            reason: seen?.health.degraded ?? failure?.message ?? null,
            conditions: JSON.stringify(conditionsOf(state, now.conditions, at.toISOString())),
            ...(seen !== undefined && { observed_at: at, identities: JSON.stringify(seen.identities) }),
            ...(phase !== now.phase && { updated_at: at, delete_after: null }),
          })
          .where('tenant', '=', row.tenant)
          .where('cluster', '=', row.cluster)
          .execute();
        if (phase !== now.phase) return 'changed';
        return seen === undefined ? 'unseen' : 'same';
      }),
    );
  }

  /** The last operations of a cluster, the newest first. */
  async function recentOperations({ tenant, cluster }: ClusterRef) {
    return catalog.run('read the last operations', (db) =>
      db
        .selectFrom('operations')
        .select(['id', 'kind', 'state', 'error_code'])
        .where('tenant', '=', tenant)
        .where('cluster', '=', cluster)
        .orderBy('started_at', 'desc')
        .limit(20)
        .execute(),
    );
  }
}

type Outcome = 'left alone' | 'same' | 'changed' | 'unseen';

function phaseOf({ phase, spec }: ClusterRow, seen: Sight | undefined): ClusterPhase {
  if (spec.suspended === true) return 'SUSPENDED';
  if (seen === undefined) return WATCHED.includes(phase) ? phase : 'NOT_READY';
  return seen.health.degraded === undefined ? 'HEALTHY' : 'NOT_READY';
}

/** Whether an operation changes the cluster, or may be about to: it holds it alone, or moves it and has not ended. */
async function busy(db: Kysely<Database>, { tenant, cluster, phase }: ClusterRow): Promise<boolean> {
  const lease = await db
    .selectFrom('leases')
    .select('holder')
    .where('tenant', '=', tenant)
    .where('cluster', '=', cluster)
    .where('mode', '=', 'exclusive')
    .executeTakeFirst();
  if (lease !== undefined) return true;
  if (WATCHED.includes(phase)) return false;
  const running = await db
    .selectFrom('operations')
    .select('id')
    .where('tenant', '=', tenant)
    .where('cluster', '=', cluster)
    .where('state', '=', 'running')
    .executeTakeFirst();
  return running !== undefined;
}

/** The lock of whoever takes a lease; false while somebody is at it. */
async function lockedLeases(tx: Transaction<Database>, { tenant, cluster }: ClusterRef): Promise<boolean> {
  const key = `${tenant}--${cluster}`;
  const { rows } = await sql<{ locked: boolean }>`
    select pg_try_advisory_xact_lock(hashtextextended(${key}, 0)) as locked`.execute(tx);
  return rows[0]?.locked === true;
}

/** Only of the run that was seen: one that has begun since under the same id is none of our business. */
async function end(db: Kysely<Database>, id: string, run: string, ending: Ending): Promise<boolean> {
  return db.transaction().execute(async (tx) => {
    const changed = await tx
      .updateTable('operations')
      .set({
        state: ending.state,
        error_code: ending.error?.code ?? null,
        error_message: ending.error?.message ?? null,
        finished_at: ending.at ?? new Date(),
      })
      .where('id', '=', id)
      .where('run_id', '=', run)
      .where('state', '=', 'running')
      .executeTakeFirst();
    if (changed.numUpdatedRows === 0n) return false;
    await tx.deleteFrom('leases').where('holder', '=', id).execute();
    return true;
  });
}

/** Clusters come in the order of tenant and name. */
function beyond(eb: ExpressionBuilder<Database, 'clusters'>, after: ClusterRef | undefined) {
  if (after === undefined) return eb.lit(true);
  return eb(eb.refTuple('tenant', 'cluster'), '>', eb.tuple(after.tenant, after.cluster));
}
