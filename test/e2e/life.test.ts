/** The life of a cluster on real parts, while its users write and read: nothing is lost, nothing fails. */
import { appendFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { namespaceOf } from '../../src/domain/naming.ts';
import { Traffic } from '../../src/local/demo/traffic.ts';
import { CoreV1Api } from '@kubernetes/client-node';
import { Fleet, until } from '../support/fleet.ts';

/** Two minors take longer, and `npm run life` shows them too. */
const ALL = process.env['FLEET_TEST_LIFE'] === 'all';
const FIRST = ALL ? 'v1.17.1' : 'v1.18.3';

let fleet: Fleet;
beforeAll(async () => {
  fleet = await Fleet.open();
  await fleet.worker();
  const collections = [{ preset: 'documents', vectorSize: 4, shardNumber: 4 }];
  await fleet.run('ProvisionCluster', { ...ref(), nodes: 2, version: FIRST, collections });
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
    // The nodes share two cores with everything else; `npm run life` has more.
    ...(!ALL && { pace: 80 }),
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
    ...(ALL ? ['Upgrade to v1.18.3, restart 2 pods'] : []),
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

test('pods that cannot start are put back to what ran before', { timeout: 180_000 }, async () => {
  const missing = join(dirname(fleet.env['KUBECONFIG'] ?? ''), 'kubelet/missing-images');
  await appendFile(missing, 'v1.19.77\n');
  const attempt = (change: object) =>
    fleet.run('UpdateCluster', { ...ref(), ...change }).catch((error: unknown) => error);
  const image = await underTraffic(400_000, () => attempt({ version: 'v1.19.77' }));
  expect(image).toMatchObject({ cause: { type: 'PodCannotStart' } });
  const { message } = (image as Error & { cause: Error }).cause;
  expect(message).toMatch(/^qdrant-1 cannot start, because image \S+:v1\.19\.77\S* cannot be pulled .*not found/);
  expect(message).toMatch(/put back/);
  const row = await fleet.catalog.cluster(ref());
  expect(row).toMatchObject({ phase: 'HEALTHY', spec: { version: 'v1.19.0' } });
  expect(row?.conditions.filter(({ status }) => status === 'True').map(({ type }) => type)).toEqual([
    'Ready',
    'Failed',
  ]);

  if (!ALL) return;
  // A value that is in range, and more than the disk has.
  const config = { 'storage.wal.wal_capacity_mb': 4096 };
  const crash = await underTraffic(500_000, () => attempt({ config }));
  expect(crash).toMatchObject({
    cause: { type: 'PodCannotStart', message: expect.stringMatching(/qdrant-1 .* ended \d+ times.*put back/) },
  });
  expect((await fleet.catalog.cluster(ref()))?.spec.config).toEqual(row?.spec.config);
  expect(await fleet.run('UpdateCluster', { ...ref(), version: 'v1.19.0', dryRun: true })).toMatchObject({ steps: [] });
});

test(
  'gets a new API key without a refused request, and the old one is refused then',
  { timeout: 180_000 },
  async () => {
    const old = (await fleet.access('living')).apiKey;
    const keys = await underTraffic(300_000, () => fleet.run('RotateApiKey', { ...ref(), graceSeconds: 0 }));
    expect(keys['restarts']).toBe(6);
    const access = await fleet.access('living');
    expect(access.apiKey).not.toBe(old);
    const answers = await Promise.all(
      access.peers.map(async (peer) => (await fetch(`${peer}/collections`, { headers: { 'api-key': old } })).status),
    );
    expect(answers).toEqual([401, 401]);
    expect(await fleet.secretTexts(namespaceOf(ref()), 'Opaque')).toEqual([access.apiKey]);
    // The chart's values and the history know no key.
    const releases = (await fleet.secretTexts(namespaceOf(ref()), 'helm.sh/release.v1')).join('');
    expect(releases).toContain('secretKeyRef');
    expect([old, access.apiKey].filter((key) => releases.includes(key))).toEqual([]);
  },
);

test('sleeps and wakes; a deletion that is taken back leaves it as it was', { timeout: 180_000 }, async () => {
  const before = await (await fleet.access('living')).digest('documents');
  await fleet.run('SuspendCluster', ref());
  expect(await fleet.catalog.cluster(ref())).toMatchObject({ phase: 'SUSPENDED', spec: { suspended: true } });
  await expect(fleet.access('living')).rejects.toThrow('No cluster to talk to');
  const [backup] = await fleet.catalog.backups(ref(), { limit: 1 });
  const taken = { source: 'living', backup: backup?.backup };
  const refused: [string, object][] = [
    ['UpdateCluster', { nodes: 3 }],
    ['RotateApiKey', {}],
    ['BackupCluster', {}],
    ['RestoreCluster', { ...taken, rename: { documents: 'copies' } }],
    ['RestoreCluster', { ...taken, inPlace: true }],
    ['DeleteCluster', { finalBackup: true }],
  ];
  for (const [type, input] of refused) {
    const failure = await fleet.run(type, { ...ref(), ...input }).catch((error: unknown) => error);
    expect(failure, type).toMatchObject({ cause: { type: 'ClusterSuspended' } });
    expect((failure as Error & { cause: Error }).cause.message, type).toMatch(/[Rr]esume it/);
  }
  // A backup is read again without its cluster.
  expect(await fleet.run('VerifyBackup', { ...ref(), backup: backup?.backup })).toMatchObject({ shards: 4 });
  expect(await fleet.catalog.cluster(ref())).toMatchObject({ phase: 'SUSPENDED', spec: { suspended: true } });
  await fleet.run('ResumeCluster', ref());
  expect(await (await fleet.access('living')).digest('documents')).toEqual(before);

  const deletion = await fleet.start('DeleteCluster', { ...ref(), finalBackup: true, undoHours: 1 });
  await until('the cluster sleeps', async () => {
    const row = await fleet.catalog.cluster(ref());
    return row?.phase === 'DELETING' && row.spec.suspended === true && row.delete_after !== null;
  });
  await expect(fleet.run('ResumeCluster', ref())).rejects.toMatchObject({ cause: { type: 'ClusterBusy' } });
  await deletion.signal('undelete');
  expect(await deletion.result()).toMatchObject({ undone: true, backup: expect.stringMatching(/^\d{8}T/) });
  expect(await fleet.catalog.cluster(ref())).toMatchObject({ phase: 'HEALTHY', delete_after: null });
  expect(await (await fleet.access('living')).digest('documents')).toEqual(before);
});
