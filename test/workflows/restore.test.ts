/** `RestoreCluster`: gates, recoveries with unknown outcome, and what is removed when it fails: only what it made. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  BACKUP,
  fails,
  flaky,
  gate,
  gaveUp,
  ignoringCancellation,
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
    const second = gate<{ points: number }>();
    const run = await workflows.start('RestoreCluster', INPUT, {
      recoverReplica: ({ collection }) => {
        if (collection === 'one') throw gaveUp('IntegrityMismatch')();
        return Promise.resolve();
      },
      verifyRestoredCollection: () => second.promise,
    });
    await run.saw('recoverReplica ended', 4);
    await run.saw('verifyRestoredCollection');
    expect(run.of('dropRestoredCollection')).toEqual([]);
    second.resolve({ points: 10 });
    expect(await run.outcome()).toMatchObject({ type: 'IntegrityMismatch' });
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

  test.for(['QdrantUnavailable', 'StoreUnavailable', 'KubernetesUnavailable', 'SomethingElse'])(
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

  test('a gate refuses: the cluster that was made is deleted again', async () => {
    const run = await workflows.run('RestoreCluster', INPUT, { ...NEW, checkRestoreGates: fails('RestoreRefused') });
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
      checkRestoreGates: fails('RestoreRefused', 'Too old.'),
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
