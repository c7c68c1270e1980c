/**
 * IAM policies of a worker, as JSON. `npm run --silent iam [boundary-arn]`: to make clusters on AWS.
 * `npm run --silent iam backups [bucket]`: for backups in the buckets of clusters and in the fleet's.
 */
import { backupsPolicy } from './domain/aws-backups-policy.ts';
import { workerPolicy } from './domain/aws-worker-policy.ts';

const [first, second] = process.argv.slice(2);
const policy = first === 'backups' ? backupsPolicy(second) : workerPolicy('aws', first);
process.stdout.write(`${JSON.stringify(policy, null, 2)}\n`);
