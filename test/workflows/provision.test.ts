/** `ProvisionCluster` and `DeleteCluster`: their steps, and what is taken back when one fails or the user cancels. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FLEET_CLUSTER, FLEET_OPERATION, FLEET_PHASE, FLEET_TENANT } from '../../src/temporal-search-attributes.ts';
import {
  fails,
  gate,
  gaveUp,
  ignoringCancellation,
  REF,
  untilCancelled,
  Workflows,
  type ActivityName,
  type Fakes,
} from './support.ts';

let workflows: Workflows;
beforeAll(async () => {
  workflows = await Workflows.open();
});
afterAll(() => workflows.close());

const STEPS = [
  'reserveCluster',
  'ensureNamespace',
  'ensureApiKey',
  'applySurroundings',
  'installRelease',
  'awaitPeers',
  'ensureCollection',
  'ensureCollection',
  'setClusterPhase',
];

/** What is undone when a step fails: last first, and only what was begun. */
const ROW = ['forgetCluster'];
const NAMESPACE = ['removeNamespace', ...ROW];
const RELEASE = ['uninstallRelease', 'deleteVolumeClaims', ...NAMESPACE];
const UNDO = {
  // Its answer may be lost although the row was written; only a row of this operation goes.
  reserveCluster: ROW,
  ensureNamespace: NAMESPACE,
  ensureApiKey: NAMESPACE,
  installRelease: RELEASE,
  awaitPeers: RELEASE,
  ensureCollection: RELEASE,
} as const satisfies Partial<Record<ActivityName, readonly string[]>>;
const UNDOING = new Set<string>(RELEASE);

const undone = (names: readonly string[]) => names.filter((name) => UNDOING.has(name));
const onlyUndoneAtTheEnd = (names: readonly string[]) =>
  names.slice(names.findIndex((name) => UNDOING.has(name))).every((name) => UNDOING.has(name));

function succeedingAs(name: ActivityName): unknown {
  switch (name) {
    case 'reserveCluster':
      return { provider: 'kubernetes', nodes: 1, storage: '1Gi', replicationFactor: 1, collections: [] };
    case 'installRelease':
      return { revision: 1 };
    case 'awaitPeers':
      return { qdrantVersion: '1.18.3' };
    default:
      return undefined;
  }
}

