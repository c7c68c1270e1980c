/** A bucket of the cluster's own for its backups, where one is asked for. */
import type { Aws } from '../src/clients/aws/clients.ts';
import { onceSeen } from '../src/clients/aws/answers.ts';
import { awsErrorName, isInUse, isNotFound } from '../src/clients/aws/errors.ts';
import { fromTagList, tagList } from '../src/clients/aws/inventory.ts';
import { bucketNameOf, carries, type Tags } from '../src/domain/aws-names.ts';
import type { AwsPlan } from '../src/domain/aws-plan.ts';
import { FleetError } from '../src/domain/errors.ts';
import type { ClusterRef } from '../src/domain/naming.ts';
import { Ledger } from './aws-ledger.ts';
import type { ActivityDeps } from './deps.ts';

const KIND = 'bucket';

/**
 * Days for which nobody can remove a version of an object; governance mode, as S3 calls it. Writing a key anew and
 * deleting it are allowed meanwhile: they add a version or a delete marker, and the versions below stay.
 */
const LOCK_DAYS = 7;
/** Days after which an upload that nobody finished goes. Retention looks after one day; this is for what it never sees. */
const UPLOAD_DAYS = 7;

export function createAwsBackupBucketActivities(deps: ActivityDeps) {
  return {
    /**
     * Have the bucket: versioned, locked, encrypted, closed to the public. It has no policy: whoever may write one can let
     * another account in; the policies of our own identities ask for TLS. No object expires by a rule of the
     * bucket's, since retention knows what belongs together; what retention removed, and what was written anew, does:
     * it stays as a version for {@link LOCK_DAYS} days, and then S3 removes it.
     *
     * A bucket that a cluster of this name left behind with its backups is taken over with them.
     *
     * @throws FleetError `ResourceNotOurs` when it is anybody else's
     */
    async ensureBackupBucket({ plan, ...ref }: ClusterRef & { plan: AwsPlan }): Promise<{ bucket: string }> {
      const { aws, ledger } = await open(ref, plan.region);
      const Bucket = bucketNameOf(ref, plan.region, plan.account);
      const tags = ledger.tags(KIND);
      const row = await ledger.intend(KIND, KIND);
      const found = await bucketTags(aws, Bucket, plan.account);
      const ours = carries(found ?? {}, ledger.scope(false));
      // Tags come in a call of their own, so one without any that this operation was about to make is its own.
      const unfinished = found !== undefined && Object.keys(found).length === 0 && row.called_at !== null;
      if (found !== undefined && !ours && !unfinished) throw ledger.notOurs('bucket', Bucket, found);
      if (found === undefined) {
        await ledger.calling(KIND, () =>
          unlessOurs(row.called_at !== null, () =>
            aws.s3.createBucket({
              Bucket,
              ObjectLockEnabledForBucket: true,
              ObjectOwnership: 'BucketOwnerEnforced',
              ...(plan.region !== 'us-east-1' && {
                CreateBucketConfiguration: { LocationConstraint: plan.region as 'eu-west-1' },
              }),
            }),
          ),
        );
      }
      await onceSeen('S3', `bucket "${Bucket}"`, async () => {
        await aws.s3.putBucketTagging({
          Bucket,
          ExpectedBucketOwner: plan.account,
          Tagging: { TagSet: tagList(tags) },
        });
        await protect(aws, plan, Bucket);
      });
      await ledger.record(KIND, Bucket);
      return { bucket: Bucket };
    },

    /**
     * Remove the bucket if it is ours and empty: backups outlive their cluster.
     *
     * @returns whether a bucket with backups in it was kept
     */
    async deleteBackupBucket(
      input: ClusterRef & { region: string; onlyOwn?: boolean },
    ): Promise<{ kept: string | null }> {
      const { aws, ledger } = await open(input, input.region);
      const onlyOwn = input.onlyOwn === true;
      const row = (await deps.catalog.resources(input)).find(({ slot }) => slot === KIND);
      if (row === undefined) return { kept: null };
      const { Account = '' } = await aws.sts.getCallerIdentity({});
      const Bucket = bucketNameOf(input, input.region, Account);
      const found = await bucketTags(aws, Bucket, Account);
      const mine = !onlyOwn || row.operation === ledger.owner.operation;
      const unfinished = found !== undefined && Object.keys(found).length === 0 && mine && row.called_at !== null;
      if (found !== undefined) await ledger.seen([KIND]);
      else if ((await ledger.unsettled([KIND])) !== undefined) {
        throw new FleetError('InfrastructureNotReady', `Bucket "${Bucket}" may still appear; looking for it.`);
      }
      if (found !== undefined && (carries(found, ledger.scope(onlyOwn)) || unfinished)) {
        const { Versions = [], DeleteMarkers = [] } = await aws.s3.listObjectVersions({ Bucket, MaxKeys: 1 });
        if (Versions.length + DeleteMarkers.length > 0) return { kept: Bucket };
        try {
          await aws.s3.deleteBucket({ Bucket, ExpectedBucketOwner: Account });
        } catch (error) {
          if (isInUse(error)) return { kept: Bucket };
          if (!isNotFound(error)) throw error;
        }
      }
      await ledger.forgetKinds([KIND], onlyOwn);
      return { kept: null };
    },
  };

  async function open(ref: ClusterRef, region: string) {
    return { aws: await deps.aws.of(region), ledger: await Ledger.open(deps, ref, region) };
  }
}

