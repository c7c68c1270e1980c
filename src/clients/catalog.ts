/**
 * The catalogue in PostgreSQL: clusters, operations, leases, and an index of backups that can be rebuilt from the
 * bucket. Typed queries only; decisions are in the activities.
 */
import {
  Kysely,
  PostgresDialect,
  sql,
  type ColumnType,
  type Generated,
  type JSONColumnType,
  type Selectable,
} from 'kysely';
import { Migrator } from 'kysely/migration';
import pg from 'pg';
import { LISTED_STATES, SHOWN_STATES, type BackupState, type BackupTotals, type ShownState } from '../domain/backup.ts';
import type { ChoreKind } from '../domain/chores.ts';
import type { ClusterPhase, ClusterSpec } from '../domain/cluster.ts';
import type { Condition } from '../domain/conditions.ts';
import { FleetError, messageOf } from '../domain/errors.ts';
import type { Identities } from '../domain/lost-disk.ts';
import type { ClusterRef } from '../domain/naming.ts';
import type { OperationKind } from '../domain/operation.ts';
import type { QuotaUse } from '../domain/quota.ts';
import { migrations } from './catalog-migrations.ts';

interface ClustersTable {
  tenant: string;
  cluster: string;
  phase: ClusterPhase;
  spec: JSONColumnType<ClusterSpec>;
  namespace: string;
  /** Workflow id of the operation that made it. */
  created_by: string;
  /** Why the phase is what it is, for people. */
  reason: string | null;
  conditions: ColumnType<readonly Condition[], string | undefined, string>;
  /** When somebody last looked at it and could say how it is. */
  observed_at: ColumnType<Date | null, Date | null | undefined, Date | null>;
  /** Which peer ran in which pod, on which claim, when somebody last looked. */
  identities: ColumnType<Identities, string | undefined, string>;
  /** Until when a deletion can be taken back. */
  delete_after: ColumnType<Date | null, Date | null | undefined, Date | null>;
  created_at: Generated<Date>;
  updated_at: Generated<Date>;
}

interface OperationsTable {
  /** Workflow id. */
  id: string;
  run_id: string;
  kind: OperationKind;
  tenant: string;
  cluster: string;
  state: 'running' | 'done' | 'failed' | 'cancelled';
  error_code: string | null;
  error_message: string | null;
  result: JSONColumnType<Record<string, unknown>> | null;
  started_at: Generated<Date>;
  finished_at: Date | null;
}

interface LeasesTable {
  tenant: string;
  cluster: string;
  holder: string;
  holder_run: string;
  mode: 'exclusive' | 'shared';
  /** Makes or removes snapshots on the nodes; at most one holder of a cluster does. */
  copying: Generated<boolean>;
  fence: Generated<string>;
  taken_at: Generated<Date>;
}

interface BackupsTable {
  tenant: string;
  cluster: string;
  backup: string;
  state: BackupState;
  totals: JSONColumnType<BackupTotals> | null;
  /** Null: the fleet's. */
  bucket: string | null;
  bucket_region: string | null;
  created_at: Date;
  changed_at: Date;
  /** While it is being removed: since when, and until when that can be taken back. */
  deleting_since: ColumnType<Date | null, Date | null | undefined, Date | null>;
  purge_after: ColumnType<Date | null, Date | null | undefined, Date | null>;
}

/** Snapshots that could not be removed from a node: all of the shard's that are not in `known`. */
interface SnapshotsLeftTable {
  tenant: string;
  cluster: string;
  peer: string;
  collection: string;
  shard: number;
  known: JSONColumnType<readonly string[]>;
  /** Workflow id of who left them. */
  operation: string;
  operation_run: string;
  since: Generated<Date>;
}

/** What operations could not tidy, until a sweep has done it. */
interface ChoresTable {
  tenant: string;
  /** Whose sweep does it. */
  cluster: string;
  kind: ChoreKind;
  what: JSONColumnType<Readonly<Record<string, string>>>;
  /** Workflow id of who left it. */
  operation: string;
  operation_run: string;
  /** Counts what one run left. */
  number: number;
  since: Generated<Date>;
  attempts: Generated<number>;
  last_error: string;
}

/** What a cluster has at its provider: an intent before the call, and the provider's id when the answer came. */
interface ResourcesTable {
  tenant: string;
  cluster: string;
  /** What it is to the cluster, such as `subnet/private/us-east-1a`. */
  slot: string;
  kind: string;
  region: string;
  /** Workflow id of the operation that makes or made it. */
  operation: string;
  /** Idempotency token of the call that makes it. */
  token: string;
  resource_id: string | null;
  /** When a call that makes it was last about to be sent. */
  called_at: Date | null;
  created_at: Generated<Date>;
}

/** What an operator set for one tenant. */
interface TenantQuotasTable {
  tenant: string;
  quota: string;
  value: ColumnType<number | readonly string[], string, string>;
  changed_at: ColumnType<Date, Date | undefined, Date>;
}

/** What a cluster will take once `operation`, which holds its lease, has changed it. */
interface QuotaReservationsTable {
  tenant: string;
  cluster: string;
  operation: string;
  use: JSONColumnType<QuotaUse>;
}

