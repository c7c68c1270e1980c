/** The commit protocol and its undoing on a real store: who wins, what is refused, what is removed when. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { claim, readCommitted, readRecord } from '../../activities/backup-records.ts';
import type { BackupState, CommitRecord } from '../../src/domain/backup.ts';
import { backupKeys, type BackupLocation } from '../../src/domain/naming.ts';
import { recordOf, sealedRecord, shardOf, storeBackup } from '../support/stored-backup.ts';
import { Parts, race } from './support.ts';

/** Of a snapshot. */
const SHA = 'ab'.repeat(32);

let parts: Parts;
beforeAll(async () => {
  parts = await Parts.open();
});
afterAll(() => parts.close());

let clusters = 0;
/** A backup of a cluster of its own, so that a survey of the cluster finds this one only. */
function fresh(): BackupLocation {
  clusters += 1;
  return { tenant: parts.tenant, cluster: `c${clusters}`, prefix: '', backup: '20261101T030000Z-00000000' };
}
const refOf = ({ tenant, cluster, backup }: BackupLocation) => ({ tenant, cluster, backup });

function record(location: BackupLocation, state: BackupState, attempt = 'run'): CommitRecord {
  return recordOf(location, state, '{}', { attempt });
}

/** A backup with a shard and a manifest, in a state. */
async function stored(state: BackupState): Promise<BackupLocation> {
  const location = fresh();
  const keys = backupKeys(location);
  await parts.store.putJson(keys.shard('run', 'documents', 0, SHA), '"data"');
  await storeBackup(parts.store, location, state);
  return location;
}

async function dataOf(location: BackupLocation): Promise<string[]> {
  const found: string[] = [];
  for await (const { key } of parts.store.list(backupKeys(location).data)) found.push(key);
  return found;
}

const stateOf = async (location: BackupLocation) => (await readRecord(parts.store, location))?.record.state;

describe('the first writer of the record decides', () => {
  test('of twenty claims at once one stands, and everybody learns which', async () => {
    const location = fresh();
    const claims = Array.from({ length: 20 }, (_, index) =>
      claim(parts.store, location, record(location, index % 2 === 0 ? 'COMMITTED' : 'ABORTED', `run-${index}`)),
    );
    const { won } = await race(claims);
    expect(won).toHaveLength(20);
    const standing = await readRecord(parts.store, location);
    expect(new Set(won.map(({ attempt }) => attempt))).toEqual(new Set([standing?.record.attempt]));
  });

  test('a collector that came first keeps a slow run from committing', async () => {
    const location = fresh();
    await parts.as('sweep', (activities) => activities.collectUnfinished(refOf(location)));
    expect(await claim(parts.store, location, record(location, 'COMMITTED'))).toMatchObject({ state: 'ABORTED' });
  });

  test('a collector that came late leaves the backup alone', async () => {
    const location = await stored('COMMITTED');
    const answer = await parts.as('sweep', (activities) => activities.collectUnfinished(refOf(location)));
    expect(answer).toEqual({ state: 'COMMITTED', objects: 0 });
    expect(await dataOf(location)).toHaveLength(1);
  });

  test('giving up removes the data of the own attempt only, and nothing that was committed', async () => {
    const location = fresh();
    const keys = backupKeys(location);
    await parts.store.putJson(keys.shard('mine', 'documents', 0, SHA), '1');
    await parts.store.putJson(keys.shard('other', 'documents', 0, SHA), '1');
    const upload = await parts.store.createUpload(keys.shard('mine', 'documents', 1, SHA));
    expect(upload).not.toBe('');
    const abandon = () => parts.as('mine', (activities) => activities.abandonBackup({ location, attempt: 'mine' }));
    expect(await abandon()).toEqual({ removed: true });
    expect(await abandon()).toEqual({ removed: true });
    expect(await dataOf(location)).toEqual([keys.shard('other', 'documents', 0, SHA)]);
    expect(await parts.store.openUploads(keys.root)).toEqual([]);

    const committed = await stored('COMMITTED');
    const kept = await parts.as('mine', (activities) =>
      activities.abandonBackup({ location: committed, attempt: 'run' }),
    );
    expect(kept).toEqual({ removed: false });
    expect(await dataOf(committed)).toHaveLength(1);
  });
});

