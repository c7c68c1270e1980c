/**
 * Pods and machines that are lost while shards move: the change waits for what comes back, ends with a word about what
 * does not, and goes on when it is repeated. FLEET_TEST_CRASHES=all runs every case, otherwise the first.
 */
import { CoreV1Api } from '@kubernetes/client-node';
import type { ApplicationFailure } from '@temporalio/common';
import type { WorkflowFailedError, WorkflowHandle } from '@temporalio/client';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { namespaceOf, type ClusterRef } from '../../src/domain/naming.ts';
import { Traffic } from '../../src/local/demo/traffic.ts';
import { Fleet, smallPoints, until } from '../support/fleet.ts';
import { Machines } from '../support/machines.ts';
import { kill9 } from '../support/process-faults.ts';
import { notWhole } from '../support/whole-cluster.ts';

const EVERYWHERE = process.env['FLEET_TEST_CRASHES'] === 'all';

let fleet: Fleet;
let machines: Machines;
// The first worker of a run bundles the workflows, which takes its time on a busy machine.
beforeAll(async () => {
  fleet = await Fleet.open();
  machines = new Machines(fleet);
  await fleet.worker();
}, 240_000);
// Pods of the next cluster are not to come to them.
afterEach(() => machines.clear());
afterAll(async () => {
  await machines.close();
  await fleet.close();
});

/** A cluster of two nodes with points in six shards of two replicas. */
async function made(cluster: string, by = fleet): Promise<ClusterRef> {
  const ref = { tenant: by.tenant, cluster };
  const collections = [{ preset: 'documents', vectorSize: 4, shardNumber: 6, replicationFactor: 2 }];
  const { placement } = machines;
  await by.run('ProvisionCluster', { ...ref, nodes: 2, storage: '1Gi', placement, collections });
  await (await by.access(cluster)).load('documents', smallPoints(2000));
  return ref;
}

async function whole({ cluster }: ClusterRef, nodes: number, by = fleet): Promise<string[]> {
  const digest = await (await by.access(cluster)).digest('documents');
  expect(digest.points).toBeGreaterThanOrEqual(2000);
  return notWhole(by, cluster, { nodes, digest, collection: 'documents', replicas: 2 });
}

/** So many shards have moved, and the operation goes on. */
async function moved(operation: WorkflowHandle, count: number): Promise<void> {
  await until(`${count} shards have moved`, async () => {
    const { steps } = await fleet.progress(operation);
    return steps.some(({ message = '' }) => Number(/^(\d+) of \d+ shards moved$/.exec(message)?.[1]) >= count);
  });
}

/** What the operation says that it waits for. */
async function waitsFor(operation: WorkflowHandle, pattern: RegExp): Promise<string> {
  return until(`it says ${String(pattern)}`, async () => {
    const { steps } = await fleet.progress(operation);
    return steps.map(({ message = '' }) => message).find((message) => pattern.test(message));
  });
}

async function failureOf(operation: WorkflowHandle): Promise<ApplicationFailure> {
  const error: unknown = await operation.result().then(
    () => new Error('It came to its end.'),
    (failure: unknown) => failure,
  );
  return (error as WorkflowFailedError).cause as ApplicationFailure;
}

/** What an operation is told each time that it asks, as `temporal workflow describe` shows it. */
async function lastFailure(operation: WorkflowHandle, pattern: RegExp): Promise<string> {
  const seconds = 120;
  return until(
    `it was told ${String(pattern)}`,
    async () => {
      const { raw } = await operation.describe();
      return raw.pendingActivities
        ?.map(({ lastFailure: last }) => last?.message ?? '')
        .find((text) => pattern.test(text));
    },
    seconds,
  );
}

test(
  'a machine goes while its pod is given shards: the change says what it waits for, and goes on when it is back',
  { timeout: 120_000 },
  async () => {
    const ref = await made('back');
    await machines.start('a');
    await machines.tie(ref, 'qdrant-2', 'a', 'local');
    const grown = await fleet.start('UpdateCluster', { ...ref, nodes: 3 });
    await moved(grown, 1);
    await machines.lose('a');
    const told = await waitsFor(grown, /waits until peer \d+ answers/);
    expect(told).toContain(`Pod qdrant-2 is on node ${machines.name('a')}, which Kubernetes no longer has.`);
    expect(told).toMatch(/volumes? pvc-\S+ \(claim qdrant-s\w+-qdrant-2\) .*can be used on that node only/);
    await machines.start('a');
    await grown.result();
    expect(await machines.placeOf(ref, 'qdrant-2')).toBe(machines.name('a'));
    expect(await whole(ref, 3)).toEqual([]);
  },
);

