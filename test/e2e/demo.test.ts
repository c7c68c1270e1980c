/** The README's first command, as a stranger types it, on a stack of its own. */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { execa } from 'execa';
import { expect, test } from 'vitest';
import { reservePodRange } from '../../src/local/pod-range.ts';
import { freePort } from '../support/fleet.ts';

const PORTS = [
  'FLEET_LOCAL_TEMPORAL_PORT',
  'FLEET_LOCAL_TEMPORAL_UI_PORT',
  'FLEET_LOCAL_KUBERNETES_PORT',
  'FLEET_LOCAL_S3_PORT',
  'FLEET_LOCAL_POSTGRES_PORT',
  'FLEET_API_PORT',
  'FLEET_WORKER_HEALTH_PORT',
];

/** Processes whose command line names the folder. */
async function processesOf(folder: string): Promise<string[]> {
  const ids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name) && name !== String(process.pid));
  const lines = await Promise.all(
    ids.map((id) => readFile(`/proc/${id}/cmdline`, 'utf8').catch(() => '')), // it may have ended meanwhile
  );
  return lines.map((line) => line.replaceAll('\0', ' ')).filter((line) => line.includes(folder));
}

test('npm run demo ends in a verdict of EQUAL and leaves no process', { timeout: 240_000 }, async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'qdrant-fleet-demo-'));
  const ports = await Promise.all(PORTS.map(async (name) => [name, String(await freePort())] as const));
  const podRange = reservePodRange();
  const { stdout, exitCode } = await execa('npm', ['run', 'demo'], {
    cwd: resolve(import.meta.dirname, '../..'),
    env: {
      ...Object.fromEntries(ports),
      FLEET_LOCAL_DIR: dataDir,
      // Beside the stack of the tests and one that may run on this machine.
      FLEET_KUBELET_POD_CIDR: podRange.cidr,
    },
    reject: false,
    all: true,
  });
  expect(stdout).toMatch(/VERDICT: EQUAL\. 12000 points, all indexes and the alias came back/);
  expect(exitCode).toBe(0);
  expect(stdout.match(/sha256 [0-9a-f]{16}/g)).toHaveLength(6);
  expect(await processesOf(dataDir)).toEqual([]);
  await execa('npm', ['run', 'reset'], {
    cwd: resolve(import.meta.dirname, '../..'),
    env: { FLEET_LOCAL_DIR: dataDir },
  });
  await rm(dataDir, { recursive: true, force: true });
  podRange.release();
});
