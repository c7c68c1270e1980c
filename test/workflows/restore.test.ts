/** `RestoreCluster`: gates, recoveries with unknown outcome, and what is removed when it fails: only what it made. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  lanesOf,
  BACKUP,
  fails,
  flaky,
  gate,
  gaveUp,
  ignoringCancellation,
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
    expect(run.names.slice(0, 4)).toEqual([
      'openBackup',
      'clusterExists',
      'checkRestoreGates',
      'createRestoredCollection',
    ]);
    expect(run.of('takeLease').map(({ input }) => input)).toEqual([{ ...TARGET, mode: 'exclusive' }]);
    expect(run.names.slice(-2)).toEqual(['restoreAliases', 'closeBackup']);
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
    expect(run.names.slice(3, -2)).toEqual([
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

  test.for(['openBackup', 'checkRestoreGates', 'recoverReplica', 'restoreAliases', 'closeBackup'] as const)(
    'cancelled during %s: CANCELLED after clean-up',
    async (step) => {
      const before = step === 'openBackup' || step === 'checkRestoreGates';
      const fake =
        step === 'closeBackup'
          ? flaky(
              1,
              () => blocked() as never,
              () => Promise.resolve(),
            )
          : untilCancelled;
      const run = await workflows.start('RestoreCluster', ONE, { [step]: fake });
      await run.saw(step);
      await run.handle.cancel();
      expect(await run.outcome()).toEqual({ status: 'CANCELLED' });
      expect(collectionsOf(run, 'dropRestoredCollection')).toEqual(before ? [] : ['one']);
      expect(run.names.at(-1)).toBe('closeBackup');
      expect(run.ends).toMatchObject([{ state: 'cancelled' }]);
      expectNoPullDuringADrop(run);

      function blocked() {
        return ignoringCancellation(() => undefined);
      }
    },
  );
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

  test('the aliases follow the new names, or are left out', async () => {
    const renamed = await workflows.run('RestoreCluster', { ...ONE, rename: { one: 'uno' } });
    expect(renamed.of('restoreAliases')[0]?.input).toMatchObject({ collections: ['one'], rename: { one: 'uno' } });
    const without = await workflows.run('RestoreCluster', { ...ONE, aliases: false });
    expect(without.ended).toMatchObject({ status: 'COMPLETED', result: { aliases: 0 } });
    expect(without.of('restoreAliases')).toEqual([]);
    expect(without.of('checkRestoreGates')[0]?.input).toMatchObject({ aliases: false });
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

  test('a dry run asks the gates, lets go of the backup and writes nothing', async () => {
    const preview = {
      ...{ allowed: false, unknown: [], peers: 2, collections: 1, replaced: [] },
      ...{ shardReplicas: 2, bytesToPull: 2000, bytesNeededPerNode: 2000 },
      refusals: [{ gate: 'existing' as const, detail: 'It is there.', remedy: 'rename it' }],
    };
    const run = await workflows.run('RestoreCluster', { ...ONE, dryRun: true }, { previewRestore: () => preview });
    expect(run.ended).toEqual({ status: 'COMPLETED', result: { ...preview, dryRun: true } });
    expect(run.names).toEqual(['openBackup', 'clusterExists', 'previewRestore', 'closeBackup']);
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

  test('gates, a fresh backup of what goes, the lease, the gates again, and then the drop', async () => {
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
    expect(order.indexOf('createRestoredCollection')).toBeGreaterThan(order.indexOf('dropReplacedCollection'));
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

  test('a failure after the drop tells the backup and the command that brings it back', async () => {
    const run = await workflows.run('RestoreCluster', IN_PLACE, {
      ...THERE,
      verifyRestoredCollection: fails('IntegrityMismatch', 'Nine points of ten.'),
    });
    expect(run.ended.type).toBe('IntegrityMismatch');
    const [told, command] = (run.ended.message ?? '').split("--input '");
    expect(told).toContain(`Nine points of ten. What was dropped is in backup ${FRESH} of again`);
    expect(told).toContain(`temporal workflow start --type RestoreCluster --task-queue ${workflows.taskQueue}`);
    expect(JSON.parse(command?.replace(/'$/, '') ?? '')).toEqual({
      ...{ tenant: 'acme', source: 'again', backup: FRESH, cluster: 'again', collections: ['one'] },
    });
    // Ours, made after the drop.
    expect(collectionsOf(run, 'dropRestoredCollection')).toEqual(['one']);
  });

  test('a drop that fails may have happened: the same is told, and nothing of ours is dropped', async () => {
    const run = await workflows.run('RestoreCluster', IN_PLACE, {
      ...THERE,
      dropReplacedCollection: gaveUp('QdrantUnavailable', 'No answer.'),
    });
    expect(run.ended.message).toContain(`No answer. What was dropped is in backup ${FRESH}`);
    expect(run.of('dropRestoredCollection')).toEqual([]);
  });

  test('cancelled after the drop: a failure that somebody sees, with the same words', async () => {
    const run = await workflows.start('RestoreCluster', IN_PLACE, { ...THERE, recoverReplica: untilCancelled });
    await run.saw('recoverReplica', 2);
    await run.handle.cancel();
    const ended = await run.outcome();
    expect(ended).toMatchObject({ status: 'FAILED', type: 'CleanupIncomplete' });
    expect(ended.message).toContain(`What was dropped is in backup ${FRESH}`);
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
