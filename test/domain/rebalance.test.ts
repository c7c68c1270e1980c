/** Shard moves keep the promises that make them safe, for any placement. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FleetError } from '../../src/domain/errors.ts';
import { planMoves, type ShardMove } from '../../src/domain/rebalance.ts';
import type { CollectionPlacement } from '../../src/domain/topology.ts';

interface Case {
  readonly placements: readonly CollectionPlacement[];
  readonly keep: readonly string[];
}

/** Collections of any number of shards with replicas on any of up to 6 peers, and the peers that are to hold them then. */
const cases: fc.Arbitrary<Case> = fc
  .record({ before: fc.integer({ min: 1, max: 6 }), after: fc.integer({ min: 1, max: 8 }) })
  .chain(({ before, after }) => {
    const peers = Array.from({ length: before }, (_, peer) => `p${peer}`);
    const shard = fc.subarray(peers, { minLength: 1, maxLength: Math.min(before, after) });
    return fc.array(fc.array(shard, { minLength: 1, maxLength: 8 }), { maxLength: 6 }).map((collections) => ({
      keep: Array.from({ length: after }, (_, peer) => `p${peer}`),
      placements: collections.map((shards, index) => ({
        collection: `c${index}`,
        transfers: 0,
        resharding: 0,
        shards: shards.map((holders, id) => ({
          shard: id,
          replicas: holders.map((peer) => ({ peer, state: 'Active' })),
        })),
      })),
    }));
  });

/** Who holds each shard, by `<collection>/<shard>`. */
function holdersOf(placements: readonly CollectionPlacement[]): Map<string, string[]> {
  return new Map(
    placements.flatMap(({ collection, shards }) =>
      shards.map(({ shard, replicas }) => [`${collection}/${shard}`, replicas.map(({ peer }) => peer)] as const),
    ),
  );
}

/** Follows the moves as Qdrant does: the target holds the shard first, the source lets go then. */
function apply(placements: readonly CollectionPlacement[], moves: readonly ShardMove[]): Map<string, string[]> {
  const holders = holdersOf(placements);
  for (const { collection, shard, from, to } of moves) {
    const key = `${collection}/${shard}`;
    const now = holders.get(key) ?? [];
    expect(now, 'a move begins where a replica is').toContain(from);
    expect(now, 'two replicas of a shard never share a peer').not.toContain(to);
    const both = [...now, to];
    expect(both.length).toBeGreaterThan(1);
    holders.set(
      key,
      both.filter((peer) => peer !== from),
    );
  }
  return holders;
}

function loads(holders: Map<string, string[]>, keep: readonly string[], collection?: string): number[] {
  const of = new Map(keep.map((peer) => [peer, 0]));
  for (const [key, peers] of holders) {
    if (collection !== undefined && !key.startsWith(`${collection}/`)) continue;
    for (const peer of peers) of.set(peer, (of.get(peer) ?? 0) + 1);
  }
  return [...of.values()];
}

describe('shard moves', () => {
  test('never put two replicas of a shard on one peer, never lose one, and end on the peers that stay', () => {
    fc.assert(
      fc.property(cases, ({ placements, keep }) => {
        const before = holdersOf(placements);
        const after = apply(placements, planMoves(placements, keep));
        for (const [key, peers] of after) {
          expect(peers).toHaveLength(before.get(key)?.length ?? 0);
          expect(new Set(peers).size).toBe(peers.length);
          for (const peer of peers) expect(keep).toContain(peer);
        }
      }),
      { numRuns: 500 },
    );
  });

  test('even the load out, of each collection first and of all together second', () => {
    fc.assert(
      fc.property(cases, ({ placements, keep }) => {
        const after = apply(placements, planMoves(placements, keep));
        for (const { collection } of placements) {
          const found = loads(after, keep, collection);
          // A peer that holds one shard more than another may keep it only where every shard it has is on both.
          expect(Math.max(...found) - Math.min(...found)).toBeLessThanOrEqual(1);
        }
      }),
      { numRuns: 500 },
    );
  });

  test('nothing is left to do after them, and the same placement gives the same moves', () => {
    fc.assert(
      fc.property(cases, ({ placements, keep }) => {
        const moves = planMoves(placements, keep);
        expect(planMoves(placements, keep)).toEqual(moves);
        const after = apply(placements, moves);
        const moved = placements.map((item) => ({
          ...item,
          shards: item.shards.map((shard) => ({
            ...shard,
            replicas: (after.get(`${item.collection}/${shard.shard}`) ?? []).map((peer) => ({ peer, state: 'Active' })),
          })),
        }));
        expect(planMoves(moved, keep)).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });

  test('new peers get shards even where every collection has fewer shards than there are peers', () => {
    const placements = Array.from({ length: 9 }, (_, index): CollectionPlacement => ({
      collection: `c${index}`,
      transfers: 0,
      resharding: 0,
      shards: [{ shard: 0, replicas: [{ peer: index % 2 === 0 ? 'a' : 'b', state: 'Active' }] }],
    }));
    const keep = ['a', 'b', 'c'];
    expect(loads(apply(placements, planMoves(placements, keep)), keep)).toEqual([3, 3, 3]);
  });

  test('more replicas than peers, and a replica that is not Active, are refused', () => {
    const shard = (states: Record<string, string>): CollectionPlacement[] => [
      {
        collection: 'docs',
        transfers: 0,
        resharding: 0,
        shards: [{ shard: 0, replicas: Object.entries(states).map(([peer, state]) => ({ peer, state })) }],
      },
    ];
    const code = (run: () => unknown) => {
      try {
        run();
        return 'nothing';
      } catch (error) {
        return FleetError.is(error) ? error.code : String(error);
      }
    };
    expect(code(() => planMoves(shard({ a: 'Active', b: 'Active' }), ['a']))).toBe('UpdateRefused');
    expect(code(() => planMoves(shard({ a: 'Active', b: 'Dead' }), ['a', 'c']))).toBe('TopologyUnstable');
    // A Dead replica that may stay where it is, is no obstacle, and no source.
    expect(planMoves(shard({ a: 'Active', b: 'Dead' }), ['a', 'b', 'c'])).toEqual([]);
  });
});
