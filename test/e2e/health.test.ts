/** Clusters that lose a disk, a peer or their operation: the next look names it, and the remedy that it names works. */
import type { ChildProcess } from 'node:child_process';
import { AppsV1Api, CoreV1Api } from '@kubernetes/client-node';
import type { ApplicationFailure } from '@temporalio/common';
import type { WorkflowFailedError } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Condition } from '../../src/domain/conditions.ts';
import { namespaceOf, type ClusterRef } from '../../src/domain/naming.ts';
import { keepObserving, observationScheduleId } from '../../src/observation-schedule.ts';
import { exited, Fleet, smallPoints, until, type WorkerOptions } from '../support/fleet.ts';
import { notWhole } from '../support/whole-cluster.ts';

/** Seconds between two looks; the worker's default is 30. */
const EVERY = 5;
/** Seconds within which a fault has to be seen. */
const SEEN_WITHIN = 60;
const POINTS = 300;

let fleet: Fleet;
/** Dies when it has replaced a peer for the first time and has told nobody. */
let first: ChildProcess;
beforeAll(async () => {
  fleet = await Fleet.open();
  first = await watched({ failpoint: 'replacePeers:after' });
}, 240_000);
afterAll(async () => {
  await keepObserving(fleet.client, { taskQueue: fleet.taskQueue, seconds: 0 });
  await fleet.close();
});

/** A worker, and looks of the test's own instead of those that a worker would have made or removed at its start. */
async function watched(options: WorkerOptions = {}): Promise<ChildProcess> {
  const worker = await fleet.worker(options);
  const { client, taskQueue, tenant } = fleet;
  // Of this tenant only: all fleets of a test run share one catalogue.
  await keepObserving(client, { taskQueue, seconds: EVERY, tenant });
  return worker;
}

async function made(cluster: string, nodes: number): Promise<ClusterRef> {
  const ref = { tenant: fleet.tenant, cluster };
  const collections = [{ preset: 'documents', vectorSize: 4, shardNumber: 3, replicationFactor: 2 }];
  await fleet.run('ProvisionCluster', { ...ref, nodes, storage: '1Gi', collections });
  await (await fleet.access(cluster)).load('documents', smallPoints(POINTS));
  const last = `qdrant-${nodes - 1}`;
  await until('a look has seen all its pods', async () => (await row(ref)).identities[last] !== undefined);
  return ref;
}

async function row(ref: ClusterRef) {
  const found = await fleet.catalog.cluster(ref);
  if (found === undefined) throw new Error(`${ref.cluster} is not in the catalogue.`);
  return found;
}

/** A condition, once it says what it should. */
function condition(ref: ClusterRef, type: Condition['type'], message: RegExp | 'False'): Promise<Condition> {
  return until(
    `${type} of ${ref.cluster} says ${String(message)}`,
    async () => {
      const found = (await row(ref)).conditions.find((each) => each.type === type);
      if (message === 'False') return found?.status === 'False' && found;
      return found?.status === 'True' && message.test(found.message) && found;
    },
    SEEN_WITHIN,
  );
}

/** The claims of a pod and the pod itself go, as when its machine and its disk are lost. */
async function loseDisk(ref: ClusterRef, pod: string): Promise<void> {
  const namespace = namespaceOf(ref);
  const core = fleet.kubernetes(CoreV1Api);
  for (const name of [`qdrant-storage-${pod}`, `qdrant-snapshots-${pod}`]) {
    await core.deleteNamespacedPersistentVolumeClaim({ namespace, name });
  }
  await core.deleteNamespacedPod({ namespace, name: pod, gracePeriodSeconds: 0 });
}

async function failureOf(type: string, input: object): Promise<ApplicationFailure> {
  const error: unknown = await fleet.run(type, input).then(
    () => new Error('It came to its end.'),
    (failure: unknown) => failure,
  );
  return (error as WorkflowFailedError).cause as ApplicationFailure;
}

/** How many pods the StatefulSet wants: what Helm was last told. */
async function wanted(ref: ClusterRef): Promise<number | undefined> {
  const set = { namespace: namespaceOf(ref), name: 'qdrant' };
  return (await fleet.kubernetes(AppsV1Api).readNamespacedStatefulSet(set)).spec?.replicas;
}

async function whole({ cluster }: ClusterRef, nodes: number): Promise<string[]> {
  const digest = await (await fleet.access(cluster)).digest('documents');
  expect(digest.points).toBe(POINTS);
  return notWhole(fleet, cluster, { nodes, digest, collection: 'documents', replicas: 2 });
}

test('the last of three nodes loses its disk: seen, named, and repaired, also by a worker that is killed', async () => {
  const ref = await made('lost', 3);
  await loseDisk(ref, 'qdrant-2');
  const { message } = await condition(ref, 'Degraded', /The disk of qdrant-2 was lost/);
  expect(message).toContain('"repair": true');
  const seen = await row(ref);
  expect(seen.phase).toBe('NOT_READY');
  expect(seen.conditions.find(({ type }) => type === 'Ready')?.status).toBe('True');

  const refused = await failureOf('UpdateCluster', { ...ref, nodes: 4 });
  expect(refused).toMatchObject({
    type: 'UpdateRefused',
    message: expect.stringContaining('"repair": true') as string,
  });
  expect(await wanted(ref)).toBe(3);

  const dry = await fleet.run('UpdateCluster', { ...ref, repair: true, dryRun: true });
  expect(dry['steps']).toEqual(['Replace 1 lost peers', 'Make 2 missing replicas']);
  const repair = await fleet.start('UpdateCluster', { ...ref, repair: true });
  expect(await exited(first)).toBe('SIGKILL');
  await watched();
  expect(await repair.result()).toMatchObject({ steps: dry['steps'] });
  expect(await whole(ref, 3)).toEqual([]);
  await condition(ref, 'Degraded', 'False');
  expect((await row(ref)).phase).toBe('HEALTHY');
  expect(await fleet.run('UpdateCluster', { ...ref, repair: true })).toMatchObject({ steps: [] });
}, 240_000);

