/**
 * In which bucket a cluster's backups are: the fleet's, or one of its own. The catalogue knows it of each backup. Before
 * the first one goes into another bucket, that is written down in the fleet's, so that both are found without the
 * catalogue, too.
 */
import { isBucketNameOf } from '../src/domain/aws-names.ts';
import { parseBuckets } from '../src/domain/backup-parse.ts';
import { FleetError } from '../src/domain/errors.ts';
import {
  backupKeys,
  bucketsKey,
  type BackupLocation,
  type BucketRef,
  type ClusterRef,
  type InBucket,
} from '../src/domain/naming.ts';
import type { ActivityDeps } from './deps.ts';

type Parts = Pick<ActivityDeps, 'catalog' | 'stores' | 'config'>;

/** Slot of the bucket in a cluster's ledger. */
const SLOT = 'bucket';

/**
 * Where the next backup of a cluster goes.
 *
 * @throws FleetError `InfrastructureNotReady` when the cluster is to have a bucket of its own, and none is recorded
 */
export async function bucketForBackup(parts: Parts, ref: ClusterRef): Promise<InBucket> {
  const { catalog } = parts;
  const row = await catalog.cluster(ref);
  if (row?.spec.aws?.create.backupBucket !== true) return {};
  const ledger = (await catalog.resources(ref)).find(({ slot }) => slot === SLOT);
  if (ledger?.resource_id == null) {
    throw new FleetError(
      'InfrastructureNotReady',
      `${ref.tenant}/${ref.cluster} is to have a bucket of its own, and none is recorded. Was it made completely?`,
    );
  }
  const bucket = { name: ledger.resource_id, region: ledger.region };
  await writeDown(parts, ref, bucket);
  return { bucket };
}

/** All buckets that may hold backups of a cluster, whether or not it still exists; the fleet's first. */
export async function bucketsOf(parts: Parts, ref: ClusterRef): Promise<InBucket[]> {
  const rows = await parts.catalog.run('read the buckets', (db) =>
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
  const found = [...rows.map(bucketOfRow), ...(await readDown(parts, ref)).buckets];
  const others = new Map(found.flatMap((bucket) => (bucket === undefined ? [] : [[bucket.name, bucket] as const])));
  return [{}, ...[...others.values()].map((bucket) => ({ bucket }))];
}

/** Where a backup is. One that nobody knows is looked for in the fleet's bucket. */
export async function locate(
  parts: Parts,
  { tenant, cluster, backup }: ClusterRef & { readonly backup: string },
): Promise<BackupLocation> {
  const at: BackupLocation = { tenant, cluster, backup, prefix: parts.config.FLEET_BACKUP_PREFIX };
  const row = await parts.catalog.run('look the backup up', (db) =>
    db
      .selectFrom('backups')
      .select(['bucket', 'bucket_region'])
      .where('tenant', '=', tenant)
      .where('cluster', '=', cluster)
      .where('backup', '=', backup)
      .executeTakeFirst(),
  );
  if (row !== undefined) {
    const bucket = bucketOfRow(row);
    return bucket === undefined ? at : { ...at, bucket };
  }
  const { buckets } = await readDown(parts, at);
  if (buckets.length === 0) return at;
  for (const place of [at, ...buckets.map((bucket) => ({ ...at, bucket }))]) {
    if ((await parts.stores.of(place).head(backupKeys(place).intent)) !== undefined) return place;
  }
  return at;
}

async function writeDown(parts: Parts, ref: ClusterRef, bucket: BucketRef): Promise<void> {
  for (let tries = 0; tries < 5; tries += 1) {
    const { key, buckets, etag } = await readDown(parts, ref);
    if (buckets.some(({ name }) => name === bucket.name)) return;
    const text = JSON.stringify({ formatVersion: 1, buckets: [...buckets, bucket] });
    const condition = etag === undefined ? ({ absent: true } as const) : { etag };
    if ((await parts.stores.fleet.putIf(key, text, condition)) === 'written') return;
  }
  throw new FleetError('StoreUnavailable', `The list of buckets of ${ref.tenant}/${ref.cluster} keeps changing.`);
}

async function readDown(
  { stores, config, catalog }: Parts,
  ref: ClusterRef,
): Promise<{ key: string; buckets: readonly BucketRef[]; etag?: string }> {
  const { tenant, cluster } = ref;
  const key = bucketsKey({ tenant, cluster, prefix: config.FLEET_BACKUP_PREFIX });
  const found = await stores.fleet.getJson(key);
  if (found === undefined) return { key, buckets: [] };
  const { buckets } = parseBuckets(found.body, key);
  const ours = await givenBuckets(catalog, { tenant, cluster });
  // One that the fleet never gave this cluster is not looked into: no key is read there, nor presigned.
  return { key, buckets: buckets.filter(({ name }) => ours.has(name) || isBucketNameOf(name, ref)), etag: found.etag };
}

/** Names of the buckets that the catalogue knows of a cluster. */
async function givenBuckets(catalog: Parts['catalog'], ref: ClusterRef): Promise<ReadonlySet<string>> {
  const rows = await catalog.run('read the buckets that were given', (db) =>
    db
      .selectFrom('backups')
      .select('bucket as name')
      .distinct()
      .where('tenant', '=', ref.tenant)
      .where('cluster', '=', ref.cluster)
      .where('bucket', 'is not', null)
      .execute(),
  );
  const ledger = (await catalog.resources(ref)).filter(({ slot }) => slot === SLOT);
  const names = [...rows.map(({ name }) => name), ...ledger.map(({ resource_id: name }) => name)];
  return new Set(names.filter((name) => name !== null));
}

function bucketOfRow(row: { bucket: string | null; bucket_region: string | null }): BucketRef | undefined {
  return row.bucket === null ? undefined : { name: row.bucket, region: row.bucket_region ?? '' };
}
