/** Incremental backups on the real stack: the second writes little, each restores EQUAL, and no block goes too early. */
import type { ChildProcess } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { BackupManifest, CommitRecord } from '../../src/domain/backup.ts';
import { backupKeys, clusterPrefix } from '../../src/domain/naming.ts';
import { exited, Fleet, smallPoints } from '../support/fleet.ts';
import { scan } from '../support/scanner.ts';

let fleet: Fleet;
let worker: ChildProcess;
const cluster = 'docs';

beforeAll(async () => {
  fleet = await Fleet.open();
  worker = await fleet.worker();
  const collections = [{ preset: 'documents', vectorSize: 256, shardNumber: 2 }];
  await fleet.run('ProvisionCluster', { tenant: fleet.tenant, cluster, nodes: 2, collections });
});
afterAll(() => fleet.close());

const ref = () => ({ tenant: fleet.tenant, cluster });
const keysOf = (backup: string) => backupKeys({ ...ref(), prefix: '', backup });

async function bytesOf(backup: string): Promise<number> {
  let bytes = 0;
  for await (const { key, size } of fleet.store.list(keysOf(backup).data)) {
    if (/\.(?:pack|recipe)$/.test(key)) bytes += size;
  }
  return bytes;
}

async function backUp(): Promise<{ backup: string; written: number; bytes: number }> {
  const { backup, written, bytes } = await fleet.run<{ backup: string; written: number; bytes: number }>(
    'BackupCluster',
    { ...ref(), format: 'incremental' },
  );
  expect(await bytesOf(backup)).toBe(written);
  return { backup, written, bytes };
}

async function restoredDigest(backup: string, target: string): Promise<unknown> {
  const input = { tenant: fleet.tenant, source: cluster, backup, cluster: target, nodes: 1 };
  await fleet.run('RestoreCluster', input);
  return (await fleet.access(target)).digest('documents');
}

/** Every byte of every listed backup again, by other code, and whatever lies around. */
const violations = async () =>
  (await scan({ env: fleet.env, tenant: fleet.tenant, clusters: [await fleet.access(cluster)] })).violations;
const recordOf = async (backup: string) => (await fleet.store.getJson(keysOf(backup).commit))?.body as CommitRecord;
const sweep = (keepLast: number) =>
  fleet.run<{ purged: string[]; held: Record<string, string[]> }>('RetentionSweep', {
    ...ref(),
    policy: { keepLast, undoHours: 0 },
  });

describe('two backups and what becomes of them', () => {
  let first: string;
  let second: string;
  let before: unknown;
  let after: unknown;

  test('the first writes all of it once, the second what has changed', async () => {
    const access = await fleet.access(cluster);
    await access.load('documents', smallPoints(6000, 256));
    before = await access.digest('documents');
    const one = await backUp();
    first = one.backup;
    expect(one.written).toBeGreaterThan(6000 * 256 * 4);
    expect(one.written).toBeLessThan(one.bytes * 1.05);

    await access.load('documents', smallPoints(6060, 256).slice(6000));
    after = await access.digest('documents');
    const two = await backUp();
    second = two.backup;
    expect(two.bytes).toBeGreaterThan(6_000_000);
    expect(two.written).toBeLessThan(two.bytes * 0.1);
    const manifest = (await fleet.store.getJson(keysOf(second).manifest))?.body as BackupManifest;
    expect(manifest.formatVersion).toBe(2);
    expect(manifest.blocks?.map(({ backup }) => backup).sort()).toEqual([first, second].sort());
    expect((await recordOf(second)).references).toEqual([first]);
    expect((await recordOf(first)).references).toEqual([]);
  });

  test('a third, of what has not changed since, writes almost nothing', async () => {
    const { backup, written, bytes } = await backUp();
    expect(written).toBeLessThan(bytes * 0.01);
    expect(await fleet.run('VerifyBackup', { ...ref(), backup })).toMatchObject({ shards: 2, opened: 2 });
    expect(Object.keys((await recordOf(backup)).references ?? []).length).toBeGreaterThan(0);
  });

  test('the first restores to what it was made of', async () => {
    expect(await restoredDigest(first, 'one')).toEqual(before);
  });

  test('the first is removed from the list, and its data stays for those that refer to it', async () => {
    const { purged, held } = await sweep(2);
    expect(purged).toEqual([]);
    expect(held[first]?.at(-1)).toBe(second);
    expect((await recordOf(first)).state).toBe('DELETING');
    expect(await bytesOf(first)).toBeGreaterThan(1_000_000);
    expect(await restoredDigest(second, 'two')).toEqual(after);
    expect(await violations()).toEqual([]);
  });

  test('once nothing refers to them they go, and nothing of them is left', async () => {
    const last = await fleet.run<{ backup: string }>('BackupCluster', ref());
    await sweep(1);
    const left: string[] = [];
    for await (const { key } of fleet.store.list(clusterPrefix({ ...ref(), prefix: '' }))) {
      if (!key.includes(last.backup) && !/(?:intent|manifest|commit)\.json$|\/attest\//.test(key)) left.push(key);
    }
    expect(left).toEqual([]);
    expect((await recordOf(first)).state).toBe('DELETED');
    expect((await recordOf(second)).state).toBe('DELETED');
    expect(await violations()).toEqual([]);
  });
});

// One of the long runs: npm run test:crash.
test.runIf(process.env['FLEET_TEST_CRASHES'] === 'all')(
  'kill -9 in the middle of a pack and after the commit: one backup, and nothing is left over',
  async () => {
    const base = await backUp();
    const access = await fleet.access(cluster);
    // Vectors of their own: a pack of 5 MiB and more for each shard.
    await access.load(
      'documents',
      smallPoints(20_000, 256)
        .slice(6060)
        .map((point) => ({ ...point, vector: point.vector.map((x) => x + point.id / 7) })),
    );
    const digest = await access.digest('documents');
    worker.kill('SIGKILL');
    await exited(worker);
    const handle = await fleet.start('BackupCluster', { ...ref(), format: 'incremental' });
    for (const failpoint of ['uploadPart:2', 'commitBackup:after']) {
      const dying = await fleet.worker({ failpoint, env: { FLEET_TRANSFER_PART_BYTES: String(5 * 1024 * 1024) } });
      expect(await exited(dying)).toBe('SIGKILL');
    }
    await fleet.worker();
    const { backup } = (await handle.result()) as { backup: string };
    expect((await recordOf(backup)).references).toEqual([base.backup]);
    expect(await violations()).toEqual([]);
    expect(await restoredDigest(backup, 'three')).toEqual(digest);
  },
  180_000,
);