interface InstallationTable {
  id: string;
}

export interface Database {
  resources: ResourcesTable;
  installation: InstallationTable;
  tenant_quotas: TenantQuotasTable;
  quota_reservations: QuotaReservationsTable;
  clusters: ClustersTable;
  operations: OperationsTable;
  leases: LeasesTable;
  backups: BackupsTable;
  snapshots_left: SnapshotsLeftTable;
  chores: ChoresTable;
}

export type ClusterRow = Selectable<ClustersTable>;
export type OperationRow = Selectable<OperationsTable>;
export type BackupRow = Selectable<BackupsTable>;
export type ResourceRow = Selectable<ResourcesTable>;

/** A page of a list: at most `limit` rows after the row whose key is `after`. */
export interface Page {
  readonly limit: number;
  readonly after?: string;
}

export class Catalog {
  readonly db: Kysely<Database>;

  constructor(databaseUrl: string) {
    const pool = new pg.Pool({ connectionString: databaseUrl, max: 10, connectionTimeoutMillis: 5000 });
    // An idle connection that breaks must not take the process with it; the next query opens another.
    pool.on('error', () => undefined);
    this.db = new Kysely<Database>({ dialect: new PostgresDialect({ pool }) });
  }

  /** Bring the schema up to date. Several processes may call this at once; Kysely locks. */
  async migrate(): Promise<void> {
    await this.run('migrate the catalogue', async () => {
      const migrator = new Migrator({ db: this.db, provider: { getMigrations: () => Promise.resolve(migrations) } });
      const { error } = await migrator.migrateToLatest();
      if (error !== undefined) throw error instanceof Error ? error : new Error(messageOf(error));
    });
  }

  async ping(): Promise<void> {
    await this.run('reach the catalogue', () => sql`select 1`.execute(this.db));
  }

  /** @throws FleetError `CatalogUnavailable` for anything that goes wrong in the database */
  async run<T>(what: string, query: (db: Kysely<Database>) => Promise<T>): Promise<T> {
    try {
      return await query(this.db);
    } catch (error) {
      if (FleetError.is(error)) throw error;
      throw new FleetError('CatalogUnavailable', `Could not ${what}: ${messageOf(error)}`, { cause: error });
    }
  }

  cluster({ tenant, cluster }: ClusterRef): Promise<ClusterRow | undefined> {
    return this.run('read the cluster', (db) =>
      db
        .selectFrom('clusters')
        .selectAll()
        .where('tenant', '=', tenant)
        .where('cluster', '=', cluster)
        .executeTakeFirst(),
    );
  }

  /** Id of this catalogue, made once with it. */
  async installation(): Promise<string> {
    const { id } = await this.run('read the id of the installation', (db) =>
      db.selectFrom('installation').select('id').executeTakeFirstOrThrow(),
    );
    return id;
  }

  /** What a cluster has at its provider, in the order in which it was made. */
  resources({ tenant, cluster }: ClusterRef): Promise<ResourceRow[]> {
    return this.run('read the resources', (db) =>
      db
        .selectFrom('resources')
        .selectAll()
        .where('tenant', '=', tenant)
        .where('cluster', '=', cluster)
        .orderBy('created_at')
        .execute(),
    );
  }

  clusters(tenant: string, { limit, after }: Page): Promise<ClusterRow[]> {
    return this.run('list clusters', (db) => {
      const query = db.selectFrom('clusters').selectAll().where('tenant', '=', tenant).orderBy('cluster').limit(limit);
      return (after === undefined ? query : query.where('cluster', '>', after)).execute();
    });
  }

  operation(tenant: string, id: string): Promise<OperationRow | undefined> {
    return this.run('read the operation', (db) =>
      db.selectFrom('operations').selectAll().where('tenant', '=', tenant).where('id', '=', id).executeTakeFirst(),
    );
  }

  /** Newest first; `after` is the id of the last backup of the page before. Without `state`: all that are listed. */
  backups({ tenant, cluster }: ClusterRef, { limit, after }: Page, state?: ShownState): Promise<BackupRow[]> {
    return this.run('list backups', (db) => {
      const query = db
        .selectFrom('backups')
        .selectAll()
        .where('tenant', '=', tenant)
        .where('cluster', '=', cluster)
        .where('state', 'in', state === undefined ? LISTED_STATES : [state])
        .orderBy('backup', 'desc')
        .limit(limit);
      return (after === undefined ? query : query.where('backup', '<', after)).execute();
    });
  }

  /** A backup that is listed, or that is being removed and can still be taken back. */
  backup(
    tenant: string,
    backup: string,
    states: readonly BackupState[] = SHOWN_STATES,
  ): Promise<BackupRow | undefined> {
    return this.run('read the backup', (db) =>
      db
        .selectFrom('backups')
        .selectAll()
        .where('tenant', '=', tenant)
        .where('backup', '=', backup)
        .where('state', 'in', states)
        .executeTakeFirst(),
    );
  }

  async close(): Promise<void> {
    await this.db.destroy();
  }
}
