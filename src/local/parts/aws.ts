import { join } from 'node:path';
import { CALLS_PATH, sdkEndpoints } from '../aws/proxy/proxy.ts';
import { REPOSITORY } from '../paths.ts';
import type { Ports } from '../ports.ts';
import type { Part } from '../supervisor.ts';
import { answersOk } from './probes.ts';

/** The proxy in front of the AWS emulators, with what makes their EKS clusters real. */
export function awsPart(env: Record<string, string>, ports: Ports): Part {
  const url = awsUrl(ports);
  return {
    name: 'aws',
    address: url,
    command: process.execPath,
    args: [join(REPOSITORY, 'src/local/aws/main.ts')],
    cwd: REPOSITORY,
    env: {
      ...env,
      FLEET_LOCAL_AWS_PORT: String(ports.aws),
      FLEET_LOCAL_MOTO: `http://127.0.0.1:${ports.moto}`,
      FLEET_LOCAL_MINISTACK: `http://127.0.0.1:${ports.ministack}`,
    },
    needs: ['moto', 'ministack', 'kube-apiserver', 's3'],
    isReady: (log) => /^ready$/m.test(log()) && answersOk(`${url}${CALLS_PATH}`),
  };
}

function awsUrl(ports: Ports): string {
  return `http://127.0.0.1:${ports.aws}`;
}

/** What makes a worker use it: the SDKs' own variables, and the fleet's for everything that AWS is asked. */
export function awsEnvironment(ports: Ports): Record<string, string> {
  const url = awsUrl(ports);
  // What the emulators have made they show at once.
  return { ...sdkEndpoints(url), FLEET_AWS_ENDPOINT: url, FLEET_AWS_CONSISTENCY_SECONDS: '2' };
}
