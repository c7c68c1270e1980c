import { join } from 'node:path';
import type { Part } from '../supervisor.ts';
import { answersOk } from './probes.ts';

/** moto: AWS as far as its state machines go, strict about EC2 and IAM. Keeps everything in memory. */
export function motoPart(options: { python: string; dataDir: string; port: number }): Part {
  const url = `http://127.0.0.1:${options.port}`;
  return {
    name: 'moto',
    address: url,
    command: options.python,
    args: ['-m', 'moto.server', '--host=127.0.0.1', `--port=${options.port}`],
    env: {
      // Without it no policy of AWS itself exists, and a role cannot be given one.
      MOTO_IAM_LOAD_MANAGED_POLICIES: 'true',
      // What it writes to a temporary folder stays with the stack.
      TMPDIR: join(options.dataDir, 'run'),
    },
    isReady: () => answersOk(`${url}/moto-api/`),
  };
}
