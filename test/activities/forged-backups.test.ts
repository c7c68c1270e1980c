/** Manifests and records that somebody else wrote: no key is presigned or read for them, and nothing is restored or removed. */
import { createHash } from 'node:crypto';
import { crc32, deflateRawSync } from 'node:zlib';
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { chooseBases } from '../../activities/block-references.ts';
import { lookAtRecord } from '../../activities/backup-records.ts';
import { BackupMac } from '../../src/clients/backup-mac.ts';
import type { CommitRecord, ShardEntry } from '../../src/domain/backup.ts';
import { backupKeys, bucketsKey, clusterPrefix, type BackupLocation } from '../../src/domain/naming.ts';
import { RecipeWriter } from '../../src/domain/shard-recipe.ts';
import { manifestOf, recordOf, sealedRecord, shardOf, storeBackup, TIME } from '../support/stored-backup.ts';
import { Parts } from './support.ts';

const SHA = 'ab'.repeat(32);
const OTHER = '20261031T030000Z-00000009';
const sha256 = (bytes: string | Uint8Array) => createHash('sha256').update(bytes).digest('hex');

let parts: Parts;
/** Keys that were presigned, read or deleted, besides those of records. */
let touched: string[];
beforeAll(async () => {
  parts = await Parts.open();
  const { store } = parts;
  const presign = store.presignRead.bind(store);
  const presignOwn = store.presignOwnRead.bind(store);
  const read = store.read.bind(store);
  const remove = store.deleteKeys.bind(store);
  vi.spyOn(store, 'presignRead').mockImplementation((key, seconds) => {
    touched.push(key);
    return presign(key, seconds);
  });
  vi.spyOn(store, 'presignOwnRead').mockImplementation((key, seconds) => {
    touched.push(key);
    return presignOwn(key, seconds);
  });
  vi.spyOn(store, 'read').mockImplementation((key, signal) => {
    touched.push(key);
    return read(key, signal);
  });
  vi.spyOn(store, 'deleteKeys').mockImplementation((keys) => {
    touched.push(...keys.filter((key) => !key.includes('/leases/')));
    return remove(keys);
  });
});
beforeEach(() => {
  touched = [];
});
afterAll(() => parts.close());

let clusters = 0;
function fresh(backup = '20261101T030000Z-00000000'): BackupLocation {
  clusters += 1;
  return { tenant: parts.tenant, cluster: `c${clusters}`, prefix: '', backup };
}

function documents(location: BackupLocation, shard: Partial<Record<keyof ShardEntry, unknown>> = {}) {
  const entry = { ...shardOf(location, '"data"'), ...shard } as ShardEntry;
  return { name: 'documents', config: { params: {} }, payloadSchema: {}, shards: [entry] };
}

type Forged = (location: BackupLocation) => object;
const oneShard = (shard: (location: BackupLocation) => Partial<Record<keyof ShardEntry, unknown>>): Forged => {
  return (location) => ({ collections: [documents(location, shard(location))] });
};
const key = (of: (location: BackupLocation) => string) => oneShard((location) => ({ key: of(location) }));
const deep = (levels: number): unknown => JSON.parse(`${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`);

