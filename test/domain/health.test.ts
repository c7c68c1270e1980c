/** How a cluster is by what was seen of it, and what the conditions say of that. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { asSeen, conditionsOf, failureIn, type ClusterState } from '../../src/domain/conditions.ts';
import { healthOf, type Look } from '../../src/domain/health.ts';
import { lostDisks, rememberedAfter } from '../../src/domain/lost-disk.ts';
import { strangers } from '../../src/domain/membership.ts';

interface Shape {
  readonly nodes?: number;
  /** Ordinals of pods that do not answer. */
  readonly away?: readonly number[];
  readonly factor?: number;
  /** Of each shard, states by ordinal. */
  readonly shards?: readonly Readonly<Record<number, string>>[];
  readonly lost?: Look['lost'];
  readonly ghosts?: readonly string[];
  /** Ordinals of peers that take no part in consensus. */
  readonly silent?: readonly number[];
}

function look({ nodes = 3, away = [], factor = 2, lost = [], ghosts = [], silent = [], ...rest }: Shape = {}): Look {
  const ordinals = Array.from({ length: nodes }, (_, at) => at);
  const members = [...ordinals.map((at) => `p${at}`), ...ghosts];
  const shards = rest.shards ?? [{ 0: 'Active', 1: 'Active' }];
  return {
    nodes,
    peers: ordinals
      .filter((at) => !away.includes(at))
      .map((at) => ({ name: `qdrant-${at}`, id: `p${at}`, working: !silent.includes(at), known: members })),
    absent: away.map((at) => ({ name: `qdrant-${at}`, text: `qdrant-${at}: pod is not ready` })),
    lost,
    cluster: {
      pods: ordinals.map((at) => ({
        ...{ name: `qdrant-${at}`, ready: true, current: true },
        ...(!away.includes(at) && { peer: `p${at}` }),
      })),
      peers: members,
      placements: [
        {
          ...{ collection: 'docs', replicationFactor: factor, transfers: 0, resharding: 0 },
          shards: shards.map((states, shard) => ({
            shard,
            replicas: Object.entries(states).map(([at, state]) => ({ peer: `p${at}`, state })),
          })),
        },
      ],
    },
  };
}

