/** What an update comes to, and what is refused, without any cluster. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { conditionsOf } from '../../src/domain/conditions.ts';
import { resolveSpec } from '../../src/domain/cluster.ts';
import type { FreeDisk } from '../../src/domain/disk.ts';
import { FleetError } from '../../src/domain/errors.ts';
import type { LostDisk } from '../../src/domain/lost-disk.ts';
import { upgradePath } from '../../src/domain/releases.ts';
import { planUpdate, type ObservedCluster, type UpdateRequest } from '../../src/domain/update-plan.ts';

const RELEASES = ['v1.16.3', 'v1.17.1', 'v1.18.0', 'v1.18.3', 'v1.19.0'];
const SPEC = resolveSpec({ nodes: 3, version: 'v1.17.1', storage: '10Gi', collections: [] }, {});

interface Shape {
  readonly nodes?: number;
  readonly versions?: readonly string[];
  readonly replicas?: readonly (readonly number[])[];
  readonly expandable?: boolean;
  readonly current?: boolean;
  readonly dataBytes?: number;
  readonly disks?: FreeDisk;
  /** Ordinals of pods that do not answer. */
  readonly away?: readonly number[];
  /** Pods that the StatefulSet wants, where those are fewer than there are. */
  readonly wanted?: number;
  /** Peers in consensus without a pod. */
  readonly ghosts?: readonly string[];
  readonly factor?: number;
  readonly lost?: readonly LostDisk[];
}

/** A cluster of `nodes` pods with one collection whose shards are on the pods that `replicas` tells. */
function cluster({
  nodes = 3,
  versions,
  replicas = [
    [0, 1],
    [1, 2],
    [2, 0],
  ],
  ...rest
}: Shape = {}): ObservedCluster {
  const pods = Array.from({ length: nodes }, (_, at) => ({
    name: `qdrant-${at}`,
    uid: `pod-${at}`,
    ready: true,
    current: rest.current ?? true,
    ...(rest.away?.includes(at) !== true && { peer: `p${at}`, version: versions?.[at] ?? '1.17.1' }),
  }));
  return {
    replicas: rest.wanted ?? nodes,
    pods,
    peers: [...pods.map((_, at) => `p${at}`), ...(rest.ghosts ?? [])],
    placements: [
      {
        collection: 'docs',
        ...(rest.factor !== undefined && { replicationFactor: rest.factor }),
        transfers: 0,
        resharding: 0,
        shards: replicas.map((holders, shard) => ({
          shard,
          replicas: holders.map((at) => ({
            peer: `p${at}`,
            state: rest.away?.includes(at) === true ? 'Dead' : 'Active',
          })),
        })),
      },
    ],
    ...(rest.lost !== undefined && { lost: rest.lost }),
    claims: pods.map(({ name }) => ({
      name: `qdrant-storage-${name}`,
      uid: `claim-of-${name}`,
      bytes: 10 * 2 ** 30,
      className: 'standard',
      expandable: rest.expandable ?? true,
      ofSet: true,
    })),
    ...(rest.disks !== undefined && { disks: rest.disks }),
    ...(rest.dataBytes !== undefined && {
      dataBytes: Object.fromEntries(pods.map((_, at) => [`p${at}`, rest.dataBytes ?? 0])),
    }),
  };
}

function steps(request: UpdateRequest, shape?: Shape) {
  return planUpdate(SPEC, request, cluster(shape), RELEASES).steps;
}

function refusal(request: UpdateRequest, shape?: Shape): Record<string, string> {
  try {
    planUpdate(SPEC, request, cluster(shape), RELEASES);
  } catch (error) {
    if (FleetError.is(error, 'UpdateRefused')) {
      return Object.fromEntries(error.fields.map(({ field, detail }) => [field, detail]));
    }
    throw error;
  }
  return {};
}

