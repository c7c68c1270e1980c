/** Restores beside what is there and in its place, how what was replaced comes back, and a store that removes nothing. */
import { WorkflowFailedError } from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { BackupManifest } from '../../src/domain/backup.ts';
import { backupKeys } from '../../src/domain/naming.ts';
import type { ClusterAccess } from '../../src/local/demo/cluster-access.ts';
import { FaultProxy, s3Error } from '../support/fault-proxy.ts';
import { Fleet, smallPoints, until } from '../support/fleet.ts';

let fleet: Fleet;
/** Between the worker and the store. */
let s3: FaultProxy;
/** Between the nodes and the store. */
let pull: FaultProxy;
let docs: ClusterAccess;
let backup: string;
let digest: unknown;
let changed: unknown;

const ref = () => ({ tenant: fleet.tenant, cluster: 'docs' });
const restore = (more: object) => ({ ...ref(), source: 'docs', backup, collections: ['documents'], ...more });
const collections = async () => {
  const found = await docs.call<{ collections: { name: string }[] }>('GET', '/collections');
  return found.collections.map(({ name }) => name).sort((a, b) => a.localeCompare(b));
};
const refused = async (more: object): Promise<ApplicationFailure> => {
  const error: unknown = await fleet.run('RestoreCluster', restore(more)).catch((failure: unknown) => failure);
  const cause = error instanceof WorkflowFailedError ? error.cause : undefined;
  if (!(cause instanceof ApplicationFailure)) throw error;
  return cause;
};

beforeAll(async () => {
  fleet = await Fleet.open();
  const store = fleet.env['FLEET_S3_ENDPOINT'] ?? '';
  s3 = await FaultProxy.listen(store);
  pull = await FaultProxy.listen(store);
  await fleet.worker({ env: { FLEET_S3_ENDPOINT: s3.url, FLEET_S3_NODE_ENDPOINT: pull.url } });
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
afterAll(async () => {
  await fleet.close();
  await Promise.all([s3.close(), pull.close()]);
});

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

  test('a failure after the drop: what was replaced is back by itself, with its alias', async () => {
    await docs.load('documents', [{ id: 8888, vector: [4, 3, 2, 1], payload: { late: true } }]);
    const before = await docs.digest('documents');
    // The proof reads each shard once; every later read of the backup arrives altered, and none of the fresh backup does.
    pull.inject({
      path: new RegExp(`/${backup}/`),
      skip: 2,
      times: Number.POSITIVE_INFINITY,
      fault: { kind: 'flip', side: 'response', at: { share: 0.5 }, bit: 3 },
    });
    const { type, message } = await refused({ inPlace: true });
    pull.lift();
    expect(type).toBe('IntegrityMismatch');
    expect(message).toMatch(/What was replaced is back as it was before, from backup \S+ of docs\.$/);
    expect(await docs.digest('documents')).toEqual(before);
    expect(await docs.aliases()).toEqual({ live: 'documents' });
    expect(await collections()).toEqual(['before', 'conversations', 'documents', 'documents v2 é']);
    expect(await fleet.catalog.cluster(ref())).toMatchObject({ phase: 'HEALTHY' });
  });
});

describe('a store that removes nothing', () => {
  const chores = () =>
    fleet.catalog.run('read the chores', (db) =>
      db.selectFrom('chores').selectAll().where('tenant', '=', fleet.tenant).execute(),
    );
  const leases = async () => {
    const found: string[] = [];
    for await (const { key } of fleet.store.list(backupKeys({ prefix: '', ...ref(), backup }).leases)) found.push(key);
    return found;
  };
  /** Whatever removes objects is answered so, many at once or one by one. */
  const refuse = (many: ReturnType<typeof s3Error>, one: ReturnType<typeof s3Error>) => {
    const times = Number.POSITIVE_INFINITY;
    s3.inject({ method: 'POST', path: /[?&]delete/, times, fault: many }, { method: 'DELETE', times, fault: one });
  };

  test('a restore into a new cluster succeeds, and the lease that is left is a warning', async () => {
    refuse(s3Error(501, 'NotImplemented'), s3Error(403, 'AccessDenied'));
    const result = await fleet.run('RestoreCluster', restore({ cluster: 'again', nodes: 1, aliases: false }));
    expect(result['warnings']).toEqual([expect.stringContaining(`lease on backup ${backup} of docs`)]);
    const again = await fleet.access('again');
    expect(await again.digest('documents')).toEqual(digest);
    expect(await fleet.catalog.cluster({ ...ref(), cluster: 'again' })).toMatchObject({ phase: 'HEALTHY' });
    expect(await chores()).toMatchObject([{ kind: 'backup-lease', cluster: 'docs', what: { backup } }]);
    expect(await leases()).toHaveLength(1);
    s3.lift();
  });

  test('an in-place restore succeeds, and lets go of the cluster before it tries again to tidy', async () => {
    refuse(s3Error(503, 'SlowDown'), s3Error(503, 'SlowDown'));
    const handle = await fleet.start('RestoreCluster', restore({ inPlace: true }));
    // An operation that excludes others gets the cluster while the restore is still tidying.
    await until('the cluster is let go of', async () => s3.log.length > 0 && (await held()) === 0, 50);
    expect((await handle.describe()).status.name).toBe('RUNNING');
    const result = (await handle.result()) as Record<string, unknown>;
    s3.lift();
    expect(result['warnings']).toEqual([expect.stringContaining(`lease on backup ${backup} of docs`)]);
    expect(await docs.digest('documents')).toEqual(digest);
    expect(await docs.aliases()).toEqual({ live: 'documents' });

    async function held(): Promise<number> {
      const rows = await fleet.catalog.run('read the leases', (db) =>
        db.selectFrom('leases').selectAll().where('tenant', '=', fleet.tenant).execute(),
      );
      return rows.length;
    }
  }, 180_000);

  test('the next sweep removes the leases', async () => {
    expect(await chores()).toHaveLength(2);
    await fleet.run('RetentionSweep', { ...ref(), policy: { keepLast: 10 } });
    expect(await chores()).toEqual([]);
    expect(await leases()).toEqual([]);
  });

  test('a backup that cannot be loaded is found out before anything goes', async () => {
    const before = await docs.digest('documents');
    // The first bytes of one shard are not those that were backed up any more.
    const keys = backupKeys({ prefix: '', ...ref(), backup });
    const manifest = (await fleet.store.getJson(keys.manifest))?.body as BackupManifest;
    const shard = manifest.collections.find(({ name }) => name === 'documents')?.shards[0];
    await fleet.store.putJson(shard?.key ?? '', 'x'.repeat(shard?.size ?? 0));
    const { type, message } = await refused({ inPlace: true });
    expect(type).toBe('IntegrityMismatch');
    expect(message).toContain('Nothing was dropped');
    expect(await docs.digest('documents')).toEqual(before);
    expect(await collections()).toEqual(['before', 'conversations', 'documents', 'documents v2 é']);
  });
});
