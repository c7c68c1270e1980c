/**
 * IAM policies of a fleet, as JSON. `npm run --silent iam [boundary-arn]`: of a worker, to make clusters on AWS, with roles
 * within that boundary. `npm run --silent iam boundary [bucket]`: the boundary. `npm run --silent iam backups [bucket]`: of a
 * worker, for backups in the buckets of clusters and in the fleet's. `npm run --silent iam deletion [bucket]`: of what
 * deletes backups there. `npm run --silent iam buckets`: of a worker, to make buckets for clusters.
 */
import { backupsPolicy, bucketsPolicy, deletionPolicy } from './domain/aws-backups-policy.ts';
import { boundaryPolicy } from './domain/aws-boundary.ts';
import type { PolicyDocument } from './domain/aws-policies.ts';
import { workerPolicy } from './domain/aws-worker-policy.ts';

const [first, second] = process.argv.slice(2);
const ofBuckets = new Map<string | undefined, (bucket?: string) => PolicyDocument>([
  ['backups', backupsPolicy],
  ['deletion', deletionPolicy],
  ['buckets', () => bucketsPolicy()],
  ['boundary', boundaryPolicy],
]);
const policy = ofBuckets.get(first)?.(second) ?? workerPolicy('aws', first);
process.stdout.write(`${JSON.stringify(policy, null, 2)}\n`);
