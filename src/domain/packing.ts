/** Which shards are copied together: what costs least in the bookkeeping without losing much when a copy breaks off. */
import type { ShardTask } from './topology.ts';

/** Limits of a pack. What was copied of one whose worker dies is mostly kept; the rest is begun again. */
export const PACK = { shards: 50, bytes: 256 * 1024 * 1024 } as const;

/**
 * Group the tasks of one peer, in their order: small shards side by side make a pack, every other one stays alone, and
 * so does one whose size nobody has guessed.
 *
 * @param smallBytes largest guess of a shard that counts as small; 0 for none
 */
export function packShards(tasks: readonly ShardTask[], smallBytes: number): ShardTask[][] {
  const groups: ShardTask[][] = [];
  let pack: ShardTask[] | undefined;
  let filled = 0;
  for (const task of tasks) {
    if (!isSmall(task, smallBytes)) {
      groups.push([task]);
      pack = undefined;
      continue;
    }
    const { bytes = 0 } = task;
    if (pack === undefined || pack.length === PACK.shards || filled + bytes > PACK.bytes) {
      pack = [];
      filled = 0;
      groups.push(pack);
    }
    pack.push(task);
    filled += bytes;
  }
  return groups;
}

/** Whether a shard is copied in a pack; a pack may hold one alone. None is where `smallBytes` is 0. */
export function isSmall({ bytes }: ShardTask, smallBytes: number): boolean {
  return smallBytes > 0 && bytes !== undefined && bytes <= smallBytes;
}
