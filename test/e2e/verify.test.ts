/** A backup that is listed can be proven without any cluster; one that was damaged is found out. */
import type { WorkflowFailedError } from '@temporalio/client';
import { readFile, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { BackupManifest } from '../../src/domain/backup.ts';
import { backupKeys } from '../../src/domain/naming.ts';
import { openShard, withScratch } from '../../src/clients/engine.ts';
import { Fleet, smallPoints } from '../support/fleet.ts';

let fleet: Fleet;
let input: { tenant: string; cluster: string; backup: string };
let manifest: BackupManifest;

beforeAll(async () => {
  fleet = await Fleet.open();
  await fleet.worker();
  const cluster = { tenant: fleet.tenant, cluster: 'docs' };
  const collections = [{ preset: 'documents', vectorSize: 8, shardNumber: 2 }];
  await fleet.run('ProvisionCluster', { ...cluster, nodes: 1, collections });
  await (await fleet.access('docs')).load('documents', smallPoints(500, 8));
  const { backup } = await fleet.run('BackupCluster', cluster);
  input = { ...cluster, backup: String(backup) };
  manifest = (await fleet.store.getJson(keys().manifest))?.body as BackupManifest;
});
afterAll(() => fleet.close());

function keys() {
  return backupKeys({ prefix: '', ...input });
}

async function attestations(): Promise<Record<string, unknown>[]> {
  const found: Record<string, unknown>[] = [];
  for await (const { key } of fleet.store.list(`${keys().root}attest/`)) {
    found.push((await fleet.store.getJson(key))?.body as Record<string, unknown>);
  }
  return found;
}

test('every shard is read, hashed, and opened and counted by the engine, with the cluster gone', async () => {
  await fleet.run('DeleteCluster', { tenant: input.tenant, cluster: input.cluster });
  const bytes = manifest.collections[0]?.shards.reduce((sum, { size }) => sum + size, 0);
  const verified = { backup: input.backup, shards: 2, bytes, opened: 2, signature: 'valid' };
  expect(await fleet.run('VerifyBackup', input)).toEqual(verified);
  expect(await attestations()).toMatchObject([{ kind: 'verified', shards: 2, opened: 2, problems: [] }]);
});

test('altered bytes and a missing object are both named, and written down', async () => {
  const [first, second] = manifest.collections[0]?.shards ?? [];
  if (first === undefined || second === undefined) throw new Error('The backup has two shards.');
  await fleet.store.putJson(first.key, 'x'.repeat(first.size));
  await fleet.store.deleteKeys([second.key]);
  const failure = await fleet.run('VerifyBackup', input).catch((error: unknown) => error);
  expect((failure as WorkflowFailedError).cause).toMatchObject({
    type: 'IntegrityMismatch',
    message: expect.stringMatching(/shard 0 hashes to .* shard 1 is gone from the bucket|shard 1 .* shard 0 hashes to/),
  });
  expect(await attestations()).toContainEqual(expect.objectContaining({ kind: 'corrupt', shards: 2 }));
  const leases: string[] = [];
  for await (const { key } of fleet.store.list(keys().leases)) leases.push(key);
  expect(leases).toEqual([]);
});

test('the engine opens a snapshot of a real Qdrant 1.18.3, and refuses one that was cut', async () => {
  const python = fleet.env['FLEET_ENGINE_PYTHON'];
  if (python === undefined) return; // a real Qdrant runs the pods, and no engine was installed
  const file = new URL('../fixtures/qdrant/shard-1.18.3.snapshot', import.meta.url).pathname;
  const never = new AbortController().signal;
  await withScratch(async (scratch) => {
    expect(await openShard(python, file, scratch, never)).toEqual({
      points: 1852,
      indexes: ['document_id', 'filename', 'tags', 'upload_timestamp'],
    });
  });
  await withScratch(async (scratch) => {
    const cut = `${scratch}/cut.snapshot`;
    await writeFile(cut, (await readFile(file)).subarray(0, 300_000));
    await expect(openShard(python, cut, scratch, never)).rejects.toMatchObject({ code: 'IntegrityMismatch' });
  });
});