describe('health', () => {
  test('all pods answer and every shard has its replicas: whole', () => {
    expect(healthOf(look())).toEqual({ serving: true });
    expect(healthOf(look({ nodes: 1, factor: 1, shards: [{ 0: 'Active' }] }))).toEqual({ serving: true });
  });

  test('fewer Active replicas than asked for are told, with what makes them', () => {
    const { degraded, serving } = healthOf(look({ shards: [{ 0: 'Active' }] }));
    expect(serving).toBe(true);
    expect(degraded).toBe(
      'Shard 0 of "docs" has 1 of 2 Active replicas. An update without changes makes those that are missing.',
    );
    expect(healthOf(look({ shards: [{ 0: 'Active', 1: 'Dead' }] })).degraded).toContain('is Dead on peer p1');
  });

  test('a factor above the number of nodes is met by one replica on each, and noted', () => {
    const short = { nodes: 2, factor: 3 };
    const note = '"docs" asks for 3 replicas on 2 nodes.';
    expect(healthOf(look(short))).toEqual({ serving: true, note });
    expect(healthOf(look({ ...short, shards: [{ 0: 'Active' }] })).degraded).toContain('1 of 2 Active replicas');
  });

  test('a replica counts only where its peer answers, whatever consensus still says', () => {
    const away = healthOf(look({ away: [1] }));
    expect(away.serving).toBe(true);
    expect(away.degraded).toContain('Qdrant-1: pod is not ready.');
    expect(away.degraded).toContain('1 of 2 Active replicas');
    const gone = healthOf(look({ away: [0, 1] }));
    expect(gone.serving).toBe(false);
    expect(gone.degraded).toContain('No replica of shard 0 of "docs" is Active on a peer that answers.');
    expect(gone.degraded).toContain('1 of 3 peers answer, which is no majority');
    expect(gone.degraded).toContain('RestoreCluster');
  });

  test('a lost disk is named with what repairs it, or with a restore where nothing does', () => {
    const lost = [{ pod: 'qdrant-2', peer: 'p2', certain: true }];
    const seen = healthOf(look({ away: [2], lost, shards: [{ 0: 'Active', 2: 'Active' }] })).degraded ?? '';
    expect(seen).toMatch(/^The disk of qdrant-2 was lost: .* peer p2/);
    expect(seen).toContain('"repair": true');
    expect(seen).not.toContain('pod is not ready');
    const alone = healthOf(look({ nodes: 2, away: [1], lost: [{ pod: 'qdrant-1', peer: 'p1', certain: true }] }));
    expect(alone.degraded).toContain('no majority');
    expect(alone.degraded).toContain('RestoreCluster');
    expect(alone.degraded).not.toContain('"repair": true');
    expect(healthOf(look({ away: [2], lost, shards: [{ 2: 'Active' }] })).degraded).toContain('RestoreCluster');
  });

  test('peers without a pod and peers outside of consensus are told', () => {
    expect(healthOf(look({ ghosts: ['gone'] })).degraded).toContain(
      'Consensus has peer gone, and no pod answers as it',
    );
    expect(healthOf(look({ silent: [1] })).degraded).toContain('Consensus does not work on qdrant-1.');
  });

  test('whole means that nothing is missing, and only then', () => {
    const state = fc.constantFrom('Active', 'Active', 'Active', 'Dead', 'Partial');
    const shard = fc.dictionary(fc.constantFrom('0', '1', '2'), state, { minKeys: 1 });
    const shape = fc.record({
      factor: fc.integer({ min: 1, max: 4 }),
      shards: fc.array(shard, { minLength: 1, maxLength: 5 }),
      away: fc.subarray([0, 1, 2]),
    });
    fc.assert(
      fc.property(shape, ({ factor, shards, away }) => {
        const { degraded, serving } = healthOf(look({ factor, shards, away }));
        const here = shards.map((states) =>
          Object.entries(states).flatMap(([at, is]) => (away.includes(Number(at)) ? [] : [is])),
        );
        const active = here.map((states) => states.filter((is) => is === 'Active').length);
        expect(serving).toBe(away.length < 3 && active.every((count) => count > 0));
        const whole =
          away.length === 0 &&
          active.every((count) => count >= Math.min(factor, 3)) &&
          here.every((states) => states.every((is) => is === 'Active'));
        expect(degraded === undefined).toBe(whole);
      }),
      { numRuns: 1000 },
    );
  });
});

describe('lost disks', () => {
  const remembered = { 'qdrant-2': { peer: 'p2', claim: 'old' } };
  const members = { p0: 'qdrant-0', p2: 'qdrant-2' };
  const pods = [{ name: 'qdrant-0', peer: 'p0' }, { name: 'qdrant-2' }];

  test('another claim under a peer that consensus still has is a lost disk; the same claim is not', () => {
    const lost = lostDisks({ pods, members, claims: { 'qdrant-2': 'new' }, remembered });
    expect(lost).toEqual([{ pod: 'qdrant-2', peer: 'p2', certain: true }]);
    expect(lostDisks({ pods, members, claims: { 'qdrant-2': 'old' }, remembered })).toEqual([]);
    // Removed from consensus, so that nothing keeps the new peer out.
    expect(lostDisks({ pods, members: { p0: 'qdrant-0' }, claims: { 'qdrant-2': 'new' }, remembered })).toEqual([]);
  });

  test('where nobody remembers, a pod that never comes up and has a peer is a guess', () => {
    const stuck = [{ name: 'qdrant-2', trouble: 'ends again and again' }];
    expect(lostDisks({ pods: stuck, members, claims: {}, remembered: {} })).toEqual([
      { pod: 'qdrant-2', peer: 'p2', certain: false, trouble: 'ends again and again' },
    ]);
    expect(lostDisks({ pods: [{ name: 'qdrant-2' }], members, claims: {}, remembered: {} })).toEqual([]);
  });

  test('what is remembered is who answers, and of the others what was known', () => {
    const claims = { 'qdrant-0': 'a', 'qdrant-2': 'new' };
    const known = { ...remembered, 'qdrant-7': { peer: 'p7', claim: 'x' } };
    expect(rememberedAfter({ pods, claims, remembered: known })).toEqual({
      'qdrant-0': { peer: 'p0', claim: 'a' },
      'qdrant-2': { peer: 'p2', claim: 'old' },
    });
  });
});

