/**
 * Memory of the worker while it streams a large snapshot, on real parts: `npm run bench:memory [megabytes]`.
 *
 * Starts a stack of its own, fills one shard with incompressible payloads, backs it up and samples the worker's resident
 * set (VmRSS) every 50 ms. Exit status 1 when the peak is more than 150 MB above the idle worker.
 */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, Connection } from '@temporalio/client';
import { execa } from 'execa';
import { ClusterAccess } from '../src/local/demo/cluster-access.ts';
import { postgresFolder } from '../src/local/parts/postgres.ts';
import { startInfrastructure } from '../src/local/stack.ts';

const LIMIT = 150e6;
const ROOT = resolve(import.meta.dirname, '..');
const megabytes = Number(process.argv[2] ?? 1000);
const dataDir = await mkdtemp(join(tmpdir(), 'qdrant-fleet-bench-'));
const stack = await startInfrastructure({ dataDir, ports: 'free', kubelet: true, log: console.log });
const bundle = join(dataDir, 'workflows.js');
await execa(process.execPath, [join(ROOT, 'src/bundle-workflows.ts'), bundle]);
const worker = spawn(process.execPath, [join(ROOT, 'src/worker.ts')], {
  env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...stack.env, FLEET_WORKFLOW_BUNDLE: bundle },
  stdio: ['ignore', 'ignore', 'inherit'],
});
const connection = await Connection.connect({ address: stack.env['TEMPORAL_ADDRESS'] ?? '' });
let status = 1;
try {
  const client = new Client({ connection });
  const run = (type: string, input: object) =>
    client.workflow.execute(type, {
      taskQueue: 'fleet',
      workflowId: `bench-${type}-${randomBytes(3).toString('hex')}`,
      args: [{ tenant: 'bench', cluster: 'memory', ...input }],
    }) as Promise<Record<string, unknown>>;

  const collection = { name: 'blobs', vectorSize: 4, shardNumber: 1 };
  await run('ProvisionCluster', { nodes: 1, collections: [collection] });
  await load();
  // The idle worker has done a small operation before, as any worker that has lived a while.
  await run('RetentionSweep', { policy: { keepLast: 1 } });
  await sleep(3000);
  const idle = residentBytes();

  let peak = idle;
  const sampler = setInterval(() => {
    peak = Math.max(peak, residentBytes());
  }, 50);
  const begun = performance.now();
  const result = await run('BackupCluster', {});
  const seconds = (performance.now() - begun) / 1000;
  clearInterval(sampler);

  const bytes = Number(result['bytes']);
  console.log('\n| snapshot | time | rate | worker idle | worker peak | above idle |');
  console.log('|---|---|---|---|---|---|');
  const cells = [
    `${mb(bytes)} MB`,
    `${seconds.toFixed(1)} s`,
    `${(bytes / 1e6 / seconds).toFixed(0)} MB/s`,
    `${mb(idle)} MB`,
    `${mb(peak)} MB`,
    `${mb(peak - idle)} MB`,
  ];
  console.log(`| ${cells.join(' | ')} |`);
  status = peak - idle <= LIMIT ? 0 : 1;
  console.log(`\n${status === 0 ? 'Within' : 'ABOVE'} the limit of ${mb(LIMIT)} MB above idle.`);
} finally {
  worker.kill('SIGKILL');
  await connection.close();
  await stack.stop();
  await rm(postgresFolder(dataDir), { recursive: true, force: true });
  await rm(dataDir, { recursive: true, force: true });
}
process.exit(status);

/** Points of 1 MB of random text each: what cannot be compressed is stored as it is. */
async function load(): Promise<void> {
  const cluster = await ClusterAccess.open(stack.env['KUBECONFIG'] ?? '', { tenant: 'bench', cluster: 'memory' });
  const perBatch = 16;
  for (let id = 0; id < megabytes; id += perBatch) {
    const points = Array.from({ length: Math.min(perBatch, megabytes - id) }, (_, index) => ({
      id: id + index,
      vector: [1, 2, 3, 4],
      payload: { blob: randomBytes(750_000).toString('base64') },
    }));
    await cluster.load('blobs', points);
  }
}

function residentBytes(): number {
  const [, kilobytes = '0'] = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${worker.pid}/status`, 'utf8')) ?? [];
  return Number(kilobytes) * 1024;
}

function mb(bytes: number): string {
  return (bytes / 1e6).toFixed(0);
}