/** What is forged in a manifest, whoever signed it. */
const MANIFESTS: readonly (readonly [string, Forged])[] = [
  ['a key of another tenant', key(({ cluster, backup }) => `beta/${cluster}/${backup}/data/run/x.snapshot`)],
  ['a key of another cluster', key(({ tenant, backup }) => `${tenant}/other/${backup}/data/run/x.snapshot`)],
  ['a key of another backup', key((at) => `${clusterPrefix(at)}${OTHER}/data/run/x.snapshot`)],
  ['a key that climbs', key((at) => `${backupKeys(at).data}../../${OTHER}/data/run/x.snapshot`)],
  ['a key with an empty segment', key((at) => `${backupKeys(at).data}run//x.snapshot`)],
  ['a key with NUL', key((at) => `${backupKeys(at).data}run/x\u0000.snapshot`)],
  ['an absolute key', key((at) => `/${backupKeys(at).data}run/x.snapshot`)],
  ['the key of the record', key((at) => backupKeys(at).commit)],
  ['no key', key(() => '')],
  ['a sample elsewhere', oneShard(() => ({ sample: { key: 'beta/docs/secret.json', sha256: SHA, points: 1 } }))],
  ['another tenant', () => ({ tenant: 'beta' })],
  ['another cluster', () => ({ cluster: 'other' })],
  ['another backup', () => ({ backup: OTHER })],
  ['an unknown format', () => ({ formatVersion: 3 })],
  ['a negative shard', oneShard(() => ({ shard: -1 }))],
  ['a shard id beyond all bounds', oneShard(() => ({ shard: 4_000_000_000 }))],
  ['a shard twice', (at) => ({ collections: [{ ...documents(at), shards: [shardOf(at, 'a'), shardOf(at, 'b')] }] })],
  ['a collection twice', (at) => ({ collections: [documents(at), documents(at)] })],
  ['a collection with a slash in its name', (at) => ({ collections: [{ ...documents(at), name: '../x' }] })],
  ['a negative size', oneShard(() => ({ size: -1 }))],
  ['a size that is no number', oneShard(() => ({ size: '6' }))],
  ['a SHA-256 that is none', oneShard(() => ({ sha256: '../../x' }))],
  ['points that are none', oneShard(() => ({ points: { before: 'many', after: 1 } }))],
  ['collections that are no list', () => ({ collections: { length: 1 } })],
  ['no configuration', (at) => ({ collections: [{ ...documents(at), config: null }] })],
  ['a configuration without an end', (at) => ({ collections: [{ ...documents(at), config: deep(500) }] })],
  ['an index named __proto__', (at) => ({ collections: [{ ...documents(at), payloadSchema: deep(1) }] })],
  [
    'blocks of a backup that the record does not name',
    () => ({ formatVersion: 2, blocks: [{ backup: OTHER, bytes: 1 }] }),
  ],
  ['a recipe in a full backup', oneShard(() => ({ incremental: { recipeBytes: 1, recipeSha256: SHA, written: 1 } }))],
  ['an attempt that climbs', () => ({ attempt: '../..' })],
  ['a cluster of no nodes', () => ({ spec: { nodes: 0 } })],
  ['a version that is markup', () => ({ qdrantVersion: '<script>' })],
];

/** Store a backup whose manifest is forged. @param mac who signs */
async function storeForged(location: BackupLocation, change: object, mac: BackupMac): Promise<void> {
  const text = JSON.stringify(mac.seal('manifest', location, { ...manifestOf(location), ...change })).replace(
    '{"a":1}',
    '{"__proto__":{"data_type":"keyword"}}',
  );
  const references = location.backup === OTHER ? undefined : [];
  const record = recordOf(location, 'COMMITTED', text, references && { references });
  await parts.store.putJson(backupKeys(location).manifest, text);
  await parts.store.putJson(backupKeys(location).commit, JSON.stringify(mac.seal('record', location, record)));
}

/** Everything that a restore, its preview and a verification would do with the backup. @returns the codes of the refusals */
async function tryAll(location: BackupLocation, acceptUnsigned: boolean): Promise<string[]> {
  const { tenant, cluster, backup } = location;
  const target = { tenant, cluster: 'target' };
  const at = acceptUnsigned ? { ...location, acceptUnsigned: true as const } : location;
  const task = { target, location: at, collection: 'documents', shard: 0, peer: '1' };
  const flag = acceptUnsigned ? { acceptUnsigned } : {};
  const attempts = [
    parts.as('restore', (a) => a.openBackup({ tenant, source: cluster, backup, ...flag })),
    parts.as('restore', (a) => a.previewRestore({ target, location: at, collections: ['documents'], nodes: 1 })),
    parts.as('restore', (a) => a.recoverReplica(task)),
    parts.as('restore', (a) => a.relayReplica(task)),
    parts.as('restore', (a) => a.restoreAliases({ target, location: at, collections: ['documents'] })),
    parts.as('verify', (a) => a.verifyShard({ location: at, collection: 'documents', shard: 0 })),
  ];
  const outcomes = await Promise.allSettled(attempts);
  return outcomes.map((outcome) =>
    outcome.status === 'fulfilled' ? 'done' : String((outcome.reason as { code?: string }).code),
  );
}

const nobody = new BackupMac();
const stranger = new BackupMac([{ id: 'stranger', key: Buffer.alloc(32, 1) }]);
/** Names one of our keys without having it. */
const impostor = new BackupMac([{ id: 'local', key: Buffer.alloc(32, 1) }]);

