/** `BackupCluster` and its child `BackupPeer`: lanes, clean-up, snapshots that vanish, slots of a schedule. */
import { Context } from '@temporalio/activity';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FLEET_PHASE } from '../../src/temporal-search-attributes.ts';
import { until } from '../support/fleet.ts';
import type { ShardTask } from '../../src/domain/topology.ts';
import {
  BACKUP,
  copiedShard,
  fails,
  flaky,
  gate,
  gaveUp,
  laneOf,
  lanesOf,
  LOCATION,
  REF,
  TASKS,
  untilCancelled,
  Workflows,
  type Fakes,
  type Run,
} from './support.ts';

let workflows: Workflows;
beforeAll(async () => {
  workflows = await Workflows.open();
});
afterAll(() => workflows.close());

const TRANSFERRED = { size: 1000, sha256: 'aa', crc32: 'AAAAAA==', sent: 1000 };

function planning(tasks: typeof TASKS, more: Fakes = {}): Fakes {
  return {
    planBackup: () => ({
      location: LOCATION,
      attempt: 'run-1',
      transferQueue: workflows.taskQueue,
      lanes: lanesOf(tasks),
      startedAt: '2026-11-21T03:00:00.000Z',
    }),
    nextShards: ({ peer, from }) => laneOf(tasks, peer, from),
    ...more,
  };
}

/** Everything that changes something after the copies. */
const ENDS = new Set(['commitBackup', 'indexBackup', 'abandonBackup']);
const endsOf = (run: Run) => run.names.filter((name) => ENDS.has(name));

async function childStates(run: Run): Promise<string[]> {
  const { events } = await run.handle.fetchHistory();
  const ids = (events ?? []).flatMap(
    ({ childWorkflowExecutionStartedEventAttributes: started }) => started?.workflowExecution?.workflowId ?? [],
  );
  return Promise.all(ids.map(async (id) => (await workflows.client.workflow.getHandle(id).describe()).status.name));
}

