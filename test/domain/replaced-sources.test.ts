import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { replaceSources, type CollectionPlacement, type ShardTask } from '../../src/domain/topology.ts';

const state = fc.constantFrom('Active', 'Active', 'Dead', 'Partial', 'Initializing');
const placements: fc.Arbitrary<CollectionPlacement[]> = fc
  .array(fc.uniqueArray(fc.tuple(fc.constantFrom('1', '2', '3', '4'), state), { selector: ([peer]) => peer }), {
    minLength: 1,
    maxLength: 8,
  })
  .map((shards) => [
    {
      collection: 'docs',
      shards: shards.map((replicas, shard) => ({
        shard,
        replicas: replicas.map(([peer, is]) => ({ peer, state: is })),
      })),
      transfers: 0,
      resharding: 0,
    },
  ]);
const tasksOf = (list: readonly CollectionPlacement[], peer: string): ShardTask[] =>
  list.flatMap(({ collection, shards }) => shards.map(({ shard }) => ({ collection, shard, peer, bytes: 5 })));
const activeOf = ([placement]: readonly CollectionPlacement[], shard: number) =>
  placement?.shards[shard]?.replicas.filter((replica) => replica.state === 'Active').map(({ peer }) => peer) ?? [];

describe('replaceSources', () => {
  test('each shard gets an Active replica, another one wherever there is one, or is told to wait', () => {
    fc.assert(
      fc.property(placements, fc.constantFrom('1', '2', '3'), (list, peer) => {
        const wanted = tasksOf(list, peer);
        const { tasks, waiting } = replaceSources(wanted, list);
        expect(tasks.length + waiting.length).toBe(wanted.length);
        for (const task of tasks) {
          const active = activeOf(list, task.shard);
          expect(active).toContain(task.peer);
          if (active.some((other) => other !== peer)) expect(task.peer).not.toBe(peer);
          expect(task).toMatchObject({ tried: [peer], bytes: 5 });
        }
        for (const { shard } of wanted.filter((task) => tasks.every((found) => found.shard !== task.shard))) {
          expect(activeOf(list, shard)).toEqual([]);
        }
      }),
    );
  });

  test('what was tried before is not tried again while there is another', () => {
    const list: CollectionPlacement[] = [
      {
        collection: 'docs',
        shards: [{ shard: 0, replicas: ['1', '2', '3'].map((peer) => ({ peer, state: 'Active' })) }],
        ...{ transfers: 0, resharding: 0 },
      },
    ];
    const task = { collection: 'docs', shard: 0, peer: '2', tried: ['1'] };
    expect(replaceSources([task], list).tasks).toEqual([{ ...task, peer: '3', tried: ['1', '2'] }]);
  });

  test('shards on the move are waited for', () => {
    const list: CollectionPlacement[] = [
      {
        collection: 'docs',
        shards: [{ shard: 0, replicas: [{ peer: '2', state: 'Active' }] }],
        ...{ transfers: 1, resharding: 0 },
      },
    ];
    expect(replaceSources(tasksOf(list, '1'), list).waiting).toEqual([
      'collection "docs" has 1 shard transfers running',
    ]);
  });
});
