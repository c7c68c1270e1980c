/** Free disk of the pods as their kubelets measure it, and a backup that would fill it. */
import { CoreV1Api } from '@kubernetes/client-node';
import type { ApplicationFailure } from '@temporalio/common';
import type { WorkflowFailedError } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { freeDisk } from '../../activities/disk.ts';
import { Kubernetes } from '../../src/clients/kubernetes.ts';
import { Helm } from '../../src/clients/helm.ts';
import { strategicMerge } from '../../src/local/kubelet/api.ts';
import { Fleet, smallPoints } from '../support/fleet.ts';

let fleet: Fleet;
const ref = () => ({ tenant: fleet.tenant, cluster: 'docs' });
const namespace = () => `fleet-${fleet.tenant}--docs`;

beforeAll(async () => {
  fleet = await Fleet.open();
  await fleet.worker();
  const collections = [{ preset: 'documents', vectorSize: 64, shardNumber: 1, replicationFactor: 1 }];
  await fleet.run('ProvisionCluster', { ...ref(), nodes: 1, collections });
  await (await fleet.access('docs')).load('documents', smallPoints(2000, 64));
});
afterAll(() => fleet.close());

function measure() {
  const access = { kubernetes: new Kubernetes(fleet.env['KUBECONFIG']), helm: new Helm({ binary: 'helm' }) };
  return freeDisk({ clusters: { of: () => Promise.resolve(access) } }, ref());
}

describe('free disk', () => {
  test('is what the claim leaves of what is used, per pod and volume', async () => {
    const { disks, unknown } = await measure();
    expect(unknown).toEqual([]);
    const { storage, snapshots } = disks['qdrant-0'] ?? {};
    expect(storage?.capacity).toBe(10 * 2 ** 30);
    // 2,000 points of 64 floats are half a megabyte, with a log beside them.
    expect(storage?.used).toBeGreaterThan(500_000);
    expect(storage?.free).toBeLessThanOrEqual(10 * 2 ** 30 - (storage?.used ?? 0));
    expect(snapshots?.free).toBeGreaterThan(0);
  });

  test('a backup that a volume cannot hold is refused before any snapshot is made, and told with figures', async () => {
    const core = fleet.kubernetes(CoreV1Api);
    const { items } = await core.listPersistentVolume();
    const volume = items.find(
      ({ spec }) => spec?.claimRef?.namespace === namespace() && spec.claimRef.name === 'qdrant-storage-qdrant-0',
    );
    const { used } = (await measure()).disks['qdrant-0']?.storage ?? { used: 0 };
    if (volume?.metadata?.name === undefined) throw new Error('The storage claim has no volume.');
    const { name } = volume.metadata;
    const resize = (storage: string) =>
      core.patchPersistentVolume({ name, body: { spec: { capacity: { storage } } } }, strategicMerge);
    await resize(String(used + 100_000));
    const failure = await fleet.run('BackupCluster', ref()).catch((error: unknown) => error);
    const cause = (failure as WorkflowFailedError).cause as ApplicationFailure;
    expect(cause.type).toBe('DiskFull');
    expect(cause.message).toMatch(
      /^No snapshot was made: the storage volume of pod qdrant-0 has 0\.\d MB free and needs \d+\.\d MB/,
    );
    expect(await (await fleet.access('docs')).nodeSnapshots('documents')).toEqual([]);

    await resize('10Gi');
    const handle = await fleet.start('BackupCluster', ref());
    expect(await handle.result()).toMatchObject({ points: 2000 });
    const { steps } = await fleet.progress(handle);
    expect(steps.map(({ message }) => message).join(' ')).not.toContain('free disk is unknown');
  });
});
