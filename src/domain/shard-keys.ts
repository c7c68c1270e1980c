/** Making custom shard keys again so that every shard gets the id it had. */
import type { ShardEntry } from './backup.ts';

type ShardKey = string | number;

/** One key to create, with its number of shards. A filler takes the ids of keys that were dropped, and goes again. */
export interface ShardKeyStep {
  readonly key: ShardKey;
  readonly shards: number;
  readonly filler?: true;
}

/** Names of fillers; a real key of such a name is refused rather than dropped. */
const FILLER = 'qdrant-fleet-gap-';

/**
 * Qdrant numbers the shards of keys upwards from 1, each key's after the highest id in use (seen on 1.18.3). So keys
 * are created in the order of their old ids, and where keys were dropped meanwhile, fillers take their ids.
 *
 * @returns the steps in order, or why there are none that lead to the old ids
 */
export function shardKeyPlan(
  shards: readonly Pick<ShardEntry, 'shard' | 'shardKey'>[],
): readonly ShardKeyStep[] | { readonly problem: string } {
  const steps: { key: ShardKey; shards: number; filler?: true }[] = [];
  const seen = new Set<ShardKey>();
  let next = 1;
  for (const { shard, shardKey } of shards.toSorted((a, b) => a.shard - b.shard)) {
    if (shardKey === undefined) return { problem: `shard ${shard} has no shard key` };
    if (shard < next) return { problem: `shard ids begin at ${shard}, those of shard keys at 1` };
    if (String(shardKey).startsWith(FILLER)) return { problem: `the shard key "${shardKey}" is a reserved name` };
    if (shard > next) steps.push({ key: `${FILLER}${next}`, shards: shard - next, filler: true });
    const last = steps.at(-1);
    if (last !== undefined && last.key === shardKey) last.shards += 1;
    else if (seen.has(shardKey)) {
      return { problem: `the shards of key "${shardKey}" do not follow each other, as after resharding` };
    } else steps.push({ key: shardKey, shards: 1 });
    seen.add(shardKey);
    next = shard + 1;
  }
  return steps;
}

/**
 * What is left to do of a plan, given the keys that exist: an earlier attempt may have got any part of the way.
 *
 * @returns keys to create in order, and then keys to drop
 */
export function remainingKeySteps(
  plan: readonly ShardKeyStep[],
  existing: ReadonlySet<ShardKey>,
): { create: readonly ShardKeyStep[]; drop: readonly ShardKey[] } {
  // Fillers go only when all keys are there: one that is missing before an existing key has gone already.
  const done = plan.findLastIndex(({ key }) => existing.has(key)) + 1;
  const create = plan.slice(done);
  const fillers = plan.filter(({ filler }) => filler);
  const made = new Set([...existing, ...create.map(({ key }) => key)]);
  return { create, drop: fillers.map(({ key }) => key).filter((key) => made.has(key)) };
}
