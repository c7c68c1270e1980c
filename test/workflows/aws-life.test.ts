/** Machines of a cluster on AWS through its life: when they come and go, and what happens when they cannot. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { resolveSpec, type ClusterSpec } from '../../src/domain/cluster.ts';
import { planMachines } from '../../src/domain/aws-machines.ts';
import type { UpdateStep } from '../../src/domain/update-plan.ts';
import { fails, REF, untilCancelled, Workflows, type Fakes } from './support.ts';

let workflows: Workflows;
beforeAll(async () => {
  workflows = await Workflows.open();
});
afterAll(() => workflows.close());

const SPEC = resolveSpec({ provider: 'aws', nodes: 3, collections: [] }, {});
const loaded = (spec: ClusterSpec): Fakes => ({
  loadCluster: () => ({ spec, phase: 'HEALTHY', namespace: 'fleet-acme--docs' }),
});

function planned(nodes: number): Fakes {
  const { before, after } = planMachines(SPEC, { nodes }, () => undefined);
  const scaling: UpdateStep =
    nodes > 3 ? { kind: 'add-nodes', nodes, added: nodes - 3 } : { kind: 'remove-nodes', nodes, removed: 3 - nodes };
  const steps = [...before, scaling, ...after];
  return { planClusterUpdate: () => ({ spec: SPEC, steps, downtime: [], oldest: '1.18.3' }) };
}

const MACHINES =
  /^(?:setMachines|awaitMachines|configureMachines|machinesToWake|installRelease|awaitPodsGone|recordSpec)$/;
const order = (names: readonly string[]) => names.filter((name) => MACHINES.test(name));

describe.concurrent('UpdateCluster on AWS', () => {
  test('machines are there before the pods that need them', async () => {
    const run = await workflows.run('UpdateCluster', { ...REF, nodes: 5 }, planned(5));
    expect(run.ended.result?.['steps']).toEqual(['Add 2 machines, 5 in all', 'Add 2 nodes, 5 in all']);
    expect(order(run.names)).toEqual(['setMachines', 'awaitMachines', 'recordSpec', 'installRelease', 'recordSpec']);
    expect(run.of('setMachines')[0]?.input).toMatchObject({ machines: 5, aws: { nodeCount: 3 } });
    expect(run.of('recordSpec').at(-1)?.input.spec).toMatchObject({
      nodes: 5,
      aws: { nodeCount: 5, followNodes: true },
    });
    expect(run.of('setClusterPhase').map(({ input }) => input.phase)).toEqual(['SCALING', 'HEALTHY']);
  });

  test.for([
    ['CapacityUnavailable', fails('CapacityUnavailable', 'No m6i.large in us-east-1a.'), 'FAILED'],
    ['cancelled', untilCancelled, 'CANCELLED'],
  ] as const)('no machines (%s): their number goes back, and nothing else was touched', async ([, fake, status]) => {
    let asked = 0;
    const run = await workflows.start(
      'UpdateCluster',
      { ...REF, nodes: 5 },
      {
        ...planned(5),
        awaitMachines: ({ machines }) => {
          asked += 1;
          return asked === 1 ? fake() : { machines };
        },
      },
    );
    await run.saw('awaitMachines');
    if (status === 'CANCELLED') await run.handle.cancel();
    expect(await run.outcome()).toMatchObject({ status });
    expect(run.of('setMachines').map(({ input }) => input.machines)).toEqual([5, 3]);
    expect(run.names).not.toContain('recordSpec');
    expect(run.names).not.toContain('installRelease');
    expect(run.of('setClusterPhase').at(-1)?.input.phase).toBe('HEALTHY');
  });

  test('machines go when the pods are gone, and the cluster has to be whole after that', async () => {
    const run = await workflows.run('UpdateCluster', { ...REF, nodes: 2 }, planned(2));
    expect(run.ended.status).toBe('COMPLETED');
    expect(order(run.names)).toEqual([
      'installRelease',
      'recordSpec',
      'awaitPodsGone',
      'setMachines',
      'awaitMachines',
      'recordSpec',
    ]);
    expect(run.names.slice(run.names.indexOf('awaitMachines'))).toContain('nextPodToRestart');
  });

  test('machines that cannot go leave a cluster that is told to have them still', async () => {
    const awaitMachines = fails('InfrastructureFailed', 'EKS says no.');
    const run = await workflows.run('UpdateCluster', { ...REF, nodes: 2 }, { ...planned(2), awaitMachines });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'InfrastructureFailed' });
    expect(run.of('recordSpec').at(-1)?.input.spec).toMatchObject({ nodes: 2, aws: { nodeCount: 3 } });
    expect(run.of('setMachines')).toHaveLength(1);
  });

  test('labels and taints are changed in place', async () => {
    const labels = { team: 'search' };
    const { before } = planMachines(SPEC, { aws: { labels } }, () => undefined);
    const run = await workflows.run(
      'UpdateCluster',
      { ...REF, aws: { labels } },
      {
        planClusterUpdate: () => ({ spec: SPEC, steps: before, downtime: [], oldest: '1.18.3' }),
      },
    );
    expect(order(run.names)).toEqual(['configureMachines', 'awaitMachines', 'recordSpec']);
    expect(run.of('recordSpec')[0]?.input.spec.aws).toMatchObject({ labels, nodeCount: 3 });
  });
});

describe.concurrent('a cluster on AWS that sleeps', () => {
  const asleep = { ...SPEC, suspended: true };

  test('has no machines, once its pods are gone', async () => {
    const run = await workflows.run('SuspendCluster', REF, loaded(SPEC));
    expect(run.ended.status).toBe('COMPLETED');
    expect(order(run.names)).toEqual(['installRelease', 'recordSpec', 'awaitPodsGone', 'setMachines', 'awaitMachines']);
    expect(run.of('setMachines')[0]?.input.machines).toBe(0);
    const { steps } = await run.progress();
    expect(steps.at(-1)).toMatchObject({ name: 'Stop the machines', phase: 'done' });
  });

  test('gets them back before its pods, and gives back what only the zones needed', async () => {
    const run = await workflows.run('ResumeCluster', REF, {
      ...loaded(asleep),
      machinesToWake: () => ({ machines: 6 }),
    });
    expect(run.ended.status).toBe('COMPLETED');
    expect(order(run.names)).toEqual([
      'machinesToWake',
      'setMachines',
      'awaitMachines',
      'installRelease',
      'recordSpec',
      'setMachines',
      'awaitMachines',
    ]);
    expect(run.of('setMachines').map(({ input }) => input.machines)).toEqual([6, 3]);
  });

  test('sleeps on where there is no room for its machines', async () => {
    let asked = 0;
    const run = await workflows.run('ResumeCluster', REF, {
      ...loaded(asleep),
      awaitMachines: ({ machines }) => {
        asked += 1;
        return asked === 1 ? fails('CapacityUnavailable')() : { machines };
      },
    });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'CapacityUnavailable' });
    expect(run.of('setMachines').map(({ input }) => input.machines)).toEqual([3, 0]);
    expect(run.names).not.toContain('installRelease');
    expect(run.of('setClusterPhase').at(-1)?.input).toMatchObject({ phase: 'SUSPENDED' });
  });

  test('a deletion that can be taken back puts the machines to sleep too', async () => {
    const run = await workflows.start('DeleteCluster', { ...REF, undoHours: 1 }, loaded(SPEC));
    await run.saw('awaitMachines ended');
    await run.handle.signal('undelete');
    expect(await run.outcome()).toMatchObject({ status: 'COMPLETED', result: { undone: true } });
    expect(run.of('setMachines').map(({ input }) => input.machines)).toEqual([0, 3]);
    expect(run.of('setClusterPhase').at(-1)?.input.phase).toBe('HEALTHY');
  });

  test('is deleted without waiting for the driver of its volumes, which does not run', async () => {
    const run = await workflows.run('DeleteCluster', REF, loaded(asleep));
    expect(run.ended.status).toBe('COMPLETED');
    expect(run.names).not.toContain('drainVolumes');
    expect(run.names).toContain('deleteNodeGroups');
  });

  test('where the machines are not ours, they stay', async () => {
    const theirs = resolveSpec(
      { provider: 'aws', collections: [], aws: { eksCluster: 'theirs', create: { nodeGroups: false } } },
      {},
    );
    const run = await workflows.run('SuspendCluster', REF, loaded(theirs));
    expect(run.ended.status).toBe('COMPLETED');
    expect(run.of('setMachines')).toEqual([]);
  });
});
