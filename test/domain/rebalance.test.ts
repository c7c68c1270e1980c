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

/** As `cases`, where each collection asks for a number of replicas that its shards may not have, some of them not Active. */
const wanting: fc.Arbitrary<Case> = cases.chain((item) =>
  fc
    .tuple(
      fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 6, maxLength: 6 }),
      fc.array(fc.boolean(), { minLength: 1, maxLength: 20 }),
    )
    .map(([factors, dead]) => {
      let at = 0;
      return {
        // Peers that leave would have to wait for what is not Active.
        keep: [...new Set([...item.keep, ...item.placements.flatMap(peersOf)])],
        placements: item.placements.map((placement, index) => ({
          ...placement,
          replicationFactor: factors[index] ?? 1,
          shards: placement.shards.map((shard) => ({
            ...shard,
            replicas: shard.replicas.map(({ peer }, replica) => ({
              peer,
              state: replica > 0 && dead[at++ % dead.length] === true ? 'Dead' : 'Active',
            })),
          })),
        })),
      };
    }),
);

function peersOf({ shards }: CollectionPlacement): string[] {
  return shards.flatMap(({ replicas }) => replicas.map(({ peer }) => peer));
}

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
  for (const { collection, shard, from, to, copy } of moves) {
    const key = `${collection}/${shard}`;
    const now = holders.get(key) ?? [];
    expect(now, 'a move begins where a replica is').toContain(from);
    expect(now, 'two replicas of a shard never share a peer').not.toContain(to);
    const both = [...now, to];
    expect(both.length).toBeGreaterThan(1);
    holders.set(key, copy === true ? both : both.filter((peer) => peer !== from));
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

  test('make the replicas that a collection asks for, from Active ones only, and never lower what a shard has', () => {
    fc.assert(
      fc.property(wanting, fc.constantFrom('all' as const, 'copies' as const), ({ placements, keep }, wanted) => {
        const active = new Map(
          placements.flatMap(({ collection, shards }) =>
            shards.map(({ shard, replicas }) => [
              `${collection}/${shard}`,
              new Set(replicas.filter(({ state }) => state === 'Active').map(({ peer }) => peer)),
            ]),
          ),
        );
        const least = new Map([...active].map(([key, peers]) => [key, peers.size]));
        const moves = planMoves(placements, keep, wanted);
        const after = apply(placements, moves);
        for (const { collection, shard, from, to, copy } of moves) {
          if (wanted === 'copies') expect(copy).toBe(true);
          const key = `${collection}/${shard}`;
          const now = active.get(key) ?? new Set();
          expect(now, 'it begins at an Active replica').toContain(from);
          now.add(to);
          if (copy !== true) now.delete(from);
          expect(now.size).toBeGreaterThanOrEqual(least.get(key) ?? 0);
        }
        const before = holdersOf(placements);
        for (const { collection, replicationFactor = 1, shards } of placements) {
          for (const { shard } of shards) {
            const key = `${collection}/${shard}`;
            const least = Math.min(replicationFactor, keep.length);
            expect(after.get(key)).toHaveLength(Math.max(least, before.get(key)?.length ?? 0));
          }
        }
      }),
      { numRuns: 500 },
    );
  });

  test('the only replica of a shard is copied to a new peer, and not moved there', () => {
    const placement = {
      ...{ collection: 'docs', replicationFactor: 2, transfers: 0, resharding: 0 },
      shards: [0, 1].map((shard) => ({ shard, replicas: [{ peer: 'a', state: 'Active' }] })),
    };
    const copies = [0, 1].map((shard) => ({ collection: 'docs', shard, from: 'a', to: 'b', copy: true }));
    expect(planMoves([placement], ['a', 'b'])).toEqual(copies);
    // More than there are peers cannot be.
    expect(planMoves([placement], ['a'])).toEqual([]);
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
