/**
 * Processes that die or sleep at the worst moment, and a file that goes from under a transfer. The worst moment is made
 * by a proxy that holds one request. For `npm run test:faults`; the seeds of `npm test` have one of each that is quick.
 */
import type { ChildProcess } from 'node:child_process';
import { CoreV1Api } from '@kubernetes/client-node';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { processesWithEnvironment } from '../../src/local/process-identity.ts';
import { Arena } from '../support/arena.ts';
import type { FaultProxy, Rule } from '../support/fault-proxy.ts';
import { exited, until } from '../support/fleet.ts';

const ALL = process.env['FLEET_TEST_FAULT_RUNS'] !== undefined;
const HELD = { kind: 'stall', at: { share: 0.5 } } as const;
/** Requests during which a worker falls asleep. */
const PLACES = {
  'sends a part': { method: 'PUT', path: /partNumber=2/, fault: { ...HELD, side: 'request' } },
  'begins an upload': { method: 'POST', path: /documents.*[?&]uploads/, fault: { ...HELD, side: 'request' } },
  'completes an upload': { method: 'POST', path: /documents.*uploadId=/, fault: { ...HELD, side: 'request' } },
  'writes the record': { method: 'PUT', path: /commit\.json/, fault: { ...HELD, side: 'request' } },
} as const satisfies Record<string, Rule>;
type Name = keyof typeof PLACES;

let arena: Arena;
beforeAll(async () => {
  if (ALL) arena = await Arena.open();
}, 180_000);
afterAll(async () => {
  if (ALL) await arena.close();
});

const workers: ChildProcess[] = [];
async function worker(way: 'proxied' | 'direct'): Promise<ChildProcess> {
  const started = await arena.worker(way);
  workers.push(started);
  return started;
}
afterEach(async () => {
  arena.lift();
  for (const each of workers.splice(0)) {
    each.kill('SIGKILL');
    await exited(each);
  }
});

async function met(...proxies: readonly FaultProxy[]): Promise<void> {
  await until('the request is held', () => Promise.resolve(proxies.some(({ log }) => log.length > 0)));
  for (const { log } of proxies) log.length = 0;
}

describe.runIf(ALL)('a worker that sleeps, is taken for dead, and wakes up', () => {
  test.for<Name>(Object.keys(PLACES) as Name[])(
    'while it %s: one backup, and nothing left over',
    { timeout: 180_000 },
    async (place) => {
      const before = (await arena.scan()).backups['COMMITTED'] ?? [];
      const sleeper = await worker('proxied');
      arena.s3.inject(PLACES[place]);
      const handle = await arena.start('BackupCluster', { cluster: 'docs' });
      await met(arena.s3);
      sleeper.kill('SIGSTOP');
      await worker('direct');
      const ended = await arena.end(handle, 120);
      expect(ended.code, ended.message).toBe('done');

      sleeper.kill('SIGCONT');
      arena.lift();
      await arena.settled();
      // It ends by itself when the attempts that it still held have ended.
      sleeper.kill('SIGTERM');
      await exited(sleeper);
      const { violations, backups } = await arena.scan();
      expect(violations).toEqual([]);
      expect(backups).toEqual({ COMMITTED: expect.any(Array) });
      expect(new Set(backups['COMMITTED'])).toEqual(new Set([...before, ended.result['backup']]));
      const ref = { tenant: arena.fleet.tenant, cluster: 'docs' };
      expect(await arena.fleet.catalog.backups(ref, { limit: 100 })).toHaveLength(before.length + 1);
    },
  );
});

