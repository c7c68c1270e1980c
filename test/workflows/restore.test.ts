/** `RestoreCluster`: gates, recoveries with unknown outcome, and what is removed when it fails: only what it made. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  lanesOf,
  BACKUP,
  fails,
  flaky,
  gate,
  gaveUp,
  LOCATION,
  SPEC,
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

const INPUT = { tenant: 'acme', source: 'docs', backup: BACKUP, cluster: 'again' };
const ONE = { ...INPUT, collections: ['one'] };
const TARGET = { tenant: 'acme', cluster: 'again' };
const NEW: Fakes = { clusterExists: () => false };

const collectionsOf = (run: Run, name: 'createRestoredCollection' | 'dropRestoredCollection') =>
  run.of(name).map(({ input }) => input.collection as string);
const childTypes = async (run: Run) => {
  const { events } = await run.handle.fetchHistory();
  return (events ?? []).flatMap(
    ({ childWorkflowExecutionStartedEventAttributes: started }) => started?.workflowType?.name ?? [],
  );
};

const PHASE = new Set(['loadCluster', 'setClusterPhase', 'inspectCluster']);
/** What is called, without what the phase is known and told by. */
const restoring = (run: Run) => run.names.filter((name) => !PHASE.has(name));
const phases = (run: Run) => run.of('setClusterPhase').map(({ input }) => String(input.phase));

/** Every pull has ended before anything is dropped. */
function expectNoPullDuringADrop(run: Run): void {
  let pulling = 0;
  for (const event of run.events) {
    if (event === 'recoverReplica') pulling += 1;
    if (event === 'recoverReplica ended') pulling -= 1;
    if (event === 'dropRestoredCollection') expect(pulling).toBe(0);
  }
}

