/** The tenant's quotas against a change of a cluster that exists. */
import { lockTenant, readQuotas, readUseOfOthers } from '../src/clients/quotas.ts';
import type { ClusterSpec } from '../src/domain/cluster.ts';
import type { ClusterRef } from '../src/domain/naming.ts';
import { requireRoom, useOf } from '../src/domain/quota.ts';
import type { UpdateRequest } from '../src/domain/update-plan.ts';
import { workflowRun } from './context.ts';
import type { ActivityDeps } from './deps.ts';

/**
 * Refuse a change that the tenant has no room for. The operation that holds the cluster reserves what it will take, so
 * that two changes at once cannot both have the last place; a dry run holds nothing and reserves nothing.
 *
 * @throws FleetError `QuotaReached`
 */
export async function reserveGrowth(
  { catalog, config }: Pick<ActivityDeps, 'catalog' | 'config'>,
  ref: ClusterRef,
  spec: ClusterSpec,
  request: UpdateRequest,
): Promise<void> {
  const { tenant, cluster } = ref;
  const { workflowId: operation } = workflowRun();
  const nodes = request.nodes ?? spec.nodes;
  const { aws } = spec;
  const machines = request.aws?.nodeCount ?? (aws?.followNodes === true ? nodes : aws?.nodeCount);
  const before = useOf(spec);
  const wanted = useOf({
    nodes,
    storage: request.storage ?? spec.storage,
    ...(aws !== undefined && { aws: { create: aws.create, nodeCount: machines ?? aws.nodeCount } }),
  });
  await catalog.run('hold the change against the quotas', (db) =>
    db.transaction().execute(async (tx) => {
      await lockTenant(tx, tenant);
      const quotas = await readQuotas(tx, tenant, config.FLEET_QUOTAS);
      requireRoom(tenant, quotas, await readUseOfOthers(tx, ref), wanted, before);
      const lease = await tx
        .selectFrom('leases')
        .select('holder')
        .where('tenant', '=', tenant)
        .where('cluster', '=', cluster)
        .where('holder', '=', operation)
        .executeTakeFirst();
      if (lease === undefined) return;
      const row = { operation, use: JSON.stringify(wanted) };
      await tx
        .insertInto('quota_reservations')
        .values({ tenant, cluster, ...row })
        .onConflict((conflict) => conflict.columns(['tenant', 'cluster']).doUpdateSet(row))
        .execute();
    }),
  );
}
