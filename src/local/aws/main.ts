/** AWS of the local stack as a process; see front.ts. Prints `ready` when it can be used. */
import { startAwsFront } from './front.ts';

function variable(name: string): string {
  const value = process.env[name];
  if (value === undefined || value === '') throw new Error(`${name} is not set.`);
  return value;
}

const credentials = {
  accessKeyId: variable('AWS_ACCESS_KEY_ID'),
  secretAccessKey: variable('AWS_SECRET_ACCESS_KEY'),
};

await startAwsFront({
  moto: variable('FLEET_LOCAL_MOTO'),
  ministack: variable('FLEET_LOCAL_MINISTACK'),
  kubeconfig: variable('KUBECONFIG'),
  port: Number(variable('FLEET_LOCAL_AWS_PORT')),
  webhookPort: Number(variable('FLEET_LOCAL_TOKEN_WEBHOOK_PORT')),
  credentials,
  // The stack has one identity, for the store and for AWS.
  bucketStore: { endpoint: variable('FLEET_S3_ENDPOINT'), region: variable('AWS_REGION'), credentials },
  log: (line) => void process.stderr.write(`${new Date().toISOString()} aws ${line}\n`),
});
console.log('ready');
