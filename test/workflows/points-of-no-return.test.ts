/**
 * The points of no return of `docs/points-of-no-return.md`: whatever fails or is cancelled after one, what users have
 * stays. Each activity after each point fails in two ways and is cancelled once.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { OPERATION_KINDS } from '../../src/domain/operation.ts';
import {
  BACKUP,
  fails,
  fakeActivities,
  gate,
  gaveUp,
  lanesOf,
  LOCATION,
  REF,
  SPEC,
  TASKS,
  Workflows,
  type ActivityName,
  type Fakes,
  type Run,
} from './support.ts';

let workflows: Workflows;
beforeAll(async () => {
  workflows = await Workflows.open();
});
afterAll(() => workflows.close());

interface Row {
  readonly operation: string;
  readonly before: ActivityName;
  readonly after: readonly ActivityName[];
}

const TABLE: readonly Row[] = readFileSync(join(import.meta.dirname, '../../docs/points-of-no-return.md'), 'utf8')
  .split('\n')
  .filter((line) => line.startsWith('| ') && line.includes('`endOperation`'))
  .map((line) => line.split('|').map((cell) => cell.trim()))
  .map(([, operation = '', , before = '', after = '']) => ({
    operation,
    before: namesIn(before)[0] as ActivityName,
    after: namesIn(after),
  }));

function namesIn(cell: string): ActivityName[] {
  return [...cell.matchAll(/`(\w+)`/g)].map(([, name]) => name as ActivityName);
}

interface Scenario {
  readonly type: string;
  readonly input: object;
  readonly fakes?: () => Fakes;
  /** What somebody does while it runs. */
  readonly meanwhile?: (run: Run) => Promise<void>;
  /** Activities whose failure is an honest failure, after which the same again goes on. */
  readonly honest?: readonly ActivityName[];
}

const RESTORE = { tenant: 'acme', source: 'docs', backup: BACKUP, cluster: 'again', collections: ['one'] };
const FRESH = { ...LOCATION, cluster: 'again', backup: '20261121T040000Z-5e6f7a8b' };

const SCENARIOS: Readonly<Record<string, Scenario>> = {
  ProvisionCluster: { type: 'ProvisionCluster', input: REF },
  'ProvisionCluster on AWS': { type: 'ProvisionCluster', input: { ...REF, provider: 'aws' } },
  UpdateCluster: {
    type: 'UpdateCluster',
    input: { ...REF, nodes: 3 },
    fakes: () => ({
      planClusterUpdate: () => ({
        ...{ spec: SPEC, downtime: [], oldest: '1.18.3' },
        steps: [{ kind: 'add-nodes', nodes: 3, added: 1 }],
      }),
    }),
  },
  RotateApiKey: { type: 'RotateApiKey', input: { ...REF, graceSeconds: 1 } },
  RotateCertificates: { type: 'RotateCertificates', input: REF },
  SuspendCluster: { type: 'SuspendCluster', input: REF },
  ResumeCluster: {
    type: 'ResumeCluster',
    input: REF,
    fakes: () => ({
      loadCluster: () => ({ spec: { ...SPEC, suspended: true }, phase: 'SUSPENDED', namespace: 'fleet-acme--docs' }),
    }),
  },
  DeleteCluster: { type: 'DeleteCluster', input: REF, honest: ['forgetCluster'] },
  'DeleteCluster, taken back': {
    type: 'DeleteCluster',
    input: { ...REF, undoHours: 1 },
    meanwhile: async (run) => {
      await run.saw('pauseSchedules ended');
      await run.handle.signal('undelete');
    },
  },
  BackupCluster: { type: 'BackupCluster', input: { ...REF, retention: { keepLast: 3 } } },
  'RestoreCluster, existing cluster': { type: 'RestoreCluster', input: RESTORE },
  'RestoreCluster, new cluster': {
    type: 'RestoreCluster',
    input: RESTORE,
    fakes: () => ({ clusterExists: () => false }),
  },
  'RestoreCluster, in place': {
    type: 'RestoreCluster',
    input: { ...RESTORE, inPlace: true },
    fakes: () => ({
      checkRestoreGates: () => ({ replaced: ['one'], unknown: [] }),
      planBackup: () => ({
        ...{ location: FRESH, attempt: 'run-1', lanes: lanesOf(TASKS.slice(0, 1)) },
        ...{ transferQueue: workflows.taskQueue, startedAt: '2026-11-21T04:00:00.000Z' },
      }),
    }),
  },
  VerifyBackup: { type: 'VerifyBackup', input: { ...REF, backup: BACKUP } },
  UndeleteBackup: { type: 'UndeleteBackup', input: { ...REF, backup: BACKUP } },
  RetentionSweep: { type: 'RetentionSweep', input: { ...REF, policy: { keepLast: 1 } } },
  InfrastructureSweep: {
    type: 'InfrastructureSweep',
    input: { tenant: 'acme', region: 'eu-west-1', dryRun: false },
    fakes: () => ({
      surveyInfrastructure: () => ({
        found: 1,
        orphans: [
          { cluster: 'gone', operation: 'op-1', resources: [{ kind: 'vpc', id: 'vpc-1' }], reason: 'no such cluster' },
        ],
      }),
    }),
  },
};

/** What a failure leaves to the next sweep. */
const CHORES: Partial<Record<ActivityName, string>> = { closeBackup: 'backup-lease', indexBackup: 'backup-index' };

/** A run that knows when it has passed its point. */
class Watched {
  readonly run: Promise<Run>;
  readonly #calls: Promise<number>;
  /** Names of activities that began after the point. */
  readonly after: ActivityName[] = [];
  #left: number;

