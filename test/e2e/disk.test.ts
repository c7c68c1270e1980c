/** Free disk of the pods as their kubelets measure it, and a backup and a scale-in that would fill it. */
import { CoreV1Api } from '@kubernetes/client-node';
import type { ApplicationFailure } from '@temporalio/common';
import type { WorkflowFailedError } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { freeDisk } from '../../activities/disk.ts';
import { Kubernetes } from '../../src/clients/kubernetes.ts';
import { Helm } from '../../src/clients/helm.ts';
import { loadConfig } from '../../src/config.ts';
import { RELEASE_NAME } from '../../src/domain/naming.ts';
import { strategicMerge } from '../../src/local/kubelet/api.ts';
import { Fleet, smallPoints } from '../support/fleet.ts';

let fleet: Fleet;
const ref = () => ({ tenant: fleet.tenant, cluster: 'docs' });
const namespace = () => `fleet-${fleet.tenant}--docs`;

// The first worker of a run bundles the workflows, which takes its time on a busy machine.
beforeAll(async () => {
  fleet = await Fleet.open();
  await fleet.worker();
  const collections = [{ preset: 'documents', vectorSize: 64, shardNumber: 2, replicationFactor: 1 }];
  await fleet.run('ProvisionCluster', { ...ref(), nodes: 2, collections });
  await (await fleet.access('docs')).load('documents', smallPoints(4000, 64));
}, 240_000);
afterAll(() => fleet.close());

function measure() {
  const access = {
    kubernetes: new Kubernetes(fleet.env['FLEET_LOCAL_WORKER_KUBECONFIG']),
    helm: new Helm({ binary: 'helm' }),
  };
  return freeDisk({ clusters: { of: () => Promise.resolve(access) }, config: loadConfig(fleet.env) }, ref());
}

/** As if the storage volume of the first pod had been made of another size. */
async function resize(storage: string): Promise<void> {
  const core = fleet.kubernetes(CoreV1Api);
  const { items } = await core.listPersistentVolume();
  const volume = items.find(
    ({ spec }) => spec?.claimRef?.namespace === namespace() && spec.claimRef.name === 'qdrant-storage-qdrant-0',
  );
  if (volume?.metadata?.name === undefined) throw new Error('The storage claim has no volume.');
  const body = { spec: { capacity: { storage } } };
  await core.patchPersistentVolume({ name: volume.metadata.name, body }, strategicMerge);
}

async function failureOf(type: string, input: unknown): Promise<ApplicationFailure> {
  const failure: unknown = await fleet.run(type, input).catch((error: unknown) => error);
  return (failure as WorkflowFailedError).cause as ApplicationFailure;
}

describe('free disk', () => {
  test('is what the claim leaves of what is used, per pod and volume', async () => {
    const { disks, unknown } = await measure();
    expect(unknown).toEqual([]);
    const { storage, snapshots } = disks['qdrant-0'] ?? {};
    expect(storage?.capacity).toBe(10 * 2 ** 30);
    // The half of 4,000 points of 64 floats is half a megabyte, with a log beside it.
    expect(storage?.used).toBeGreaterThan(500_000);
    expect(storage?.free).toBeLessThanOrEqual(10 * 2 ** 30 - (storage?.used ?? 0));
    expect(snapshots?.free).toBeGreaterThan(0);
    // By this label a claim of a node that has left is told from one that somebody made for a node to come.
    const { items } = await fleet.kubernetes(CoreV1Api).listNamespacedPersistentVolumeClaim({ namespace: namespace() });
    expect(items.map(({ metadata }) => metadata?.labels?.['app.kubernetes.io/instance'])).toEqual(
      Array.from({ length: 4 }, () => RELEASE_NAME),
    );
  });

  test('a backup that a volume cannot hold is refused before any snapshot is made, and told with figures', async () => {
    const { used } = (await measure()).disks['qdrant-0']?.storage ?? { used: 0 };
    await resize(String(used + 100_000));
    const cause = await failureOf('BackupCluster', ref());
    expect(cause.type).toBe('DiskFull');
    expect(cause.message).toMatch(
      /^No snapshot was made: the storage volume of pod qdrant-0 has 0\.\d MB free and needs \d+\.\d MB/,
    );
    expect(await (await fleet.access('docs')).nodeSnapshots('documents')).toEqual([]);

    await resize('10Gi');
    const handle = await fleet.start('BackupCluster', ref());
    expect(await handle.result()).toMatchObject({ points: 4000 });
    const { steps } = await fleet.progress(handle);
    expect(steps.map(({ message }) => message).join(' ')).not.toContain('free disk is unknown');
  });

  test('fewer nodes than can hold the data are refused with figures, before a shard moves', async () => {
    const { used } = (await measure()).disks['qdrant-0']?.storage ?? { used: 0 };
    // What the peers say of their vectors is far below what the claim asked for.
    await resize(String(used + 400_000));
    const cause = await failureOf('UpdateCluster', { ...ref(), nodes: 1 });
    expect(cause.type).toBe('UpdateRefused');
    expect(cause.message).toMatch(
      /^nodes: the volumes hold \d+\.\d MiB, which comes to \d+\.\d MiB on each of 1 nodes: pod qdrant-0 would get \d+\.\d MiB more, and of 0\.\d MiB free 0\.\d MiB may be used\. Grow the volumes first/,
    );
    expect((await fleet.catalog.cluster(ref()))?.phase).toBe('HEALTHY');

    await resize('10Gi');
    const plan = await fleet.run('UpdateCluster', { ...ref(), nodes: 1, dryRun: true });
    expect(plan['steps']).toEqual(['Move 1 shards over 1 nodes', 'Remove 1 nodes, keep 1']);
  });
});
