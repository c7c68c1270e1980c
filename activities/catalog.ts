/** The catalogue: operations, the operation lease of a cluster, and the clusters themselves. */
import { sql, type Kysely } from 'kysely';
import type { Catalog, Database } from '../src/clients/catalog.ts';
import { copyingBackups, lockTenant, readQuotas, readUseOfOthers, runningOperations } from '../src/clients/quotas.ts';
import type { BackupState, BackupTotals } from '../src/domain/backup.ts';
import type { ChoreLeft } from '../src/domain/chores.ts';
import { clusterExists } from '../src/domain/abandoned.ts';
import { resolveSpec, type ClusterPhase, type ClusterRequest, type ClusterSpec } from '../src/domain/cluster.ts';
import { conditionsOf, WATCHED, type ClusterState } from '../src/domain/conditions.ts';
import { FleetError, messageOf } from '../src/domain/errors.ts';
import { namespaceOf, type ClusterRef, type InBucket } from '../src/domain/naming.ts';
import { requireWorkerLocation } from '../src/domain/network-policy.ts';
import type { OperationKind } from '../src/domain/operation.ts';
import { DEFAULT_POLICY, requireAllowed } from '../src/domain/tenant-policy.ts';
import { requireBelow, requireMachineType, requireRoom, useOf } from '../src/domain/quota.ts';
import { PLAINTEXT_ADVICE } from '../src/domain/plaintext.ts';
import { workflowRun } from './context.ts';
import type { ActivityDeps } from './deps.ts';

export type LeaseMode = 'exclusive' | 'shared';

/** How an operation ended. */
export interface OperationEnd {
  readonly state: 'done' | 'failed' | 'cancelled';
  readonly error?: { readonly code: string; readonly message: string };
  readonly result?: Record<string, unknown>;
  /** What it could not tidy, for the next sweep. */
  readonly chores?: readonly ChoreLeft[];
}