describe.runIf(EVERYWHERE)('while clients write', () => {
  /** Nothing that was acknowledged is lost, whatever happens meanwhile. */
  async function underWrites(ref: ClusterRef, nodes: number, run: () => Promise<void>): Promise<void> {
    const kubeconfig = fleet.env['KUBECONFIG'] ?? '';
    const traffic = await Traffic.start({
      kubeconfig,
      ref,
      collection: 'documents',
      dimensions: 4,
      firstId: 1_000_000,
    });
    await run();
    const { sent } = await traffic.stop();
    expect(sent).toBeGreaterThan(50);
    expect(await traffic.lost()).toEqual([]);
    expect(await whole(ref, nodes)).toEqual([]);
  }

  test('a process is killed while shards come, a pod is deleted while they go', { timeout: 300_000 }, async () => {
    const ref = await made('pods');
    await underWrites(ref, 2, async () => {
      const grown = await fleet.start('UpdateCluster', { ...ref, nodes: 3 });
      await moved(grown, 1);
      kill9((await fleet.access(ref.cluster)).peers[2] ?? '');
      await grown.result();
      const shrunk = await fleet.start('UpdateCluster', { ...ref, nodes: 2 });
      await moved(shrunk, 1);
      const pod = { namespace: namespaceOf(ref), name: 'qdrant-2', gracePeriodSeconds: 0 };
      await fleet.kubernetes(CoreV1Api).deleteNamespacedPod(pod);
      await shrunk.result();
    });
  });

  test('machines go for good, volumes in a network go on elsewhere', { timeout: 400_000 }, async () => {
    const ref = await made('network');
    await machines.start('b');
    await machines.tie(ref, 'qdrant-2', 'b', 'network');
    await underWrites(ref, 2, async () => {
      const grown = await fleet.start('UpdateCluster', { ...ref, nodes: 3 });
      await moved(grown, 1);
      await machines.start('c');
      await machines.lose('b');
      expect(await waitsFor(grown, /waits until peer/)).toContain(`another node of zone ${machines.zone}`);
      await grown.result();
      expect(await machines.placeOf(ref, 'qdrant-2')).toBe(machines.name('c'));

      const shrunk = await fleet.start('UpdateCluster', { ...ref, nodes: 2 });
      await moved(shrunk, 1);
      await machines.lose('c');
      await waitsFor(shrunk, /waits until peer/);
      await machines.start('d');
      await shrunk.result();
    });
  });

  test(
    'a machine that does not come back ends the change in time; repeated, it goes on',
    { timeout: 400_000 },
    async () => {
      const ref = await made('bounded');
      await machines.start('e');
      await machines.tie(ref, 'qdrant-2', 'e', 'local');
      await underWrites(ref, 2, async () => {
        for (const [nodes, phase] of [
          [3, 'shards come'],
          [2, 'shards go'],
        ] as const) {
          const change = await fleet.start('UpdateCluster', { ...ref, nodes, readyTimeoutSeconds: 20 });
          await moved(change, 1);
          const since = Date.now();
          await machines.lose('e');
          const failure = await failureOf(change);
          // The time that was given, and what it takes to notice and to write it down.
          expect((Date.now() - since) / 1000, phase).toBeLessThan(45);
          expect(failure.type, phase).toBe('ClusterNotReady');
          for (const part of [
            'qdrant-2',
            machines.name('e'),
            'pvc-',
            'Start that machine again',
            'repeat the update',
          ]) {
            expect(failure.message, phase).toContain(part);
          }
          const row = await fleet.catalog.cluster(ref);
          expect(row?.phase, phase).toBe('NOT_READY');
          const condition = (type: string) => row?.conditions.find((found) => found.type === type);
          expect(condition('Ready')?.status, phase).toBe('True');
          expect(condition('Degraded')?.message, phase).toContain(machines.name('e'));
          expect(condition('Failed')?.status, phase).toBe('True');
          expect((await (await fleet.access(ref.cluster)).digest('documents')).points).toBeGreaterThanOrEqual(2000);

          // Repeated too early, it says the same again.
          const early = await failureOf(await fleet.start('UpdateCluster', { ...ref, nodes, readyTimeoutSeconds: 5 }));
          expect(early.type, phase).toBe('ClusterNotReady');
          expect(early.message, phase).toContain(machines.name('e'));

          await machines.start('e');
          await fleet.run('UpdateCluster', { ...ref, nodes, readyTimeoutSeconds: 120 });
        }
      });
    },
  );

  test('a machine that hangs: the remedy that is told works', { timeout: 400_000 }, async () => {
    const ref = await made('hangs');
    await machines.start('f');
    await machines.tie(ref, 'qdrant-2', 'f', 'network');
    await underWrites(ref, 3, async () => {
      const grown = await fleet.start('UpdateCluster', { ...ref, nodes: 3 });
      await moved(grown, 1);
      await machines.hang('f');
      await machines.start('g');
      const node = machines.name('f');
      expect(await waitsFor(grown, /waits until peer/)).toContain(`qdrant-2 on node ${node}`);
      const told = await lastFailure(grown, /is not ready \(Kubelet stopped posting node status/);
      expect(told).toContain(`If it is gone for good, run kubectl delete node ${node}.`);
      await machines.lose('f');
      await grown.result();
      expect(await machines.placeOf(ref, 'qdrant-2')).toBe(machines.name('g'));
    });
  });

  test('a disk that is lost for good: the remedy that is told works', { timeout: 400_000 }, async () => {
    const ref = await made('disk');
    await machines.start('h');
    await machines.tie(ref, 'qdrant-2', 'h', 'local');
    await underWrites(ref, 3, async () => {
      const change = await fleet.start('UpdateCluster', { ...ref, nodes: 3, readyTimeoutSeconds: 20 });
      await moved(change, 2);
      const access = await fleet.access(ref.cluster);
      const view = await access.call<{ peer_id: number }>('GET', '/cluster', undefined, 2);
      await machines.lose('h');
      const { message } = await failureOf(change);
      const [, namespace = '', ...claims] =
        /kubectl -n (\S+) delete --wait=false pvc (\S+) (\S+) and/.exec(message) ?? [];
      const [, pod = ''] = /delete --force pod (\S+),/.exec(message) ?? [];
      expect(message).toContain('DELETE /cluster/peer/{id}?force=true');
      await access.call('DELETE', `/cluster/peer/${view.peer_id}?force=true`, undefined, 0);
      const core = fleet.kubernetes(CoreV1Api);
      expect(claims).toHaveLength(2);
      for (const name of claims) await core.deleteNamespacedPersistentVolumeClaim({ namespace, name });
      await core.deleteNamespacedPod({ namespace, name: pod, gracePeriodSeconds: 0 });
      await fleet.run('UpdateCluster', { ...ref, nodes: 3, readyTimeoutSeconds: 120 });
      await replicate(ref, 2);
    });
  });

  test(
    'a machine that hangs when its peer holds nothing any more: the peer leaves, and its pod when it can',
    { timeout: 400_000 },
    async () => {
      const own = await Fleet.open();
      try {
        const worker = await own.worker({ failpoint: 'removePeers:hold' });
        const ref = await made('emptied', own);
        await machines.start('i');
        await machines.tie(ref, 'qdrant-2', 'i', 'local');
        await own.run('UpdateCluster', { ...ref, nodes: 3 });
        // Long enough for Kubernetes to take note.
        const shrunk = await own.start('UpdateCluster', { ...ref, nodes: 2, readyTimeoutSeconds: 80 });
        await until('its shards have left', () => Promise.resolve(own.log.includes('held')));
        await machines.hang('i');
        worker.kill('SIGWINCH');
        const { type, message } = await failureOf(shrunk);
        expect(type).toBe('ClusterNotReady');
        expect(message).toContain(
          `qdrant-2 still there (Pod qdrant-2 is on node ${machines.name('i')}, which is not ready`,
        );
        const access = await own.access(ref.cluster);
        const { peers } = await access.call<{ peers: object }>('GET', '/cluster');
        expect(Object.keys(peers)).toHaveLength(2);

        await machines.lose('i');
        await machines.adopted(ref, 'qdrant-2');
        await until('its pod is given up', async () => (await machines.pod(ref, 'qdrant-2')) === undefined, 120);
        const repeated = await own.run('UpdateCluster', { ...ref, nodes: 2 });
        expect(repeated['steps']).toEqual(['Remove 1 nodes, keep 2']);
        expect(await whole(ref, 2, own)).toEqual([]);
      } finally {
        await own.close();
      }
    },
  );
});

interface ShardView {
  readonly peer_id: number;
  readonly local_shards: readonly { readonly shard_id: number }[];
  readonly remote_shards: readonly { readonly shard_id: number; readonly peer_id: number }[];
}

/** Make missing replicas again, as somebody does whose disk was lost. */
async function replicate({ cluster }: ClusterRef, replicas: number): Promise<void> {
  const access = await fleet.access(cluster);
  const path = '/collections/documents/cluster';
  const { peers } = await access.call<{ peers: Record<string, unknown> }>('GET', '/cluster', undefined, 0);
  const view = await access.call<ShardView>('GET', path, undefined, 0);
  const all = [...view.local_shards.map((local) => ({ ...local, peer_id: view.peer_id })), ...view.remote_shards];
  for (const [shard_id, found] of Map.groupBy(all, (replica) => replica.shard_id)) {
    const holders = found.map(({ peer_id }) => String(peer_id));
    const to = Object.keys(peers).find((peer) => !holders.includes(peer));
    if (holders.length >= replicas || to === undefined) continue;
    const body = { replicate_shard: { shard_id, from_peer_id: Number(holders[0]), to_peer_id: Number(to) } };
    await access.call('POST', path, body, 0);
  }
  await until('all replicas are made', async () => {
    const seen = await access.call<{ shard_transfers: unknown[] }>('GET', path, undefined, 0);
    return seen.shard_transfers.length === 0;
  });
}
