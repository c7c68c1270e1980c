/** Quotas in the catalogue: what a tenant may have, what it has, and what its operations are about to add. */
import { sql, type Kysely } from 'kysely';
import type { ClusterRef } from '../domain/naming.ts';
import {
  isQuotaName,
  largerUse,
  sumOfUse,
  useOf,
  type QuotaName,
  type Quotas,
  type QuotaUse,
} from '../domain/quota.ts';
import type { Database } from './catalog.ts';

/** The tenant's quotas: what an operator set for it, and the configuration's for the rest. */
export async function readQuotas(db: Kysely<Database>, tenant: string, defaults: Quotas): Promise<Quotas> {
  const rows = await db.selectFrom('tenant_quotas').selectAll().where('tenant', '=', tenant).execute();
  const own = rows.filter(({ quota, value }) =>
    quota === 'machineTypes' ? Array.isArray(value) : isQuotaName(quota) && typeof value === 'number',
  );
  return { ...defaults, ...(Object.fromEntries(own.map(({ quota, value }) => [quota, value])) as Partial<Quotas>) };
}

/**
 * Until the transaction ends, nobody else counts this tenant's clusters: two requests at once cannot both take the last
 * place.
 */
export async function lockTenant(tx: Kysely<Database>, tenant: string): Promise<void> {
  await sql`select pg_advisory_xact_lock(hashtextextended(${`quota of ${tenant}`}, 0))`.execute(tx);
}

/** What each cluster of the tenant takes, by name; of one that is being changed, the larger of before and after. */
export async function readUse(db: Kysely<Database>, tenant: string): Promise<Map<string, QuotaUse>> {
  const clusters = await db
    .selectFrom('clusters')
    .select(['cluster', 'spec'])
    .where('tenant', '=', tenant)
    .where('phase', '!=', 'FAILED_TO_CREATE')
    .execute();
  // A reservation counts as long as its operation holds the cluster.
  const reserved = await db
    .selectFrom('quota_reservations as r')
    .innerJoin('leases as l', (join) =>
      join
        .onRef('l.tenant', '=', 'r.tenant')
        .onRef('l.cluster', '=', 'r.cluster')
        .onRef('l.holder', '=', 'r.operation'),
    )
    .select(['r.cluster', 'r.use'])
    .where('r.tenant', '=', tenant)
    .execute();
  const later = new Map(reserved.map(({ cluster, use }) => [cluster, use]));
  return new Map(
    clusters.map(({ cluster, spec }) => {
      const [now, then] = [useOf(spec), later.get(cluster)];
      return [cluster, then === undefined ? now : largerUse(now, then)];
    }),
  );
}

/** What all clusters of the tenant take together, but for one. */
export async function readUseOfOthers(db: Kysely<Database>, { tenant, cluster }: ClusterRef): Promise<QuotaUse> {
  const uses = await readUse(db, tenant);
  uses.delete(cluster);
  return sumOfUse([...uses.values()]);
}

/** Operations of the tenant that the catalogue takes for running, the oldest first. */
export function runningOperations(db: Kysely<Database>, tenant: string): Promise<{ id: string; run_id: string }[]> {
  return db
    .selectFrom('operations')
    .select(['id', 'run_id'])
    .where('tenant', '=', tenant)
    .where('state', '=', 'running')
    .orderBy('started_at')
    .limit(MOST_COUNTED)
    .execute();
}

/** Backups of the tenant whose turn it is to copy. */
export function copyingBackups(db: Kysely<Database>, tenant: string): Promise<{ id: string; run_id: string }[]> {
  return db
    .selectFrom('leases')
    .select(['holder as id', 'holder_run as run_id'])
    .where('tenant', '=', tenant)
    .where('copying', '=', true)
    .limit(MOST_COUNTED)
    .execute();
}

const MOST_COUNTED = 10_000;

/** Set or, with `undefined`, take back what applies to one tenant. */
export async function setQuota(
  db: Kysely<Database>,
  tenant: string,
  quota: QuotaName | 'machineTypes',
  value: number | readonly string[] | undefined,
): Promise<void> {
  if (value === undefined) {
    await db.deleteFrom('tenant_quotas').where('tenant', '=', tenant).where('quota', '=', quota).execute();
    return;
  }
  const row = { value: JSON.stringify(value), changed_at: new Date() };
  await db
    .insertInto('tenant_quotas')
    .values({ tenant, quota, ...row })
    .onConflict((conflict) => conflict.columns(['tenant', 'quota']).doUpdateSet(row))
    .execute();
}