describe.concurrent('BackupCluster', () => {
  const stopped = gate();

  test('copies every shard once, commits after the last, indexes after the commit', async () => {
    const run = await workflows.run('BackupCluster', REF);
    expect(run.ended).toEqual({
      status: 'COMPLETED',
      result: { backup: BACKUP, collections: 1, shards: 4, bytes: 4000, points: 40 },
    });
    expect(run.of('takeLease')[0]?.input).toMatchObject({ mode: 'shared', copying: true });
    const [commit] = run.of('commitBackup');
    expect(commit?.input.shards.map(({ shard }: { shard: number }) => shard).sort()).toEqual([0, 1, 2, 3]);
    expect(commit?.input.shards[0]).toMatchObject({ sourcePeer: '1', sha256: 'aa', points: { before: 10, after: 10 } });
    expect(run.of('deleteShardSnapshot')).toHaveLength(4);
    expect(endsOf(run)).toEqual(['commitBackup', 'indexBackup']);
    expect(run.names.at(-1)).toBe('indexBackup');
    expect(run.ends).toMatchObject([{ state: 'done', result: { backup: BACKUP } }]);
    expect((await run.attributes()).get(FLEET_PHASE)).toBe('done');
    expect(await run.progress()).toMatchObject({ kind: 'backup', percent: 100 });
  });

  test('where the cluster has a bucket of its own, every step is told which, and the plan and the index say it', async () => {
    const bucket = { name: 'fleet-acme--docs-1', region: 'eu-west-1' };
    const location = { ...LOCATION, bucket };
    const run = await workflows.run('BackupCluster', REF, {
      planBackup: () => ({
        ...{ location, attempt: 'run', transferQueue: workflows.taskQueue, lanes: lanesOf(TASKS) },
        ...{ startedAt: '2026-11-21T03:00:00.000Z', engineMaxBytes: 5000 },
      }),
    });
    for (const step of ['nextShards', 'openCopiedShard', 'commitBackup'] as const) {
      expect(run.of(step)[0]?.input).toMatchObject({ location });
    }
    for (const step of ['transferShardSnapshot', 'indexBackup'] as const) {
      expect(run.of(step)[0]?.input).toMatchObject({ bucket });
    }
    const { steps } = await run.progress();
    expect(steps.find(({ name }) => name === 'Plan the shards')?.message).toContain(`in bucket ${bucket.name}`);
  });

  test('peers work side by side, each on one shard at a time', async () => {
    const busy = new Map<string, number>();
    const most = new Map<string, number>();
    const both = gate();
    const enter = ({ task: { peer } }: { task: { peer: string } }) => {
      busy.set(peer, (busy.get(peer) ?? 0) + 1);
      most.set(peer, Math.max(most.get(peer) ?? 0, busy.get(peer) ?? 0));
      // Nobody gets on until both peers are at work: in a row this would hang.
      if (busy.size === 2) both.resolve();
    };
    const run = await workflows.run('BackupCluster', REF, {
      createShardSnapshot: async ({ task }) => {
        enter({ task });
        await both.promise;
        return { name: 's', size: 1, sha256: 'aa', points: { before: 0, after: 0 }, cutAt: '2026-11-21T03:00:00Z' };
      },
      deleteShardSnapshot: ({ task: { peer } }) => {
        busy.set(peer, (busy.get(peer) ?? 0) - 1);
        return Promise.resolve();
      },
    });
    expect(run.ended.status).toBe('COMPLETED');
    expect(Object.fromEntries(most)).toEqual({ 1: 1, 2: 1 });
  });

  test('one lane fails: the other is stopped at once and waited for, both nodes are swept, then the data is removed', async () => {
    const other = gate();
    const run = await workflows.start('BackupCluster', REF, {
      transferShardSnapshot: async ({ task }) => {
        if (task.peer === '2') return untilCancelled();
        await other.promise;
        throw gaveUp('IntegrityMismatch', 'Other bytes.')();
      },
      // The lane that is stopped ends with its clean-up.
      sweepShardSnapshots: ({ peer }) => (peer === '2' ? stopped.promise : undefined),
    });
    await run.saw('transferShardSnapshot', 2);
    other.resolve();
    await run.saw('sweepShardSnapshots', 2);
    expect(run.of('abandonBackup')).toEqual([]);
    stopped.resolve();
    expect(await run.outcome()).toEqual({ status: 'FAILED', type: 'IntegrityMismatch', message: 'Other bytes.' });
    expect(endsOf(run)).toEqual(['abandonBackup']);
    expect(run.of('abandonBackup')[0]?.input).toEqual({ location: LOCATION, attempt: 'run-1' });
    expect(run.names.at(-1)).toBe('abandonBackup');
    // Neither lane came to its second shard.
    expect(
      run
        .of('transferShardSnapshot')
        .map(({ input }): number => input.task.shard)
        .sort((a, b) => a - b),
    ).toEqual([0, 1]);
    expect(
      run
        .of('sweepShardSnapshots')
        .map(({ input }) => Number(input.tasks[0].shard))
        .sort((a, b) => a - b),
    ).toEqual([0, 1]);
    expect(run.ends).toMatchObject([{ state: 'failed', error: { code: 'IntegrityMismatch' } }]);
    expect((await childStates(run)).sort()).toEqual(['CANCELLED', 'FAILED']);
  });

  describe('a replica that is not Active', () => {
    /** Round 1 as planned; later ones are what was planned again. */
    const lanesByRound = (again: Map<number, readonly ShardTask[]>): Fakes => ({
      nextShards: ({ peer, from, round = 1 }) => laneOf(again.get(round) ?? TASKS, peer, from),
      replanShards: ({ tasks, round }) => {
        const moved = tasks.map((task) => ({ ...task, peer: task.peer === '1' ? '2' : '1', tried: [task.peer] }));
        again.set(round, moved);
        return { lanes: lanesOf(moved) };
      },
    });

    test('is not copied: its node is swept, and the shard is taken from another peer', async () => {
      const run = await workflows.run('BackupCluster', REF, {
        ...lanesByRound(new Map()),
        createShardSnapshot: ({ task }) => {
          if (task.peer === '1' && task.shard === 2) throw fails('ReplicaNotActive', 'It is Dead.')();
          return { name: 's', size: 1, sha256: 'aa', points: { before: 0, after: 0 }, cutAt: '2026-11-21T03:00:00Z' };
        },
      });
      expect(run.ended).toMatchObject({ status: 'COMPLETED', result: { shards: 4 } });
      expect(run.of('replanShards').map(({ input }) => input)).toEqual([
        { location: LOCATION, attempt: 'run-1', round: 2, tasks: [TASKS[2]] },
      ]);
      expect(run.of('sweepShardSnapshots').map(({ input }) => [input.peer, input.tasks[0].shard])).toEqual([['1', 2]]);
      const shards = run.of('commitBackup')[0]?.input.shards as { shard: number; sourcePeer: string }[];
      expect(shards.map(({ shard, sourcePeer }) => `${shard} of ${sourcePeer}`).sort()).toEqual([
        '0 of 1',
        '1 of 2',
        '2 of 2',
        '3 of 2',
      ]);
      // No node has made two snapshots at a time: the second round began when the first had ended.
      const ids = run.of('nextShards').map(({ workflowId }) => workflowId.split('/')[1]);
      expect(ids.at(-1)).toBe('peer-2-round-2');
    });

    test('in a pack of small shards: the others are kept, and it is taken from another peer', async () => {
      const run = await workflows.run('BackupCluster', REF, {
        ...lanesByRound(new Map()),
        planBackup: () => ({
          ...{ location: LOCATION, attempt: 'run-1', transferQueue: workflows.taskQueue, lanes: lanesOf(TASKS) },
          ...{ smallBytes: 2000, startedAt: '2026-11-21T03:00:00.000Z' },
        }),
        nextShards: ({ peer, from, round = 1 }) => {
          const tasks = round === 1 ? TASKS : TASKS.slice(0, 1).map((task) => ({ ...task, peer: '2' }));
          return laneOf(
            tasks.map((task) => ({ ...task, bytes: 10 })),
            peer,
            from,
          );
        },
        copyShardPack: ({ tasks }) => tasks.filter(({ shard, peer }) => shard !== 0 || peer !== '1').map(copiedShard),
      });
      expect(run.ended).toMatchObject({ status: 'COMPLETED', result: { shards: 4 } });
      expect(run.of('copyShardPack').map(({ input }) => input.tasks.length as number)).toEqual([2, 2, 1]);
      expect(run.of('replanShards')[0]?.input.tasks).toMatchObject([{ shard: 0, peer: '1' }]);
    });

    test('nowhere for as long as a copy takes: three rounds, then the backup fails and says which', async () => {
      const run = await workflows.run('BackupCluster', REF, {
        ...lanesByRound(new Map()),
        createShardSnapshot: ({ task }) => {
          if (task.shard === 2) throw fails('ReplicaNotActive', 'It is Dead.')();
          return { name: 's', size: 1, sha256: 'aa', points: { before: 0, after: 0 }, cutAt: '2026-11-21T03:00:00Z' };
        },
      });
      expect(run.ended).toMatchObject({ status: 'FAILED', type: 'TopologyUnstable' });
      expect(run.ended.message).toMatch(/^No replica of "documents" shard 2 was Active for as long as it was copied/);
      expect(run.of('createShardSnapshot').filter(({ input }) => input.task.shard === 2)).toHaveLength(3);
      expect(endsOf(run)).toEqual(['abandonBackup']);
    });

    test('and no other one comes up in time: the backup fails with what the cluster said', async () => {
      const run = await workflows.run('BackupCluster', REF, {
        createShardSnapshot: fails('ReplicaNotActive', 'It is Dead.'),
        replanShards: gaveUp('ClusterNotReady', 'collection "documents" shard 0 has no Active replica (Dead).'),
      });
      expect(run.ended).toMatchObject({ status: 'FAILED', type: 'TopologyUnstable' });
      expect(run.ended.message).toContain('has no Active replica (Dead).');
      expect(run.of('commitBackup')).toEqual([]);
    });
  });

  test('cancelled while copying: every child ends, nodes are swept, data goes last', async () => {
    const run = await workflows.start('BackupCluster', REF, { transferShardSnapshot: untilCancelled });
    await run.saw('transferShardSnapshot', 2);
    await run.handle.cancel();
    expect(await run.outcome()).toEqual({ status: 'CANCELLED' });
    expect(
      run
        .of('sweepShardSnapshots')
        .map(({ input }) => String(input.peer))
        .sort(),
    ).toEqual(['1', '2']);
    expect(run.names.at(-1)).toBe('abandonBackup');
    expect(run.ends).toMatchObject([{ state: 'cancelled' }]);
    expect(await childStates(run)).toEqual(['CANCELLED', 'CANCELLED']);
  });

  test('a child that is cancelled on its own is a failure of the backup, not a cancellation', async () => {
    const run = await workflows.start('BackupCluster', REF, {
      transferShardSnapshot: ({ task }) => (task.peer === '1' ? untilCancelled() : TRANSFERRED),
    });
    await run.saw('transferShardSnapshot', 3);
    await workflows.client.workflow.getHandle(`${run.handle.workflowId}/peer-1`).cancel();
    expect(await run.outcome()).toMatchObject({ status: 'FAILED', type: 'Internal' });
    expect(run.names.at(-1)).toBe('abandonBackup');
    expect(run.ends).toMatchObject([{ state: 'failed', error: { code: 'Internal' } }]);
  });

  test('a child that is terminated fails the backup', async () => {
    const run = await workflows.start('BackupCluster', REF, {
      transferShardSnapshot: ({ task }) => (task.peer === '1' ? untilCancelled() : TRANSFERRED),
    });
    await run.saw('transferShardSnapshot', 3);
    await workflows.client.workflow.getHandle(`${run.handle.workflowId}/peer-1`).terminate();
    expect(await run.outcome()).toMatchObject({ status: 'FAILED', type: 'Internal' });
    expect(run.names.filter((name) => name === 'abandonBackup')).toHaveLength(1);
  });

  test('a snapshot that vanished is made anew', async () => {
    const [task] = TASKS;
    const run = await workflows.run(
      'BackupCluster',
      REF,
      planning(task === undefined ? [] : [task], {
        transferShardSnapshot: flaky(2, fails('SnapshotVanished'), () => TRANSFERRED),
      }),
    );
    expect(run.ended.status).toBe('COMPLETED');
    expect(run.of('createShardSnapshot')).toHaveLength(3);
    expect(run.of('sweepShardSnapshots')).toHaveLength(2);
  });

  test('a snapshot that vanishes a third time fails the backup', async () => {
    const run = await workflows.run(
      'BackupCluster',
      REF,
      planning(TASKS.slice(0, 1), {
        transferShardSnapshot: fails('SnapshotVanished', 'It is gone.'),
      }),
    );
    expect(run.ended).toEqual({ status: 'FAILED', type: 'SnapshotVanished', message: 'It is gone.' });
    expect(run.of('createShardSnapshot')).toHaveLength(3);
    expect(endsOf(run)).toEqual(['abandonBackup']);
  });

  test('sweeping a node fails: the failure that led there is told, and what was left on which node', async () => {
    const run = await workflows.run(
      'BackupCluster',
      REF,
      planning(TASKS.slice(0, 1), {
        transferShardSnapshot: fails('IntegrityMismatch', 'Other bytes.'),
        sweepShardSnapshots: gaveUp('QdrantUnavailable'),
      }),
    );
    expect(run.ended).toMatchObject({
      status: 'FAILED',
      type: 'IntegrityMismatch',
      message: expect.stringMatching(
        /^Other bytes\. Left behind: a snapshot of ".*" shard \d+ on peer .*\.$/,
      ) as string,
    });
    expect(endsOf(run)).toEqual(['abandonBackup']);
    expect(run.of('noteSnapshotsLeft')[0]?.input).toMatchObject({
      ...REF,
      peer: '1',
      tasks: [{ shard: 0 }],
      known: [],
    });
  });

  test('cancelled, and no node can be swept: what was left is noted for a later removal, and it is just cancelled', async () => {
    const run = await workflows.start('BackupCluster', REF, {
      transferShardSnapshot: untilCancelled,
      sweepShardSnapshots: gaveUp('QdrantUnavailable', 'Nobody answers.'),
    });
    await run.saw('transferShardSnapshot', 2);
    await run.handle.cancel();
    const ended = await run.outcome();
    expect(ended).toEqual({ status: 'CANCELLED' });
    expect(
      run
        .of('noteSnapshotsLeft')
        .map(({ input }) => String(input.peer))
        .sort(),
    ).toEqual(['1', '2']);
    expect(run.names.at(-1)).toBe('abandonBackup');
    expect(run.ends).toMatchObject([{ state: 'cancelled' }]);
  });

  test('cancelled, and what was left cannot even be noted: the end names it on each node', async () => {
    const run = await workflows.start('BackupCluster', REF, {
      transferShardSnapshot: untilCancelled,
      sweepShardSnapshots: gaveUp('QdrantUnavailable', 'Nobody answers.'),
      noteSnapshotsLeft: gaveUp('CatalogUnavailable'),
    });
    await run.saw('transferShardSnapshot', 2);
    await run.handle.cancel();
    const ended = await run.outcome();
    expect(ended).toMatchObject({ status: 'FAILED', type: 'CleanupIncomplete' });
    expect(ended.message).toMatch(
      // Whichever lane ends first is told first.
      /^The operation was cancelled\. Left behind: [^;]* on peer ([12]) \(Nobody answers\.\); [^;]* on peer (?!\1)[12] \(Nobody answers\.\)\.$/,
    );
    expect(run.ends).toMatchObject([
      { state: 'failed', error: { code: 'CleanupIncomplete', message: expect.stringContaining('on peer 2') } },
    ]);
  });

  test('two lanes fail: what both left behind is told with the first failure', async () => {
    const run = await workflows.run('BackupCluster', REF, {
      transferShardSnapshot: fails('IntegrityMismatch', 'Other bytes.'),
      sweepShardSnapshots: gaveUp('QdrantUnavailable', 'Nobody answers.'),
      abandonBackup: gaveUp('StoreUnavailable', 'No store.'),
    });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'IntegrityMismatch' });
    expect(run.ended.message?.match(/Left behind/g)).toHaveLength(1);
    for (const part of [
      /^Other bytes\. Left/,
      /on peer 1 \(/,
      /on peer 2 \(/,
      /unfinished backup .* \(No store\.\)\.$/,
    ]) {
      expect(run.ended.message).toMatch(part);
    }
  });

  test('snapshots that were on the node before are never touched', async () => {
    const run = await workflows.run(
      'BackupCluster',
      REF,
      planning(TASKS.slice(0, 1), {
        nextShards: () => ({ tasks: TASKS.slice(0, 1), known: ['of-somebody-else'] }),
        transferShardSnapshot: fails('IntegrityMismatch'),
      }),
    );
    expect(run.of('createShardSnapshot')[0]?.input.known).toEqual(['of-somebody-else']);
    expect(run.of('sweepShardSnapshots')[0]?.input.known).toEqual(['of-somebody-else']);
  });

  test('an empty cluster is a backup of no shards', async () => {
    const run = await workflows.run('BackupCluster', REF, planning([]));
    expect(run.ended).toMatchObject({ status: 'COMPLETED', result: { shards: 0 } });
    expect(run.of('commitBackup')[0]?.input.shards).toEqual([]);
  });

  test('another run committed first: the data of this one goes, the end says so', async () => {
    const run = await workflows.run('BackupCluster', REF, planning([], { commitBackup: fails('CommitConflict') }));
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'CommitConflict' });
    expect(endsOf(run)).toEqual(['commitBackup', 'abandonBackup']);
  });

  test('cancelled while it commits, which happens all the same: it is done, and listed', async () => {
    const run = await workflows.start(
      'BackupCluster',
      REF,
      planning([], {
        commitBackup: async () => {
          const { cancelled } = Context.current();
          const beat = setInterval(() => Context.current().heartbeat(), 20);
          await cancelled.catch(() => undefined);
          clearInterval(beat);
          return { collections: 0, shards: 0, bytes: 0, points: 0 };
        },
      }),
    );
    await run.saw('commitBackup');
    await run.handle.cancel();
    expect(await run.outcome()).toMatchObject({ status: 'COMPLETED', result: { backup: BACKUP } });
    expect(endsOf(run)).toEqual(['commitBackup', 'indexBackup']);
    expect(run.ends).toMatchObject([{ state: 'done' }]);
  });

  const COMMITTED = { collections: 1, shards: 4, bytes: 4000, points: 40 };

  test.for([
    ['fails for good', gaveUp('StoreUnavailable')],
    ['is cancelled', untilCancelled],
  ] as const)(
    'a commit that %s although the record says COMMITTED: the record decides, it is done',
    async ([how, commitBackup]) => {
      const run = await workflows.start(
        'BackupCluster',
        REF,
        planning([], { commitBackup, abandonBackup: () => ({ removed: false, committed: COMMITTED }) }),
      );
      if (how === 'is cancelled') {
        await run.saw('commitBackup');
        await run.handle.cancel();
      }
      expect(await run.outcome()).toMatchObject({ status: 'COMPLETED', result: { backup: BACKUP, points: 40 } });
      expect(endsOf(run)).toEqual(['commitBackup', 'abandonBackup', 'indexBackup']);
      expect(run.of('indexBackup')[0]?.input).toMatchObject({ state: 'COMMITTED', totals: COMMITTED });
    },
  );

  test('nobody knows whether it was committed: the end says so, and the next sweep finds out', async () => {
    const run = await workflows.run(
      'BackupCluster',
      REF,
      planning([], {
        commitBackup: gaveUp('StoreUnavailable', 'No store.'),
        abandonBackup: gaveUp('StoreDenied', 'No.'),
      }),
    );
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'StoreUnavailable' });
    expect(run.ended.message).toBe(`No store. Left behind: unfinished backup ${BACKUP} (No.).`);
    expect(run.of('abandonBackup')).toHaveLength(1);
    expect(run.ends[0]?.chores).toEqual([{ ...REF, kind: 'backup-index', what: { backup: BACKUP }, why: 'No.' }]);
  });

  test('a node that keeps a snapshot after it was copied: noted, a warning, and the backup is done', async () => {
    const run = await workflows.run(
      'BackupCluster',
      REF,
      planning(TASKS, {
        deleteShardSnapshot: ({ task }) => {
          if (task.peer === '1') throw gaveUp('QdrantRejected')();
          return Promise.resolve();
        },
      }),
    );
    expect(run.ended.status).toBe('COMPLETED');
    expect(run.ended.result?.['warnings']).toEqual([expect.stringContaining('Snapshots of 2 shards')]);
    expect(
      run
        .of('noteSnapshotsLeft')
        .map(({ input }) => String(input.tasks[0].shard))
        .sort(),
    ).toEqual(['0', '2']);
  });

  test('progress counts shards while they are copied', async () => {
    const last = gate();
    const run = await workflows.start(
      'BackupCluster',
      REF,
      planning(TASKS, {
        transferShardSnapshot: async ({ task }) => {
          if (task.peer === '2') await last.promise;
          return TRANSFERRED;
        },
      }),
    );
    await run.saw('deleteShardSnapshot ended', 2);
    await until('the workflow knows that a lane has ended', async () => {
      const { steps } = await run.progress();
      return steps.some(({ message }) => message === '2 of 4 shards');
    });
    expect(await run.progress()).toMatchObject({ phase: 'Copy the shards', percent: Math.floor(250 / 4) });
    last.resolve();
    expect(await run.outcome()).toMatchObject({ status: 'COMPLETED' });
  });

  const RETENTION = { retention: { keepLast: 3 } };

  test('the retention policy is applied after the backup, as an operation of its own', async () => {
    const run = await workflows.run('BackupCluster', { ...REF, ...RETENTION }, planning([]));
    expect(run.ended.status).toBe('COMPLETED');
    expect(run.events.indexOf('surveyBackups')).toBeGreaterThan(run.events.indexOf('indexBackup ended'));
    expect((await run.progress()).steps.at(-1)).toMatchObject({ name: 'Apply the retention policy', phase: 'done' });
  });

  test('a sweep that fails does not fail the backup', async () => {
    const run = await workflows.run(
      'BackupCluster',
      { ...REF, ...RETENTION },
      planning([], {
        surveyBackups: fails('StoreDenied', 'No entry.'),
      }),
    );
    expect(run.ended).toMatchObject({ status: 'COMPLETED', result: { backup: BACKUP } });
    expect(run.of('abandonBackup')).toEqual([]);
    expect((await run.progress()).steps.at(-1)).toMatchObject({ phase: 'skipped', message: 'No entry.' });
    expect(run.ends).toMatchObject([{ state: 'done' }]);
  });

  test('cancelled during the sweep: the backup is done, and the sweep comes to its end', async () => {
    const surveyed = gate();
    const run = await workflows.start(
      'BackupCluster',
      { ...REF, ...RETENTION },
      planning([], {
        surveyBackups: async () => {
          await surveyed.promise;
          return { prefix: '', now: 0, committed: [], deleting: [], purging: [], abandoned: [] };
        },
      }),
    );
    await run.saw('surveyBackups');
    await run.handle.cancel();
    surveyed.resolve();
    expect(await run.outcome()).toMatchObject({ status: 'COMPLETED', result: { backup: BACKUP } });
    expect(await childStates(run)).toEqual(['COMPLETED']);
    expect(run.ends).toMatchObject([{ state: 'done' }]);
  });

  test('started by a schedule, it is named by the slot', async () => {
    const slot = new Date('2026-10-01T03:00:00.000Z');
    const scheduleId = `slot-${workflows.taskQueue}`;
    const workflowId = `scheduled-${workflows.taskQueue}`;
    const planned = gate<string>();
    // Temporal appends the slot to the id.
    const id = `${workflowId}-2026-10-01T03:00:00Z`;
    workflows.expect(
      id,
      planning([], {
        planBackup: ({ nominalTime }) => {
          planned.resolve(nominalTime);
          throw fails('TopologyUnstable')();
        },
      }),
    );
    const schedule = await workflows.client.schedule.create({
      scheduleId,
      spec: { cronExpressions: ['0 3 * * *'] },
      state: { paused: true },
      action: {
        type: 'startWorkflow',
        workflowType: 'BackupCluster',
        workflowId,
        taskQueue: workflows.taskQueue,
        args: [REF],
      },
    });
    await schedule.backfill({
      start: new Date(slot.getTime() - 60_000),
      end: new Date(slot.getTime() + 60_000),
      overlap: 'ALLOW_ALL',
    });
    expect(await planned.promise).toBe(slot.toISOString());
    await schedule.delete();
  });

  test('started by hand, it is named by its start', async () => {
    const run = await workflows.run('BackupCluster', REF, planning([]));
    const { startTime } = await run.handle.describe();
    expect(run.of('planBackup')[0]?.input.nominalTime).toBe(startTime.toISOString());
  });
});