describe.concurrent('RestoreCluster into a cluster that exists', () => {
  test('gates before anything is made, aliases last, the backup let go of', async () => {
    const run = await workflows.run('RestoreCluster', INPUT);
    expect(run.ended).toEqual({
      status: 'COMPLETED',
      result: { cluster: 'again', backup: BACKUP, collections: 3, points: 30, bytes: 3000, relayed: 0, aliases: 1 },
    });
    expect(restoring(run).slice(0, 4)).toEqual([
      'openBackup',
      'clusterExists',
      'checkRestoreGates',
      'createRestoredCollection',
    ]);
    expect(run.of('takeLease').map(({ input }) => input)).toEqual([{ ...TARGET, mode: 'exclusive' }]);
    expect(restoring(run).slice(-2)).toEqual(['restoreAliases', 'closeBackup']);
    expect(run.of('recoverReplica')).toHaveLength(6);
    expect(run.of('verifyRestoredCollection')).toHaveLength(3);
    expect(run.of('dropRestoredCollection')).toEqual([]);
    expect(run.ends).toMatchObject([{ state: 'done', result: { points: 30 } }]);
    const progress = await run.progress();
    expect(progress).toMatchObject({ kind: 'restore', cluster: 'again', percent: 100 });
    expect(progress.steps.find(({ name }) => name === 'Create the cluster')).toMatchObject({ phase: 'skipped' });
    expect(progress.steps.find(({ name }) => name === 'Restore the collections')).toMatchObject({
      message: '30 points, counted on every replica; 15 of them compared',
    });
    // A closed workflow still answers.
    expect((await run.handle.describe()).status.name).toBe('COMPLETED');
  });

  test('a gate refuses: nothing was made, nothing is dropped, the backup is let go of', async () => {
    const run = await workflows.run('RestoreCluster', INPUT, {
      checkRestoreGates: fails('RestoreRefused', 'Too old.'),
    });
    expect(run.ended).toEqual({ status: 'FAILED', type: 'RestoreRefused', message: 'Too old.' });
    expect(run.names).toEqual(['openBackup', 'clusterExists', 'checkRestoreGates', 'closeBackup']);
    expect(run.ends).toMatchObject([{ state: 'failed', error: { code: 'RestoreRefused' } }]);
  });

  test('the backup cannot be opened: its lease, which is written first, goes', async () => {
    const run = await workflows.run('RestoreCluster', INPUT, { openBackup: fails('BackupNotCommitted') });
    expect(run.ended.type).toBe('BackupNotCommitted');
    expect(run.names).toEqual(['openBackup', 'closeBackup']);
  });

  test('the target is busy: nothing was made', async () => {
    const run = await workflows.run('RestoreCluster', INPUT, { takeLease: fails('ClusterBusy') });
    expect(run.ended.type).toBe('ClusterBusy');
    expect(run.names).toEqual(['openBackup', 'clusterExists', 'closeBackup']);
    expect(run.ends).toHaveLength(1);
  });

  test('a collection is not what was backed up: ours are dropped, the cluster stays', async () => {
    const run = await workflows.run('RestoreCluster', ONE, {
      verifyRestoredCollection: fails('IntegrityMismatch', 'Nine points of ten.'),
    });
    expect(run.ended).toEqual({ status: 'FAILED', type: 'IntegrityMismatch', message: 'Nine points of ten.' });
    expect(collectionsOf(run, 'dropRestoredCollection')).toEqual(['one']);
    expect(await childTypes(run)).toEqual([]);
    expect(run.of('restoreAliases')).toEqual([]);
    expect(run.names.at(-1)).toBe('closeBackup');
  });

  test('once one collection failed, no other is begun, and those that were begun end first', async () => {
    const second = gate<{ points: number; compared: number; unsampled: number }>();
    const run = await workflows.start('RestoreCluster', INPUT, {
      recoverReplica: ({ collection }) => {
        if (collection === 'one') throw gaveUp('QdrantRejected')();
        return Promise.resolve();
      },
      verifyRestoredCollection: () => second.promise,
    });
    await run.saw('recoverReplica ended', 4);
    await run.saw('verifyRestoredCollection');
    expect(run.of('dropRestoredCollection')).toEqual([]);
    second.resolve({ points: 10, compared: 0, unsampled: 1 });
    expect(await run.outcome()).toMatchObject({ type: 'QdrantRejected' });
    expect(collectionsOf(run, 'createRestoredCollection').sort()).toEqual(['one', 'two']);
    expect(collectionsOf(run, 'dropRestoredCollection').sort()).toEqual(['one', 'two']);
    expectNoPullDuringADrop(run);
  });

  test('a collection that somebody else made meanwhile is left alone', async () => {
    const run = await workflows.run('RestoreCluster', ONE, {
      createRestoredCollection: fails('RestoreRefused', 'Collection "one" appeared in the target and holds points.'),
    });
    expect(run.ended.type).toBe('RestoreRefused');
    expect(run.of('dropRestoredCollection')).toEqual([]);
  });

  test('a recovery without an answer: wait until the nodes are idle, drop, make it again', async () => {
    const run = await workflows.run('RestoreCluster', ONE, {
      recoverReplica: flaky(1, gaveUp('QdrantUnavailable'), () => Promise.resolve()),
    });
    expect(run.ended).toMatchObject({ status: 'COMPLETED', result: { points: 10 } });
    const round = ['createRestoredCollection', 'placeReplicas', 'recoverReplica', 'recoverReplica'];
    expect(restoring(run).slice(3, -2)).toEqual([
      ...round,
      'awaitRecoveriesIdle',
      'dropRestoredCollection',
      ...round,
      'verifyRestoredCollection',
    ]);
    expect(collectionsOf(run, 'createRestoredCollection')).toEqual(['one', 'one']);
    expectNoPullDuringADrop(run);
  });

  test.for(['QdrantUnavailable', 'StoreUnavailable', 'IntegrityMismatch', 'SomethingElse'])(
    'a recovery that ends with %s is tried in three rounds, and then given up',
    async (code) => {
      const run = await workflows.run('RestoreCluster', ONE, { recoverReplica: gaveUp(code) });
      expect(run.ended).toMatchObject({ status: 'FAILED', type: code === 'SomethingElse' ? 'Internal' : code });
      expect(run.of('createRestoredCollection')).toHaveLength(3);
      expect(run.of('awaitRecoveriesIdle')).toHaveLength(3);
      // Twice between the rounds, once to clean up.
      expect(run.of('dropRestoredCollection')).toHaveLength(3);
      expectNoPullDuringADrop(run);
    },
  );

  test('one pull fails: the other is waited for before anything is dropped', async () => {
    const other = gate();
    const run = await workflows.start('RestoreCluster', ONE, {
      recoverReplica: ({ peer }) => {
        if (peer === '1') throw gaveUp('QdrantRejected')();
        return other.promise;
      },
    });
    await run.saw('recoverReplica ended');
    other.resolve();
    expect(await run.outcome()).toMatchObject({ type: 'QdrantRejected' });
    expectNoPullDuringADrop(run);
    expect(run.of('dropRestoredCollection')).toHaveLength(1);
  });

  test.for(['openBackup', 'checkRestoreGates', 'recoverReplica', 'restoreAliases'] as const)(
    'cancelled during %s: CANCELLED after clean-up',
    async (step) => {
      const before = step === 'openBackup' || step === 'checkRestoreGates';
      const run = await workflows.start('RestoreCluster', ONE, { [step]: untilCancelled });
      await run.saw(step);
      await run.handle.cancel();
      expect(await run.outcome()).toEqual({ status: 'CANCELLED' });
      expect(collectionsOf(run, 'dropRestoredCollection')).toEqual(before ? [] : ['one']);
      expect(run.names.at(-1)).toBe('closeBackup');
      expect(run.ends).toMatchObject([{ state: 'cancelled' }]);
      expectNoPullDuringADrop(run);
    },
  );

  test('the cluster says that it is being restored into, and then what is seen of it', async () => {
    const run = await workflows.run('RestoreCluster', ONE);
    expect(phases(run)).toEqual(['RESTORING', 'HEALTHY']);
    const refused = await workflows.run('RestoreCluster', ONE, { checkRestoreGates: fails('RestoreRefused') });
    expect(phases(refused)).toEqual([]);
    const failed = await workflows.run('RestoreCluster', ONE, {
      verifyRestoredCollection: fails('IntegrityMismatch'),
      inspectCluster: () => ({ serving: false, degraded: 'A peer is away.' }),
    });
    expect(phases(failed)).toEqual(['RESTORING', 'NOT_READY']);
    expect(failed.names.indexOf('inspectCluster')).toBeGreaterThan(failed.names.indexOf('dropRestoredCollection'));
  });

  test('a removal that was interrupted is not forgotten', async () => {
    const run = await workflows.run('RestoreCluster', ONE, {
      loadCluster: () => ({ spec: SPEC, phase: 'DELETING', namespace: 'fleet-acme--again' }),
    });
    expect(run.ended.status).toBe('COMPLETED');
    expect(phases(run)).toEqual([]);
  });
});

