/** Bad input and broken surroundings: a code of the closed set, a sentence that helps, and nothing left behind. */
import { AppsV1Api, CoreV1Api } from '@kubernetes/client-node';
import { WorkflowFailedError, type WorkflowHandle } from '@temporalio/client';
import { ApplicationFailure, CancelledFailure } from '@temporalio/common';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { backupKeys } from '../../src/domain/naming.ts';
import { Fleet, until } from '../support/fleet.ts';

const fleets: Fleet[] = [];
let fleet: Fleet;

/** A fleet of its own whose worker has another environment. */
async function fleetWith(change: Record<string, string>): Promise<Fleet> {
  const other = await Fleet.open();
  fleets.push(other);
  await other.worker({ env: change });
  return other;
}

beforeAll(async () => {
  fleet = await fleetWith({});
});
afterAll(async () => {
  for (const each of fleets) await each.close();
});

/** The failure that a workflow ended with. */
async function failure(handle: WorkflowHandle): Promise<{ code: string; message: string }> {
  try {
    await handle.result();
  } catch (error) {
    const cause = error instanceof WorkflowFailedError ? error.cause : undefined;
    if (cause instanceof ApplicationFailure) return { code: cause.type ?? '', message: cause.message };
    if (cause instanceof CancelledFailure) return { code: 'Cancelled', message: cause.message };
    throw error;
  }
  throw new Error(`${handle.workflowId} did not fail.`);
}

const SMALL = { collections: [{ preset: 'documents', vectorSize: 4 }], nodes: 1 };

/** Nothing of a cluster is left, in Kubernetes or in the catalogue. */
async function expectNothing(of: Fleet, cluster: string): Promise<void> {
  expect(await of.kubectlNamespaces()).not.toContain(`fleet-${of.tenant}--${cluster}`);
  expect(await of.catalog.cluster({ tenant: of.tenant, cluster })).toBeUndefined();
  const leases = await of.catalog.run('list leases', (db) =>
    db.selectFrom('leases').selectAll().where('tenant', '=', of.tenant).execute(),
  );
  expect(leases).toEqual([]);
}

describe('provision', () => {
  test('a second cluster of the same name is refused; the first stays', async () => {
    const input = { tenant: fleet.tenant, cluster: 'twice', ...SMALL };
    await fleet.run('ProvisionCluster', input);
    const second = await failure(await fleet.start('ProvisionCluster', input));
    expect(second).toEqual({
      code: 'ClusterExists',
      message: expect.stringContaining('already has a cluster "twice"'),
    });
    expect((await fleet.access('twice')).peers).toHaveLength(1);
  });

  test('while one operation holds the cluster, another is told by whom', async () => {
    const input = { tenant: fleet.tenant, cluster: 'busy', ...SMALL };
    const holder = await fleet.start('ProvisionCluster', input);
    await until('the holder has the lease', async () => (await fleet.progress(holder)).phase === 'Wait for the peers');
    const other = await failure(await fleet.start('DeleteCluster', { tenant: fleet.tenant, cluster: 'busy' }));
    expect(other).toEqual({ code: 'ClusterBusy', message: expect.stringContaining(holder.workflowId) });
    await holder.result();
  });

  test('a chart that cannot be applied leaves nothing', async () => {
    const broken = await fleetWith({ FLEET_HELM_CHART: '/no/such/chart' });
    const handle = await broken.start('ProvisionCluster', { tenant: broken.tenant, cluster: 'docs', ...SMALL });
    expect(await failure(handle)).toEqual({ code: 'ChartFailed', message: expect.stringContaining('/no/such/chart') });
    await expectNothing(broken, 'docs');
    const { steps } = await broken.progress(handle);
    expect(steps.find(({ name }) => name === 'Install the chart')).toMatchObject({ phase: 'failed' });
  });

  test('a namespace that is not ours is not touched', async () => {
    const name = `fleet-${fleet.tenant}--foreign`;
    await fleet.kubernetes(CoreV1Api).createNamespace({ body: { metadata: { name, labels: { owner: 'somebody' } } } });
    const handle = await fleet.start('ProvisionCluster', { tenant: fleet.tenant, cluster: 'foreign', ...SMALL });
    expect(await failure(handle)).toEqual({ code: 'NamespaceNotOurs', message: expect.stringContaining(name) });
    const found = await fleet.kubernetes(CoreV1Api).readNamespace({ name });
    expect(found.metadata?.deletionTimestamp).toBeUndefined();
    expect(found.metadata?.labels).toMatchObject({ owner: 'somebody' });
    expect(await fleet.catalog.cluster({ tenant: fleet.tenant, cluster: 'foreign' })).toBeUndefined();
  });

  test('a cancelled provision leaves nothing', async () => {
    const handle = await fleet.start('ProvisionCluster', {
      tenant: fleet.tenant,
      cluster: 'stopped',
      ...SMALL,
      nodes: 2,
    });
    await until('it waits for the peers', async () => (await fleet.progress(handle)).phase === 'Wait for the peers');
    await handle.cancel();
    expect(await failure(handle)).toMatchObject({ code: 'Cancelled' });
    expect(await fleet.kubectlNamespaces()).not.toContain(`fleet-${fleet.tenant}--stopped`);
    expect(await fleet.catalog.cluster({ tenant: fleet.tenant, cluster: 'stopped' })).toBeUndefined();
    expect(await fleet.catalog.operation(fleet.tenant, handle.workflowId)).toMatchObject({ state: 'cancelled' });
  });

  test('peers that do not come up are named, and go', async () => {
    const slow = await fleetWith({ FLEET_QDRANT_RESOLVER: 'dns', FLEET_ALLOW_PLAINTEXT: 'true' });
    const input = { tenant: slow.tenant, cluster: 'docs', ...SMALL, readyTimeoutSeconds: 4 };
    const ended = await failure(await slow.start('ProvisionCluster', input));
    expect(ended).toEqual({
      code: 'ClusterNotReady',
      message: expect.stringContaining('0 of 1 peers answer (qdrant-0'),
    });
    await expectNothing(slow, 'docs');
  });
});