describe.concurrent('small shards', () => {
  const small = Array.from({ length: 120 }, (_, shard) => ({ collection: 'documents', shard, peer: '1', bytes: 1000 }));
  const packed = (tasks: readonly (typeof small)[number][], more: Fakes = {}): Fakes => ({
    ...planning(tasks),
    planBackup: () => ({
      location: LOCATION,
      attempt: 'run-1',
      transferQueue: workflows.taskQueue,
      lanes: lanesOf(tasks),
      smallBytes: 2000,
      startedAt: '2026-11-21T03:00:00.000Z',
    }),
    ...more,
  });

  test('are copied fifty in one activity', async () => {
    const run = await workflows.run('BackupCluster', REF, packed(small));
    expect(run.ended).toMatchObject({ status: 'COMPLETED', result: { shards: 120 } });
    expect(run.of('copyShardPack').map(({ input }) => Number(input.tasks.length))).toEqual([50, 50, 20]);
    expect(run.of('createShardSnapshot')).toEqual([]);
    expect(run.of('storeCopied')).toEqual([]);
  });

  test('a pack that fails is swept from its node, or noted', async () => {
    const tasks = small.slice(0, 3);
    const failing = { copyShardPack: fails('IntegrityMismatch', 'Other bytes.') };
    const swept = await workflows.run('BackupCluster', REF, packed(tasks, failing));
    expect(swept.ended).toEqual({ status: 'FAILED', type: 'IntegrityMismatch', message: 'Other bytes.' });
    expect(swept.of('sweepShardSnapshots').map(({ input }) => input.tasks)).toEqual([tasks]);
    const noted = await workflows.run(
      'BackupCluster',
      REF,
      packed(tasks, { ...failing, sweepShardSnapshots: gaveUp('QdrantUnavailable', 'Nobody answers.') }),
    );
    expect(noted.ended.message).toBe(
      'Other bytes. Left behind: a snapshot of "documents" shard 0 and 2 small ones after it on peer 1 (Nobody answers.).',
    );
    expect(noted.of('noteSnapshotsLeft')[0]?.input.tasks).toEqual(tasks);
  });

  test('more than a few hundred copied shards go into lists, and none of them is lost', async () => {
    const many = Array.from({ length: 400 }, (_, shard) => ({
      ...small[0],
      collection: 'c',
      shard,
      peer: '1',
      bytes: 1,
    }));
    const run = await workflows.run(
      'BackupCluster',
      REF,
      packed(many, {
        nextShards: ({ peer, from }) => ({ ...laneOf(many, peer, from), tasks: many.slice(from, from + 200) }),
      }),
    );
    expect(run.ended.status).toBe('COMPLETED');
    expect(run.of('nextShards').map(({ input }) => Number(input.from))).toEqual([0, 200]);
    const stored = run.of('storeCopied').map(({ input }) => input as { from: number; shards: { shard: number }[] });
    const [commit] = run.of('commitBackup');
    expect(commit?.input.lists).toEqual(stored.map(({ from }) => `copied/1-${from}.json`));
    const inline = (commit?.input.shards ?? []) as { shard: number }[];
    const told = [...stored.flatMap(({ shards }) => shards), ...inline];
    expect(told.map(({ shard }) => shard)).toEqual(many.map(({ shard }) => shard));
    for (const { from, shards } of stored) expect(shards[0]?.shard).toBe(from);
    expect(inline.length).toBeLessThanOrEqual(300);
  });
});