describe.runIf(ALL)('a node', () => {
  test('loses its snapshot under the transfer: another one is made', { timeout: 180_000 }, async () => {
    await worker('proxied');
    for (const node of arena.nodes) {
      node.inject({
        method: 'GET',
        path: /documents.*\/snapshots\/[^?]+/,
        skip: 2,
        fault: { ...HELD, side: 'response' },
      });
    }
    const handle = await arena.start('BackupCluster', { cluster: 'docs' });
    await met(...arena.nodes);
    const names = (await arena.source.nodeSnapshots('documents')).map((line) => line.split(' '));
    expect(names.length).toBeGreaterThan(0);
    for (const [peer = '', name] of names) {
      const path = `/collections/documents/shards/0/snapshots/${name}?wait=true`;
      await arena.source.call('DELETE', path, undefined, arena.source.peers.indexOf(peer));
    }
    for (const node of arena.nodes)
      node.inject({
        method: 'GET',
        path: /documents.*\/snapshots\/[^?]+/,
        fault: { kind: 'cut', side: 'response', at: 0, by: 'rst' },
      });
    arena.lift();
    const ended = await arena.end(handle, 120);
    expect(ended.code, ended.message).toBe('done');
    expect((await arena.scan()).violations).toEqual([]);
  });

  test('is killed while it is read from: the backup comes to its end', { timeout: 300_000 }, async () => {
    await worker('proxied');
    for (const node of arena.nodes) {
      node.inject({
        method: 'GET',
        path: /documents.*\/snapshots\/[^?]+/,
        skip: 1,
        fault: { ...HELD, side: 'response' },
      });
    }
    const handle = await arena.start('BackupCluster', { cluster: 'docs' });
    await met(...arena.nodes);
    killAll(arena.source.peers);
    arena.lift();
    const ended = await arena.end(handle, 240);
    if (ended.code !== 'done') {
      expect(ended.code).toMatch(/^(QdrantUnavailable|SnapshotVanished|ClusterNotReady|TopologyUnstable)$/);
      const again = await arena.run('BackupCluster', { cluster: 'docs' });
      expect(again.code, again.message).toBe('done');
    }
    expect((await arena.scan()).violations).toEqual([]);
  });

  test('goes while it pulls a shard: the restore comes to its end', { timeout: 300_000 }, async () => {
    await worker('proxied');
    const ref = { tenant: arena.fleet.tenant, cluster: 'docs' };
    const [newest] = await arena.fleet.catalog.backups(ref, { limit: 1 });
    const input = { source: 'docs', backup: newest?.backup, cluster: 'target' };
    arena.pull.inject({ method: 'GET', path: /documents.*\.snapshot/, fault: { ...HELD, side: 'response' } });
    const handle = await arena.start('RestoreCluster', input);
    await met(arena.pull);
    const namespace = `fleet-${ref.tenant}--target`;
    const core = arena.fleet.kubernetes(CoreV1Api);
    const pods = await core.listNamespacedPod({ namespace });
    for (const { metadata } of pods.items) {
      await core.deleteNamespacedPod({ namespace, name: metadata?.name ?? '', gracePeriodSeconds: 0 });
    }
    arena.lift();
    const ended = await arena.end(handle, 240);
    if (ended.code !== 'done') {
      expect(ended.code).toMatch(/^(QdrantUnavailable|QdrantRejected|ClusterNotReady|IntegrityMismatch)$/);
      await ready(namespace);
      await arena.emptyTarget();
      const again = await arena.run('RestoreCluster', input);
      expect(again.code, again.message).toBe('done');
    }
    expect(await arena.compareTarget()).toEqual([]);
    await arena.emptyTarget();
    expect((await arena.scan()).violations).toEqual([]);
  });
});

/** kill -9 of the Qdrant processes behind these addresses. */
function killAll(peers: readonly string[]): void {
  for (const peer of peers) {
    const found = processesWithEnvironment('QDRANT__SERVICE__HOST', new URL(peer).hostname);
    expect(found.length).toBeGreaterThan(0);
    for (const { pid } of found) process.kill(pid, 'SIGKILL');
  }
}

async function ready(namespace: string): Promise<void> {
  await until('all pods are ready', async () => {
    const { items } = await arena.fleet.kubernetes(CoreV1Api).listNamespacedPod({ namespace });
    const up = items.filter(({ status }) =>
      status?.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True'),
    );
    return up.length === arena.target.peers.length;
  });
}