export function createCatalogActivities({ catalog, config, temporal }: ActivityDeps) {
  return {
    /**
     * Make the operation known. A workflow that was started by hand appears in the API from here on.
     *
     * @param input `counted`: false for a part of another operation and for what a schedule started, which the quota of
     *   schedules bounds
     * @throws FleetError `QuotaReached` when the tenant runs as many operations as it may
     */
    async registerOperation({
      counted = false,
      ...input
    }: ClusterRef & { kind: OperationKind; counted?: boolean }): Promise<void> {
      const { workflowId, runId } = workflowRun();
      if (counted) await requireOperationQuota(input.tenant, workflowId);
      const row = { ...input, id: workflowId, run_id: runId, state: 'running' as const };
      await catalog.run('register the operation', (db) =>
        db
          .insertInto('operations')
          .values(row)
          .onConflict((conflict) =>
            conflict
              .column('id')
              .doUpdateSet({ ...row, error_code: null, error_message: null, result: null, finished_at: null }),
          )
          .execute(),
      );
    },

    /**
     * Take the cluster's operation lease: one exclusive holder, or any number of shared ones, of which one at a time
     * is `copying`. A lease whose workflow is closed is taken over. Repeating is harmless.
     *
     * @param input `parent`: the workflow that runs this one as a part of itself, whose own lease is no obstacle
     * @throws FleetError `ClusterBusy` with the holder's id; `ClusterNotReady` while another holder is copying
     */
    async takeLease(input: ClusterRef & { mode: LeaseMode; copying?: boolean; parent?: string }): Promise<void> {
      const { tenant, cluster, mode, copying = false, parent } = input;
      const { workflowId, runId } = workflowRun();
      await catalog.run('take the lease', (db) =>
        db.transaction().execute(async (tx) => {
          await sql`select pg_advisory_xact_lock(hashtextextended(${`${tenant}--${cluster}`}, 0))`.execute(tx);
          const others = await tx
            .selectFrom('leases')
            .selectAll()
            .where('tenant', '=', tenant)
            .where('cluster', '=', cluster)
            .where('holder', '!=', workflowId)
            .execute();
          for (const other of others) {
            if (other.holder === parent) continue;
            const bothShared = mode === 'shared' && other.mode === 'shared';
            if (bothShared && !(copying && other.copying)) continue;
            if (await temporal.isOpen(other.holder, other.holder_run)) {
              if (bothShared) {
                throw new FleetError(
                  'ClusterNotReady',
                  `Operation "${other.holder}" is copying ${tenant}/${cluster}; a node makes one snapshot at a time.`,
                );
              }
              throw new FleetError(
                'ClusterBusy',
                `${tenant}/${cluster} is held by operation "${other.holder}" since ${other.taken_at.toISOString()}. Wait for it, or cancel it.`,
              );
            }
            await tx
              .deleteFrom('leases')
              .where('tenant', '=', tenant)
              .where('cluster', '=', cluster)
              .where('holder', '=', other.holder)
              .execute();
          }
          if (copying) await requireTurn(tx, tenant, workflowId);
          await tx
            .insertInto('leases')
            .values({ tenant, cluster, mode, copying, holder: workflowId, holder_run: runId })
            .onConflict((conflict) =>
              conflict.columns(['tenant', 'cluster', 'holder']).doUpdateSet({ mode, copying, holder_run: runId }),
            )
            .execute();
        }),
      );
    },

    /** Let go of a cluster before the operation ends, so that another operation of ours can take it. */
    async releaseLease({ tenant, cluster }: ClusterRef): Promise<void> {
      await catalog.run('release the lease', (db) =>
        db
          .deleteFrom('leases')
          .where('tenant', '=', tenant)
          .where('cluster', '=', cluster)
          .where('holder', '=', workflowRun().workflowId)
          .execute(),
      );
    },

    /** Record how the operation ended, let go of its leases, and write down what it could not tidy. */
    async endOperation({ state, error, result, chores = [] }: OperationEnd): Promise<void> {
      const { workflowId, runId } = workflowRun();
      await catalog.run('end the operation', (db) =>
        db.transaction().execute(async (tx) => {
          await tx.deleteFrom('leases').where('holder', '=', workflowId).execute();
          await tx.deleteFrom('quota_reservations').where('operation', '=', workflowId).execute();
          await tx
            .updateTable('operations')
            .set({
              state,
              error_code: error?.code ?? null,
              error_message: error?.message ?? null,
              result: result === undefined ? null : JSON.stringify(result),
              finished_at: new Date(),
            })
            .where('id', '=', workflowId)
            .execute();
          if (chores.length === 0) return;
          const rows = chores.map(({ what, why, ...chore }, number) => ({
            ...chore,
            what: JSON.stringify(what),
            operation: workflowId,
            operation_run: runId,
            number,
            last_error: why,
          }));
          await tx
            .insertInto('chores')
            .values(rows)
            .onConflict((conflict) => conflict.doNothing())
            .execute();
        }),
      );
    },

    /**
     * Reserve a cluster's name, resolve its specification with the configured presets, and hold it against the quotas.
     *
     * @throws FleetError `ClusterExists`, `QuotaReached`, `InvalidInput` when the request names an unknown preset,
     *   `NotAllowed` when it names what the operator does not let the tenant name
     */
    async reserveCluster(input: ClusterRef & { request: ClusterRequest }): Promise<ClusterSpec> {
      const { workflowId } = workflowRun();
      const { tenant, cluster, request } = input;
      requireWorkerLocation({
        ...(config.FLEET_WORKER_NAMESPACE !== undefined && { workerNamespace: config.FLEET_WORKER_NAMESPACE }),
        workerCidrs: config.FLEET_WORKER_CIDRS,
      });
      const resolved = resolve(request);
      requireAllowed(config.FLEET_TENANT_POLICY ?? DEFAULT_POLICY, tenant, resolved);
      const quotas = await catalog.run('read the quotas', (db) => readQuotas(db, tenant, config.FLEET_QUOTAS));
      const spec = { ...resolved, maxCollections: quotas.collectionsPerCluster };
      requireBelow(tenant, quotas, 'collectionsPerCluster', 0, spec.collections.length);
      if (spec.aws?.create.nodeGroups === true) requireMachineType(tenant, quotas, spec.aws.instanceType);
      if (spec.tls !== true && config.FLEET_QDRANT_RESOLVER === 'dns' && !config.FLEET_ALLOW_PLAINTEXT) {
        throw new FleetError(
          'PlaintextRefused',
          `${tenant}/${cluster} was asked for without TLS ("tls": false), and its nodes are other machines. Leave "tls" out. ${PLAINTEXT_ADVICE}`,
        );
      }
      const existing = await catalog.cluster(input);
      if (existing !== undefined && existing.created_by !== workflowId) throw clusterExists(existing);
      const row = {
        tenant,
        cluster,
        phase: 'CREATING' as const,
        spec: JSON.stringify(spec),
        namespace: namespaceOf(input),
        created_by: workflowId,
        reason: null,
      };
      await catalog.run('reserve the name', (db) =>
        db.transaction().execute(async (tx) => {
          await lockTenant(tx, tenant);
          requireRoom(tenant, quotas, await readUseOfOthers(tx, input), useOf(spec));
          await tx
            .insertInto('clusters')
            .values(row)
            .onConflict((conflict) => conflict.columns(['tenant', 'cluster']).doUpdateSet(row))
            .execute();
        }),
      );
      return spec;

      function resolve(wanted: ClusterRequest): ClusterSpec {
        try {
          return resolveSpec(wanted, config.FLEET_COLLECTION_PRESETS, { tls: config.FLEET_QDRANT_TLS });
        } catch (error) {
          if (error instanceof RangeError) throw new FleetError('InvalidInput', messageOf(error));
          throw error;
        }
      }
    },

    /** @throws FleetError `ClusterNotFound` */
    async loadCluster(
      ref: ClusterRef,
    ): Promise<{ spec: ClusterSpec; phase: ClusterPhase; namespace: string; deleteAfter?: string }> {
      const row = await catalog.cluster(ref);
      if (row === undefined) {
        throw new FleetError('ClusterNotFound', `Tenant "${ref.tenant}" has no cluster "${ref.cluster}".`);
      }
      const { spec, phase, namespace, delete_after: until } = row;
      return { spec, phase, namespace, ...(until !== null && { deleteAfter: until.toISOString() }) };
    },

    /** Whether the catalogue has the cluster. */
    async clusterExists(ref: ClusterRef): Promise<boolean> {
      return (await catalog.cluster(ref)) !== undefined;
    },

    async setClusterPhase(input: ClusterRef & ClusterState & { reason?: string; deleteAfter?: string }): Promise<void> {
      const { tenant, cluster, phase, reason, deleteAfter } = input;
      const row = await catalog.cluster(input);
      const conditions = conditionsOf(input, row?.conditions ?? [], new Date().toISOString());
      const why = reason ?? input.failure?.message ?? input.degraded ?? null;
      await catalog.run('set the phase', (db) =>
        byRef(db, tenant, cluster)
          .set({
            phase,
            reason: why,
            conditions: JSON.stringify(conditions),
            // The phases that an operation leaves are told by a look.
            ...(WATCHED.includes(phase) && { observed_at: new Date() }),
            delete_after: deleteAfter === undefined ? null : new Date(deleteAfter),
            updated_at: new Date(),
          })
          .execute(),
      );
    },

    /** Write down what the cluster is made of from now on. Called right after the chart was applied with it. */
    async recordSpec({ tenant, cluster, spec }: ClusterRef & { spec: ClusterSpec }): Promise<void> {
      await catalog.run('record the specification', (db) =>
        byRef(db, tenant, cluster)
          .set({ spec: JSON.stringify(spec), updated_at: new Date() })
          .execute(),
      );
    },

    /** Pause the cluster's backup schedules, which could only fail; those that somebody paused are left alone. */
    async pauseSchedules({ tenant, cluster }: ClusterRef): Promise<{ schedules: number }> {
      return { schedules: await temporal.pauseSchedules(tenant, cluster) };
    },

    /** Let the schedules run again that {@link pauseSchedules} paused. */
    async unpauseSchedules({ tenant, cluster }: ClusterRef): Promise<{ schedules: number }> {
      return { schedules: await temporal.unpauseSchedules(tenant, cluster) };
    },

    /**
     * Forget a cluster that is gone, and its backup schedules, which could only fail from now on.
     *
     * @param input `onlyOwn`: leave it alone unless this very operation made it, as a compensation must
     */
    async forgetCluster({
      tenant,
      cluster,
      onlyOwn,
    }: ClusterRef & { onlyOwn?: boolean }): Promise<{ schedules: number }> {
      if (onlyOwn === true) {
        const row = await catalog.cluster({ tenant, cluster });
        if (row?.created_by !== workflowRun().workflowId) return { schedules: 0 };
      }
      const schedules = await temporal.deleteSchedules(tenant, cluster);
      await catalog.run('forget the cluster', (db) =>
        db.transaction().execute(async (tx) => {
          await tx.deleteFrom('clusters').where('tenant', '=', tenant).where('cluster', '=', cluster).execute();
          await tx.deleteFrom('snapshots_left').where('tenant', '=', tenant).where('cluster', '=', cluster).execute();
        }),
      );
      return { schedules };
    },

    /** Bring the index of backups in line with a commit record. */
    async indexBackup(input: IndexEntry): Promise<void> {
      await indexBackup(catalog, input);
    },
  };

  /** Operations whose workflow was terminated still stand as running; they count no more. */
  async function requireOperationQuota(tenant: string, workflowId: string): Promise<void> {
    const { quotas, running } = await catalog.run('count the running operations', async (db) => ({
      quotas: await readQuotas(db, tenant, config.FLEET_QUOTAS),
      running: (await runningOperations(db, tenant)).filter(({ id }) => id !== workflowId),
    }));
    if (running.length < quotas.operationsRunning) return;
    requireBelow(tenant, quotas, 'operationsRunning', await countOpen(running));
  }

  /** @throws FleetError `ClusterNotReady` while as many backups of the tenant copy as may: this one waits for its turn */
  async function requireTurn(tx: Kysely<Database>, tenant: string, workflowId: string): Promise<void> {
    const { backupsRunning } = await readQuotas(tx, tenant, config.FLEET_QUOTAS);
    await lockTenant(tx, tenant);
    const others = (await copyingBackups(tx, tenant)).filter(({ id }) => id !== workflowId);
    if (others.length < backupsRunning || (await countOpen(others)) < backupsRunning) return;
    throw new FleetError(
      'ClusterNotReady',
      `${others.length} backups of tenant "${tenant}" copy, and its quota "backupsRunning" is ${backupsRunning}; this one waits for its turn.`,
    );
  }

  async function countOpen(operations: readonly { id: string; run_id: string }[]): Promise<number> {
    const open = await Promise.all(operations.map(({ id, run_id: run }) => temporal.isOpen(id, run)));
    return open.filter(Boolean).length;
  }
}