describe('backup', () => {
  test('an unknown cluster', async () => {
    const handle = await fleet.start('BackupCluster', { tenant: fleet.tenant, cluster: 'nowhere' });
    expect(await failure(handle)).toEqual({
      code: 'ClusterNotFound',
      message: `Tenant "${fleet.tenant}" has no cluster "nowhere".`,
    });
  });

  test('an unknown collection', async () => {
    const input = { tenant: fleet.tenant, cluster: 'twice', collections: ['nope'] };
    expect(await failure(await fleet.start('BackupCluster', input))).toEqual({
      code: 'InvalidInput',
      message: 'collections: the cluster has no collection nope',
    });
  });

  test('a store that does not answer, wrong credentials, a bucket that is not there', async () => {
    const input = { tenant: fleet.tenant, cluster: 'twice' };
    const cases = [
      [{ FLEET_S3_ENDPOINT: 'http://127.0.0.1:1' }, 'StoreUnavailable', 'ECONNREFUSED'],
      [{ AWS_SECRET_ACCESS_KEY: 'wrong' }, 'StoreDenied', 'Check the bucket'],
      [{ FLEET_BACKUP_BUCKET: 'no-such-bucket' }, 'StoreDenied', 'no-such-bucket'],
    ] as const;
    const outcomes = await Promise.all(
      cases.map(async ([env]) => {
        const broken = await fleetWith(env);
        return failure(await broken.start('BackupCluster', input));
      }),
    );
    for (const [index, [, code, words]] of cases.entries()) {
      expect(outcomes[index]).toEqual({ code, message: expect.stringContaining(words) });
      expect(outcomes[index]?.message).not.toContain('wrong');
    }
    expect(await fleet.catalog.backups(input, { limit: 10 })).toEqual([]);
    expect(await (await fleet.access('twice')).nodeSnapshots('documents')).toEqual([]);
  });

  test('Qdrant down, and up again', async () => {
    const input = { tenant: fleet.tenant, cluster: 'twice' };
    const namespace = `fleet-${fleet.tenant}--twice`;
    const scale = async (replicas: number) => {
      const apps = fleet.kubernetes(AppsV1Api);
      const body = await apps.readNamespacedStatefulSet({ namespace, name: 'qdrant' });
      if (body.spec) body.spec.replicas = replicas;
      await apps.replaceNamespacedStatefulSet({ namespace, name: 'qdrant', body });
      await until(`${replicas} pods`, async () => {
        const { items } = await fleet.kubernetes(CoreV1Api).listNamespacedPod({ namespace });
        const ready = items.filter(({ status }) =>
          status?.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True'),
        );
        return items.length === replicas && ready.length === replicas;
      });
    };
    await scale(0);
    const down = await failure(await fleet.start('BackupCluster', input));
    expect(down).toEqual({ code: 'QdrantUnavailable', message: expect.stringContaining('it has no pods') });
    await scale(1);
    expect(await fleet.run('BackupCluster', input)).toMatchObject({ collections: 1, points: 0 });
  });
});

describe('restore', () => {
  const missing = '20260101T000000Z-00000000';

  test('a backup that is missing, or was never finished', async () => {
    const input = { tenant: fleet.tenant, source: 'docs', backup: missing, cluster: 'target' };
    expect(await failure(await fleet.start('RestoreCluster', input))).toEqual({
      code: 'BackupNotFound',
      message: expect.stringContaining(missing),
    });
    const keys = backupKeys({ prefix: '', tenant: fleet.tenant, cluster: 'docs', backup: missing });
    await fleet.store.putJson(keys.intent, JSON.stringify({ backup: missing }));
    expect(await failure(await fleet.start('RestoreCluster', input))).toEqual({
      code: 'BackupNotCommitted',
      message: expect.stringContaining('begun and never finished'),
    });
    await expectNothing(fleet, 'target');
    const left: string[] = [];
    for await (const { key } of fleet.store.list(keys.leases)) left.push(key);
    expect(left).toEqual([]);
  });

  test('bytes that were altered in the bucket are noticed, and the new cluster goes again', async () => {
    const [backup] = await fleet.catalog.backups({ tenant: fleet.tenant, cluster: 'twice' }, { limit: 1 });
    const keys = backupKeys({ prefix: '', tenant: fleet.tenant, cluster: 'twice', backup: backup?.backup ?? '' });
    for await (const { key } of fleet.store.list(keys.data)) {
      if (key.endsWith('.snapshot')) await fleet.store.putJson(key, 'not a snapshot any more');
    }
    const input = { tenant: fleet.tenant, source: 'twice', backup: backup?.backup, cluster: 'bad', nodes: 1 };
    const ended = await failure(await fleet.start('RestoreCluster', input));
    expect(ended.code).toBe('IntegrityMismatch');
    expect(ended.message).toMatch(/object \S+\.snapshot/);
    expect(ended.message).not.toContain('X-Amz');
    await expectNothing(fleet, 'bad');
  });
});
