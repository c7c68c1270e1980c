/** `VerifyBackup`: every shard is looked at, whatever becomes of the others, and the outcome is written down first. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BACKUP, fails, gaveUp, REF, untilCancelled, Workflows } from './support.ts';

let workflows: Workflows;
beforeAll(async () => {
  workflows = await Workflows.open();
});
afterAll(() => workflows.close());

const INPUT = { ...REF, backup: BACKUP };

describe.concurrent('VerifyBackup', () => {
  test('reads every shard on the transfer queue, attests, and lets go of the backup', async () => {
    const run = await workflows.run('VerifyBackup', INPUT);
    expect(run.ended).toMatchObject({
      status: 'COMPLETED',
      result: { backup: BACKUP, shards: 3, bytes: 3000, opened: 3 },
    });
    expect(
      run
        .of('verifyShard')
        .map(({ input }) => input.shard as number)
        .sort((a, b) => a - b),
    ).toEqual([0, 1, 2]);
    expect(run.of('attestBackup')[0]?.input.attestation).toEqual({
      ...{ kind: 'verified', shards: 3, bytes: 3000, opened: 3, problems: [] },
    });
    expect(run.names.slice(-3)).toEqual(['attestBackup', 'indexBackup', 'closeBackup']);
    expect(run.of('indexBackup')[0]?.input).toEqual({
      ...{ ...INPUT, state: 'COMMITTED', createdAt: '2026-11-21T03:00:00.000Z' },
    });
    // It changes nothing of the cluster, which may be gone.
    expect(run.of('takeLease')).toEqual([]);
    expect(run.ends).toMatchObject([{ state: 'done', result: { shards: 3 } }]);
  });

  test.for(['missing', 'unknown-key', 'wrong', 'unchecked'] as const)('a MAC that is %s is told', async (seal) => {
    const listed = { shards: [], transferQueue: 'nobody', seal };
    const run = await workflows.run('VerifyBackup', INPUT, { listBackupShards: () => listed });
    expect(run.ended).toMatchObject({
      status: 'COMPLETED',
      result: { signature: seal, warnings: [expect.stringContaining(`its MAC is ${seal}`)] },
    });
  });

  test('a damaged shard: the others are read all the same, all problems are attested and told', async () => {
    const run = await workflows.run('VerifyBackup', INPUT, {
      verifyShard: ({ shard }) =>
        shard === 1 ? { bytes: 1000, opened: false } : { bytes: 1000, opened: true, problem: `is odd ${shard}` },
    });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'IntegrityMismatch' });
    expect(run.ended.message).toMatch(
      /is damaged and marked CORRUPT: "documents" shard \d is odd \d; "documents" shard \d is odd \d\./,
    );
    expect(run.of('verifyShard')).toHaveLength(3);
    expect(run.of('attestBackup')[0]?.input.attestation).toMatchObject({ kind: 'corrupt', opened: 2 });
    expect(run.of('indexBackup').map(({ input }) => input)).toMatchObject([{ backup: BACKUP, state: 'CORRUPT' }]);
    expect(run.names.at(-1)).toBe('closeBackup');
  });

  test.for([
    ['the backup cannot be opened', { leaseBackup: fails('BackupNotFound') }, 'BackupNotFound'],
    ['a shard cannot be read', { verifyShard: gaveUp('StoreUnavailable') }, 'StoreUnavailable'],
  ] as const)('%s: nothing is attested, and the backup is let go of', async ([, fakes, code]) => {
    const run = await workflows.run('VerifyBackup', INPUT, fakes);
    expect(run.ended).toMatchObject({ status: 'FAILED', type: code });
    expect(run.of('attestBackup')).toEqual([]);
    expect(run.names.at(-1)).toBe('closeBackup');
  });

  test('a damaged pack of another backup: both are attested, and both are indexed as the records say', async () => {
    const other = '20261120T030000Z-1a2b3c4d';
    const run = await workflows.run('VerifyBackup', INPUT, {
      verifyShard: () => ({ bytes: 1000, opened: false, problem: 'cannot be put together', damagedIn: other }),
      attestBackup: () => ({
        records: [
          { backup: BACKUP, state: 'CORRUPT' },
          { backup: other, state: 'DELETING' },
        ],
      }),
    });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'IntegrityMismatch' });
    expect(run.ended.message).toContain(`So is ${other}, whose blocks it refers to.`);
    expect(run.of('attestBackup')[0]?.input.attestation.damagedIn).toEqual([other]);
    expect(run.of('indexBackup').map(({ input }) => [input.backup, input.state])).toEqual([
      [BACKUP, 'CORRUPT'],
      [other, 'DELETING'],
    ]);
  });

  test('a manifest that was altered is damage, too', async () => {
    const run = await workflows.run('VerifyBackup', INPUT, {
      listBackupShards: () => ({ shards: [], transferQueue: 'none', problem: 'manifest.json is not the one.' }),
    });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'IntegrityMismatch' });
    expect(run.of('attestBackup')[0]?.input.attestation).toMatchObject({
      ...{ kind: 'corrupt', shards: 0, problems: ['manifest.json is not the one.'] },
    });
  });

  test('cancelled while it reads', async () => {
    const run = await workflows.start('VerifyBackup', INPUT, { verifyShard: untilCancelled });
    await run.saw('verifyShard');
    await run.handle.cancel();
    expect(await run.outcome()).toEqual({ status: 'CANCELLED' });
    expect(run.of('attestBackup')).toEqual([]);
    expect(run.names.at(-1)).toBe('closeBackup');
  });
});