describe('update plan', () => {
  test('nothing asked, or nothing different, is nothing to do', () => {
    expect(steps({})).toEqual([]);
    expect(
      steps({ nodes: 3, version: 'v1.17.1', storage: '10Gi', replicationFactor: 2, provider: 'kubernetes' }),
    ).toEqual([]);
  });

  test('more nodes, then fewer', () => {
    expect(steps({ nodes: 5 })).toEqual([
      { kind: 'add-nodes', nodes: 5, added: 2 },
      { kind: 'move-shards', nodes: 5, moves: 2 },
    ]);
    expect(steps({ nodes: 2 })).toEqual([
      { kind: 'move-shards', nodes: 2, moves: 2 },
      { kind: 'remove-nodes', nodes: 2, removed: 1 },
    ]);
  });

  test('an update goes on where it stopped', () => {
    // The chart was applied, a pod is not there yet.
    expect(steps({ nodes: 3 }, { nodes: 2, replicas: [[0, 1]] })[0]).toMatchObject({ kind: 'add-nodes', added: 1 });
    // All peers are there, shards are not even.
    expect(
      steps(
        { nodes: 3 },
        {
          replicas: [
            [0, 1],
            [0, 1],
            [0, 1],
          ],
        },
      ),
    ).toEqual([{ kind: 'move-shards', nodes: 3, moves: 2 }]);
    // The first of two minors is done on one of three pods; the backup was made before.
    expect(steps({ version: 'v1.19.0' }, { versions: ['1.17.1', '1.17.1', '1.18.3'] }).map(({ kind }) => kind)).toEqual(
      ['upgrade', 'upgrade'],
    );
    // A restart was interrupted.
    expect(steps({ config: {} }, { current: false })).toEqual([{ kind: 'configure', restarts: 3 }]);
  });

  test('an upgrade takes the latest patch of each minor, after a backup', () => {
    expect(steps({ version: 'v1.19.0' })).toEqual([
      { kind: 'backup' },
      { kind: 'upgrade', version: 'v1.18.3', restarts: 3 },
      { kind: 'upgrade', version: 'v1.19.0', restarts: 3 },
    ]);
  });

  test('volumes grow before pods restart, and pods restart before nodes come', () => {
    const kinds = steps({ nodes: 4, storage: '20Gi', resources: { memory: '4Gi' }, version: 'v1.18.3' });
    expect(kinds.map(({ kind }) => kind)).toEqual([
      'backup',
      'grow-volumes',
      'configure',
      'upgrade',
      'add-nodes',
      'move-shards',
    ]);
  });

  test('what cannot be is refused with the remedy, all at once', () => {
    expect(refusal({ provider: 'aws', replicationFactor: 3, storage: '5Gi', version: 'v1.16.3', nodes: 1 })).toEqual({
      provider: expect.stringContaining('restore it into a new one'),
      replicationFactor: expect.stringContaining('PATCH'),
      storage: expect.stringContaining('cannot shrink'),
      version: expect.stringContaining('no downgrade'),
      nodes: expect.stringContaining('2 replicas'),
    });
    expect(refusal({ storage: '20Gi' }, { expandable: false })['storage']).toContain('allowVolumeExpansion');
    expect(refusal({ version: 'latest' })['version']).toContain('no version');
    expect(refusal({ nodes: 2 }, { dataBytes: 6 * 2 ** 30 })['nodes']).toContain('9.0 GiB on each of 2 nodes');
    expect(refusal({ nodes: 2 }, { dataBytes: 2 ** 30 })).toEqual({});
  });

  test('fewer nodes have to hold it all, by what the kubelets measured', () => {
    const GIB = 2 ** 30;
    const volumes = (used: number, free = 10 * GIB - used): FreeDisk[string] => {
      const volume = { used, free, capacity: 10 * GIB };
      return { storage: volume, snapshots: volume };
    };
    const disks = (...used: number[]) => Object.fromEntries(used.map((each, at) => [`qdrant-${at}`, volumes(each)]));
    expect(refusal({ nodes: 2 }, { disks: disks(6 * GIB, 6 * GIB, 6 * GIB) })['nodes']).toBe(
      'the volumes hold 18.0 GiB, which comes to 9.0 GiB on each of 2 nodes: pod qdrant-0 would get 3.0 GiB more, and of ' +
        '4.0 GiB free 2.0 GiB may be used; pod qdrant-1 would get 3.0 GiB more, and of 4.0 GiB free 2.0 GiB may be used. ' +
        'Grow the volumes first ("storage"), or keep more nodes',
    );
    expect(refusal({ nodes: 2 }, { disks: disks(4 * GIB, 4 * GIB, 4 * GIB) })).toEqual({});
    // The disk below is smaller than the volume says.
    const tight = { ...disks(GIB, GIB, GIB), 'qdrant-1': volumes(GIB, 2 * GIB) };
    expect(refusal({ nodes: 2 }, { disks: tight })['nodes']).toMatch(/nodes: pod qdrant-1 would get 0\.5 GiB more/);
    // One that is not known: what the peers tell, and a note.
    const part = { disks: disks(6 * GIB), dataBytes: GIB };
    expect(refusal({ nodes: 2 }, part)).toEqual({});
    const notes = (shape: Shape) => planUpdate(SPEC, { nodes: 2 }, cluster(shape), RELEASES).notes;
    expect(notes(part)).toEqual([
      'free disk is unknown of qdrant-1, qdrant-2, so what the peers say of their vectors and payload was taken',
    ]);
    expect(notes({ disks: disks(GIB) })?.[0]).toContain('it was not checked');
    expect(notes({ disks: disks(GIB, GIB, GIB) })).toBeUndefined();
  });

  test('pods that are away are waited for, and only where they are needed', () => {
    const wait = { kind: 'add-nodes', nodes: 3, added: 0 };
    expect(steps({ nodes: 3 }, { away: [2] })).toEqual([wait]);
    expect(steps({ nodes: 2 }, { away: [2] })).toEqual([
      wait,
      { kind: 'move-shards', nodes: 2, moves: 2 },
      { kind: 'remove-nodes', nodes: 2, removed: 1 },
    ]);
    expect(steps({ nodes: 2 }, { away: [1] })[0]).toEqual(wait);
    // It holds nothing any more.
    const emptied = { replicas: [[0, 1]], away: [2] };
    expect(steps({ nodes: 2 }, emptied)).toEqual([{ kind: 'remove-nodes', nodes: 2, removed: 1 }]);
  });

  test('a peer without a pod is dropped when it holds nothing, and told otherwise', () => {
    expect(steps({ nodes: 3 }, { ghosts: ['gone'] })).toEqual([{ kind: 'remove-nodes', nodes: 3, removed: 1 }]);
    expect(refusal({ nodes: 3 }, { replicas: [[0, 3]], ghosts: ['p3'] })['nodes']).toContain('peer p3 is in consensus');
    expect(refusal({ nodes: 4 }, { ghosts: ['gone'] })['nodes']).toContain('"repair": true');
  });

  test('replicas that are missing are made, with or without other nodes', () => {
    const short = { factor: 2, replicas: [[0], [0, 1], [1]] };
    expect(steps({}, short)).toEqual([{ kind: 'copy-shards', nodes: 3, copies: 2 }]);
    expect(steps({ nodes: 3 }, short)).toEqual([{ kind: 'move-shards', nodes: 3, moves: 0, copies: 2 }]);
    expect(steps({}, { factor: 2 })).toEqual([]);
    // Three replicas on three nodes are all there can be.
    expect(steps({}, { factor: 4 })).toEqual([{ kind: 'copy-shards', nodes: 3, copies: 3 }]);
    // Somebody may still come back with them.
    expect(steps({}, { ...short, away: [2] })).toEqual([]);
    expect(steps({ resources: { memory: '4Gi' }, allowDowntime: true }, short)).toEqual([
      { kind: 'configure', restarts: 3 },
    ]);
  });

  test('a lost disk: other changes of nodes are refused, and a repair replaces the peer and copies its replicas', () => {
    const shape = { factor: 2, away: [2], lost: [{ pod: 'qdrant-2', peer: 'p2', certain: true }] };
    for (const nodes of [2, 3, 4]) expect(refusal({ nodes }, shape)['nodes']).toContain('"repair": true');
    expect(steps({ repair: true }, shape)).toEqual([
      {
        kind: 'replace-peers',
        peers: ['p2'],
        pods: [
          {
            name: 'qdrant-2',
            uid: 'pod-2',
            claims: [{ name: 'qdrant-storage-qdrant-2', uid: 'claim-of-qdrant-2' }],
          },
        ],
      },
      { kind: 'copy-shards', nodes: 3, copies: 2 },
    ]);
    // Only suspected: other settings may let the pod start, so naming the same number of nodes is no obstacle.
    const suspected = { ...shape, lost: [{ pod: 'qdrant-2', peer: 'p2', certain: false, trouble: 'It crashes.' }] };
    expect(steps({ nodes: 3, config: { log_level: 'INFO' } }, suspected).map(({ kind }) => kind)).toEqual([
      'configure',
      'add-nodes',
    ]);
    expect(refusal({ nodes: 4 }, suspected)['nodes']).toMatch(/^It crashes\. Consensus still has its peer p2/);
    // Together with more nodes.
    expect(steps({ repair: true, nodes: 4 }, shape).map(({ kind }) => kind)).toEqual([
      'replace-peers',
      'add-nodes',
      'move-shards',
    ]);
    expect(steps({ repair: true }, { factor: 2 })).toEqual([]);
  });

  test('a repair that would lose data or has no majority is refused, and points to a restore', () => {
    const elsewhere = expect.stringContaining('RestoreCluster') as string;
    const alone = { nodes: 2, factor: 2, replicas: [[0, 1]], away: [1] };
    expect(refusal({ repair: true, nodes: 3 }, alone)).toEqual({ repair: elsewhere, nodes: elsewhere });
    expect(refusal({ nodes: 3 }, alone)['nodes']).toContain('1 of 2 peers answer, which is no majority');
    const single = { factor: 1, replicas: [[0], [2]], away: [2] };
    expect(refusal({ repair: true }, single)['repair']).toContain('shard 1 of "docs" has no Active replica');
    const first = { factor: 2, away: [0] };
    expect(refusal({ repair: true }, first)['repair']).toContain('qdrant-0 is the first pod');
  });

  test('what a scale-in has left is removed before anything else', () => {
    const left = { wanted: 2, replicas: [[0, 1]], ghosts: [] };
    const { pods, peers, ...rest } = cluster(left);
    const seen = { ...rest, pods: pods.slice(0, 2), peers: peers.slice(0, 2) };
    const plan = (nodes: number, change: Partial<ObservedCluster> = {}) =>
      planUpdate({ ...SPEC, nodes: 2 }, { nodes }, { ...seen, ...change }, RELEASES).steps;
    const clear = { kind: 'remove-nodes', nodes: 2, removed: 1 };
    expect(plan(2)).toEqual([clear]);
    expect(plan(3)[0]).toEqual(clear);
    // A claim that somebody made for the pod to come.
    expect(plan(2, { claims: seen.claims.map((claim) => ({ ...claim, ofSet: false })) })).toEqual([]);
  });

  test('collections with one replica make a restart a downtime, which has to be allowed', () => {
    const single = { replicas: [[0], [1], [2]] };
    expect(refusal({ version: 'v1.18.3' }, single)['allowDowntime']).toContain('"docs"');
    expect(planUpdate(SPEC, { version: 'v1.18.3', allowDowntime: true }, cluster(single), RELEASES).downtime).toEqual([
      'docs',
    ]);
    // Nothing restarts when nodes come or go.
    expect(refusal({ nodes: 4 }, single)).toEqual({});
  });

  test('never plans fewer nodes than a shard has replicas, whatever is asked', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 6 }),
        fc.integer({ min: 1, max: 6 }),
        fc.integer({ min: 1, max: 4 }),
        (nodes, wanted, factor) => {
          const holders = Array.from({ length: Math.min(factor, nodes) }, (_, at) => at);
          const shape = { nodes, replicas: [holders] };
          if (wanted < holders.length) expect(refusal({ nodes: wanted }, shape)['nodes']).toBeDefined();
          else {
            const [removal] = steps({ nodes: wanted }, shape).filter(({ kind }) => kind === 'remove-nodes');
            expect(removal === undefined).toBe(wanted >= nodes);
          }
        },
      ),
    );
  });
});

