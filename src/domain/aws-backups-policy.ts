/** The IAM policies of the identities that write and that delete backups: docs/iam has them as they are printed. */
import { BUCKET_PATTERN } from './aws-names.ts';
import type { PolicyDocument, Statement } from './aws-policies.ts';

/**
 * The id of a backup, of its own length: `*` would reach over `/`, into data of a collection named `leases`.
 * See `backupIdOf` in naming.ts.
 */
const BACKUP = `20${'?'.repeat(6)}T${'?'.repeat(6)}Z-${'?'.repeat(8)}`;

/**
 * What backups and restores do in a bucket, and no deletion but of leases: {@link deletionPolicy} is for that. No version
 * of an object is removed, read or unlocked: what the lock of a cluster's own bucket holds is out of the worker's reach.
 *
 * @param bucket the fleet's; default: only those that clusters have of their own
 */
export function backupsPolicy(bucket?: string, partition = 'aws'): PolicyDocument {
  const buckets = bucketArns(bucket, partition);
  return {
    Version: '2012-10-17',
    Statement: [
      {
        Sid: 'Objects',
        Effect: 'Allow',
        Action: ['s3:GetObject', 's3:PutObject', 's3:AbortMultipartUpload', 's3:ListMultipartUploadParts'],
        Resource: buckets.map((arn) => `${arn}/*`),
      },
      {
        Sid: 'Leases',
        Effect: 'Allow',
        Action: 's3:DeleteObject',
        Resource: buckets.map((arn) => `${arn}/*/${BACKUP}/leases/*.json`),
      },
      {
        Sid: 'Lists',
        Effect: 'Allow',
        Action: ['s3:ListBucket', 's3:ListBucketMultipartUploads'],
        Resource: buckets,
      },
      ...denials(partition),
    ],
  };
}

/**
 * What removes the data of backups that retention does not keep, or that did not come to their end. It reads nothing. For
 * an identity of its own (FLEET_S3_DELETE_ACCESS_KEY_ID or FLEET_BACKUP_DELETE_ROLE_ARN), or the worker's where there is
 * none.
 *
 * @param bucket as {@link backupsPolicy}
 */
export function deletionPolicy(bucket?: string, partition = 'aws'): PolicyDocument {
  return {
    Version: '2012-10-17',
    Statement: [
      {
        Sid: 'Remove',
        Effect: 'Allow',
        Action: ['s3:DeleteObject', 's3:AbortMultipartUpload'],
        Resource: bucketArns(bucket, partition).map((arn) => `${arn}/*`),
      },
      ...denials(partition),
    ],
  };
}

/**
 * What a worker needs to make and remove the buckets that clusters have of their own (`create.backupBucket`). No policy of
 * a bucket is written: it could let another account in, which no policy of ours binds.
 */
export function bucketsPolicy(partition = 'aws'): PolicyDocument {
  return {
    Version: '2012-10-17',
    Statement: [
      { Sid: 'Buckets', Effect: 'Allow', Action: KEEPING, Resource: bucketArns(undefined, partition) },
      ...denials(partition),
    ],
  };
}

/**
 * A bucket's policy can allow what no policy of an identity mentions, and cannot allow what one denies.
 *
 * @returns that no version goes or loses its lock, and nothing goes without TLS
 */
function denials(partition: string): Statement[] {
  const Resource = `arn:${partition}:s3:::*`;
  return [
    { Sid: 'KeepVersions', Effect: 'Deny', Action: OF_VERSIONS, Resource },
    {
      Sid: 'OnlyTls',
      Effect: 'Deny',
      Action: 's3:*',
      Resource,
      Condition: { Bool: { 'aws:SecureTransport': 'false' } },
    },
  ];
}

const OF_VERSIONS = [
  's3:DeleteObjectVersion',
  's3:BypassGovernanceRetention',
  's3:PutObjectRetention',
  's3:PutObjectLegalHold',
  's3:PutBucketPolicy',
  's3:DeleteBucketPolicy',
];

const KEEPING = [
  's3:CreateBucket',
  's3:PutBucketOwnershipControls',
  's3:DeleteBucket',
  's3:GetBucketTagging',
  's3:PutBucketTagging',
  's3:PutBucketPublicAccessBlock',
  's3:PutBucketVersioning',
  's3:PutEncryptionConfiguration',
  's3:PutBucketObjectLockConfiguration',
  's3:PutLifecycleConfiguration',
  's3:ListBucketVersions',
];

function bucketArns(bucket: string | undefined, partition: string): string[] {
  return [BUCKET_PATTERN, ...(bucket === undefined ? [] : [bucket])].map((name) => `arn:${partition}:s3:::${name}`);
}