/**
 * Its tags, or undefined when there is no such bucket. One that may not be looked at is somebody else's. Names of buckets
 * can be guessed, and another account may have taken one and let everybody at it: S3 refuses where the owner differs.
 */
async function bucketTags({ s3 }: Aws, Bucket: string, account: string): Promise<Tags | undefined> {
  try {
    return fromTagList((await s3.getBucketTagging({ Bucket, ExpectedBucketOwner: account })).TagSet);
  } catch (error) {
    if (awsErrorName(error) === 'NoSuchTagSet') return {};
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

async function protect({ s3 }: Aws, plan: AwsPlan, Bucket: string): Promise<void> {
  const bucket = { Bucket, ExpectedBucketOwner: plan.account };
  await s3.putPublicAccessBlock({
    ...bucket,
    PublicAccessBlockConfiguration: {
      BlockPublicAcls: true,
      IgnorePublicAcls: true,
      BlockPublicPolicy: true,
      RestrictPublicBuckets: true,
    },
  });
  await s3.putBucketVersioning({ ...bucket, VersioningConfiguration: { Status: 'Enabled' } });
  await s3.putBucketEncryption({
    ...bucket,
    ServerSideEncryptionConfiguration: {
      Rules: [{ ApplyServerSideEncryptionByDefault: { SSEAlgorithm: 'aws:kms' }, BucketKeyEnabled: true }],
    },
  });
  await s3.putObjectLockConfiguration({
    ...bucket,
    ObjectLockConfiguration: {
      ObjectLockEnabled: 'Enabled',
      Rule: { DefaultRetention: { Mode: 'GOVERNANCE', Days: LOCK_DAYS } },
    },
  });
  await s3.putBucketLifecycleConfiguration({
    ...bucket,
    LifecycleConfiguration: {
      Rules: [
        {
          ID: 'abort-unfinished-uploads',
          Status: 'Enabled',
          Filter: { Prefix: '' },
          AbortIncompleteMultipartUpload: { DaysAfterInitiation: UPLOAD_DAYS },
        },
        {
          ID: 'remove-old-versions',
          Status: 'Enabled',
          Filter: { Prefix: '' },
          NoncurrentVersionExpiration: { NoncurrentDays: LOCK_DAYS },
          Expiration: { ExpiredObjectDeleteMarker: true },
        },
      ],
    },
  });
}

/** A bucket of this account that S3 does not show yet is ours when an earlier attempt may have made it. */
async function unlessOurs(mayBeOurs: boolean, send: () => Promise<unknown>): Promise<void> {
  try {
    await send();
  } catch (error) {
    if (!mayBeOurs || awsErrorName(error) !== 'BucketAlreadyOwnedByYou') throw error;
  }
}
