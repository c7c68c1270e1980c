/** AWS of the local stack as a process; see front.ts. Prints `ready` when it can be used. */
import { startAwsFront } from './front.ts';

function variable(name: string): string {
  const value = process.env[name];
  if (value === undefined || value === '') throw new Error(`${name} is not set.`);
  return value;
}

await startAwsFront({
  moto: variable('FLEET_LOCAL_MOTO'),
  ministack: variable('FLEET_LOCAL_MINISTACK'),
  kubeconfig: variable('KUBECONFIG'),
  port: Number(variable('FLEET_LOCAL_AWS_PORT')),
  webhookPort: Number(variable('FLEET_LOCAL_TOKEN_WEBHOOK_PORT')),
  credentials: {
    accessKeyId: variable('AWS_ACCESS_KEY_ID'),
    secretAccessKey: variable('AWS_SECRET_ACCESS_KEY'),
  },
  log: (line) => void process.stderr.write(`${new Date().toISOString()} aws ${line}\n`),
});
console.log('ready');
