/** The IAM policy that a worker needs on the buckets that hold backups: docs/iam/backups.json is generated from it. */
import { BUCKET_PATTERN } from './aws-names.ts';
import type { PolicyDocument } from './aws-policies.ts';

/**
 * What backups, restores and retention do in a bucket. No version of an object is removed, read or unlocked: what the
 * lock of a cluster's own bucket holds is out of the worker's reach.
 *
 * @param bucket the fleet's; default: only those that clusters have of their own
 */
export function backupsPolicy(bucket?: string, partition = 'aws'): PolicyDocument {
  const buckets = [BUCKET_PATTERN, ...(bucket === undefined ? [] : [bucket])].map(
    (name) => `arn:${partition}:s3:::${name}`,
  );
  return {
    Version: '2012-10-17',
    Statement: [
      {
        Sid: 'Objects',
        Effect: 'Allow',
        Action: [
          's3:GetObject',
          's3:PutObject',
          's3:DeleteObject',
          's3:AbortMultipartUpload',
          's3:ListMultipartUploadParts',
        ],
        Resource: buckets.map((arn) => `${arn}/*`),
      },
      {
        Sid: 'Lists',
        Effect: 'Allow',
        Action: ['s3:ListBucket', 's3:ListBucketMultipartUploads'],
        Resource: buckets,
      },
    ],
  };
}