describe('upgrade path', () => {
  const version = fc.record({ minor: fc.integer({ min: 10, max: 22 }), patch: fc.integer({ min: 0, max: 9 }) });
  const text = ({ minor, patch }: { minor: number; patch: number }) => `v1.${minor}.${patch}`;

  test('never skips a minor, never goes back, ends where it should', () => {
    fc.assert(
      fc.property(version, version, fc.array(version, { maxLength: 30 }), (from, to, known) => {
        const path = upgradePath(text(from), text(from), text(to), known.map(text));
        if ('problem' in path) return;
        let at = from;
        for (const tag of path.tags) {
          const [, minor = 0, patch = 0] = tag.slice(1).split('.').map(Number);
          expect(minor - at.minor).toBeLessThanOrEqual(1);
          expect(minor > at.minor || patch > at.patch).toBe(true);
          at = { minor, patch };
        }
        expect(at).toEqual(to);
      }),
    );
  });

  test('a minor without a release in between is named', () => {
    expect(upgradePath('1.15.0', '1.15.0', 'v1.17.1', ['v1.17.1'])).toEqual({
      problem: expect.stringContaining('1.16'),
    });
  });
});

test('conditions keep their time until their status changes', () => {
  const first = conditionsOf({ phase: 'HEALTHY' }, [], 't1');
  expect(first.map(({ type, status }) => [type, status])).toEqual([
    ['Ready', 'True'],
    ['Progressing', 'False'],
    ['Degraded', 'False'],
    ['Failed', 'False'],
  ]);
  const failure = { code: 'QdrantRejected', message: 'No.' };
  const second = conditionsOf({ phase: 'NOT_READY', degraded: 'one peer', serving: true, failure }, first, 't2');
  expect(second.map(({ status, lastTransitionTime }) => [status, lastTransitionTime])).toEqual([
    ['True', 't1'],
    ['False', 't1'],
    ['True', 't2'],
    ['True', 't2'],
  ]);
  expect(second[3]).toMatchObject({ reason: 'QdrantRejected', message: 'No.' });
});

describe('network and placement', () => {
  const has = { ...SPEC, network: { allowNamespaces: ['shop'] }, placement: { nodeSelector: { disk: 'nvme' } } };
  const stepsOf = (request: UpdateRequest) => planUpdate(has, request, cluster(), RELEASES).steps;

  test('a change of the network restarts nothing', () => {
    expect(stepsOf({ network: { allowNamespaces: ['till'] } })).toEqual([{ kind: 'surroundings' }]);
  });

  test('the same network is applied again: the configuration that the policies are made of may have changed', () => {
    expect(stepsOf({ network: has.network })).toEqual([{ kind: 'surroundings' }]);
  });

  test('a change of the placement restarts every pod, the same placement none', () => {
    expect(stepsOf({ placement: { nodeSelector: { disk: 'hdd' } } })).toEqual([{ kind: 'configure', restarts: 3 }]);
    expect(stepsOf({ placement: {} })).toEqual([{ kind: 'configure', restarts: 3 }]);
    expect(stepsOf({ placement: has.placement })).toEqual([]);
  });
});
