import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Connection } from '@temporalio/client';
import { SEARCH_ATTRIBUTES } from '../../domain/search-attributes.ts';
import type { Ports } from '../ports.ts';
import type { Part } from '../supervisor.ts';

/** Temporal's development server with its web UI; workflows are kept in a SQLite file. */
export function temporalPart(options: { program: string; dataDir: string; ports: Ports }): Part {
  const { ports } = options;
  const folder = join(options.dataDir, 'temporal');
  const address = `127.0.0.1:${ports.temporal}`;
  return {
    name: 'temporal',
    address,
    command: options.program,
    args: [
      'server',
      'start-dev',
      '--log-level=warn',
      `--db-filename=${join(folder, 'temporal.db')}`,
      '--ip=127.0.0.1',
      `--port=${ports.temporal}`,
      '--ui-ip=127.0.0.1',
      `--ui-port=${ports.temporalUi}`,
      // Both take whatever port is free unless told otherwise, which may be one that another part is about to use.
      `--metrics-port=${ports.temporalMetrics}`,
      `--http-port=${ports.temporalHttp}`,
      // Off by default: tasks of one task queue take turns by their fairness key, which is the tenant.
      '--dynamic-config-value=matching.enableFairness=true',
      ...Object.entries(SEARCH_ATTRIBUTES).map(([name, type]) => `--search-attribute=${name}=${type}`),
    ],
    env: { TEMPORAL_DISABLE_VERSION_CHECK: 'true' },
    stopWithinMs: 8000,
    prepare: async () => {
      await mkdir(folder, { recursive: true, mode: 0o700 });
    },
    isReady: () => serves(address),
  };
}

/** The port opens before the default namespace can be used: ask for what workers will ask for. */
async function serves(address: string): Promise<boolean> {
  const connection = await Connection.connect({ address, connectTimeout: 1000 });
  try {
    await connection.workflowService.describeNamespace({ namespace: 'default' });
    return true;
  } finally {
    await connection.close();
  }
}
