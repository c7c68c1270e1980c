/** In which bucket a cluster's backups are: the fleet's, or one of its own. */
import type { Catalog } from '../src/clients/catalog.ts';
import { FleetError } from '../src/domain/errors.ts';
import {
  backupKeys,
  type BackupLocation,
  type BucketRef,
  type ClusterRef,
  type InBucket,
} from '../src/domain/naming.ts';
import type { ActivityDeps } from './deps.ts';

/** Slot of the bucket in a cluster's ledger. */
const SLOT = 'bucket';

/**
 * Where the next backup of a cluster goes.
 *
 * @throws FleetError `InfrastructureNotReady` when the cluster is to have a bucket of its own, and none is recorded
 */
export async function bucketForBackup(catalog: Catalog, ref: ClusterRef): Promise<InBucket> {
  const row = await catalog.cluster(ref);
  if (row?.spec.aws?.create.backupBucket !== true) return {};
  const bucket = await ownBucket(catalog, ref);
  if (bucket !== undefined) return { bucket };
  throw new FleetError(
    'InfrastructureNotReady',
    `${ref.tenant}/${ref.cluster} is to have a bucket of its own, and none is recorded. Was it made completely?`,
  );
}

/** All buckets that may hold backups of a cluster, whether or not it still exists; the fleet's first. */
export async function bucketsOf(catalog: Catalog, ref: ClusterRef): Promise<InBucket[]> {
  const rows = await catalog.run('read the buckets', (db) =>
    db
      .selectFrom('backups')
      .select(['bucket', 'bucket_region'])
      .distinct()
      .where('tenant', '=', ref.tenant)
      .where('cluster', '=', ref.cluster)
      .where('bucket', 'is not', null)
      .where('state', 'not in', ['DELETED', 'ABORTED'])
      .execute(),
  );
  const found = [...rows.map(bucketOfRow), await ownBucket(catalog, ref)].filter((bucket) => bucket !== undefined);
  const others = new Map(found.map((bucket) => [bucket.name, bucket]));
  return [{}, ...[...others.values()].map((bucket) => ({ bucket }))];
}

/** Where a backup is. One that nobody knows is looked for in the fleet's bucket. */
export async function locate(
  { catalog, stores, config }: Pick<ActivityDeps, 'catalog' | 'stores' | 'config'>,
  { tenant, cluster, backup }: ClusterRef & { readonly backup: string },
): Promise<BackupLocation> {
  const at: BackupLocation = { tenant, cluster, backup, prefix: config.FLEET_BACKUP_PREFIX };
  const row = await catalog.run('look the backup up', (db) =>
    db
      .selectFrom('backups')
      .select(['bucket', 'bucket_region'])
      .where('tenant', '=', tenant)
      .where('cluster', '=', cluster)
      .where('backup', '=', backup)
      .executeTakeFirst(),
  );
  const indexed = row && bucketOfRow(row);
  if (indexed !== undefined) return { ...at, bucket: indexed };
  // One that is not indexed, or was by a worker that knew one bucket only.
  const bucket = await ownBucket(catalog, at);
  if (bucket === undefined || (await isThere(at))) return at;
  const own = { ...at, bucket };
  return (await isThere(own)) ? own : at;

  async function isThere(location: BackupLocation): Promise<boolean> {
    return (await stores.of(location).head(backupKeys(location).intent)) !== undefined;
  }
}

async function ownBucket(catalog: Catalog, ref: ClusterRef): Promise<BucketRef | undefined> {
  const row = (await catalog.resources(ref)).find(({ slot }) => slot === SLOT);
  return row?.resource_id == null ? undefined : { name: row.resource_id, region: row.region };
}

function bucketOfRow(row: { bucket: string | null; bucket_region: string | null }): BucketRef | undefined {
  return row.bucket === null ? undefined : { name: row.bucket, region: row.bucket_region ?? '' };
}
