/** UpdateCluster over activities that a test holds: order, what is recorded, and what is left behind when it ends early. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { UpdateStep } from '../../src/domain/update-plan.ts';
import { fails, gate, gaveUp, REF, SPEC, untilCancelled, Workflows, type Fakes } from './support.ts';

let workflows: Workflows;
beforeAll(async () => {
  workflows = await Workflows.open();
});
afterAll(() => workflows.close());

const INPUT = { ...REF, nodes: 3 };
const MOVE = { collection: 'documents', shard: 1, from: '1', to: '3' };

function planned(...steps: UpdateStep[]): Fakes {
  return { planClusterUpdate: () => ({ spec: SPEC, steps, downtime: [], oldest: '1.18.3' }) };
}

/** Moves that are there once, and none after that. */
function moving(): Fakes {
  let left = 1;
  return { planShardMoves: () => ({ moves: left-- > 0 ? [MOVE] : [], remaining: 0 }) };
}

const GROW: UpdateStep[] = [
  { kind: 'add-nodes', nodes: 3, added: 1 },
  { kind: 'move-shards', nodes: 3, moves: 1 },
];

describe('UpdateCluster', () => {
  test('adds nodes first and moves shards then; the catalogue follows the chart', async () => {
    const run = await workflows.run('UpdateCluster', INPUT, { ...planned(...GROW), ...moving() });
    expect(run.ended).toMatchObject({ status: 'COMPLETED' });
    expect(run.names).toEqual([
      'planClusterUpdate',
      'setClusterPhase',
      'installRelease',
      'recordSpec',
      'awaitPeers',
      'planShardMoves',
      'moveShard',
      'planShardMoves',
      'inspectCluster',
      'setClusterPhase',
    ]);
    expect(run.of('installRelease')[0]?.input.spec.nodes).toBe(3);
    expect(run.of('recordSpec')[0]?.input.spec).toEqual(run.of('installRelease')[0]?.input.spec);
    expect(run.of('setClusterPhase').map(({ input }) => input.phase)).toEqual(['SCALING', 'HEALTHY']);
    expect(run.of('takeLease')[0]?.input.mode).toBe('exclusive');
  });

  test('applies the network, then writes it down, and touches no pod', async () => {
    const network = { allowCidrs: ['10.20.0.0/16'] };
    const run = await workflows.run('UpdateCluster', { ...REF, network }, planned({ kind: 'surroundings' }));
    expect(run.ended).toMatchObject({ status: 'COMPLETED' });
    expect(run.names.slice(1, 4)).toEqual(['setClusterPhase', 'applySurroundings', 'recordSpec']);
    expect(run.of('applySurroundings')[0]?.input.spec.network).toEqual(network);
    expect(run.of('recordSpec')[0]?.input.spec.network).toEqual(network);
    expect(run.names).not.toContain('installRelease');
  });

  test('removes nodes in the order that loses nothing', async () => {
    const run = await workflows.run(
      'UpdateCluster',
      { ...REF, nodes: 1 },
      {
        ...planned({ kind: 'move-shards', nodes: 1, moves: 1 }, { kind: 'remove-nodes', nodes: 1, removed: 1 }),
        ...moving(),
      },
    );
    expect(run.ended.status).toBe('COMPLETED');
    const order = ['moveShard', 'removePeers', 'installRelease', 'awaitPodsGone', 'removeSurplusClaims'];
    expect(run.names.filter((name) => order.includes(name))).toEqual(order);
  });

  test('a lost peer is replaced, and its replicas are copied and not moved', async () => {
    const pods = [{ name: 'qdrant-2', uid: 'u', claims: [{ name: 'qdrant-storage-qdrant-2', uid: 'c' }] }];
    const run = await workflows.run(
      'UpdateCluster',
      { ...REF, repair: true },
      {
        ...planned({ kind: 'replace-peers', peers: ['9'], pods }, { kind: 'copy-shards', nodes: 3, copies: 1 }),
        ...moving(),
      },
    );
    expect(run.ended).toMatchObject({ result: { steps: ['Replace 1 lost peers', 'Make 1 missing replicas'] } });
    const order = ['replacePeers', 'awaitPeers', 'planShardMoves', 'moveShard', 'inspectCluster'];
    expect(run.names.filter((name) => order.includes(name))).toEqual([
      ...['replacePeers', 'awaitPeers', 'planShardMoves', 'moveShard', 'planShardMoves', 'inspectCluster'],
    ]);
    expect(run.of('replacePeers')[0]?.input).toMatchObject({ peers: ['9'], pods });
    expect(run.of('planShardMoves')[0]?.input).toMatchObject({ copies: true });
    expect(run.names).not.toContain('installRelease');
  });

  test('an upgrade backs up under its own lease first, and restarts pods one by one', async () => {
    let pods = 2;
    const run = await workflows.run(
      'UpdateCluster',
      { ...REF, version: 'v1.19.0' },
      {
        ...planned({ kind: 'backup' }, { kind: 'upgrade', version: 'v1.19.0', restarts: 2 }),
        nextPodToRestart: () => {
          const left = pods--;
          return left > 0 ? { pod: { name: `qdrant-${left - 1}`, uid: 'u' }, left } : { left: 0 };
        },
      },
    );
    expect(run.ended.status).toBe('COMPLETED');
    const backup = run.of('takeLease').find(({ workflowId }) => workflowId.endsWith('/backup'));
    expect(backup?.input).toMatchObject({ mode: 'shared', parent: run.handle.workflowId });
    const order = ['commitBackup', 'installRelease', 'nextPodToRestart', 'restartPod'];
    expect(run.names.filter((name) => order.includes(name))).toEqual([
      'commitBackup',
      'installRelease',
      'nextPodToRestart',
      'restartPod',
      'nextPodToRestart',
      'restartPod',
      'nextPodToRestart',
    ]);
    expect(run.of('restartPod').map(({ input }) => input.pod.name)).toEqual(['qdrant-1', 'qdrant-0']);
  });

  test('a backup that fails stops the upgrade before anything is changed', async () => {
    const run = await workflows.run(
      'UpdateCluster',
      { ...REF, version: 'v1.19.0' },
      {
        ...planned({ kind: 'backup' }, { kind: 'upgrade', version: 'v1.19.0', restarts: 2 }),
        commitBackup: gaveUp('StoreDenied'),
      },
    );
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'StoreDenied' });
    expect(run.names).not.toContain('installRelease');
  });

  test('a refusal changes nothing, not even the phase', async () => {
    const run = await workflows.run('UpdateCluster', INPUT, { planClusterUpdate: fails('UpdateRefused') });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'UpdateRefused' });
    expect(run.names).toEqual(['planClusterUpdate']);
  });

  test('nothing to do is no change; how the cluster stands is told, also after a change that was cancelled', async () => {
    const run = await workflows.run('UpdateCluster', INPUT);
    expect(run.ended).toMatchObject({ status: 'COMPLETED', result: { steps: [] } });
    expect(run.names).toEqual(['planClusterUpdate', 'inspectCluster', 'setClusterPhase']);
    const [told] = run.of('setClusterPhase');
    expect(told?.input).toMatchObject({ phase: 'HEALTHY' });
    expect(told?.input).not.toHaveProperty('failure');
  });

  test('a dry run takes no lease and prints the plan', async () => {
    const run = await workflows.run('UpdateCluster', { ...INPUT, dryRun: true }, planned(...GROW));
    expect(run.ended.result).toEqual({ steps: ['Add 1 nodes, 3 in all', 'Move 1 shards over 3 nodes'], downtime: [] });
    expect(run.of('takeLease')).toEqual([]);
    expect(run.names).toEqual(['planClusterUpdate']);
  });

  test('a failure leaves what was reached, says so, and stops what is on its way', async () => {
    const run = await workflows.run('UpdateCluster', INPUT, {
      ...planned(...GROW),
      ...moving(),
      moveShard: fails('QdrantRejected', 'No.'),
      inspectCluster: () => ({ degraded: 'a replica is Dead', serving: true }),
    });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'QdrantRejected' });
    expect(run.of('abortShardMoves')[0]?.input.moves).toEqual([MOVE]);
    expect(run.of('recordSpec')[0]?.input.spec.nodes).toBe(3);
    expect(run.of('setClusterPhase').at(-1)?.input).toMatchObject({
      phase: 'NOT_READY',
      degraded: 'a replica is Dead',
      serving: true,
      failure: { code: 'QdrantRejected' },
    });
    expect(run.ends).toMatchObject([{ state: 'failed' }]);
  });

  test('cancelled while the chart is applied: the chart comes to its end and is recorded', async () => {
    const applied = gate();
    const run = await workflows.start('UpdateCluster', INPUT, {
      ...planned(...GROW),
      installRelease: async () => {
        await applied.promise;
        return { revision: 2 };
      },
    });
    await run.saw('installRelease');
    await run.handle.cancel();
    applied.resolve();
    expect(await run.outcome()).toMatchObject({ status: 'CANCELLED' });
    expect(run.of('recordSpec')[0]?.input.spec.nodes).toBe(3);
    expect(run.of('setClusterPhase').at(-1)?.input).toMatchObject({
      phase: 'HEALTHY',
      failure: { code: 'Cancelled' },
    });
  });

  test('cancelled while a shard moves: the transfer is stopped', async () => {
    const run = await workflows.start('UpdateCluster', INPUT, {
      ...planned(...GROW),
      ...moving(),
      moveShard: untilCancelled,
    });
    await run.saw('moveShard');
    await run.handle.cancel();
    expect(await run.outcome()).toMatchObject({ status: 'CANCELLED' });
    expect(run.of('abortShardMoves')).toHaveLength(1);
  });

  describe('a peer that is away while its shard moves', () => {
    const AWAY = { away: 'Shard 1 waits until peer 3 answers. Pod qdrant-2 is on node n1.' };
    const away = (times: number): Fakes => {
      let left = times;
      return { moveShard: () => (left-- > 0 ? AWAY : undefined) };
    };

    test('is waited for, and the move is repeated', async () => {
      const run = await workflows.run('UpdateCluster', INPUT, { ...planned(...GROW), ...moving(), ...away(2) });
      expect(run.ended.status).toBe('COMPLETED');
      const order = run.names.filter((name) => name === 'moveShard' || name === 'awaitPeers');
      expect(order).toEqual(['awaitPeers', 'moveShard', 'awaitPeers', 'moveShard', 'awaitPeers', 'moveShard']);
    });

    test('ends the change after the time that a pod may take, not that of a move', async () => {
      let calls = 0;
      const run = await workflows.run(
        'UpdateCluster',
        { ...INPUT, readyTimeoutSeconds: 2 },
        {
          ...planned(...GROW),
          ...moving(),
          ...away(1),
          awaitPeers: () => {
            calls += 1;
            return calls === 1
              ? { qdrantVersion: '1.18.3' }
              : fails('ClusterNotReady', 'Pod qdrant-2 is on node n1.')();
          },
          // Nobody can stop a transfer without a majority; what happened before says more.
          abortShardMoves: fails('QdrantRejected', 'No leader.'),
          inspectCluster: () => ({ degraded: 'qdrant-2', serving: true }),
        },
      );
      expect(run.ended).toMatchObject({ status: 'FAILED', type: 'ClusterNotReady' });
      expect(run.ended.message).toBe(
        'Shard 1 of "documents" from peer 1 to peer 3 did not move. Pod qdrant-2 is on node n1. ' +
          'What has moved stays; repeat the update afterwards.',
      );
      expect(run.of('setClusterPhase').at(-1)?.input).toMatchObject({ phase: 'NOT_READY', serving: true });
    });

    test('goes on without a word of its own when nobody could be asked', async () => {
      let calls = 0;
      const run = await workflows.run(
        'UpdateCluster',
        { ...INPUT, readyTimeoutSeconds: 1 },
        {
          ...planned(...GROW),
          ...moving(),
          ...away(1),
          awaitPeers: () => {
            calls += 1;
            return calls === 1 ? { qdrantVersion: '1.18.3' } : untilCancelled();
          },
        },
      );
      expect(run.ended).toMatchObject({ status: 'FAILED', type: 'ClusterNotReady' });
      expect(run.ended.message).toContain(AWAY.away);
    });

    test('that goes again and again ends it too', async () => {
      const run = await workflows.run('UpdateCluster', INPUT, { ...planned(...GROW), ...moving(), ...away(50) });
      expect(run.ended).toMatchObject({ status: 'FAILED', type: 'ClusterNotReady' });
      expect(run.ended.message).toContain('the 20th time');
      expect(run.of('moveShard')).toHaveLength(20);
    });
  });

  describe('pods that cannot start with what is new', () => {
    const upgrade = { kind: 'upgrade', version: 'v1.19.0', restarts: 2 } as const;
    const configure = { kind: 'configure', restarts: 2 } as const;
    /** The first `good` restarts go well, the one after them does not; afterwards all is as before. */
    const stuckAfter = (good: number): Fakes => {
      let calls = 0;
      return {
        nextPodToRestart: () => {
          calls += 1;
          if (calls <= good + 1) return { pod: { name: `qdrant-${calls}`, uid: 'u' }, left: 2 };
          return calls === good + 2 ? gaveUp('PodCannotStart', 'qdrant-1 cannot start.')() : { left: 0 };
        },
      };
    };
    const failing = (...started: string[]): Fakes => ({ inspectRollout: () => ({ started, failing: ['qdrant-1'] }) });
    const run = (step: UpdateStep, change: object, ...fakes: Fakes[]) =>
      workflows.run('UpdateCluster', { ...REF, ...change }, Object.assign(planned(step), ...fakes) as Fakes);
    const versions = (of: Awaited<ReturnType<typeof run>>) =>
      of.of('recordSpec').map(({ input }) => input.spec.version);

    test('an upgrade is taken back while the new version has run nowhere', async () => {
      const ended = await run(upgrade, { version: 'v1.19.0' }, stuckAfter(0), failing());
      expect(ended.ended).toMatchObject({ status: 'FAILED', type: 'PodCannotStart' });
      expect(ended.ended.message).toMatch(/^qdrant-1 cannot start\. All pods were put back/);
      expect(versions(ended)).toEqual(['v1.19.0', SPEC.version]);
      expect(ended.of('installRelease')).toHaveLength(2);
      expect(ended.of('setClusterPhase').at(-1)?.input).toMatchObject({
        phase: 'HEALTHY',
        failure: { code: 'PodCannotStart' },
      });
    });

    test('an upgrade stays when one pod runs it: Qdrant has no downgrade', async () => {
      const ended = await run(upgrade, { version: 'v1.19.0' }, stuckAfter(1), failing('qdrant-2'));
      expect(ended.ended.message).toMatch(/v1\.19\.0 has run on qdrant-2, .* without qdrant-1;.*[Rr]epeat/);
      expect(versions(ended)).toEqual(['v1.19.0']);
    });

    test('a configuration is taken back from all pods', async () => {
      const config = { 'service.max_request_size_mb': 4096 };
      const ended = await run(configure, { config }, stuckAfter(1), failing('qdrant-2'));
      expect(ended.ended.message).toContain('put back');
      expect(ended.of('recordSpec').map(({ input }) => input.spec.config)).toEqual([config, SPEC.config]);
    });

    test('what an interrupted update has brought about is not put back again', async () => {
      const spec = { ...SPEC, config: { 'storage.wal.wal_segments_ahead': 1, 'storage.max_collections': 2 } };
      const ended = await run(
        configure,
        { config: { 'storage.max_collections': 2, 'storage.wal.wal_segments_ahead': 1 } },
        stuckAfter(0),
        failing(),
        {
          planClusterUpdate: () => ({ spec, steps: [configure], downtime: [], oldest: '1.18.3' }),
        },
      );
      expect(ended.ended.message).toContain('send what worked before');
      expect(ended.of('installRelease')).toHaveLength(1);
    });

    test('when none of the restarted pods is to blame, nothing is put back', async () => {
      const ended = await run(upgrade, { version: 'v1.19.0' }, { nextPodToRestart: gaveUp('ClusterNotReady') });
      expect(ended.ended).toMatchObject({ status: 'FAILED', type: 'ClusterNotReady' });
      expect(ended.of('inspectRollout')).toHaveLength(1);
      expect(versions(ended)).toEqual(['v1.19.0']);
    });

    test('a failure to put them back is told beside the first', async () => {
      const broken = failing();
      const ended = await run(configure, { config: { 'storage.max_collections': 1 } }, broken, {
        nextPodToRestart: gaveUp('PodCannotStart', 'qdrant-1 cannot start.'),
      });
      expect(ended.ended.message).toMatch(/^qdrant-1 cannot start\. Putting the pods back failed as well: qdrant-1/);
    });
  });

  test('bad input names the fields', async () => {
    const run = await workflows.run('UpdateCluster', {
      ...REF,
      nodes: 0,
      colour: 'red',
      config: { 'service.api_key': 'x' },
    });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'InvalidInput' });
    for (const part of ['nodes', 'colour', 'config["service.api_key"]']) expect(run.ended.message).toContain(part);
  });
});
