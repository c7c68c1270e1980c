/** A bucket that a cluster has of its own, as the catalogue has it: made on the local store and not by AWS. */
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { sql } from 'kysely';
import type { Catalog } from '../../src/clients/catalog.ts';
import { bucketNameOf } from '../../src/domain/aws-names.ts';
import { resolveAws } from '../../src/domain/aws.ts';
import type { BucketRef, ClusterRef } from '../../src/domain/naming.ts';

/** A region that the local store is not in: requests must be signed for the store's own. */
const REGION = 'eu-west-1';

/** Have a bucket on the local store, and a row in the cluster's ledger that says it is the cluster's. */
export async function giveBucket(
  { env, catalog }: { env: Readonly<Record<string, string>>; catalog: Catalog },
  ref: ClusterRef,
): Promise<BucketRef> {
  const bucket = { name: bucketNameOf(ref, REGION, '123456789012'), region: REGION };
  const client = new S3Client({
    region: env['AWS_REGION'] ?? '',
    endpoint: env['FLEET_S3_ENDPOINT'] ?? '',
    forcePathStyle: true,
  });
  await client.send(new CreateBucketCommand({ Bucket: bucket.name }));
  client.destroy();
  const row = { ...ref, slot: 'bucket', kind: 'bucket', region: bucket.region, operation: 'test', token: 'test' };
  await catalog.db
    .insertInto('resources')
    .values({ ...row, resource_id: bucket.name, called_at: null })
    .execute();
  return bucket;
}

/** Have the cluster ask for a bucket of its own. */
export async function askForBucket(catalog: Catalog, { tenant, cluster }: ClusterRef): Promise<void> {
  const aws = JSON.stringify(resolveAws({ region: REGION, create: { backupBucket: true } }, 1));
  await catalog.db
    .updateTable('clusters')
    .set({ spec: sql`spec || jsonb_build_object('aws', ${aws}::jsonb)` })
    .where('tenant', '=', tenant)
    .where('cluster', '=', cluster)
    .execute();
}