describe('the loser of a commit', () => {
  const lose = (location: BackupLocation) =>
    parts.as('late', (activities) => activities.abandonBackup({ location, attempt: 'late' }));

  test.for(['COMMITTED', 'DELETING', 'PURGING', 'DELETED', 'ABORTED'] as const)(
    'removes what it copied, and nothing of the winner, whose record says %s',
    async (state) => {
      const location = await stored(state);
      const keys = backupKeys(location);
      const [winners = ''] = await dataOf(location);
      await parts.store.putJson(keys.shard('late', 'documents', 0, SHA), '"copy"');
      await parts.store.putJson(keys.plan('late'), '{}');
      await parts.store.createUpload(keys.shard('late', 'documents', 1, SHA));
      expect(await lose(location)).toEqual({ removed: true });
      expect(await lose(location)).toEqual({ removed: true });
      expect(await dataOf(location)).toEqual([winners]);
      expect(await parts.store.openUploads(keys.root)).toEqual([]);
      expect(await stateOf(location)).toBe(state);
    },
  );

  test('leaves what the backup that stands refers to', async () => {
    const location = fresh();
    const keys = backupKeys(location);
    const key = keys.shard('late', 'documents', 0, SHA);
    const shards = [{ ...shardOf(location, '"copy"', 0, 'late'), key }];
    await parts.store.putJson(key, '"copy"');
    const documents = { name: 'documents', config: { params: {} }, payloadSchema: {}, shards };
    await storeBackup(parts.store, location, 'COMMITTED', { collections: [documents] });
    expect(await lose(location)).toEqual({ removed: false });
    expect(await dataOf(location)).toEqual([key]);
  });
});

describe('readCommitted', () => {
  test('a backup that never was, and one that was begun and never finished', async () => {
    const location = fresh();
    await expect(readCommitted(parts.store, location)).rejects.toMatchObject({ code: 'BackupNotFound' });
    await parts.store.putJson(backupKeys(location).intent, '{}');
    await expect(readCommitted(parts.store, location)).rejects.toMatchObject({ code: 'BackupNotCommitted' });
  });

  test.for(['DELETING', 'PURGING', 'DELETED', 'ABORTED'] as const)('%s cannot be restored', async (state) => {
    const location = await stored(state);
    await expect(readCommitted(parts.store, location)).rejects.toMatchObject({
      code: 'BackupNotCommitted',
      message: expect.stringContaining(state) as string,
    });
  });

  test('a manifest that was altered, or is gone', async () => {
    const location = await stored('COMMITTED');
    expect(await readCommitted(parts.store, location)).toMatchObject({ attempt: 'run' });
    const { text = '' } = (await parts.store.getJson(backupKeys(location).manifest)) ?? {};
    await parts.store.putJson(backupKeys(location).manifest, text.replace('"run"', '"ran"'));
    await expect(readCommitted(parts.store, location)).rejects.toMatchObject({ code: 'IntegrityMismatch' });
    await parts.store.deleteKeys([backupKeys(location).manifest]);
    await expect(readCommitted(parts.store, location)).rejects.toMatchObject({ code: 'IntegrityMismatch' });
  });
});

