/** Restores beside what is there and in its place, and how what was replaced comes back. */
import { WorkflowFailedError } from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { BackupManifest } from '../../src/domain/backup.ts';
import { backupKeys } from '../../src/domain/naming.ts';
import type { ClusterAccess } from '../../src/local/demo/cluster-access.ts';
import { Fleet, smallPoints } from '../support/fleet.ts';

let fleet: Fleet;
let docs: ClusterAccess;
let backup: string;
let digest: unknown;
let changed: unknown;

const ref = () => ({ tenant: fleet.tenant, cluster: 'docs' });
const restore = (more: object) => ({ ...ref(), source: 'docs', backup, collections: ['documents'], ...more });
const refused = async (more: object): Promise<ApplicationFailure> => {
  const error: unknown = await fleet.run('RestoreCluster', restore(more)).catch((failure: unknown) => failure);
  const cause = error instanceof WorkflowFailedError ? error.cause : undefined;
  if (!(cause instanceof ApplicationFailure)) throw error;
  return cause;
};

beforeAll(async () => {
  fleet = await Fleet.open();
  await fleet.worker();
  const collections = [
    { preset: 'documents', vectorSize: 4, shardNumber: 2, replicationFactor: 1 },
    { preset: 'conversations', vectorSize: 4, shardNumber: 1, replicationFactor: 1 },
  ];
  await fleet.run('ProvisionCluster', { ...ref(), nodes: 2, collections });
  docs = await fleet.access('docs');
  await docs.load('documents', smallPoints(200));
  await docs.call('POST', '/collections/aliases', {
    actions: [{ create_alias: { collection_name: 'documents', alias_name: 'live' } }],
  });
  digest = await docs.digest('documents');
  backup = String((await fleet.run('BackupCluster', ref()))['backup']);
  await docs.call('POST', '/collections/documents/points/delete?wait=true', { points: [1, 2, 3] });
  await docs.load('documents', [{ id: 7777, vector: [1, 2, 3, 4], payload: { late: true } }]);
  changed = await docs.digest('documents');
});
afterAll(() => fleet.close());

describe('under another name', () => {
  test('an alias that is in use is a gate, with its remedy', async () => {
    const { type, message } = await refused({ rename: { documents: 'documents_v2' } });
    expect(type).toBe('RestoreRefused');
    expect(message).toContain('"live"');
    expect(message).toContain('"aliases": false');
  });

  test('the old and the new stand beside each other', async () => {
    const rename = { documents: 'documents v2 é' };
    expect(await fleet.run('RestoreCluster', restore({ rename, aliases: false }))).toMatchObject({ points: 198 + 2 });
    expect(await docs.digest('documents v2 é')).toEqual(digest);
    expect(await docs.digest('documents')).toEqual(changed);
    expect(await docs.aliases()).toEqual({ live: 'documents' });
  });

  test('a name that the backup does not hold is told', async () => {
    expect((await refused({ collections: ['documents', 'nope'] })).message).toContain('holds no collection nope');
    expect((await refused({ collections: undefined, rename: { nope: 'x' } })).message).toContain('no collection nope');
  });
});

describe('in place', () => {
  let fresh = '';

  test('a dry run tells what would be replaced', async () => {
    expect(await fleet.run('RestoreCluster', restore({ inPlace: true, dryRun: true }))).toMatchObject({
      ...{ allowed: true, replaced: ['documents'], shardReplicas: 2 },
      bytesNeededPerNode: expect.any(Number),
    });
    expect(await docs.digest('documents')).toEqual(changed);
  });

  test('what is there is backed up, dropped and replaced; its alias and its neighbours stay', async () => {
    const result = await fleet.run('RestoreCluster', restore({ inPlace: true }));
    fresh = String(result['freshBackup']);
    expect(fresh).not.toBe(backup);
    expect(await docs.digest('documents')).toEqual(digest);
    expect(await docs.digest('conversations')).toMatchObject({ points: 0 });
    expect(await docs.aliases()).toEqual({ live: 'documents' });
    expect(await fleet.catalog.backup(fleet.tenant, fresh)).toMatchObject({ state: 'COMMITTED' });
    const before = { backup: fresh, rename: { documents: 'before' }, aliases: false };
    await fleet.run('RestoreCluster', restore(before));
    expect(await docs.digest('before')).toEqual(changed);
  });

  test('a failure after the drop tells the command that brings it back, and the command does', async () => {
    // The first bytes of one shard are not those that were backed up any more.
    const keys = backupKeys({ prefix: '', ...ref(), backup });
    const manifest = (await fleet.store.getJson(keys.manifest))?.body as BackupManifest;
    const shard = manifest.collections.find(({ name }) => name === 'documents')?.shards[0];
    await fleet.store.putJson(shard?.key ?? '', 'x'.repeat(shard?.size ?? 0));
    const { message } = await refused({ inPlace: true });
    const { collections } = await docs.call<{ collections: { name: string }[] }>('GET', '/collections');
    expect(collections.map(({ name }) => name)).not.toContain('documents');
    const [, type, queue, input] = /--type (\S+) --task-queue (\S+) --input '([^']+)'/.exec(message) ?? [];
    expect([type, queue]).toEqual(['RestoreCluster', fleet.taskQueue]);
    await fleet.run(type ?? '', JSON.parse(input ?? ''));
    expect(await docs.digest('documents')).toEqual(digest);
    expect(await docs.aliases()).toEqual({ live: 'documents' });
  });
});
