/** Work on many things at a time, but not on all. */

/** Collections that are asked about at a time: a cluster may have thousands. */
export const LANES = 8;

/** Like `Promise.all` over a map, with at most `lanes` at a time. */
export async function mapInLanes<T, R>(items: readonly T[], lanes: number, map: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  const queue = items.entries();
  const lane = async (): Promise<void> => {
    for (const [index, item] of queue) results[index] = await map(item);
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  return results;
}