describe.for(MANIFESTS)('a manifest with %s', ([, forged]) => {
  test('is refused: 0 keys presigned, 0 restores, whoever signed it and whatever is accepted', async () => {
    const location = fresh();
    const tries: readonly (readonly [BackupMac, boolean])[] = [
      [nobody, false],
      [nobody, true],
      [parts.store.mac, false],
    ];
    for (const [mac, acceptUnsigned] of tries) {
      await storeForged(location, forged(location), mac);
      const codes = await tryAll(location, acceptUnsigned);
      const expected = mac === nobody && !acceptUnsigned ? 'BackupNotTrusted' : 'IntegrityMismatch';
      expect(codes).toEqual(codes.map(() => expected));
    }
    expect(touched).toEqual([]);
  });
});

describe('a manifest without a fault', () => {
  test.for([
    ['without a MAC', nobody],
    ['by a key that nobody knows', stranger],
    ['by a key that is not ours under the name of one that is', impostor],
  ] as const)('%s: is opened only when that is accepted', async ([, mac]) => {
    const location = fresh();
    await storeForged(location, { collections: [documents(location)] }, mac);
    const codes = await tryAll(location, false);
    expect(codes).toEqual(codes.map(() => 'BackupNotTrusted'));
    expect(touched).toEqual([]);
    const { tenant, cluster, backup } = location;
    const opening = { tenant, source: cluster, backup, acceptUnsigned: true };
    expect(await parts.as('restore', (a) => a.openBackup(opening))).toMatchObject({
      location: { acceptUnsigned: true },
      unprotected: expect.stringContaining('unsigned, as asked'),
    });
  });

  test('of the fleet is opened, and of another one in its place is not', async () => {
    const location = fresh();
    const { tenant, cluster, backup } = location;
    const open = () => parts.as('restore', (a) => a.openBackup({ tenant, source: cluster, backup }));
    await storeBackup(parts.store, location, 'COMMITTED', { collections: [documents(location)] });
    expect((await open()).unprotected).toBeUndefined();
    const other = { ...location, backup: OTHER };
    await storeBackup(parts.store, other, 'COMMITTED', { collections: [documents(other)] });
    for (const part of ['manifest', 'commit'] as const) {
      const { text = '' } = (await parts.store.getJson(backupKeys(other)[part])) ?? {};
      await parts.store.putJson(backupKeys(location)[part], text.replaceAll(OTHER, backup));
    }
    await expect(open()).rejects.toMatchObject({ code: 'BackupNotTrusted' });
    expect(touched).toEqual([]);
  });

  test('a verification reads what is not signed, says so, and signs nothing', async () => {
    const location = fresh();
    const { tenant, cluster, backup } = location;
    await storeForged(location, { collections: [documents(location)] }, nobody);
    await parts.store.putJson(shardOf(location, '"data"').key, '"data"');
    const { location: leased } = await parts.as('verify', (a) => a.leaseBackup({ tenant, cluster, backup }));
    const listed = await parts.as('verify', (a) => a.listBackupShards({ location: leased }));
    expect(listed).toMatchObject({ shards: [{ collection: 'documents' }], seal: 'missing' });
    const attestation = {
      kind: 'corrupt' as const,
      shards: 1,
      bytes: 6,
      opened: 0,
      problems: ['p'],
      damagedIn: [OTHER],
    };
    const attest = await parts.as('verify', (a) => a.attestBackup({ location: leased, attestation }));
    expect(attest).toEqual({ records: [] });
    expect((await lookAtRecord(parts.store, location)).doubt).toContain('no MAC');
  });
});

/** What is forged in a record. */
const RECORDS: readonly (readonly [string, (record: CommitRecord) => unknown])[] = [
  ['no object', () => []],
  ['of an unknown state', (record) => ({ ...record, state: 'FINE' })],
  ['of another backup', (record) => ({ ...record, backup: OTHER })],
  ['of an unknown format', (record) => ({ ...record, formatVersion: 9 })],
  ['of no revision', (record) => ({ ...record, revision: 0 })],
  ['of no time', (record) => ({ ...record, changedAt: 'soon' })],
  ['with a digest that is none', (record) => ({ ...record, manifest: { sha256: 'x', size: 1 } })],
  ['with a manifest beyond all bounds', (record) => ({ ...record, manifest: { sha256: SHA, size: 2 ** 40 } })],
  ['with references that are no backups', (record) => ({ ...record, references: ['../../beta'] })],
  ['with an attempt that climbs', (record) => ({ ...record, attempt: '../../x' })],
  ['that is deeper than any', (record) => ({ ...record, totals: deep(500) })],
  ['larger than any', (record) => ({ ...record, mark: 'x'.repeat(2 * 1024 * 1024) })],
];