describe('removing a backup', () => {
  const purge = (location: BackupLocation) =>
    parts.as('sweep', (activities) => activities.purgeBackup(refOf(location)));
  const mark = (location: BackupLocation) =>
    parts.as('sweep', (activities) => activities.markBackupDeleting(refOf(location)));

  test('marks, purges, and may be repeated at every stage', async () => {
    const location = await stored('COMMITTED');
    expect(await mark(location)).toBe('DELETING');
    expect(await mark(location)).toBe('DELETING');
    expect(await dataOf(location)).toHaveLength(1);
    expect(await purge(location)).toEqual({ state: 'DELETED', objects: 1 });
    expect(await purge(location)).toEqual({ state: 'DELETED', objects: 0 });
    expect(await dataOf(location)).toEqual([]);
  });

  test('a backup that is not marked is never purged', async () => {
    const location = await stored('COMMITTED');
    expect(await purge(location)).toEqual({ state: 'COMMITTED', objects: 0 });
    expect(await dataOf(location)).toHaveLength(1);
  });

  test('an interrupted purge goes on, with or without a lease', async () => {
    const location = await stored('PURGING');
    await parts.store.putJson(backupKeys(location).lease('restore'), '{}');
    expect(await purge(location)).toMatchObject({ state: 'DELETED' });
  });

  test('what a restore reads stays marked, until the restore lets go', async () => {
    const location = await stored('COMMITTED');
    const { tenant, cluster, backup } = location;
    const opening = { tenant, source: cluster, backup };
    await parts.as('restore', (activities) => activities.openBackup(opening));
    await mark(location);
    expect(await purge(location)).toEqual({ state: 'DELETING', objects: 0 });
    expect(await dataOf(location)).toHaveLength(1);
    await parts.as('restore', (activities) => activities.closeBackup(opening));
    expect(await purge(location)).toMatchObject({ state: 'DELETED' });
  });

  test('a restore that opens after the mark is refused, whatever its lease', async () => {
    const location = await stored('DELETING');
    const { tenant, cluster, backup } = location;
    await expect(
      parts.as('late', (activities) => activities.openBackup({ tenant, source: cluster, backup })),
    ).rejects.toMatchObject({ code: 'BackupNotCommitted' });
  });

  test('of twenty that mark at once nobody harms the record', async () => {
    const location = await stored('COMMITTED');
    const { won, lost } = await race(Array.from({ length: 20 }, () => mark(location)));
    expect(won.length).toBeGreaterThanOrEqual(1);
    expect(lost.every((code) => code === 'CommitConflict')).toBe(true);
    expect(await stateOf(location)).toBe('DELETING');
  });

  test('of twenty that purge at once none loses data of others, and it ends DELETED', async () => {
    const location = await stored('DELETING');
    await race(Array.from({ length: 20 }, () => purge(location)));
    expect(await purge(location)).toMatchObject({ state: 'DELETED' });
    expect(await dataOf(location)).toEqual([]);
  });
});