test('a first pod that starts a cluster of its own is a stranger, whatever its place in the list', () => {
  const peer = (id: string, ...known: string[]) => ({
    id,
    view: { working: true, peers: Object.fromEntries([id, ...known].map((each) => [each, {}])) },
  });
  const [alone, one, two] = [peer('new'), peer('p1', 'p0', 'p2'), peer('p2', 'p0', 'p1')];
  expect(strangers([alone, one, two])).toEqual([alone]);
  expect(strangers([one, two])).toEqual([]);
  // One that joins knows the others, or they know it.
  expect(strangers([peer('p0', 'p1'), peer('p1')])).toEqual([]);
  expect(strangers([])).toEqual([]);
});

describe('conditions of a look', () => {
  const of = (state: ClusterState, before = conditionsOf({ phase: 'HEALTHY' }, [], 't0')) =>
    Object.fromEntries(conditionsOf(state, before, 't1').map((condition) => [condition.type, condition]));

  test('an operation that begins does not say that the cluster is whole', () => {
    const before = conditionsOf({ phase: 'NOT_READY', degraded: 'one peer', serving: true }, [], 't0');
    const { Ready, Degraded, Progressing } = of({ phase: 'SCALING' }, before);
    expect([Ready?.status, Degraded?.status, Degraded?.message]).toEqual(['True', 'True', 'one peer']);
    expect(Progressing?.status).toBe('True');
  });

  test('what nobody could see is unknown, and what operations say stays', () => {
    const failure = { code: 'ChartFailed', message: 'No.' };
    const before = conditionsOf({ phase: 'NOT_READY', degraded: 'x', failure }, [], 't0');
    expect(failureIn(before)).toEqual(failure);
    const seen = of({ phase: 'NOT_READY', unseen: 'Kubernetes does not answer.', failure }, before);
    expect(Object.values(seen).map(({ type, status }) => `${type} ${status}`)).toEqual([
      ...['Ready Unknown', 'Progressing False', 'Degraded Unknown', 'Failed True'],
    ]);
    expect(seen['Failed']?.lastTransitionTime).toBe('t0');
    expect(seen['Degraded']).toMatchObject({ reason: 'NotSeen', message: 'Kubernetes does not answer.' });
  });

  test('a note is told beside a cluster that is whole', () => {
    expect(of({ phase: 'HEALTHY', serving: true, note: 'RF.' })['Degraded']).toMatchObject({
      ...{ status: 'False', reason: 'Whole', message: 'RF.' },
    });
  });

  test('a look that is three intervals old no longer counts, except while an operation is at work', () => {
    const now = new Date('2026-11-27T12:00:00Z');
    const conditions = conditionsOf({ phase: 'HEALTHY' }, [], 't0');
    const ago = (seconds: number) => new Date(now.getTime() - seconds * 1000);
    const statuses = (phase: ClusterState['phase'], observedAt: Date | null, seconds = 30) =>
      asSeen({ phase, conditions, observedAt }, now, seconds).map(({ status }) => status);
    const known = ['True', 'False', 'False', 'False'];
    const unknown = ['Unknown', 'False', 'Unknown', 'False'];
    expect(statuses('HEALTHY', ago(89))).toEqual(known);
    expect(statuses('HEALTHY', ago(91))).toEqual(unknown);
    expect(statuses('HEALTHY', null)).toEqual(unknown);
    expect(statuses('UPDATING', ago(9999))).toEqual(known);
    expect(statuses('HEALTHY', null, 0)).toEqual(known);
    expect(asSeen({ phase: 'HEALTHY', conditions, observedAt: ago(91) }, now, 30)[0]?.message).toMatch(/^Last seen at/);
  });
});