test.for(RECORDS)(
  'a record %s is refused: 0 keys presigned, 0 restores, and a sweep leaves the backup alone',
  async ([, forged]) => {
    const location = fresh();
    const text = await storeBackup(parts.store, location, 'COMMITTED', { collections: [documents(location)] });
    const record = forged(recordOf(location, 'COMMITTED', text));
    await parts.store.putJson(backupKeys(location).commit, JSON.stringify(record));
    const codes = [...(await tryAll(location, false)), ...(await tryAll(location, true))];
    expect(codes).toEqual(codes.map(() => 'IntegrityMismatch'));
    const found = await parts.as('sweep', (a) => a.surveyBackups(location));
    expect(found).toMatchObject({ committed: [], deleting: [], purging: [], untrusted: [{ id: location.backup }] });
    expect(touched).toEqual([]);
  },
);

describe('a recipe', () => {
  const recipeWith = (path: string) => {
    const writer = new RecipeWriter(crc32);
    writer.extent(0, 0, Buffer.from('data'));
    const pack = { path, size: 4, blocks: 1, indexHash: Buffer.alloc(32) };
    const whole = { blockSize: 4096, sha256: Buffer.from(sha256('data'), 'hex') };
    return deflateRawSync(writer.finish([pack], whole));
  };

  test.for([
    ['of another tenant', '../../beta/docs/pack'],
    ['of another cluster', `../other/${OTHER}/data/run/x.pack`],
    ['of a backup that the record does not name', `${OTHER}/data/run/x.pack`],
    ['that is the record of a backup', `${OTHER}/commit.json`],
    ['that climbs', `${OTHER}/data/../../../beta/x.pack`],
    ['with an absolute path', `/${OTHER}/data/run/x.pack`],
  ] as const)('with a pack %s: no byte of it is read', async ([, path]) => {
    const location = { ...fresh(), acceptUnsigned: true as const };
    const recipe = recipeWith(path);
    const folder = backupKeys(location).blocks('run', 'documents', 0);
    const incremental = { recipeBytes: recipe.length, recipeSha256: sha256(recipe), written: recipe.length };
    const entry = { key: `${folder}a.recipe`, size: 4, sha256: sha256('data'), incremental };
    const blocks = [{ backup: location.backup, bytes: 4 }];
    const collections = [documents(location, entry)];
    await parts.store.putBytes(entry.key, recipe);
    await storeForged(location, { formatVersion: 2, blocks, collections }, nobody);
    const verdict = await parts.as('verify', (a) => a.verifyShard({ location, collection: 'documents', shard: 0 }));
    expect(verdict.problem).toContain('is not believed');
    expect(new Set(touched)).toEqual(new Set([entry.key]));
  });
});

