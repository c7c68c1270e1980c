/** Dry runs of everything that destroys: whatever they are asked, they call only activities that look. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BACKUP, REF, Workflows, type Fakes } from './support.ts';

let workflows: Workflows;
beforeAll(async () => {
  workflows = await Workflows.open();
});
afterAll(() => workflows.close());

/** Everything that is there to be removed. */
const WORST: Fakes = {
  clusterExists: () => true,
  checkRestoreGates: () => ({ replaced: ['one', 'two'], unknown: [] }),
  surveyBackups: () => ({
    ...{ prefix: '', now: Date.parse('2026-11-21T12:00:00Z'), deleting: [{ id: BACKUP, since: 0 }], purging: [BACKUP] },
    committed: [1, 2, 3].map((n) => ({
      id: `2026110${n}T030000Z-00000000`,
      time: Date.UTC(2026, 10, n),
      leased: false,
    })),
    abandoned: [BACKUP],
  }),
};

describe.concurrent('a dry run calls', () => {
  test.for<[string, object, string[]]>([
    [
      'RestoreCluster',
      { ...{ tenant: 'acme', source: 'docs', backup: BACKUP, cluster: 'docs', inPlace: true }, dryRun: true },
      ['openBackup', 'clusterExists', 'previewRestore'],
    ],
    ['RetentionSweep', { ...REF, policy: { keepLast: 1, undoHours: 0 }, dryRun: true }, ['surveyBackups']],
    ['UpdateCluster', { ...REF, nodes: 9, allowDowntime: true, dryRun: true }, ['planClusterUpdate']],
    ['InfrastructureSweep', { tenant: 'acme', region: 'eu-west-1', dryRun: true }, ['surveyInfrastructure']],
    ['InfrastructureSweep', { tenant: 'acme', region: 'eu-west-1' }, ['surveyInfrastructure']],
  ])('%s %o', async ([type, input, looks]) => {
    const run = await workflows.run(type, input, WORST);
    expect(run.ended.status).toBe('COMPLETED');
    // Besides being known and ended it does nothing: no lease, no phase, no removal.
    const frame = new Set(['registerOperation', 'endOperation']);
    expect(run.calls.map(({ name }) => name).filter((name) => !frame.has(name))).toEqual(looks);
    expect(run.ends).toHaveLength(1);
    expect(run.ends[0]).not.toHaveProperty('chores');
  });
});
