/** What the API refuses at once because of a quota. The worker holds every operation against the quotas again. */
import { Cron } from 'croner';
import { copyingBackups, readQuotas, readUse, runningOperations } from '../src/clients/quotas.ts';
import {
  QUOTAS,
  requireBelow,
  requireInterval,
  requireMachineType,
  requireRoom,
  sumOfUse,
  useOf,
  type CountedSpec,
  type QuotaName,
  type Quotas,
} from '../src/domain/quota.ts';
import type { OperationKind } from '../src/domain/operation.ts';
import { isOpenRun } from '../src/temporal-runs.ts';
import type { ApiDeps } from './context.ts';
import { callTemporal } from './temporal.ts';

export function quotasOf({ catalog, quotas }: ApiDeps, tenant: string): Promise<Quotas> {
  return catalog.run('read the quotas', (db) => readQuotas(db, tenant, quotas));
}

/** @throws FleetError `QuotaReached` when the tenant runs as many operations, or backups, as it may */
export async function requireOperation(deps: ApiDeps, tenant: string, kind: OperationKind): Promise<void> {
  const quotas = await quotasOf(deps, tenant);
  const running = await deps.catalog.run('count the running operations', (db) => runningOperations(db, tenant));
  if (running.length >= quotas.operationsRunning) {
    requireBelow(tenant, quotas, 'operationsRunning', await countOpen(deps, running));
  }
  if (kind !== 'backup') return;
  const copying = await deps.catalog.run('count the running backups', (db) => copyingBackups(db, tenant));
  if (copying.length < quotas.backupsRunning) return;
  requireBelow(tenant, quotas, 'backupsRunning', await countOpen(deps, copying));
}

/** @throws FleetError `QuotaReached` when the tenant has no room for one more cluster of this size */
export async function requireCluster(
  deps: ApiDeps,
  ref: { tenant: string; cluster: string },
  spec: CountedSpec & { readonly aws?: { readonly instanceType: string } },
): Promise<void> {
  const { tenant, cluster } = ref;
  const quotas = await quotasOf(deps, tenant);
  if (spec.aws !== undefined && spec.aws.create?.nodeGroups !== false) {
    requireMachineType(tenant, quotas, spec.aws.instanceType);
  }
  const uses = await deps.catalog.run('read what the clusters take', (db) => readUse(db, tenant));
  uses.delete(cluster);
  requireRoom(tenant, quotas, sumOfUse([...uses.values()]), useOf(spec));
}

/**
 * The schedules are counted through Temporal's visibility, which lags by a moment: several that are made at once may
 * pass together.
 *
 * @throws FleetError `QuotaReached`
 */
export async function requireSchedule(deps: ApiDeps, tenant: string, cron: string): Promise<void> {
  const quotas = await quotasOf(deps, tenant);
  requireInterval(tenant, quotas, shortestInterval(cron, quotas.scheduleMinutes));
  requireBelow(tenant, quotas, 'schedules', await countSchedules(deps, tenant));
}

/**
 * The shortest time between two runs, in minutes. A day with more runs than `atLeast` allows has two that are closer, so
 * one more than that many runs tell; and the runs of a day are the same on each day that has any.
 */
export function shortestInterval(cron: string, atLeast: number): number {
  const runs = Math.ceil(MINUTES_A_DAY / Math.max(atLeast, 1)) + 2;
  const times = new Cron(cron, { domAndDow: true, timezone: 'UTC' }).nextRuns(Math.min(runs, MINUTES_A_DAY + 2));
  const gaps = times.slice(1).map((time, index) => (time.getTime() - (times[index]?.getTime() ?? 0)) / 60_000);
  return Math.min(...gaps, Number.MAX_SAFE_INTEGER);
}

const MINUTES_A_DAY = 1440;

async function countSchedules({ temporal }: ApiDeps, tenant: string): Promise<number> {
  return callTemporal(temporal, async () => {
    let count = 0;
    // The tenant comes from the token, so it holds no quote.
    const found = temporal.schedule.list({ query: `FleetTenant = "${tenant}"` });
    for await (const { scheduleId } of found) if (scheduleId.startsWith('backup-')) count += 1;
    return count;
  });
}

/** Operations whose workflow was terminated still stand as running in the catalogue. */
async function countOpen(
  { temporal }: ApiDeps,
  operations: readonly { id: string; run_id: string }[],
): Promise<number> {
  const open = await Promise.all(
    operations.map(({ id, run_id: runId }) => callTemporal(temporal, () => isOpenRun(temporal, id, runId))),
  );
  return open.filter(Boolean).length;
}

/** One quota as the API shows it. */
export interface QuotaView {
  readonly name: QuotaName | 'machineTypes';
  readonly description: string;
  readonly limit?: number;
  readonly used?: number;
  readonly allowed?: readonly string[];
}

/** @param longPolls requests of the tenant that this process keeps open */
export async function viewQuotas(deps: ApiDeps, tenant: string, longPolls: number): Promise<QuotaView[]> {
  const quotas = await quotasOf(deps, tenant);
  const [uses, running, copying, schedules] = await Promise.all([
    deps.catalog.run('read what the clusters take', (db) => readUse(db, tenant)),
    deps.catalog.run('count the running operations', (db) => runningOperations(db, tenant)),
    deps.catalog.run('count the running backups', (db) => copyingBackups(db, tenant)),
    countSchedules(deps, tenant),
  ]);
  const use = sumOfUse([...uses.values()]);
  const used: Partial<Record<QuotaName, number>> = {
    clusters: use.clusters,
    nodes: use.nodes,
    storageGiB: Math.ceil(use.storageBytes / 2 ** 30),
    machines: use.machines,
    backupsRunning: copying.length,
    operationsRunning: running.length,
    schedules,
    longPolls,
  };
  const numbers = (Object.keys(QUOTAS) as QuotaName[]).map((name): QuotaView => {
    const count = used[name];
    const description = QUOTAS[name].what;
    return { name, description, limit: quotas[name], ...(count !== undefined && { used: count }) };
  });
  return [
    ...numbers,
    { name: 'machineTypes', description: 'EC2 types that machines may have', allowed: quotas.machineTypes },
  ];
}