describe.concurrent('RestoreCluster under other names, and by other ways', () => {
  test('every activity gets the new name, aliases and clean-up too', async () => {
    const run = await workflows.run(
      'RestoreCluster',
      { ...ONE, rename: { one: 'uno' } },
      {
        verifyRestoredCollection: fails('IntegrityMismatch'),
      },
    );
    expect(run.of('openBackup')[0]?.input).toMatchObject({ rename: { one: 'uno' } });
    for (const name of ['createRestoredCollection', 'placeReplicas', 'recoverReplica'] as const) {
      expect(run.of(name)[0]?.input).toMatchObject({ collection: 'one', as: 'uno' });
    }
    expect(run.of('awaitRecoveriesIdle')[0]?.input).toEqual({ target: TARGET, collection: 'uno' });
    expect(collectionsOf(run, 'dropRestoredCollection')).toEqual(['uno']);
  });

  test('a backup that the fleet did not sign is taken when that is asked for, and the result says so', async () => {
    const refused = await workflows.run('RestoreCluster', INPUT, { openBackup: fails('BackupNotTrusted') });
    expect(refused.ended).toMatchObject({ status: 'FAILED', type: 'BackupNotTrusted' });
    expect(refused.of('openBackup')[0]?.input['acceptUnsigned']).toBeUndefined();
    const collections = [{ name: 'one', shards: 1, bytes: 1000 }];
    const opened = { location: LOCATION, spec: SPEC, qdrantVersion: '1.18.3', collections };
    const run = await workflows.run(
      'RestoreCluster',
      { ...INPUT, acceptUnsigned: true },
      { openBackup: () => ({ ...opened, unprotected: 'The backup was taken unsigned.' }) },
    );
    expect(run.ended).toMatchObject({ status: 'COMPLETED', result: { warnings: ['The backup was taken unsigned.'] } });
    expect(run.of('openBackup')[0]?.input).toMatchObject({ acceptUnsigned: true });
  });

  test('the aliases follow the new names, or are left out', async () => {
    const renamed = await workflows.run('RestoreCluster', { ...ONE, rename: { one: 'uno' } });
    expect(renamed.of('restoreAliases')[0]?.input).toMatchObject({ collections: ['one'], rename: { one: 'uno' } });
    const without = await workflows.run('RestoreCluster', { ...ONE, aliases: false });
    expect(without.ended).toMatchObject({ status: 'COMPLETED', result: { aliases: 0 } });
    expect(without.of('restoreAliases')).toEqual([]);
    expect(without.of('checkRestoreGates')[0]?.input).toMatchObject({ aliases: false });
  });

  describe('many replicas', () => {
    const REPLICAS = Array.from({ length: 20 }, (_, shard) => ({ shard, peer: '1' }));

    test('are filled eight at a time, on the queue for long waits', async () => {
      let [pulling, most] = [0, 0];
      const run = await workflows.start('RestoreCluster', ONE, {
        placeReplicas: () => REPLICAS,
        recoverReplica: async () => {
          pulling += 1;
          most = Math.max(most, pulling);
          await run.saw('recoverReplica', 8);
          pulling -= 1;
        },
      });
      expect(await run.outcome()).toMatchObject({ status: 'COMPLETED' });
      expect(new Set(run.of('recoverReplica').map(({ input }) => Number(input.shard))).size).toBe(20);
      expect(most).toBe(8);
      const { events } = await run.handle.fetchHistory();
      const queues = (events ?? []).flatMap(({ activityTaskScheduledEventAttributes: scheduled }) =>
        scheduled?.activityType?.name === 'recoverReplica' ? [scheduled.taskQueue?.name] : [],
      );
      expect(new Set(queues)).toEqual(new Set([`${workflows.taskQueue}-waits`]));
    });

    test('after a failure no other is begun, and nothing is dropped before those that were begun have ended', async () => {
      const run = await workflows.start('RestoreCluster', ONE, {
        placeReplicas: () => REPLICAS,
        recoverReplica: async ({ shard }) => {
          await run.saw('recoverReplica', 8);
          if (shard === 0) gaveUp('TopologyUnstable')();
        },
      });
      expect(await run.outcome()).toMatchObject({ status: 'FAILED' });
      expectNoPullDuringADrop(run);
      expect(run.of('recoverReplica').length).toBeLessThan(20);
    });
  });

  test('through a worker: on the transfer queue, and never repeated by itself', async () => {
    const plan = {
      location: LOCATION,
      spec: SPEC,
      qdrantVersion: '1.18.3',
      via: 'worker',
      transferQueue: workflows.taskQueue,
    } as const;
    const run = await workflows.run('RestoreCluster', ONE, {
      openBackup: () => ({ ...plan, collections: [{ name: 'one', shards: 1, bytes: 1000 }] }),
      relayReplica: flaky(1, gaveUp('QdrantUnavailable'), () => ({ relayed: 1000 })),
    });
    expect(run.ended).toMatchObject({ status: 'COMPLETED', result: { bytes: 1000, relayed: 3000 } });
    expect(run.of('recoverReplica')).toEqual([]);
    // Two of the round that failed, two of the next.
    expect(run.of('relayReplica')).toHaveLength(4);
    expect(run.of('dropRestoredCollection')).toHaveLength(1);
  });

  test('a dry run asks the gates and writes nothing, not even a lease on the backup', async () => {
    const preview = {
      ...{ allowed: false, unknown: [], peers: 2, collections: 1, replaced: [] },
      ...{ shardReplicas: 2, bytesToPull: 2000, bytesNeededPerNode: 2000 },
      refusals: [{ gate: 'existing' as const, detail: 'It is there.', remedy: 'rename it' }],
    };
    const run = await workflows.run('RestoreCluster', { ...ONE, dryRun: true }, { previewRestore: () => preview });
    expect(run.ended).toEqual({ status: 'COMPLETED', result: { ...preview, dryRun: true } });
    expect(run.names).toEqual(['openBackup', 'clusterExists', 'previewRestore']);
    expect(run.of('openBackup')[0]?.input).toMatchObject({ dryRun: true });
    expect(run.of('takeLease')).toEqual([]);
    const { steps } = await run.progress();
    expect(steps.find(({ name }) => name === 'Check the gates')).toMatchObject({ message: 'It is there.' });
    expect(steps.filter(({ phase }) => phase === 'skipped')).toHaveLength(4);
    const fresh = await workflows.run(
      'RestoreCluster',
      { ...ONE, dryRun: true, nodes: 5 },
      {
        ...NEW,
        previewRestore: () => preview,
      },
    );
    expect(fresh.of('previewRestore')[0]?.input).toMatchObject({ nodes: 5 });
    expect(await childTypes(fresh)).toEqual([]);
  });
});

