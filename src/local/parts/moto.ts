import { join } from 'node:path';
import type { Part } from '../supervisor.ts';
import { answersOk } from './probes.ts';

interface Options {
  readonly python: string;
  readonly dataDir: string;
  readonly port: number;
  /** Whether AWS' own policies exist, so that a role can be given one; makes each reset about 1.5 s longer. */
  readonly managedPolicies: boolean;
}

/** moto: AWS as far as its state machines go, strict about EC2 and IAM. Keeps everything in memory. */
export function motoPart(options: Options): Part {
  const url = `http://127.0.0.1:${options.port}`;
  return {
    name: 'moto',
    address: url,
    command: options.python,
    args: ['-m', 'moto.server', '--host=127.0.0.1', `--port=${options.port}`],
    env: {
      MOTO_IAM_LOAD_MANAGED_POLICIES: String(options.managedPolicies),
      // What it writes to a temporary folder stays with the stack.
      TMPDIR: join(options.dataDir, 'run'),
    },
    isReady: () => answersOk(`${url}/moto-api/`),
  };
}