describe.concurrent('ProvisionCluster', () => {
  test('takes the lease first, then every step once, and undoes nothing', async () => {
    const run = await workflows.run('ProvisionCluster', { ...REF, nodes: 2 });
    expect(run.ended).toMatchObject({
      status: 'COMPLETED',
      result: { ...REF, qdrantVersion: '1.18.3', namespace: 'fleet-acme--docs', serviceName: 'qdrant' },
    });
    expect(run.calls.slice(0, 2).map(({ name }) => name)).toEqual(['registerOperation', 'takeLease']);
    expect(run.of('takeLease')[0]?.input).toMatchObject({ mode: 'exclusive' });
    expect(run.names).toEqual(STEPS);
    expect(run.ends).toMatchObject([{ state: 'done', result: { ...REF, qdrantVersion: '1.18.3' } }]);
    expect(await run.progress()).toMatchObject({ kind: 'provision', phase: 'done', percent: 100 });
    const attributes = await run.attributes();
    expect([FLEET_TENANT, FLEET_CLUSTER, FLEET_OPERATION, FLEET_PHASE].map((key) => attributes.get(key))).toEqual([
      'acme',
      'docs',
      'provision',
      'done',
    ]);
  });

  test.for(Object.entries(UNDO))('%s fails: what was begun is undone, last first', async ([step, undo]) => {
    const run = await workflows.run('ProvisionCluster', REF, { [step]: fails('ChartFailed', 'No such thing.') });
    expect(run.ended).toEqual({ status: 'FAILED', type: 'ChartFailed', message: 'No such thing.' });
    expect(undone(run.names)).toEqual(undo);
    if (undo.length > 0) expect(onlyUndoneAtTheEnd(run.names)).toBe(true);
    expect(run.ends).toEqual([{ state: 'failed', error: { code: 'ChartFailed', message: 'No such thing.' } }]);
    const progress = await run.progress();
    expect(progress.phase).toBe('failed');
    expect(progress.steps.filter(({ phase }) => phase === 'failed')).toMatchObject([{ message: 'No such thing.' }]);
  });

  test('the namespace is undone only if this operation made it', async () => {
    const run = await workflows.run('ProvisionCluster', REF, { ensureNamespace: fails('NamespaceNotOurs') });
    expect(run.ended.type).toBe('NamespaceNotOurs');
    expect(run.of('removeNamespace').map(({ input }) => input)).toEqual([{ ...REF, onlyOwn: true }]);
  });

  test('a compensation that fails does not keep the others from running, and is reported', async () => {
    const run = await workflows.run('ProvisionCluster', REF, {
      awaitPeers: fails('QdrantRejected', 'The peers refuse.'),
      uninstallRelease: gaveUp('ChartFailed', 'Helm is broken.'),
      removeNamespace: gaveUp('KubernetesUnavailable', 'Kubernetes is gone.'),
    });
    expect(undone(run.names)).toEqual(RELEASE);
    expect(run.ended.type).toBe('QdrantRejected');
    expect(run.ended.message).toBe(
      'The peers refuse. Left behind: Helm release (Helm is broken.); namespace of acme/docs (Kubernetes is gone.).',
    );
    expect(run.ends).toEqual([{ state: 'failed', error: { code: 'QdrantRejected', message: run.ended.message } }]);
  });

  const CANCELLABLE = ['registerOperation', 'takeLease', ...Object.keys(UNDO)] as ActivityName[];

  test.for(CANCELLABLE)('cancelled during %s: undone, then CANCELLED', async (step) => {
    const run = await workflows.start('ProvisionCluster', REF, { [step]: untilCancelled });
    await run.saw(step);
    await run.handle.cancel();
    expect(await run.outcome()).toEqual({ status: 'CANCELLED' });
    expect(undone(run.names)).toEqual((UNDO as Record<string, readonly string[]>)[step] ?? []);
    expect(run.ends).toMatchObject([{ state: 'cancelled', error: { code: 'Cancelled' } }]);
    expect(await run.progress()).toMatchObject({ phase: 'cancelled' });
  });

  test.for(CANCELLABLE)('cancelled during %s, which takes no notice: undone all the same', async (step) => {
    const fakes = { [step]: () => ignoringCancellation(() => succeedingAs(step)) } as Fakes;
    const run = await workflows.start('ProvisionCluster', REF, fakes);
    await run.saw(step);
    await run.handle.cancel();
    expect(await run.outcome()).toEqual({ status: 'CANCELLED' });
    // The step happened, so its own compensation runs too.
    const expected = (UNDO as Record<string, readonly string[]>)[step] ?? [];
    expect(undone(run.names).slice(-expected.length || Infinity)).toEqual(expected);
    expect(onlyUndoneAtTheEnd(run.names) || undone(run.names).length === 0).toBe(true);
    expect(run.ends).toMatchObject([{ state: 'cancelled' }]);
  });

  test('cancelled between two attempts of an activity: CANCELLED, not its last failure', async () => {
    const run = await workflows.start('ProvisionCluster', REF, { awaitPeers: fails('ClusterNotReady') });
    await run.saw('awaitPeers ended');
    await run.handle.cancel();
    expect(await run.outcome()).toEqual({ status: 'CANCELLED' });
    expect(undone(run.names)).toEqual(RELEASE);
    expect(run.ends).toMatchObject([{ state: 'cancelled' }]);
  });

  test('cancelling again while it cleans up changes nothing', async () => {
    const cleaning = gate();
    const run = await workflows.start('ProvisionCluster', REF, {
      awaitPeers: untilCancelled,
      removeNamespace: () => cleaning.promise,
    });
    await run.saw('awaitPeers');
    await run.handle.cancel();
    await run.saw('removeNamespace');
    expect(await run.progress()).toMatchObject({ phase: 'cleaning up' });
    await run.handle.cancel();
    cleaning.resolve();
    expect(await run.outcome()).toEqual({ status: 'CANCELLED' });
    expect(undone(run.names)).toEqual(RELEASE);
    expect(run.ends).toHaveLength(1);
  });

  test('cancelled with something left behind: FAILED, so that somebody looks', async () => {
    const run = await workflows.start('ProvisionCluster', REF, {
      awaitPeers: untilCancelled,
      removeNamespace: gaveUp('KubernetesUnavailable', 'Kubernetes is gone.'),
    });
    await run.saw('awaitPeers');
    await run.handle.cancel();
    const ended = await run.outcome();
    expect(ended).toMatchObject({ status: 'FAILED', type: 'CleanupIncomplete' });
    expect(ended.message).toContain('Left behind: namespace of acme/docs (Kubernetes is gone.)');
    expect(undone(run.names)).toEqual(RELEASE);
    expect(run.ends).toHaveLength(1);
    expect(run.ends[0]?.error?.message).toContain('Left behind');
  });

  test('a busy cluster: nothing is undone, and the end is recorded', async () => {
    const run = await workflows.run('ProvisionCluster', REF, { takeLease: fails('ClusterBusy', 'Held by "x".') });
    expect(run.ended).toEqual({ status: 'FAILED', type: 'ClusterBusy', message: 'Held by "x".' });
    expect(run.names).toEqual([]);
    expect(run.ends).toEqual([{ state: 'failed', error: { code: 'ClusterBusy', message: 'Held by "x".' } }]);
  });

  test.for(['google', 'azure'])('provider %s: not supported, and nothing was done', async (provider) => {
    const run = await workflows.run('ProvisionCluster', { ...REF, provider });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'ProviderNotSupported' });
    expect(run.calls.map(({ name }) => name)).toEqual(['registerOperation', 'endOperation']);
    expect(run.ends).toMatchObject([{ state: 'failed', error: { code: 'ProviderNotSupported' } }]);
  });

  test('peers that never come up: the failure says what was awaited', async () => {
    const run = await workflows.run(
      'ProvisionCluster',
      { ...REF, readyTimeoutSeconds: 1 },
      { awaitPeers: fails('ClusterNotReady', '2 of 3 peers answer.') },
    );
    expect(run.ended).toEqual({ status: 'FAILED', type: 'ClusterNotReady', message: '2 of 3 peers answer.' });
    expect(undone(run.names)).toEqual(RELEASE);
  });

  test('a collection whose name is long and full of emoji does not get in the way', async () => {
    const collections = [{ name: '🦀'.repeat(127), vectorSize: 4 }];
    const run = await workflows.run('ProvisionCluster', { ...REF, collections });
    expect(run.ended.status).toBe('COMPLETED');
  });

  test('the operation succeeded and its end cannot be recorded: what was made stays', async () => {
    const run = await workflows.run('ProvisionCluster', REF, { endOperation: gaveUp('CatalogUnavailable') });
    expect(undone(run.names)).toEqual([]);
    expect(run.ends).toHaveLength(1);
    expect(run.ended).toMatchObject({ status: 'COMPLETED', result: { qdrantVersion: '1.18.3' } });
  });

  test('the operation failed and its end cannot be recorded: the failure is the one that matters', async () => {
    const run = await workflows.run('ProvisionCluster', REF, {
      installRelease: fails('ChartFailed', 'No chart.'),
      endOperation: gaveUp('CatalogUnavailable'),
    });
    expect(undone(run.names)).toEqual(RELEASE);
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'ChartFailed' });
  });

  test('progress counts steps, and collections within their step', async () => {
    const second = gate();
    let created = 0;
    const run = await workflows.start('ProvisionCluster', REF, {
      ensureCollection: () => {
        created += 1;
        return created === 2 ? second.promise : Promise.resolve();
      },
    });
    await run.saw('ensureCollection', 2);
    const progress = await run.progress();
    expect(progress).toMatchObject({ phase: 'Create the collections', percent: Math.floor((100 * 7.5) / 9) });
    expect(progress.steps.map(({ phase }) => phase)).toEqual([...Array(7).fill('done'), 'running', 'pending']);
    expect(progress.steps[7]).toMatchObject({ message: '1 of 2 collections' });
    expect((await run.attributes()).get(FLEET_PHASE)).toBe('Create the collections');
    second.resolve();
    expect(await run.outcome()).toMatchObject({ status: 'COMPLETED' });
  });
});