describe('BackupPeer', () => {
  test('goes on as new with what it knows and has copied', async () => {
    // Temporal suggests it at 4 MiB of history.
    const bulk = 'a'.repeat(1_200_000);
    const tasks = [0, 1, 2, 3].map((shard) => ({ collection: 'documents', shard, peer: '1' }));
    const run = await workflows.run(
      'BackupCluster',
      REF,
      planning(tasks, {
        nextShards: ({ from }) => ({ tasks: tasks.slice(from), known: ['old'] }),
        createShardSnapshot: ({ task }) => ({
          name: `${task.shard}`,
          size: 1000,
          sha256: bulk,
          points: { before: 1, after: 1 },
          cutAt: '2026-11-21T03:00:00Z',
        }),
      }),
    );
    expect(run.ended).toMatchObject({ status: 'COMPLETED', result: { shards: 4 } });
    const child = workflows.client.workflow.getHandle(`${run.handle.workflowId}/peer-1`);
    expect((await child.describe()).raw.workflowExecutionInfo?.firstRunId).not.toBe((await child.describe()).runId);
    expect(run.of('nextShards').map(({ input }) => Number(input.from))).toEqual([0, expect.any(Number)]);
    expect(run.of('createShardSnapshot').map(({ input }) => [input.task.shard, input.known])).toEqual(
      [0, 1, 2, 3].map((shard) => [shard, ['old']]),
    );
    const [commit] = run.of('commitBackup');
    expect(commit?.input.shards.map(({ shard }: { shard: number }) => shard)).toEqual([0, 1, 2, 3]);
  });
});
