/** The main job on real parts: provision, fill, back up, delete, restore elsewhere, compare; by workflows alone. */
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { CoreV1Api, NetworkingV1Api } from '@kubernetes/client-node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { backupKeys } from '../../src/domain/naming.ts';
import type { BackupManifest, CommitRecord } from '../../src/domain/backup.ts';
import { Helm } from '../../src/clients/helm.ts';
import { Fleet, smallPoints } from '../support/fleet.ts';

let fleet: Fleet;
beforeAll(async () => {
  fleet = await Fleet.open();
  await fleet.worker();
});
afterAll(() => fleet.close());

const COLLECTIONS = [
  { preset: 'documents', vectorSize: 4 },
  { preset: 'conversations', vectorSize: 4, shardNumber: 2, replicationFactor: 1 },
];

describe('the main job', () => {
  let backup = '';
  let digests: Record<string, unknown> = {};
  let apiKey = '';

  test('provisions three nodes, with the collections and indexes of the presets', async () => {
    const result = await fleet.run('ProvisionCluster', {
      tenant: fleet.tenant,
      cluster: 'docs',
      collections: COLLECTIONS,
    });
    expect(result).toMatchObject({ cluster: 'docs', qdrantVersion: expect.stringMatching(/^1\./) });
    const cluster = await fleet.access('docs');
    expect(cluster.peers).toHaveLength(3);
    expect(await cluster.indexes('documents')).toEqual({
      content_type: 'keyword',
      customer_id: 'keyword',
      document_id: 'keyword',
      filename: 'keyword',
      tags: 'keyword',
      upload_timestamp: 'datetime',
    });
    expect(await fleet.catalog.cluster({ tenant: fleet.tenant, cluster: 'docs' })).toMatchObject({ phase: 'HEALTHY' });
    apiKey = cluster.apiKey;
  });

  test('what surrounds the pods is in place, and the API server itself holds every pod to it', async () => {
    const namespace = `fleet-${fleet.tenant}--docs`;
    const core = fleet.kubernetes(CoreV1Api);
    const account = await core.readNamespacedServiceAccount({ namespace, name: 'qdrant' });
    // Made before the chart and taken over by Helm.
    expect(account).toMatchObject({ automountServiceAccountToken: false });
    expect(account.metadata?.annotations).toMatchObject({ 'meta.helm.sh/release-name': 'qdrant' });
    const policy = await fleet.kubernetes(NetworkingV1Api).readNamespacedNetworkPolicy({ namespace, name: 'qdrant' });
    expect(policy.spec?.policyTypes).toEqual(['Ingress', 'Egress']);
    const { items } = await core.listNamespacedPod({ namespace });
    expect(items.every(({ spec }) => spec?.serviceAccountName === 'qdrant')).toBe(true);
    const spec = { containers: [{ name: 'c', image: 'busybox' }] };
    await expect(
      core.createNamespacedPod({ namespace, body: { metadata: { name: 'intruder' }, spec } }),
    ).rejects.toThrow(/violates PodSecurity/);
  });

  test('backs up every shard once, and leaves nothing on the nodes', async () => {
    const cluster = await fleet.access('docs');
    await cluster.load('documents', smallPoints(1500));
    await cluster.load('conversations', smallPoints(300));
    await cluster.call('POST', '/collections/aliases', {
      actions: [{ create_alias: { collection_name: 'documents', alias_name: 'live' } }],
    });
    digests = { documents: await cluster.digest('documents'), conversations: await cluster.digest('conversations') };
    expect(digests).toMatchObject({ documents: { points: 1500 }, conversations: { points: 300 } });

    const result = await fleet.run('BackupCluster', { tenant: fleet.tenant, cluster: 'docs' });
    expect(result).toMatchObject({ collections: 2, shards: 5, points: 1800 });
    backup = String(result['backup']);
    expect(await cluster.nodeSnapshots('documents')).toEqual([]);
    expect(await cluster.nodeSnapshots('conversations')).toEqual([]);

    const keys = backupKeys({ prefix: '', tenant: fleet.tenant, cluster: 'docs', backup });
    const commit = (await fleet.store.getJson(keys.commit))?.body as CommitRecord;
    expect(commit).toMatchObject({ state: 'COMMITTED', backup, totals: { shards: 5, points: 1800 } });
    const manifest = (await fleet.store.getJson(keys.manifest))?.body as BackupManifest;
    expect(manifest.aliases).toEqual([{ alias: 'live', collection: 'documents' }]);
    const exact = manifest.collections.flatMap(({ shards }) => shards.map(({ points }) => points.exact));
    if (fleet.env['FLEET_ENGINE_PYTHON'] !== undefined) {
      expect(exact.reduce((sum, count) => (sum ?? 0) + (count ?? Number.NaN), 0)).toBe(1800);
    }
    for (const shard of manifest.collections.flatMap(({ shards }) => shards)) {
      expect(await fleet.store.head(shard.key)).toMatchObject({ size: shard.size, crc32: shard.crc32 });
    }
    expect(await fleet.store.openUploads(keys.root)).toEqual([]);
  });

  test('deletes the cluster and keeps the backup', async () => {
    await fleet.run('DeleteCluster', { tenant: fleet.tenant, cluster: 'docs' });
    expect(await fleet.kubectlNamespaces()).not.toContain(`fleet-${fleet.tenant}--docs`);
    expect(await fleet.catalog.cluster({ tenant: fleet.tenant, cluster: 'docs' })).toBeUndefined();
    expect(await fleet.catalog.backup(fleet.tenant, backup)).toMatchObject({ state: 'COMMITTED' });
  });

  test('restores into a new cluster of two nodes, every point equal', async () => {
    const input = { tenant: fleet.tenant, source: 'docs', backup, cluster: 'again', nodes: 2 };
    const handle = await fleet.start('RestoreCluster', input);
    expect(await handle.result()).toMatchObject({ collections: 2, points: 1800, aliases: 1 });
    const cluster = await fleet.access('again');
    expect(cluster.peers).toHaveLength(2);
    for (const peer of [0, 1]) {
      expect(await cluster.digest('documents', peer)).toEqual(digests['documents']);
      expect(await cluster.digest('conversations', peer)).toEqual(digests['conversations']);
    }
    expect(await cluster.aliases()).toEqual({ live: 'documents' });
    expect(Object.keys(await cluster.indexes('documents'))).toHaveLength(6);
    const progress = await fleet.progress(handle);
    expect(progress).toMatchObject({ kind: 'restore', phase: 'done', percent: 100 });
    // Nothing keeps the backup from being removed now.
    const keys = backupKeys({ prefix: '', tenant: fleet.tenant, cluster: 'docs', backup });
    expect(await fleet.store.getJson(keys.lease(handle.workflowId))).toBeUndefined();
  });

  test('a write after the restore reaches every replica', async () => {
    const cluster = await fleet.access('again');
    await cluster.load('documents', [{ id: 99_999, vector: [1, 2, 3, 4], payload: {} }]);
    const [left, right] = [await cluster.digest('documents', 0), await cluster.digest('documents', 1)];
    expect(left.points).toBe(1501);
    expect(right).toEqual(left);
  });

  test('a dry run tells what would happen and what is in the way, and writes nothing', async () => {
    const input = { tenant: fleet.tenant, source: 'docs', backup, dryRun: true };
    expect(await fleet.run('RestoreCluster', { ...input, cluster: 'fresh', nodes: 3 })).toMatchObject({
      ...{ dryRun: true, allowed: true, refusals: [], peers: 3, collections: 2 },
      // Three shards twice, two shards once.
      shardReplicas: 8,
    });
    expect(await fleet.kubectlNamespaces()).not.toContain(`fleet-${fleet.tenant}--fresh`);
    const refused = await fleet.run('RestoreCluster', { ...input, cluster: 'again', replicationFactor: 3 });
    expect(refused['refusals']).toMatchObject([
      { gate: 'existing', detail: expect.stringContaining('conversations') },
      { gate: 'existing', detail: expect.stringContaining('documents') },
      { gate: 'replication', detail: expect.stringContaining('the target has 2') },
      { gate: 'aliases', detail: expect.stringContaining('live') },
    ]);
  });

  test('restoring over existing collections is refused, with the reason, and changes nothing', async () => {
    const before = await (await fleet.access('again')).digest('documents');
    const restore = fleet.run('RestoreCluster', { tenant: fleet.tenant, source: 'docs', backup, cluster: 'again' });
    await expect(restore).rejects.toMatchObject({
      cause: { type: 'RestoreRefused', message: expect.stringContaining('already has a collection "conversations"') },
    });
    expect(await (await fleet.access('again')).digest('documents')).toEqual(before);
  });

  test('one collection restores alone, with one replica', async () => {
    const input = { tenant: fleet.tenant, source: 'docs', backup, cluster: 'small', nodes: 1 };
    const result = await fleet.run('RestoreCluster', { ...input, collections: ['conversations'] });
    expect(result).toMatchObject({ collections: 1, points: 300, aliases: 0 });
    expect(await (await fleet.access('small')).digest('conversations')).toEqual(digests['conversations']);
  });

  test('a sweep keeps the newest backup, removes the rest and what they held', async () => {
    // A cluster that is gone keeps its backups, and its retention.
    const kept = String((await fleet.run('BackupCluster', { tenant: fleet.tenant, cluster: 'again' }))['backup']);
    const second = String((await fleet.run('BackupCluster', { tenant: fleet.tenant, cluster: 'again' }))['backup']);
    const policy = { keepLast: 1, undoHours: 0 };
    const dry = await fleet.run('RetentionSweep', { tenant: fleet.tenant, cluster: 'again', policy, dryRun: true });
    expect(dry).toMatchObject({ marked: [kept], purged: [], dryRun: true });
    expect(await fleet.catalog.backup(fleet.tenant, kept)).toBeDefined();

    const swept = await fleet.run('RetentionSweep', { tenant: fleet.tenant, cluster: 'again', policy });
    expect(swept).toMatchObject({ marked: [kept], purged: [kept] });
    const keys = backupKeys({ prefix: '', tenant: fleet.tenant, cluster: 'again', backup: kept });
    const left: string[] = [];
    for await (const { key } of fleet.store.list(keys.data)) left.push(key);
    expect(left).toEqual([]);
    expect((await fleet.store.getJson(keys.commit))?.body).toMatchObject({ state: 'DELETED' });
    const again = await fleet.run('RetentionSweep', { tenant: fleet.tenant, cluster: 'again', policy });
    expect(again).toMatchObject({ marked: [], purged: [] });
    expect(await fleet.catalog.backup(fleet.tenant, second)).toMatchObject({ state: 'COMMITTED' });
    await expect(
      fleet.run('RestoreCluster', { tenant: fleet.tenant, source: 'again', backup: kept, cluster: 'nope' }),
    ).rejects.toMatchObject({ cause: { type: 'BackupNotCommitted' } });
  });

  test('no key is in a history, in the Helm release or in a log', async () => {
    const helm = new Helm({
      binary: fleet.env['FLEET_HELM_BIN'] ?? '',
      kubeconfig: fleet.env['KUBECONFIG'] ?? '',
    });
    expect(await helm.status(`fleet-${fleet.tenant}--again`, 'qdrant')).toMatchObject({ status: 'deployed' });
    const again = (await fleet.access('again')).apiKey;
    const secrets = [apiKey, again, fleet.env['AWS_SECRET_ACCESS_KEY'] ?? '', 'X-Amz-Signature'];
    const texts: [string, string][] = [['the log', fleet.log]];
    const query = `TaskQueue = "${fleet.taskQueue}"`;
    for await (const { workflowId, runId } of fleet.client.workflow.list({ query })) {
      const history = await fleet.temporal('workflow', 'show', '-w', workflowId, '-r', runId, '--output', 'json');
      // Payloads are base64 in this form.
      const decoded = history.replaceAll(/"data":\s*"([^"]+)"/g, (_, data: string) =>
        Buffer.from(data, 'base64').toString(),
      );
      texts.push([workflowId, history + decoded]);
    }
    expect(texts.length).toBeGreaterThan(8);
    const release = await fleet.secretTexts(`fleet-${fleet.tenant}--again`, 'helm.sh/release.v1');
    expect(release.length).toBeGreaterThan(0);
    texts.push(...release.map((text): [string, string] => ['helm release', text]));
    const logs = join(dirname(fleet.env['KUBECONFIG'] ?? ''), 'logs');
    for (const name of await readdir(logs)) texts.push([name, await readFile(join(logs, name), 'utf8')]);
    for (const [where, text] of texts) {
      for (const secret of secrets) expect(text.includes(secret), `${where} holds a secret`).toBe(false);
    }
  });
});