describe('damage', () => {
  const attest = (location: BackupLocation, kind: 'verified' | 'corrupt', damagedIn: string[] = []) =>
    parts.as('verify', (activities) =>
      activities.attestBackup({
        location,
        attestation: { kind, shards: 1, bytes: 1, opened: 0, problems: [], damagedIn },
      }),
    );

  test('is written into the record, and taken back when a later verification finds every byte', async () => {
    const location = await stored('COMMITTED');
    const { backup } = location;
    expect(await attest(location, 'corrupt')).toEqual({ records: [{ backup, state: 'CORRUPT' }] });
    expect(await attest(location, 'corrupt')).toEqual({ records: [{ backup, state: 'CORRUPT' }] });
    expect(await attest(location, 'verified')).toEqual({ records: [{ backup, state: 'COMMITTED' }] });
    expect((await readRecord(parts.store, location))?.record.revision).toBe(3);
  });

  test('of another backup whose pack it is, even while that is being removed: it comes back CORRUPT', async () => {
    const location = await stored('COMMITTED');
    const other = { ...location, backup: '20261031T030000Z-00000000' };
    await parts.store.putJson(backupKeys(other).commit, sealedRecord(parts.store, other, record(other, 'DELETING')));
    const foreign = ['../../elsewhere', '20260101T000000Z-00000000'];
    expect(await attest(location, 'corrupt', [other.backup, ...foreign])).toEqual({
      records: [
        { backup: location.backup, state: 'CORRUPT' },
        { backup: other.backup, state: 'DELETING' },
      ],
    });
    const back = await parts.as('undelete', (activities) => activities.undeleteBackup(refOf(other)));
    expect(back).toMatchObject({ state: 'CORRUPT', location: { backup: other.backup } });
    expect(await stateOf(other)).toBe('CORRUPT');
  });

  test('many verdicts and removals at once: the record stays whole, and no verdict is lost', async () => {
    const location = await stored('COMMITTED');
    const mark = parts.as('sweep', (activities) => activities.markBackupDeleting(refOf(location)));
    const { lost } = await race<unknown>([mark, ...Array.from({ length: 4 }, () => attest(location, 'corrupt'))]);
    expect(lost.every((code) => code === 'CommitConflict')).toBe(true);
    const after = (await readRecord(parts.store, location))?.record;
    expect(after?.state === 'CORRUPT' || (after?.state === 'DELETING' && after.was === 'CORRUPT')).toBe(true);
  });

  test('a restore refuses it unless told otherwise, and is told what to do', async () => {
    const location = await stored('CORRUPT');
    const { tenant, cluster, backup } = location;
    const opening = { tenant, source: cluster, backup };
    await expect(parts.as('restore', (activities) => activities.openBackup(opening))).rejects.toMatchObject({
      code: 'BackupDamaged',
      message: expect.stringContaining('"acceptDamaged": true') as string,
    });
    const plan = await parts.as('restore', (activities) => activities.openBackup({ ...opening, acceptDamaged: true }));
    expect(plan).toMatchObject({ location, collections: [] });
  });

  test('a manifest that was altered can be verified: it is a verdict, not a failure', async () => {
    const location = await stored('COMMITTED');
    const { text = '' } = (await parts.store.getJson(backupKeys(location).manifest)) ?? {};
    await parts.store.putJson(backupKeys(location).manifest, text.replace('"run"', '"ran"'));
    const { location: leased } = await parts.as('verify', (activities) => activities.leaseBackup(refOf(location)));
    const found = await parts.as('verify', (activities) => activities.listBackupShards({ location: leased }));
    expect(found).toMatchObject({ shards: [], problem: expect.stringContaining('not the manifest') as string });
  });
});

describe('taking a removal back', () => {
  const undelete = (location: BackupLocation) =>
    parts.as('undelete', (activities) => activities.undeleteBackup(refOf(location)));

  test('DELETING is COMMITTED again, and once more changes nothing', async () => {
    const location = await stored('COMMITTED');
    await parts.as('sweep', (activities) =>
      activities.markBackupDeleting({ ...refOf(location), purgeAfter: new Date(Date.now() + 60_000).toISOString() }),
    );
    expect(await undelete(location)).toMatchObject({ state: 'COMMITTED' });
    expect(await undelete(location)).toMatchObject({ state: 'COMMITTED' });
    const after = (await readRecord(parts.store, location))?.record;
    expect(after).toMatchObject({ state: 'COMMITTED', revision: 3 });
    expect(after?.purgeAfter).toBeUndefined();
    expect(await readCommitted(parts.store, location)).toMatchObject({ attempt: 'run' });
  });

  test.for(['PURGING', 'DELETED', 'ABORTED'] as const)('%s is too late', async (state) => {
    const location = await stored(state);
    await expect(undelete(location)).rejects.toMatchObject({ code: 'UndeleteRefused' });
    expect(await stateOf(location)).toBe(state);
  });

  test('a backup that never was', async () => {
    await expect(undelete(fresh())).rejects.toMatchObject({ code: 'BackupNotFound' });
  });

  test('what was promised at the mark holds against a later, shorter policy', async () => {
    const location = await stored('COMMITTED');
    const purgeAfter = new Date(Date.now() + 3_600_000).toISOString();
    await parts.as('sweep', (activities) => activities.markBackupDeleting({ ...refOf(location), purgeAfter }));
    expect(await parts.as('sweep', (activities) => activities.purgeBackup(refOf(location)))).toEqual({
      ...{ state: 'DELETING', objects: 0 },
    });
  });

  test('against twenty purges at once: either it is back with its data, or it was refused', async () => {
    const location = await stored('DELETING');
    const purges = Array.from({ length: 20 }, () =>
      parts.as('sweep', (activities) => activities.purgeBackup(refOf(location))),
    );
    const [outcome] = await Promise.all([race([undelete(location)]), race(purges)]);
    if (outcome.won.length === 1) {
      expect(await stateOf(location)).toBe('COMMITTED');
      expect(await dataOf(location)).toHaveLength(1);
    } else {
      expect(outcome.lost).toEqual(['UndeleteRefused']);
      expect(await stateOf(location)).toMatch(/PURGING|DELETED/);
    }
  });
});