  private constructor({ before }: Row, scenario: Scenario, points: number, fakes: (passed: () => boolean) => Fakes) {
    this.#left = points;
    const defaults = { ...fakeActivities(workflows.taskQueue), ...scenario.fakes?.() };
    const harmed = fakes(() => this.#left <= 0);
    const all = Object.keys(defaults) as ActivityName[];
    const watched = Object.fromEntries(
      all.map((name) => [
        name,
        async (input: never) => {
          if (this.#left <= 0) this.after.push(name);
          const answer: unknown = await ((harmed[name] ?? defaults[name]) as (input: never) => unknown)(input);
          if (name === before) this.#left -= 1;
          return answer;
        },
      ]),
    ) as Fakes;
    this.run = workflows.start(scenario.type, scenario.input, watched);
    this.#calls = this.run.then((run) => scenario.meanwhile?.(run)).then(() => 0);
  }

  /** @param points how often the last activity before the point is called */
  static start(row: Row, points: number, fakes: (passed: () => boolean) => Fakes = () => ({})): Watched {
    const scenario = SCENARIOS[row.operation];
    if (scenario === undefined) throw new Error(`No scenario for "${row.operation}".`);
    return new Watched(row, scenario, points, fakes);
  }

  async ended() {
    const run = await this.run;
    await this.#calls;
    return { run, ...(await run.outcome()) };
  }
}

/** Runs that nothing befalls, one of each operation: how often the last activity before the point is called, and what follows. */
const plain = new Map<string, Promise<{ points: number; after: ActivityName[] }>>();
function plainRun(row: Row) {
  const known = plain.get(row.operation) ?? watch();
  plain.set(row.operation, known);
  return known;

  async function watch() {
    const { run, status } = await Watched.start(row, Number.POSITIVE_INFINITY).ended();
    expect(status).toBe('COMPLETED');
    const names = run.calls.map(({ name }) => name);
    return { points: run.of(row.before).length, after: names.slice(names.lastIndexOf(row.before) + 1) };
  }
}

const CASES = TABLE.flatMap((row) =>
  row.after.flatMap((name) => (['fails', 'gives up', 'is cancelled'] as const).map((how) => ({ row, name, how }))),
);

test('every operation has a point of no return, and a scenario here', () => {
  console.log(`${TABLE.length} points of no return, ${CASES.length} cases after them`);
  expect(TABLE.map(({ operation }) => operation).sort()).toEqual(Object.keys(SCENARIOS).sort());
  const types = new Set(Object.values(SCENARIOS).map(({ type }) => type));
  expect([...types].sort()).toEqual(Object.values(OPERATION_KINDS).sort());
});

describe.concurrent('nothing befalls it', () => {
  test.for(TABLE.map((row) => [row.operation, row] as const))(
    '%s: what follows the point is known',
    async ([, row]) => {
      const { after } = await plainRun(row);
      expect([...new Set(after)].sort(), 'docs/points-of-no-return.md, activities after the point').toEqual(
        row.after.toSorted(),
      );
    },
  );
});

describe.concurrent('after the point of no return', () => {
  test.for(
    CASES.filter(({ how }) => how !== 'is cancelled').map(
      (found) => [`${found.row.operation}: ${found.name} ${found.how}`, found] as const,
    ),
  )('%s', async ([, { row, name, how }]) => {
    const fail = how === 'fails' ? fails('StoreDenied', 'No entry.') : gaveUp('StoreUnavailable', 'No answer.');
    const watched = Watched.start(row, (await plainRun(row)).points, (passed) => {
      const usual = usually(row, name);
      return { [name]: (input: never) => (passed() ? fail() : usual(input)) };
    });
    const { run, status, result } = await watched.ended();
    stays(row, watched);
    if (SCENARIOS[row.operation]?.honest?.includes(name) === true) {
      expect(status).toBe('FAILED');
      expect(run.ends).toMatchObject([{ state: 'failed' }]);
      return;
    }
    expect(status).toBe('COMPLETED');
    expect(run.ends).toMatchObject([{ state: 'done' }]);
    if (name === 'endOperation') return;
    expect(result?.['warnings']).toEqual([expect.stringMatching(/No (?:entry|answer)\./)]);
    const chore = CHORES[name];
    if (chore !== undefined) expect(run.ends[0]?.chores).toMatchObject([{ kind: chore }]);
  });

  test.for(
    CASES.filter(({ how }) => how === 'is cancelled').map(
      (found) => [`${found.row.operation}: cancelled during ${found.name}`, found] as const,
    ),
  )('%s', async ([, { row, name }]) => {
    const reached = gate();
    const goOn = gate();
    const watched = Watched.start(row, (await plainRun(row)).points, (passed) => {
      const usual = usually(row, name);
      return {
        [name]: async (input: never) => {
          if (passed()) {
            reached.resolve();
            await goOn.promise;
          }
          return usual(input);
        },
      };
    });
    const run = await watched.run;
    await reached.promise;
    await run.handle.cancel();
    goOn.resolve();
    const { status } = await watched.ended();
    stays(row, watched);
    expect(status).toBe('COMPLETED');
    expect(run.ends).toMatchObject([{ state: 'done' }]);
  });
});

function usually(row: Row, name: ActivityName): (input: never) => unknown {
  const fakes = { ...fakeActivities(workflows.taskQueue), ...SCENARIOS[row.operation]?.fakes?.() };
  return fakes[name] as (input: never) => unknown;
}

/** Nothing is called but what follows the point anyhow, and the release of the cluster before tidying is tried again. */
function stays({ after }: Row, watched: Watched): void {
  const allowed = new Set<ActivityName>([...after, 'releaseLease']);
  expect(watched.after.filter((name) => !allowed.has(name))).toEqual([]);
}