describe('one of two nodes loses its disk', () => {
  let ref: ClusterRef;
  beforeAll(async () => {
    ref = await made('two', 2);
    await loseDisk(ref, 'qdrant-1');
  }, 120_000);

  test('there is no majority: more nodes and a repair are refused before Helm, and a restore is named', async () => {
    const { message } = await condition(ref, 'Degraded', /The disk of qdrant-1 was lost/);
    expect(message).toContain('1 of 2 peers answer, which is no majority');
    expect(message).toContain('RestoreCluster');
    expect(message).not.toContain('"repair": true');
    for (const change of [{ nodes: 3 }, { repair: true }]) {
      const refused = await failureOf('UpdateCluster', { ...ref, ...change });
      expect(refused.type).toBe('UpdateRefused');
      expect(refused.message).toContain('RestoreCluster');
    }
    expect(await wanted(ref)).toBe(2);
    expect((await row(ref)).spec.nodes).toBe(2);
  }, 120_000);

  test('its peer is forced out by hand: too few replicas are Degraded, and more nodes copy and do not move', async () => {
    const access = await fleet.access(ref.cluster);
    const { peers, peer_id: me } = await access.call<{ peers: Record<string, unknown>; peer_id: number }>(
      'GET',
      '/cluster',
    );
    const dead = Object.keys(peers).find((id) => id !== String(me));
    await access.call('DELETE', `/cluster/peer/${dead}?force=true`);
    const { message } = await condition(ref, 'Degraded', /has 1 of 2 Active replicas.*An update without changes/);
    expect(message).toContain('"documents"');
    expect((await row(ref)).phase).toBe('NOT_READY');
    const { steps } = await fleet.run<{ steps: string[] }>('UpdateCluster', { ...ref, nodes: 3 });
    expect(steps).toEqual(['Add 1 nodes, 3 in all', expect.stringContaining('make 3 missing replicas') as string]);
    expect(await whole(ref, 3)).toEqual([]);
    await condition(ref, 'Degraded', 'False');
  }, 180_000);

  test('a suspended cluster lacks nothing, and is looked at', async () => {
    await fleet.run('SuspendCluster', ref);
    const { observed_at: before } = await row(ref);
    await until(
      'it is looked at again',
      async () => Number((await row(ref)).observed_at) > Number(before),
      SEEN_WITHIN,
    );
    const { phase, conditions } = await row(ref);
    expect(phase).toBe('SUSPENDED');
    expect(conditions.find(({ type }) => type === 'Degraded')?.status).toBe('False');
  }, 120_000);
});

test('a provision that is terminated ends in the catalogue, and its name says to delete it first', async () => {
  const ref = { tenant: fleet.tenant, cluster: 'abandoned' };
  const placement = { nodeSelector: { 'no-such': 'label' } };
  const provision = await fleet.start('ProvisionCluster', { ...ref, nodes: 1, collections: [], placement });
  await until('it waits for its pods', async () => (await fleet.progress(provision)).phase === 'Wait for the peers');
  expect((await row(ref)).phase).toBe('CREATING');
  await provision.terminate('a test');
  await until('its phase is settled', async () => (await row(ref)).phase === 'FAILED_TO_CREATE', SEEN_WITHIN);
  expect(await fleet.catalog.operation(fleet.tenant, provision.workflowId)).toMatchObject({
    ...{ state: 'failed', error_code: 'Terminated' },
  });
  const again = await failureOf('ProvisionCluster', { ...ref, nodes: 1, collections: [] });
  expect(again).toMatchObject({ type: 'ClusterExists', message: expect.stringContaining('Delete it first') as string });
  await fleet.run('DeleteCluster', ref);
  expect(await fleet.catalog.cluster(ref)).toBeUndefined();
}, 120_000);

test('a worker makes its schedule once, brings it up to date, and removes it when told', async () => {
  const own = await Fleet.open();
  const handle = own.client.schedule.getHandle(observationScheduleId(own.taskQueue));
  try {
    for (const seconds of [3000, 3600]) {
      const worker = await own.worker({ env: { FLEET_OBSERVE_SECONDS: String(seconds) } });
      const { spec, policies, action } = await handle.describe();
      expect(spec.intervals?.map(({ every }) => every)).toEqual([seconds * 1000]);
      expect(policies).toMatchObject({ overlap: 'SKIP', catchupWindow: 60_000 });
      expect(action).toMatchObject({ workflowType: 'ObserveClusters', taskQueue: own.taskQueue });
      worker.kill('SIGTERM');
      await exited(worker);
    }
    await own.worker();
    await expect(handle.describe()).rejects.toMatchObject({ name: 'ScheduleNotFoundError' });
  } finally {
    await own.close();
  }
}, 120_000);
