/** kill -9 of the worker in the middle of things: another worker carries on, and nothing is there twice or left over. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { backupKeys } from '../../src/domain/naming.ts';
import { exited, Fleet, largePoints } from '../support/fleet.ts';

const EVERYWHERE = process.env['FLEET_TEST_CRASHES'] === 'all';

/**
 * The worst places; with FLEET_TEST_CRASHES=all some more, beside crash-matrix.test.ts, which has all of them. Each kill
 * waits for a heartbeat to be missed.
 */
const PLACES = {
  provision: EVERYWHERE ? ['installRelease:after'] : [],
  backup: EVERYWHERE ? ['createShardSnapshot:after', 'uploadPart:2'] : ['uploadPart:2'],
  packs: ['uploadPart:2'],
  restore: ['recoverReplica:after'],
} as const;

/** Small parts, so that a small snapshot is many of them; and no packs, so that each shard has its activities. */
const SMALL_PARTS = { FLEET_TRANSFER_PART_BYTES: '5242880', FLEET_TRANSFER_LANES: '2', FLEET_SMALL_SHARD_BYTES: '0' };

describe('kill -9 of the worker', () => {
  let fleet: Fleet;
  beforeAll(async () => {
    fleet = await Fleet.open(SMALL_PARTS);
  });
  afterAll(() => fleet.close());

  /** Kill one worker after the other at the given places, then let one finish. */
  async function survive(
    type: string,
    input: unknown,
    failpoints: readonly string[],
  ): Promise<Record<string, unknown>> {
    const handle = await fleet.start(type, input);
    for (const failpoint of failpoints) {
      const worker = await fleet.worker({ failpoint });
      expect(await exited(worker), `the worker dies at ${failpoint}`).toBe('SIGKILL');
    }
    await fleet.worker();
    return (await handle.result()) as Record<string, unknown>;
  }

  test('a provision ends in one cluster', { timeout: 180_000 }, async () => {
    const input = { tenant: fleet.tenant, cluster: 'docs', collections: [{ preset: 'documents', vectorSize: 4 }] };
    expect(await survive('ProvisionCluster', input, PLACES.provision)).toMatchObject({ cluster: 'docs' });
    const cluster = await fleet.access('docs');
    expect(cluster.peers).toHaveLength(3);
    expect(Object.keys(await cluster.indexes('documents'))).toHaveLength(6);
    const namespaces = await fleet.kubectlNamespaces();
    expect(namespaces.filter((name) => name.startsWith(`fleet-${fleet.tenant}`))).toHaveLength(1);
    await fleet.close();
  });

  test('a backup ends in one backup, with no snapshot and no upload left over', { timeout: 180_000 }, async () => {
    const tenant = fleet.tenant;
    fleet = Object.assign(await Fleet.open(SMALL_PARTS), { tenant });
    const cluster = await fleet.access('docs');
    await cluster.load('documents', largePoints(2400));
    const digest = await cluster.digest('documents');

    const result = await survive('BackupCluster', { tenant, cluster: 'docs' }, PLACES.backup);
    expect(result).toMatchObject({ points: 2400, shards: 3 });
    expect(Number(result['bytes']), 'each shard goes up in parts').toBeGreaterThan(3 * 5_242_880);

    expect(await cluster.nodeSnapshots('documents')).toEqual([]);
    const backups = await fleet.catalog.backups({ tenant, cluster: 'docs' }, { limit: 10 });
    expect(backups.map(({ backup }) => backup)).toEqual([result['backup']]);
    const keys = backupKeys({ prefix: '', tenant, cluster: 'docs', backup: String(result['backup']) });
    expect(await fleet.store.openUploads(keys.root)).toEqual([]);
    const objects: string[] = [];
    for await (const { key } of fleet.store.list(keys.data)) if (key.endsWith('.snapshot')) objects.push(key);
    expect(objects).toHaveLength(3);

    const restore = { tenant, source: 'docs', backup: result['backup'], cluster: 'again', nodes: 2 };
    expect(await fleet.run('RestoreCluster', restore)).toMatchObject({ points: 2400 });
    expect(await (await fleet.access('again')).digest('documents')).toEqual(digest);
  });

  test.runIf(EVERYWHERE)('a backup of packed shards ends in one backup', { timeout: 180_000 }, async () => {
    const { tenant } = fleet;
    await fleet.close();
    fleet = Object.assign(await Fleet.open({ ...SMALL_PARTS, FLEET_SMALL_SHARD_BYTES: '1000000000' }), { tenant });
    const result = await survive('BackupCluster', { tenant, cluster: 'docs' }, PLACES.packs);
    expect(result).toMatchObject({ points: 2400, shards: 3 });
    expect(await (await fleet.access('docs')).nodeSnapshots('documents')).toEqual([]);
    const keys = backupKeys({ prefix: '', tenant, cluster: 'docs', backup: String(result['backup']) });
    expect(await fleet.store.openUploads(keys.root)).toEqual([]);
    expect(await fleet.run('VerifyBackup', { tenant, cluster: 'docs', backup: result['backup'] })).toMatchObject({
      shards: 3,
      opened: 3,
    });
  });

  test('a restore ends with every point, none of them twice', { timeout: 180_000 }, async () => {
    const { tenant } = fleet;
    await fleet.close();
    fleet = Object.assign(await Fleet.open(), { tenant });
    const digest = await (await fleet.access('docs')).digest('documents');
    const [backup] = await fleet.catalog.backups({ tenant, cluster: 'docs' }, { limit: 1 });
    const restore = { tenant, source: 'docs', backup: backup?.backup, cluster: 'third', nodes: 1 };
    expect(await survive('RestoreCluster', restore, PLACES.restore)).toMatchObject({ points: 2400 });
    const third = await fleet.access('third');
    expect(await third.digest('documents')).toEqual(digest);
  });
});