describe.concurrent('RestoreCluster in place', () => {
  const FRESH = '20261121T040000Z-5e6f7a8b';
  const IN_PLACE = { ...ONE, inPlace: true };
  const THERE: Fakes = {
    checkRestoreGates: () => ({ replaced: ['one'], unknown: [] }),
    planBackup: () => ({
      ...{ location: { ...LOCATION, cluster: 'again', backup: FRESH }, attempt: 'run-1', lanes: lanesOf(TASKS) },
      ...{ transferQueue: workflows.taskQueue, startedAt: '2026-11-21T04:00:00.000Z' },
    }),
  };

  /** What is done with collections, in order; those that are proven beside the old ones are called "proof". */
  const told = (run: Run) =>
    run.calls.flatMap(({ name, input }) => {
      const what = String(input.as ?? input.collection).replace(/^fleet-proof-[0-9a-f]{8}-\d+$/, 'proof');
      switch (name) {
        case 'createRestoredCollection':
          return [`make ${what} from ${input.location.backup === FRESH ? 'the fresh backup' : 'the backup'}`];
        case 'dropReplacedCollection':
          return [`drop the old ${what}`];
        case 'dropRestoredCollection':
          return [`drop our ${what}`];
        case 'restoreAliases':
          return [
            `aliases of ${input.collections} from ${input.location.backup === FRESH ? 'the fresh backup' : 'the backup'}`,
          ];
        default:
          return [];
      }
    });
  const PROVEN = ['make proof from the backup', 'drop our proof'];
  const BACK = ['make one from the fresh backup', 'aliases of one from the fresh backup'];
  /** Nothing is wrong with the proof, nor with the fresh backup. */
  const onlyInPlace =
    <T>(fake: () => T, answer: () => T) =>
    ({ as, location }: { as?: string; location: { backup: string } }): T =>
      as === undefined && location.backup !== FRESH ? fake() : answer();
  const openFresh: Fakes['openBackup'] = ({ source, backup, collections = ['one'] }) => ({
    location: { ...LOCATION, cluster: source, backup },
    collections: collections.map((name) => ({ name, shards: 1, bytes: 1000 })),
    spec: SPEC,
    qdrantVersion: '1.18.3',
  });
  const COUNTED = () => ({ points: 10, compared: 5, unsampled: 0 });

  test('gates, a fresh backup of what goes, the lease, the gates again, the proof, and then the drop', async () => {
    const run = await workflows.run('RestoreCluster', IN_PLACE, THERE);
    expect(run.ended).toMatchObject({ status: 'COMPLETED', result: { freshBackup: FRESH, points: 10 } });
    expect(await childTypes(run)).toEqual(['BackupCluster']);
    expect(run.of('planBackup')[0]?.input).toMatchObject({ ...TARGET, collections: ['one'] });
    const order = run.calls.map(({ name, input }) => (name === 'takeLease' ? `lease ${input.mode}` : name));
    const seen = ['checkRestoreGates', 'lease shared', 'commitBackup', 'lease exclusive', 'dropReplacedCollection'];
    expect(order.filter((name) => seen.includes(name))).toEqual([
      ...['checkRestoreGates', 'lease shared', 'commitBackup', 'lease exclusive'],
      ...['checkRestoreGates', 'dropReplacedCollection'],
    ]);
    expect(run.of('dropReplacedCollection')[0]?.input).toEqual({ target: TARGET, collection: 'one', keptIn: FRESH });
    expect(told(run)).toEqual([
      ...PROVEN,
      ...['drop the old one', 'make one from the backup', 'aliases of one from the backup'],
    ]);
    expect(phases(run)).toEqual(['RESTORING', 'HEALTHY']);
  });

  test('a backup that cannot be loaded: the proof finds it out, and nothing was dropped', async () => {
    const run = await workflows.run('RestoreCluster', IN_PLACE, {
      ...THERE,
      verifyRestoredCollection: fails('IntegrityMismatch', 'Nine points of ten.'),
    });
    expect(run.ended.message).toBe(
      `Nine points of ten. Nothing was dropped; the backup ${FRESH} of again was made before.`,
    );
    expect(told(run)).toEqual(PROVEN);
  });

  test('no room for a proof: it is left out, and the step says why', async () => {
    const run = await workflows.run('RestoreCluster', IN_PLACE, {
      ...THERE,
      checkRestoreGates: () => ({ replaced: ['one'], unknown: [], notBeside: 'the disks are full' }),
    });
    expect(run.ended.status).toBe('COMPLETED');
    expect(told(run)[0]).toBe('drop the old one');
    const { steps } = await run.progress();
    expect(steps.find(({ name }) => name.startsWith('Prove'))).toMatchObject({
      phase: 'skipped',
      message: 'there is no room beside them: the disks are full',
    });
  });

  test('nothing of it is there: no backup, no drop', async () => {
    const run = await workflows.run('RestoreCluster', IN_PLACE);
    expect(run.ended.status).toBe('COMPLETED');
    expect(run.of('planBackup')).toEqual([]);
    expect(run.of('dropReplacedCollection')).toEqual([]);
  });

  test.for([
    ['a gate refuses', { checkRestoreGates: fails('RestoreRefused', 'Too old.') }],
    ['the fresh backup fails', { commitBackup: fails('TopologyUnstable', 'Shards move.') }],
    ['the cluster does not exist', NEW],
  ] as const)('%s: nothing was dropped', async ([, fakes]) => {
    const run = await workflows.run('RestoreCluster', IN_PLACE, { ...THERE, ...fakes });
    expect(run.ended.status).toBe('FAILED');
    expect(run.of('dropReplacedCollection')).toEqual([]);
    expect(run.of('dropRestoredCollection')).toEqual([]);
    expect(run.names).not.toContain('installRelease');
  });

  test('a collection that appeared after the fresh backup is not dropped', async () => {
    const run = await workflows.run(
      'RestoreCluster',
      { ...INPUT, inPlace: true },
      {
        ...THERE,
        checkRestoreGates: flaky(1, (() => ({ replaced: ['one'], unknown: [] })) as () => never, () => ({
          replaced: ['one', 'two'],
          unknown: [],
        })),
      },
    );
    expect(run.ended).toMatchObject({ type: 'RestoreRefused' });
    expect(run.ended.message).toBe(
      `"two" appeared in the target after its backup. Start again. Nothing was dropped; the backup ${FRESH} of again was made before.`,
    );
    expect(run.of('dropReplacedCollection')).toEqual([]);
  });

  test('a failure after the drop: ours is dropped, the old is put back, with its aliases', async () => {
    const run = await workflows.run('RestoreCluster', IN_PLACE, {
      ...THERE,
      openBackup: openFresh,
      verifyRestoredCollection: onlyInPlace(fails('IntegrityMismatch', 'Nine points of ten.'), COUNTED),
    });
    expect(run.ended).toEqual({
      status: 'FAILED',
      type: 'IntegrityMismatch',
      message: `Nine points of ten. What was replaced is back as it was before, from backup ${FRESH} of again.`,
    });
    expect(told(run)).toEqual([
      ...PROVEN,
      ...['drop the old one', 'make one from the backup', 'drop our one'],
      ...BACK,
    ]);
    expect(phases(run)).toEqual(['RESTORING', 'HEALTHY']);
    expect(run.of('closeBackup').map(({ input }) => String(input.backup))).toEqual([BACKUP, FRESH]);
  });

  test('cancelled after the drop: the old is put back, however often it is cancelled, and it is just cancelled', async () => {
    const putting = gate();
    const run = await workflows.start('RestoreCluster', IN_PLACE, {
      ...THERE,
      openBackup: openFresh,
      recoverReplica: async ({ as, location }) => {
        if (location.backup === FRESH) await putting.promise;
        else if (as === undefined) await untilCancelled();
      },
    });
    await run.saw('dropReplacedCollection ended');
    await run.saw('recoverReplica', 4);
    await run.handle.cancel();
    await run.saw('recoverReplica', 6);
    await run.handle.cancel();
    putting.resolve();
    expect(await run.outcome()).toEqual({ status: 'CANCELLED' });
    expect(told(run).slice(-2)).toEqual(BACK);
    expect(run.ends).toMatchObject([{ state: 'cancelled' }]);
    expectNoPullDuringADrop(run);
  });

  test.for([
    ['the old is gone', [], BACK],
    ['the old is still there', ['one'], []],
  ] as const)('a drop that fails may have happened, and %s', async ([, replaced, back]) => {
    const run = await workflows.run('RestoreCluster', IN_PLACE, {
      ...THERE,
      openBackup: openFresh,
      dropReplacedCollection: gaveUp('QdrantUnavailable', 'No answer.'),
      previewRestore: () => ({
        ...{ allowed: true, refusals: [], unknown: [], peers: 2, collections: 1, replaced },
        ...{ shardReplicas: 2, bytesToPull: 2000, bytesNeededPerNode: 2000 },
      }),
    });
    expect(run.ended.message).toContain('No answer. What was replaced is back as it was before');
    expect(told(run)).toEqual([...PROVEN, 'drop the old one', ...back]);
  });

  test('it cannot be put back: somebody has to look, and is told the command that brings it back', async () => {
    const run = await workflows.run('RestoreCluster', IN_PLACE, {
      ...THERE,
      openBackup: (input) => (input.backup === FRESH ? fails('StoreDenied', 'No entry.')() : openFresh(input)),
      verifyRestoredCollection: onlyInPlace(fails('IntegrityMismatch', 'Nine points of ten.'), COUNTED),
    });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'CleanupIncomplete' });
    const [before, command] = (run.ended.message ?? '').split("--input '");
    expect(before).toContain(`No entry. What was dropped is in backup ${FRESH} of again`);
    expect(before).toContain(`temporal workflow start --type RestoreCluster --task-queue ${workflows.taskQueue}`);
    expect(JSON.parse(command?.replace(/'\)\.$/, '') ?? '')).toEqual({
      ...{ tenant: 'acme', source: 'again', backup: FRESH, cluster: 'again', collections: ['one'] },
    });
    expect(run.ends).toMatchObject([{ state: 'failed', error: { code: 'CleanupIncomplete' } }]);
  });

  test('cancelled before the drop: just cancelled', async () => {
    const run = await workflows.start('RestoreCluster', IN_PLACE, {
      ...THERE,
      dropReplacedCollection: untilCancelled,
      commitBackup: untilCancelled,
    });
    await run.saw('commitBackup');
    await run.handle.cancel();
    expect(await run.outcome()).toEqual({ status: 'CANCELLED' });
    expect(run.of('dropReplacedCollection')).toEqual([]);
  });
});

