/** `UndeleteBackup`: the record first, the index after it. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BACKUP, fails, LOCATION, REF, Workflows } from './support.ts';

let workflows: Workflows;
beforeAll(async () => {
  workflows = await Workflows.open();
});
afterAll(() => workflows.close());

const INPUT = { ...REF, backup: BACKUP };

describe.concurrent('UndeleteBackup', () => {
  test('takes the removal back, and lists the backup where it is', async () => {
    const bucket = { name: 'own', region: 'eu-west-1' };
    const run = await workflows.run('UndeleteBackup', INPUT, {
      undeleteBackup: () => ({ location: { ...LOCATION, bucket }, state: 'CORRUPT' }),
    });
    expect(run.ended).toEqual({ status: 'COMPLETED', result: { backup: BACKUP, state: 'CORRUPT' } });
    expect(run.names).toEqual(['undeleteBackup', 'indexBackup']);
    expect(run.of('undeleteBackup')[0]?.input).toEqual(INPUT);
    expect(run.of('indexBackup')[0]?.input).toEqual({
      ...{ ...INPUT, bucket, state: 'CORRUPT', createdAt: '2026-11-21T03:00:00.000Z' },
    });
    // It changes nothing of the cluster, which may be gone.
    expect(run.of('takeLease')).toEqual([]);
  });

  test.for(['UndeleteRefused', 'BackupNotFound'] as const)('%s: nothing is indexed', async (code) => {
    const run = await workflows.run('UndeleteBackup', INPUT, { undeleteBackup: fails(code) });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: code });
    expect(run.names).toEqual(['undeleteBackup']);
  });

  test('an input that names no backup', async () => {
    const run = await workflows.run('UndeleteBackup', { ...REF, backup: '../../etc' });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'InvalidInput' });
    expect(run.names).toEqual([]);
  });
});
