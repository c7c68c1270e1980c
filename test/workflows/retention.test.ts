/** `RetentionSweep`: marks, removes after the grace, goes on with what was interrupted, and never runs ahead of itself. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { SweepFindings } from '../../activities/retention.ts';
import { backupTimeOf } from '../../src/domain/naming.ts';
import { fails, REF, untilCancelled, Workflows, type Fakes } from './support.ts';

let workflows: Workflows;
beforeAll(async () => {
  workflows = await Workflows.open();
});
afterAll(() => workflows.close());

const HOUR = 3_600_000;
const NOW = Date.parse('2026-11-21T12:00:00.000Z');
const day = (number: number) => `202611${String(number).padStart(2, '0')}T030000Z-00000000`;
const good = (...days: number[]) =>
  days.map((number) => ({ id: day(number), time: backupTimeOf(day(number)).getTime(), leased: false }));

function finding(found: Partial<SweepFindings>, more: Fakes = {}): Fakes {
  const nothing = { prefix: '', now: NOW, committed: [], deleting: [], purging: [], abandoned: [] };
  return { surveyBackups: () => ({ ...nothing, ...found }), ...more };
}
const policy = { keepLast: 2 };

describe.concurrent('RetentionSweep', () => {
  test('marks what no rule keeps and leaves its data for 72 hours', async () => {
    const run = await workflows.run('RetentionSweep', { ...REF, policy }, finding({ committed: good(17, 18, 19, 20) }));
    expect(run.ended).toMatchObject({
      status: 'COMPLETED',
      result: { marked: [day(18), day(17)], purged: [], collected: [], dryRun: false },
    });
    expect(run.of('takeLease')[0]?.input).toMatchObject({ mode: 'shared' });
    expect(run.of('purgeBackup')).toEqual([]);
    const until = { deletingSince: '2026-11-21T12:00:00.000Z', purgeAfter: '2026-11-24T12:00:00.000Z' };
    expect(run.of('markBackupDeleting')[0]?.input).toEqual({
      ...{ ...REF, backup: day(18), purgeAfter: until.purgeAfter },
    });
    expect(run.of('indexBackup').map(({ input }) => input)).toEqual([
      { ...REF, backup: day(18), state: 'DELETING', createdAt: '2026-11-18T03:00:00Z', ...until },
      { ...REF, backup: day(17), state: 'DELETING', createdAt: '2026-11-17T03:00:00Z', ...until },
    ]);
    expect(await run.progress()).toMatchObject({ kind: 'retention', phase: 'done', percent: 100 });
  });

  test('what the fleet did not sign is told and left alone', async () => {
    const untrusted = [{ id: day(19), reason: 'it has no MAC' }];
    const run = await workflows.run(
      'RetentionSweep',
      { ...REF, policy: { keepLast: 1, undoHours: 0 } },
      finding({ committed: good(18), untrusted }),
    );
    expect(run.ended).toMatchObject({
      status: 'COMPLETED',
      result: {
        marked: [],
        purged: [],
        warnings: [`Backup ${day(19)} is left alone and does not count: it has no MAC`],
      },
    });
    expect([...run.of('markBackupDeleting'), ...run.of('purgeBackup')]).toEqual([]);
  });

  test('a dry run tells and changes nothing', async () => {
    const found = {
      committed: good(17, 18, 19, 20),
      deleting: [{ id: day(1), since: 0 }],
      purging: [day(2)],
      abandoned: [day(3)],
    };
    const run = await workflows.run('RetentionSweep', { ...REF, policy, dryRun: true }, finding(found));
    expect(run.ended).toMatchObject({
      result: { marked: [day(18), day(17)], purged: [], collected: [], dryRun: true },
    });
    expect(run.names).toEqual(['surveyBackups']);
    // It keeps nobody from anything either.
    expect(run.of('takeLease')).toEqual([]);
    expect(run.ends).toHaveLength(1);
  });

  test('data goes when its grace is over, by the clock of the store', async () => {
    const deleting = [
      { id: day(1), since: NOW - 10 * HOUR },
      { id: day(2), since: NOW - 10 * HOUR + 1 },
    ];
    const input = { ...REF, policy: { ...policy, undoHours: 10 } };
    const run = await workflows.run('RetentionSweep', input, finding({ deleting, committed: good(20) }));
    expect(run.of('purgeBackup').map(({ input: { backup } }) => backup)).toEqual([day(1)]);
    expect(run.ended).toMatchObject({ result: { purged: [day(1)] } });
  });

  test('with no grace, what is marked goes in the same sweep', async () => {
    const input = { ...REF, policy: { ...policy, undoHours: 0 } };
    const run = await workflows.run('RetentionSweep', input, finding({ committed: good(18, 19, 20) }));
    expect(run.names).toEqual([
      'surveyBackups',
      'markBackupDeleting',
      'indexBackup',
      'purgeBackup',
      'indexBackup',
      'removeSnapshotsLeft',
      'workOffChores',
    ]);
    expect(run.ended).toMatchObject({ result: { marked: [day(18)], purged: [day(18)] } });
  });

  test('an interrupted removal goes on, whatever the policy', async () => {
    const run = await workflows.run('RetentionSweep', { ...REF, policy }, finding({ purging: [day(1)] }));
    expect(run.of('purgeBackup').map(({ input: { backup } }) => backup)).toEqual([day(1)]);
    expect(run.ended).toMatchObject({ result: { purged: [day(1)] } });
  });

  test('a backup that a restore reads is not counted as removed', async () => {
    const found = { deleting: [{ id: day(1), since: 0 }], committed: good(20) };
    const purgeBackup = () => ({ state: 'DELETING' as const, objects: 0 });
    const run = await workflows.run('RetentionSweep', { ...REF, policy }, finding(found, { purgeBackup }));
    expect(run.ended).toMatchObject({ status: 'COMPLETED', result: { purged: [] } });
    expect(run.of('indexBackup')[0]?.input).toMatchObject({ state: 'DELETING' });
  });

  test('a backup that others refer to is told with them, and they go first', async () => {
    const found = { deleting: [day(1), day(2)].map((id) => ({ id, since: 0 })), committed: good(20) };
    const purgeBackup = ({ backup }: { backup: string }) =>
      backup === day(1)
        ? { state: 'DELETING' as const, objects: 0, heldBy: [day(3)] }
        : { state: 'DELETED' as const, objects: 4 };
    const run = await workflows.run('RetentionSweep', { ...REF, policy }, finding(found, { purgeBackup }));
    expect(run.of('purgeBackup').map(({ input: { backup } }) => backup)).toEqual([day(2), day(1)]);
    expect(run.ended).toMatchObject({ result: { purged: [day(2)], held: { [day(1)]: [day(3)] } } });
  });

  test('unfinished backups are collected, unless they were committed after all', async () => {
    const run = await workflows.run(
      'RetentionSweep',
      { ...REF, policy },
      finding(
        { abandoned: [day(1), day(2)] },
        {
          collectUnfinished: ({ backup }) => ({ state: backup === day(1) ? 'ABORTED' : 'COMMITTED', objects: 0 }),
        },
      ),
    );
    expect(run.ended).toMatchObject({ result: { collected: [day(1)] } });
  });

  test('a backup in a bucket of its own is marked, removed and indexed there', async () => {
    const bucket = { name: 'own', region: 'eu-west-1' };
    const input = { ...REF, policy: { ...policy, undoHours: 0 } };
    const elsewhere = [{ bucket, backups: [day(17), day(20), day(3)] }];
    const found = { committed: good(17, 18, 19, 20), abandoned: [day(3), day(4)], elsewhere };
    const run = await workflows.run('RetentionSweep', input, finding(found));
    const own = { ...REF, backup: day(17), bucket };
    const { steps } = await run.progress();
    expect(steps.find(({ name }) => name === 'Survey the backups')?.message).toMatch(/; 3 of all in bucket own$/);
    expect(run.of('markBackupDeleting').map((call) => call.input)).toMatchObject([{ ...REF, backup: day(18) }, own]);
    expect(run.of('purgeBackup').map((call) => call.input)).toEqual([{ ...REF, backup: day(18) }, own]);
    expect(run.of('indexBackup').at(-1)?.input).toMatchObject({ ...own, state: 'DELETED' });
    const collected = run.of('collectUnfinished').map((call) => call.input);
    expect(collected).toEqual([
      { ...REF, backup: day(3), bucket },
      { ...REF, backup: day(4) },
    ]);
  });

  test('at most `maxRemovals` fall at once, the oldest first', async () => {
    const input = { ...REF, policy: { ...policy, maxRemovals: 2 } };
    const run = await workflows.run('RetentionSweep', input, finding({ committed: good(11, 12, 13, 14, 19, 20) }));
    expect(run.ended.result?.['marked']).toEqual([day(12), day(11)]);
    const { decisions } = run.ended.result as { decisions: { id: string; reason: string }[] };
    expect(decisions.find(({ id }) => id === day(13))?.reason).toBe('left for the next sweep');
  });

  test('the last good backup stays', async () => {
    const input = { ...REF, policy: { keepWithinDays: 0, undoHours: 0 } };
    const run = await workflows.run('RetentionSweep', input, finding({ committed: good(1) }));
    expect(run.ended).toMatchObject({ status: 'COMPLETED', result: { marked: [] } });
  });

  test('the last sound backup stays, however many damaged ones are newer, and the decisions say why', async () => {
    const [sound] = good(10);
    const damaged = good(18, 19, 20).map((backup) => ({ ...backup, damage: 'it is damaged' }));
    const input = { ...REF, policy: { keepLast: 1, undoHours: 0 } };
    const run = await workflows.run(
      'RetentionSweep',
      input,
      finding({ committed: [...(sound ? [sound] : []), ...damaged] }),
    );
    expect(run.ended).toMatchObject({ status: 'COMPLETED', result: { marked: [] } });
    const { decisions } = run.ended.result as { decisions: { id: string; reason: string }[] };
    expect(decisions.map(({ id, reason }) => [id, reason])).toEqual([
      ...[20, 19, 18].map((n) => [day(n), 'it is damaged, so it does not count as good; one of the last 1']),
      [day(10), 'the newest good backup'],
    ]);
    const { steps } = await run.progress();
    expect(steps.find(({ name }) => name === 'Survey the backups')?.message).toMatch(/^1 good, 3 damaged, /);
  });

  test('what was marked in time and is the last sound one by now is spared, and told', async () => {
    const found = {
      committed: good(20).map((backup) => ({ ...backup, damage: 'it is damaged' })),
      deleting: [{ id: day(10), since: 0 }],
      purging: [day(1)],
    };
    const run = await workflows.run('RetentionSweep', { ...REF, policy }, finding(found));
    expect(run.of('purgeBackup').map(({ input: { backup } }) => backup)).toEqual([day(1)]);
    expect(run.ended).toMatchObject({ result: { marked: [], purged: [day(1)], spared: [day(10)] } });
    const { steps } = await run.progress();
    expect(steps.find(({ name }) => name === 'Remove what was marked')?.message).toMatch(/1 kept, since too few good/);
  });

  test('a failure ends the sweep where it stands, and the next one goes on', async () => {
    const found = { committed: good(17, 18, 19, 20), abandoned: [day(1)] };
    const more = { markBackupDeleting: fails('CommitConflict') };
    const run = await workflows.run('RetentionSweep', { ...REF, policy }, finding(found, more));
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'CommitConflict' });
    expect(run.names).toEqual(['surveyBackups', 'markBackupDeleting']);
    expect(run.ends).toMatchObject([{ state: 'failed' }]);
  });

  test('cancelled: CANCELLED', async () => {
    const found = finding({ purging: [day(1)] }, { purgeBackup: untilCancelled });
    const run = await workflows.start('RetentionSweep', { ...REF, policy }, found);
    await run.saw('purgeBackup');
    await run.handle.cancel();
    expect(await run.outcome()).toEqual({ status: 'CANCELLED' });
    expect(run.ends).toMatchObject([{ state: 'cancelled' }]);
  });
});