describe.concurrent('inputs that are not valid fail at once and call nothing', () => {
  const TYPES = ['ProvisionCluster', 'DeleteCluster', 'BackupCluster', 'RestoreCluster', 'RetentionSweep'];
  const INPUTS = [undefined, null, 7, 'acme', [REF], {}, { tenant: 'Acme', cluster: 'docs' }, { ...REF, surprise: 1 }];

  test.for(TYPES)('%s', async (type) => {
    const runs = await Promise.all(INPUTS.map((input) => workflows.run(type, input)));
    for (const run of runs) {
      expect(run.ended).toMatchObject({ status: 'FAILED', type: 'InvalidInput' });
      expect(run.calls).toEqual([]);
    }
  });

  test('every bad field is named', async () => {
    const run = await workflows.run('ProvisionCluster', {
      tenant: 'acme',
      nodes: 0,
      collections: [{ vectorSize: 'x' }],
    });
    for (const field of ['cluster', 'nodes', 'collections[0].vectorSize']) expect(run.ended.message).toContain(field);
  });
});

describe.concurrent('DeleteCluster', () => {
  test('marks the cluster, removes everything, and forgets it last', async () => {
    const run = await workflows.run('DeleteCluster', REF, { forgetCluster: () => ({ schedules: 2 }) });
    expect(run.ended).toEqual({ status: 'COMPLETED', result: { ...REF, schedules: 2 } });
    expect(run.names).toEqual([
      'loadCluster',
      'setClusterPhase',
      'uninstallRelease',
      'deleteVolumeClaims',
      'removeNamespace',
      'forgetCluster',
    ]);
    expect(run.of('setClusterPhase')[0]?.input).toMatchObject({ phase: 'DELETING' });
    expect(run.ends).toMatchObject([{ state: 'done' }]);
  });

  test('a step fails: the cluster stays known, to be deleted again', async () => {
    const run = await workflows.run('DeleteCluster', REF, { deleteVolumeClaims: fails('KubernetesDenied') });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'KubernetesDenied' });
    expect(run.of('forgetCluster')).toEqual([]);
    expect(run.ends).toMatchObject([{ state: 'failed' }]);
  });

  test('cancelled: what is left is left, and CANCELLED', async () => {
    const run = await workflows.start('DeleteCluster', REF, { removeNamespace: untilCancelled });
    await run.saw('removeNamespace');
    await run.handle.cancel();
    expect(await run.outcome()).toEqual({ status: 'CANCELLED' });
    expect(run.of('forgetCluster')).toEqual([]);
    expect(run.ends).toMatchObject([{ state: 'cancelled' }]);
  });

  test('an unknown cluster', async () => {
    const run = await workflows.run('DeleteCluster', REF, { loadCluster: fails('ClusterNotFound') });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'ClusterNotFound' });
    expect(run.names).toEqual(['loadCluster']);
  });
});
