/** The life of a cluster on real parts, while its users write and read: nothing is lost, nothing fails. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { namespaceOf } from '../../src/domain/naming.ts';
import { Traffic } from '../../src/local/demo/traffic.ts';
import { CoreV1Api } from '@kubernetes/client-node';
import { Fleet } from '../support/fleet.ts';

let fleet: Fleet;
beforeAll(async () => {
  fleet = await Fleet.open();
  await fleet.worker();
  const collections = [{ preset: 'documents', vectorSize: 4, shardNumber: 4 }];
  await fleet.run('ProvisionCluster', { ...ref(), nodes: 2, version: 'v1.17.1', collections });
});
afterAll(() => fleet.close());

const ref = () => ({ tenant: fleet.tenant, cluster: 'living' });

/** Run a change under traffic. */
async function underTraffic<T>(firstId: number, change: () => Promise<T>): Promise<T> {
  const traffic = await Traffic.start({
    kubeconfig: fleet.env['KUBECONFIG'] ?? '',
    ref: ref(),
    collection: 'documents',
    dimensions: 4,
    firstId,
  });
  let result: T;
  try {
    result = await change();
  } finally {
    await traffic.stop();
  }
  const { sent, failed, failures } = traffic.report;
  expect({ failed, failures }).toEqual({ failed: 0, failures: [] });
  expect(sent).toBeGreaterThan(20);
  expect(await traffic.lost()).toEqual([]);
  return result;
}

test('grows and shrinks', { timeout: 180_000 }, async () => {
  const plan = await fleet.run('UpdateCluster', { ...ref(), nodes: 3, dryRun: true });
  expect(plan['steps']).toEqual(['Add 1 nodes, 3 in all', 'Move 2 shards over 3 nodes']);
  expect((await fleet.catalog.cluster(ref()))?.spec.nodes).toBe(2);

  const grown = await underTraffic(0, () => fleet.run('UpdateCluster', { ...ref(), nodes: 3 }));
  expect(grown['steps']).toEqual(plan['steps']);
  const access = await fleet.access('living');
  const layout = await access.call<{ local_shards: unknown[] }>('GET', '/collections/documents/cluster', undefined, 2);
  expect(layout.local_shards).toHaveLength(2);

  await underTraffic(100_000, () => fleet.run('UpdateCluster', { ...ref(), nodes: 2 }));
  const row = await fleet.catalog.cluster(ref());
  expect(row).toMatchObject({ phase: 'HEALTHY', spec: { nodes: 2 } });
  const claims = await fleet
    .kubernetes(CoreV1Api)
    .listNamespacedPersistentVolumeClaim({ namespace: namespaceOf(ref()) });
  expect(claims.items.map(({ metadata }) => metadata?.name).filter((name) => name?.endsWith('-2'))).toEqual([]);
  expect((await access.call<{ peers: object }>('GET', '/cluster')).peers).toSatisfy(
    (peers: object) => Object.keys(peers).length === 2,
  );
});

test('is upgraded one minor at a time, after a backup', { timeout: 180_000 }, async () => {
  const upgraded = await underTraffic(200_000, () =>
    fleet.run('UpdateCluster', { ...ref(), version: 'v1.19.0', storage: '11Gi' }),
  );
  expect(upgraded['steps']).toEqual([
    'Back up',
    'Grow 4 volumes to 11Gi',
    'Upgrade to v1.18.3, restart 2 pods',
    'Upgrade to v1.19.0, restart 2 pods',
  ]);
  const { peers } = await fleet.access('living');
  const versions = await Promise.all(
    peers.map(async (peer) => ((await (await fetch(peer)).json()) as { version: string }).version),
  );
  expect(versions).toEqual(['1.19.0', '1.19.0']);
  expect(await fleet.catalog.backups(ref(), { limit: 5 })).toHaveLength(1);
  expect(await fleet.catalog.cluster(ref())).toMatchObject({
    phase: 'HEALTHY',
    spec: { version: 'v1.19.0', storage: '11Gi' },
  });
});
