/** The catalogue's schema, one migration after another. Never edit one that was released. */
import { sql, type Kysely } from 'kysely';
import type { Migration } from 'kysely/migration';

export const migrations: Record<string, Migration> = {
  '2026-11-01-first': {
    async up(db: Kysely<unknown>): Promise<void> {
      await sql`
        create table clusters (
          tenant text not null,
          cluster text not null,
          phase text not null,
          spec jsonb not null,
          namespace text not null unique,
          created_by text not null,
          reason text,
          created_at timestamptz not null default now(),
          updated_at timestamptz not null default now(),
          primary key (tenant, cluster)
        )`.execute(db);
      await sql`
        create table operations (
          id text primary key,
          run_id text not null,
          kind text not null,
          tenant text not null,
          cluster text not null,
          state text not null,
          error_code text,
          error_message text,
          result jsonb,
          started_at timestamptz not null default now(),
          finished_at timestamptz
        )`.execute(db);
      await sql`create index operations_by_cluster on operations (tenant, cluster, started_at desc)`.execute(db);
      // One exclusive lease or many shared ones per cluster; the rule needs a look at all rows, so takers lock first.
      await sql`create sequence lease_fence`.execute(db);
      await sql`
        create table leases (
          tenant text not null,
          cluster text not null,
          holder text not null,
          holder_run text not null,
          mode text not null,
          fence bigint not null default nextval('lease_fence'),
          taken_at timestamptz not null default now(),
          primary key (tenant, cluster, holder)
        )`.execute(db);
      await sql`
        create unique index leases_one_exclusive on leases (tenant, cluster) where mode = 'exclusive'`.execute(db);
      await sql`
        create table backups (
          tenant text not null,
          cluster text not null,
          backup text not null,
          state text not null,
          totals jsonb,
          created_at timestamptz not null,
          changed_at timestamptz not null,
          primary key (tenant, cluster, backup)
        )`.execute(db);
      await sql`create index backups_by_id on backups (tenant, backup)`.execute(db);
    },
  },
  '2026-11-21-snapshots-left': {
    async up(db: Kysely<unknown>): Promise<void> {
      await sql`
        create table snapshots_left (
          tenant text not null,
          cluster text not null,
          peer text not null,
          collection text not null,
          shard integer not null,
          known jsonb not null,
          operation text not null,
          operation_run text not null,
          since timestamptz not null default now(),
          primary key (tenant, cluster, peer, collection, shard, operation_run)
        )`.execute(db);
      // Of the shared holders of a cluster at most one makes or removes snapshots on its nodes.
      await sql`alter table leases add column copying boolean not null default false`.execute(db);
      await sql`create unique index leases_one_copying on leases (tenant, cluster) where copying`.execute(db);
    },
  },
  '2026-11-22-resources': {
    async up(db: Kysely<unknown>): Promise<void> {
      // Tells two fleets in one cloud account apart.
      await sql`create table installation (id text not null)`.execute(db);
      await sql`insert into installation (id) values (gen_random_uuid()::text)`.execute(db);
      await sql`
        create table resources (
          tenant text not null,
          cluster text not null,
          slot text not null,
          kind text not null,
          region text not null,
          operation text not null,
          token text not null,
          resource_id text,
          called_at timestamptz,
          created_at timestamptz not null default clock_timestamp(),
          primary key (tenant, cluster, slot)
        )`.execute(db);
    },
  },
  '2026-11-23-life': {
    async up(db: Kysely<unknown>): Promise<void> {
      await sql`alter table clusters add column conditions jsonb not null default '[]'`.execute(db);
      await sql`alter table clusters add column delete_after timestamptz`.execute(db);
    },
  },
  '2026-11-24-backup-buckets': {
    async up(db: Kysely<unknown>): Promise<void> {
      await sql`alter table backups add column bucket text`.execute(db);
      await sql`alter table backups add column bucket_region text`.execute(db);
    },
  },
  '2026-11-27-d-done': {
    async up(db: Kysely<unknown>): Promise<void> {
      await sql`
        create table chores (
          tenant text not null,
          cluster text not null,
          kind text not null,
          what jsonb not null,
          operation text not null,
          operation_run text not null,
          number integer not null,
          since timestamptz not null default now(),
          attempts integer not null default 0,
          last_error text not null,
          primary key (operation_run, number)
        )`.execute(db);
      await sql`create index chores_by_cluster on chores (tenant, cluster)`.execute(db);
    },
  },
  '2026-11-27-h-health': {
    async up(db: Kysely<unknown>): Promise<void> {
      await sql`alter table clusters add column observed_at timestamptz`.execute(db);
      await sql`alter table clusters add column identities jsonb not null default '{}'`.execute(db);
      // Those that may have lost their workflow are looked for every few seconds.
      await sql`create index operations_running on operations (id) where state = 'running'`.execute(db);
    },
  },
  '2026-11-27-q-quota': {
    async up(db: Kysely<unknown>): Promise<void> {
      // What an operator set for one tenant; what is not here is the configuration's.
      await sql`
        create table tenant_quotas (
          tenant text not null,
          quota text not null,
          value jsonb not null,
          changed_at timestamptz not null default now(),
          primary key (tenant, quota)
        )`.execute(db);
      // What a cluster will take once the operation that holds it has changed it.
      await sql`
        create table quota_reservations (
          tenant text not null,
          cluster text not null,
          operation text not null,
          use jsonb not null,
          primary key (tenant, cluster)
        )`.execute(db);
      await sql`create index operations_running_by_tenant on operations (tenant) where state = 'running'`.execute(db);
    },
  },
  '2026-11-27-t-truth': {
    async up(db: Kysely<unknown>): Promise<void> {
      await sql`alter table backups add column deleting_since timestamptz`.execute(db);
      await sql`alter table backups add column purge_after timestamptz`.execute(db);
    },
  },
};
