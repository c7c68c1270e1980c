/** `npm run --silent iam [boundary-arn]`: the IAM policy of a worker that makes clusters on AWS, as JSON. */
import { workerPolicy } from './domain/aws-worker-policy.ts';

process.stdout.write(`${JSON.stringify(workerPolicy('aws', process.argv[2]), null, 2)}\n`);
