import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { postgresFolder } from '../src/local/parts/postgres.ts';
import { startInfrastructure } from '../src/local/stack.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** The environment of a worker or an API on the stack that all test files share: `inject('localEnv')`. */
    localEnv: Record<string, string>;
  }
}

/**
 * One real infrastructure for the whole run. Tests keep apart by names of their own (tenant, namespace, bucket prefix).
 * FLEET_TEST_STACK=off leaves it out, for runs of files that do not need it.
 */
export default async function setup(project: TestProject): Promise<(() => Promise<void>) | undefined> {
  if (process.env.FLEET_TEST_STACK === 'off') {
    project.provide('localEnv', {});
    return undefined;
  }
  const dataDir = await mkdtemp(join(tmpdir(), 'qdrant-fleet-test-'));
  await chmod(dataDir, 0o711); // root's Postgres runs as somebody else, who has to pass through
  const stack = await startInfrastructure({ dataDir, ports: 'free', kubelet: true, log: console.log });
  stack.onCrash((error) => console.error(error.message));
  project.provide('localEnv', stack.env);
  return async () => {
    await stack.stop();
    await rm(postgresFolder(dataDir), { recursive: true, force: true });
    await rm(dataDir, { recursive: true, force: true });
  };
}