/** A backup as the list shows it. */
type IndexEntry = ClusterRef &
  InBucket & {
    readonly backup: string;
    readonly state: BackupState;
    readonly createdAt: string;
    readonly totals?: BackupTotals;
    /** Of one that was just marked for removal: ISO 8601 since when, and until when that can be taken back. */
    readonly deletingSince?: string;
    readonly purgeAfter?: string;
  };

/** Bring the index of backups in line with a commit record. */
export async function indexBackup(catalog: Catalog, input: IndexEntry): Promise<void> {
  const { tenant, cluster, backup, state, createdAt, totals, bucket, deletingSince, purgeAfter } = input;
  const dates = {
    deleting_since: deletingSince === undefined ? null : new Date(deletingSince),
    purge_after: purgeAfter === undefined ? null : new Date(purgeAfter),
  };
  const change = {
    state,
    changed_at: new Date(),
    bucket: bucket?.name ?? null,
    bucket_region: bucket?.region ?? null,
    // A later look at one that is still being removed does not know when it was marked.
    ...(state === 'DELETING' && deletingSince === undefined ? {} : dates),
  };
  await catalog.run('index the backup', (db) =>
    db
      .insertInto('backups')
      .values({
        tenant,
        cluster,
        backup,
        ...change,
        totals: totals === undefined ? null : JSON.stringify(totals),
        created_at: new Date(createdAt),
      })
      .onConflict((conflict) => conflict.columns(['tenant', 'cluster', 'backup']).doUpdateSet(change))
      .execute(),
  );
}

function byRef(db: Kysely<Database>, tenant: string, cluster: string) {
  return db.updateTable('clusters').where('tenant', '=', tenant).where('cluster', '=', cluster);
}
