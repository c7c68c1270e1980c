import { join } from 'node:path';
import { execa } from 'execa';
import { REPOSITORY } from '../paths.ts';
import type { Ports } from '../ports.ts';
import type { Part } from '../supervisor.ts';
import { answersOk } from './probes.ts';

type Environment = Record<string, string>;

/** The nodes of the cluster: turns pods into processes. */
export function kubeletPart(env: Environment): Part {
  return {
    name: 'kubelet',
    address: 'listens on nothing',
    ...program('src/local/kubelet/main.ts', env),
    needs: ['kube-controller-manager', 'kube-scheduler'],
    stopWithinMs: 15_000, // it stops the Qdrant processes, which flush to disk
    isReady: (log) => /^ready$/m.test(log()),
  };
}

/** The workflows are bundled beside the start of the other parts: a worker that bundles itself keeps the memory of it. */
export function workerPart(env: Environment, ports: Ports, needs: readonly string[], dataDir: string): Part {
  const bundle = join(dataDir, 'workflows.js');
  const bundling = execa(process.execPath, [join(REPOSITORY, 'src/bundle-workflows.ts'), bundle]);
  bundling.catch(() => undefined); // awaited below, which may be after it failed
  return {
    name: 'worker',
    address: `http://127.0.0.1:${ports.workerHealth}`,
    ...program('src/worker.ts', { ...env, FLEET_WORKFLOW_BUNDLE: bundle }),
    needs,
    prepare: async () => {
      await bundling;
    },
    readyWithinMs: 60_000,
    stopWithinMs: 15_000,
    isReady: () => answersOk(`http://127.0.0.1:${ports.workerHealth}/readyz`),
  };
}

export function apiPart(env: Environment, ports: Ports, needs: readonly string[]): Part {
  return {
    name: 'api',
    address: `http://127.0.0.1:${ports.api}`,
    ...program('src/server.ts', env),
    needs,
    readyWithinMs: 60_000,
    stopWithinMs: 10_000,
    isReady: () => answersOk(`http://127.0.0.1:${ports.api}/readyz`),
  };
}

function program(path: string, env: Environment) {
  return { command: process.execPath, args: [join(REPOSITORY, path)], cwd: REPOSITORY, env };
}