describe('a sweep', () => {
  const survey = (location: BackupLocation) => parts.as('sweep', (a) => a.surveyBackups(location));
  const dataOf = async (location: BackupLocation) => {
    let count = 0;
    for await (const _ of parts.store.list(backupKeys(location).data)) count += 1;
    return count;
  };
  const forge = async (location: BackupLocation, state: CommitRecord['state'], mac = nobody) => {
    const change = { changedAt: '2026-01-01T00:00:00Z', revision: 9 };
    const record = recordOf(location, state, '{}', change);
    await parts.store.putJson(backupKeys(location).commit, JSON.stringify(mac.seal('record', location, record)));
  };

  test.for(['DELETING', 'PURGING'] as const)('removes nothing because of a forged %s', async (state) => {
    const location = fresh();
    await storeBackup(parts.store, location);
    await parts.store.putJson(shardOf(location, '"data"').key, '"data"');
    for (const mac of [nobody, stranger, impostor]) {
      await forge(location, state, mac);
      const found = await survey(location);
      expect(found).toMatchObject({ deleting: [], purging: [], untrusted: [{ id: location.backup }] });
      const purging = parts.as('sweep', (a) => a.purgeBackup(location));
      await expect(purging).rejects.toMatchObject({ code: 'BackupNotTrusted' });
    }
    expect(await dataOf(location)).toBe(1);
    expect(touched).toEqual([]);
  });

  test('counts no forged backup as good, so that none pushes a sound one out', async () => {
    const location = fresh();
    await storeBackup(parts.store, location);
    for (const day of [2, 3, 4]) await forge({ ...location, backup: `2026110${day}T030000Z-00000000` }, 'COMMITTED');
    const { committed, untrusted } = await survey(location);
    expect(committed.map(({ id }) => id)).toEqual([location.backup]);
    expect(untrusted).toHaveLength(3);
    expect(await chooseBases(parts.store, { ...location, backup: OTHER }, 'run', ['documents'])).toEqual({
      bases: [],
      allowed: [],
    });
  });

  test('does not set free what a backup needs whose record was forged', async () => {
    const base = fresh('20261101T030000Z-00000001');
    const next = { ...base, backup: '20261102T030000Z-00000002' };
    const format = { formatVersion: 2 } as const;
    await storeBackup(parts.store, base, 'DELETING', format, { ...format, references: [] });
    await parts.store.putJson(shardOf(base, '"data"').key, '"data"');
    await parts.store.putBytes(`${backupKeys(next).blocks('run', 'documents', 0)}a.recipe`, Buffer.from('recipe'));
    await forge(next, 'DELETED');
    expect(await parts.as('sweep', (a) => a.purgeBackup(base))).toMatchObject({
      state: 'DELETING',
      heldBy: [next.backup],
    });
    expect(await dataOf(base)).toBe(1);
    // Once the catalogue says so, too, nobody needs it.
    const { tenant, cluster, backup } = next;
    await parts.as('sweep', (a) => a.indexBackup({ tenant, cluster, backup, state: 'DELETED', createdAt: TIME }));
    expect(await parts.as('sweep', (a) => a.purgeBackup(base))).toMatchObject({ state: 'DELETED' });
  });

  test('collects no backup whose record is gone and that the catalogue lists', async () => {
    const location = fresh();
    const { tenant, cluster, backup } = location;
    const intent = { backup, startedAt: '2026-01-01T00:00:00Z', workflowId: 'closed', runId: 'r' };
    parts.closed.add('closed');
    await parts.store.putJson(backupKeys(location).intent, JSON.stringify(intent));
    expect((await survey(location)).abandoned).toEqual([backup]);
    await parts.as('backup', (a) => a.indexBackup({ tenant, cluster, backup, state: 'COMMITTED', createdAt: TIME }));
    expect(await survey(location)).toMatchObject({ abandoned: [], untrusted: [{ id: backup }] });
  });

  test('moves no record on that the fleet did not sign', async () => {
    const location = fresh();
    await forge(location, 'COMMITTED');
    const marking = parts.as('sweep', (a) => a.markBackupDeleting(location));
    await expect(marking).rejects.toMatchObject({ code: 'BackupNotTrusted' });
    expect((await lookAtRecord(parts.store, location)).record?.state).toBe('COMMITTED');
  });
});

test('a list of buckets names only those that the fleet gave this cluster', async () => {
  const location = fresh();
  const { tenant, cluster, backup } = location;
  const own = `fleet-${tenant}--${cluster}-0123456789ab`;
  const names = ['evil-bucket', `fleet-beta--${cluster}-0123456789ab`, `${own}x`, own];
  const buckets = names.map((name) => ({ name, region: 'eu-west-1' }));
  await parts.store.putJson(bucketsKey(location), JSON.stringify({ formatVersion: 1, buckets }));
  const asked: string[] = [];
  const of = parts.stores.of.bind(parts.stores);
  const spy = vi.spyOn(parts.stores, 'of').mockImplementation((where) => {
    if (where.bucket !== undefined) asked.push(where.bucket.name);
    return of(where.bucket === undefined ? where : {});
  });
  await expect(parts.as('restore', (a) => a.openBackup({ tenant, source: cluster, backup }))).rejects.toMatchObject({
    code: 'BackupNotFound',
  });
  spy.mockRestore();
  expect(new Set(asked)).toEqual(new Set([own]));
});

test('a record that was planted under the name of a running attempt does not pass for its commit', async () => {
  const location = fresh();
  const record = recordOf(location, 'COMMITTED', '{}');
  await parts.store.putJson(backupKeys(location).commit, JSON.stringify(record));
  const abandon = () => parts.as('backup', (a) => a.abandonBackup({ location, attempt: 'run' }));
  await expect(abandon()).rejects.toMatchObject({ code: 'BackupNotTrusted' });
  await parts.store.putJson(backupKeys(location).commit, sealedRecord(parts.store, location, record));
  expect(await abandon()).toEqual({ removed: false });
});