describe.concurrent('RestoreCluster into a new cluster', () => {
  test('a specification in the backup that names another tenant makes a cluster of the tenant who asks', async () => {
    const openBackup: Fakes['openBackup'] = ({ source, backup }) => ({
      location: { ...LOCATION, cluster: source, backup },
      collections: [{ name: 'one', shards: 1, bytes: 1000 }],
      spec: { ...SPEC, tenant: 'victim', cluster: 'docs' } as typeof SPEC,
      qdrantVersion: '1.18.3',
    });
    const run = await workflows.run('RestoreCluster', INPUT, { ...NEW, openBackup });
    expect(run.of('reserveCluster').map(({ input }) => input)).toMatchObject([TARGET]);
    expect(run.of('takeLease').every(({ input }) => input.tenant === 'acme' && input.cluster === 'again')).toBe(true);
  });

  test('makes it like the one backed up, empty, with the number of nodes asked for', async () => {
    const run = await workflows.run('RestoreCluster', { ...INPUT, nodes: 5 }, NEW);
    expect(run.ended.status).toBe('COMPLETED');
    expect(await childTypes(run)).toEqual(['ProvisionCluster']);
    expect(run.of('reserveCluster')[0]?.input).toMatchObject({ ...TARGET, request: { nodes: 5, collections: [] } });
    expect(run.of('ensureCollection')).toEqual([]);
    // The child's lease is let go of before ours is taken.
    expect(run.of('takeLease').map(({ workflowId }) => workflowId)).toEqual([
      `${run.handle.workflowId}/provision`,
      run.handle.workflowId,
    ]);
    expect(run.ends).toHaveLength(1);
  });

  test('what is known before there is a cluster is refused without making one', async () => {
    const run = await workflows.run(
      'RestoreCluster',
      { ...INPUT, nodes: 3 },
      {
        ...NEW,
        checkRestoreGates: fails('RestoreRefused', 'Too few nodes.'),
      },
    );
    expect(run.ended).toMatchObject({ type: 'RestoreRefused', message: 'Too few nodes.' });
    expect(run.of('checkRestoreGates')[0]?.input).toMatchObject({ nodes: 3 });
    expect(await childTypes(run)).toEqual([]);
  });

  const refusedLater = () =>
    flaky(1, (() => ({ replaced: [], unknown: [] })) as () => never, (): { replaced: string[]; unknown: string[] } =>
      fails('RestoreRefused', 'Too old.')(),
    );

  test('a gate refuses: the cluster that was made is deleted again', async () => {
    const run = await workflows.run('RestoreCluster', INPUT, { ...NEW, checkRestoreGates: refusedLater() });
    expect(run.ended.type).toBe('RestoreRefused');
    expect(await childTypes(run)).toEqual(['ProvisionCluster', 'DeleteCluster']);
    expect(run.names.indexOf('releaseLease')).toBeLessThan(run.names.lastIndexOf('uninstallRelease'));
    expect(run.names.at(-1)).toBe('closeBackup');
  });

  test('a collection fails: the cluster goes as a whole', async () => {
    const run = await workflows.run('RestoreCluster', ONE, {
      ...NEW,
      verifyRestoredCollection: fails('IntegrityMismatch'),
      dropRestoredCollection: gaveUp('QdrantUnavailable'),
    });
    expect(run.ended).toEqual({
      status: 'FAILED',
      type: 'IntegrityMismatch',
      message: 'IntegrityMismatch on purpose.',
    });
    expect(run.of('dropRestoredCollection')).toEqual([]);
    expect(run.names).toContain('forgetCluster');
  });

  test('the cluster cannot be made: it cleaned up after itself, and what it left is told', async () => {
    const run = await workflows.run('RestoreCluster', INPUT, {
      ...NEW,
      installRelease: fails('ChartFailed', 'No chart.'),
      removeNamespace: gaveUp('KubernetesUnavailable', 'Kubernetes is gone.'),
    });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'ChartFailed' });
    expect(run.ended.message).toBe('No chart. Left behind: namespace of acme/again (Kubernetes is gone.).');
    expect(await childTypes(run)).toEqual(['ProvisionCluster']);
    expect(run.names.at(-1)).toBe('closeBackup');
    expect(run.ends).toMatchObject([{ error: { code: 'ChartFailed', message: run.ended.message } }]);
  });

  test('the cluster cannot be deleted again: it is left behind, and told', async () => {
    const run = await workflows.run('RestoreCluster', INPUT, {
      ...NEW,
      checkRestoreGates: refusedLater(),
      uninstallRelease: gaveUp('ChartFailed', 'Helm is broken.'),
    });
    expect(run.ended.message).toBe('Too old. Left behind: cluster acme/again (Helm is broken.).');
    expect(run.names.at(-1)).toBe('closeBackup');
  });

  test('cancelled while the cluster is made: it is gone before the restore ends', async () => {
    const run = await workflows.start('RestoreCluster', INPUT, { ...NEW, awaitPeers: untilCancelled });
    await run.saw('awaitPeers');
    await run.handle.cancel();
    expect(await run.outcome()).toEqual({ status: 'CANCELLED' });
    expect(run.names.slice(-5)).toEqual([
      'uninstallRelease',
      'deleteVolumeClaims',
      'removeNamespace',
      'forgetCluster',
      'closeBackup',
    ]);
    const child = workflows.client.workflow.getHandle(`${run.handle.workflowId}/provision`);
    expect((await child.describe()).status.name).toBe('CANCELLED');
  });

  test('cancelled while collections are restored: the cluster is deleted', async () => {
    const run = await workflows.start('RestoreCluster', ONE, { ...NEW, recoverReplica: untilCancelled });
    await run.saw('recoverReplica', 2);
    await run.handle.cancel();
    expect(await run.outcome()).toEqual({ status: 'CANCELLED' });
    expect(await childTypes(run)).toEqual(['ProvisionCluster', 'DeleteCluster']);
    expect(run.ends).toMatchObject([{ state: 'cancelled' }]);
  });
});