describe('surveyBackups', () => {
  const survey = ({ tenant, cluster }: BackupLocation) =>
    parts.as('sweep', (activities) => activities.surveyBackups({ tenant, cluster }));

  test.for([
    ['COMMITTED', 'committed'],
    ['DELETING', 'deleting'],
    ['PURGING', 'purging'],
  ] as const)('%s is found as %s', async ([state, list]) => {
    const location = await stored(state);
    const found = await survey(location);
    expect({
      committed: found.committed.length,
      deleting: found.deleting.length,
      purging: found.purging.length,
    }).toEqual({
      committed: 0,
      deleting: 0,
      purging: 0,
      [list]: 1,
    });
    expect(Math.abs(found.now - Date.now())).toBeLessThan(60_000);
  });

  test('an unfinished backup is abandoned when it is a day old and its workflow is closed', async () => {
    const begun = async (hours: number, workflowId: string) => {
      const location = fresh();
      const startedAt = new Date(Date.now() - hours * 3_600_000).toISOString();
      await parts.store.putJson(
        backupKeys(location).intent,
        JSON.stringify({ backup: location.backup, startedAt, workflowId, runId: 'r' }),
      );
      return (await survey(location)).abandoned;
    };
    parts.closed.add('closed');
    expect(await begun(25, 'closed')).toHaveLength(1);
    expect(await begun(25, 'open')).toEqual([]);
    expect(await begun(23, 'closed')).toEqual([]);
  });

  test('a damaged backup damages those that refer to it, also while it is being removed', async () => {
    const location = fresh();
    const put = (backup: string, change: Partial<CommitRecord>) => {
      const at = { ...location, backup };
      const text = sealedRecord(parts.store, at, { ...record(at, 'COMMITTED'), ...change });
      return parts.store.putJson(backupKeys(at).commit, text);
    };
    const id = (n: number) => `2026110${n}T030000Z-00000000`;
    await put(id(1), { state: 'CORRUPT', references: [] });
    await put(id(2), { references: [id(1)] });
    await put(id(3), { state: 'DELETING', was: 'CORRUPT', references: [] });
    await put(id(4), { references: [id(3)] });
    await put(id(5), { references: [] });
    const { committed, deleting } = await survey(location);
    expect(committed.map((found) => [found.id, found.damage])).toEqual([
      [id(1), 'it is damaged'],
      [id(2), `it refers to ${id(1)}, which is damaged`],
      [id(4), `it refers to ${id(3)}, which is damaged`],
      [id(5), undefined],
    ]);
    expect(deleting.map((found) => found.id)).toEqual([id(3)]);
  });

  test('a lease makes a candidate count as leased', async () => {
    const location = await stored('COMMITTED');
    expect((await survey(location)).committed).toMatchObject([{ leased: false }]);
    await parts.store.putJson(backupKeys(location).lease('restore'), '{}');
    expect((await survey(location)).committed).toMatchObject([{ leased: true }]);
  });
});
