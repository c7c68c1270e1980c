/**
 * Which backups may go. A backup stays when any rule keeps it (the semantics of `restic forget`), and beyond the rules:
 *
 * 1. The newest good backup always stays, and `minGood` of them. A damaged one is not good: it takes no counted place and
 *    anchors no age, so it never pushes a good one out.
 * 2. Age counts from the newest good backup, not from now: a cluster whose backups fail for years loses none.
 * 3. A backup that a restore reads, or whose time lies in the future, stays.
 * 4. At most `maxRemovals` go in one sweep, oldest first.
 * 5. A damaged backup stays as long as a good one in its place would, and in any case while fewer than `minGood` good ones
 *    exist: it may be all that is left to restore from.
 */
export interface RetentionPolicy {
  /** Keep the newest n. */
  readonly keepLast?: number;
  /** Keep what is at most this many days older than the newest good backup. */
  readonly keepWithinDays?: number;
  /** Never fewer good backups than this; default 1. */
  readonly minGood?: number;
  /** At most this many removals in one sweep; default 20. */
  readonly maxRemovals?: number;
  /** Hours between marking a backup and removing its data, in which it can be taken back; default 72. */
  readonly undoHours?: number;
}

export const RETENTION_DEFAULTS = { minGood: 1, maxRemovals: 20, undoHours: 72 } as const;

/** A committed backup, as the rule sees it. */
export interface RetentionCandidate {
  readonly id: string;
  /** Nominal time, milliseconds since the epoch. */
  readonly time: number;
  /** A restore is reading it. */
  readonly leased: boolean;
  /** Why it does not count as good, such as "it is damaged"; absent where nothing is known against it. */
  readonly damage?: string;
}

export interface RetentionDecision {
  readonly id: string;
  readonly keep: boolean;
  readonly reason: string;
}

const DAY = 86_400_000;
const FUTURE_TOLERANCE = 5 * 60_000;

/**
 * Decide over all committed backups of one cluster.
 *
 * @param now milliseconds since the epoch, by the store's clock
 * @returns one decision per backup, newest first
 */
export function decideRetention(
  backups: readonly RetentionCandidate[],
  policy: RetentionPolicy,
  now: number,
): RetentionDecision[] {
  if (policy.keepLast === undefined && policy.keepWithinDays === undefined) {
    return sorted(backups).map(({ id }) => ({ id, keep: true, reason: 'the policy names nothing to keep by' }));
  }
  const minGood = minGoodOf(policy);
  const isFuture = (backup: RetentionCandidate) => backup.time > now + FUTURE_TOLERANCE;
  // Future-dated and damaged backups must neither anchor the age rule nor use up the counted places.
  const good = sorted(backups).filter((backup) => !isFuture(backup) && backup.damage === undefined);
  const newest = good[0]?.time ?? now;
  const rank = new Map(good.map((backup, index) => [backup.id, index]));

  const decisions = sorted(backups).map((backup): RetentionDecision => {
    const why = keptBecause(backup);
    const but = backup.damage === undefined ? '' : `${backup.damage}, so it does not count as good; `;
    return { id: backup.id, keep: why !== undefined, reason: `${but}${why ?? 'no rule keeps it'}` };
  });

  function keptBecause(backup: RetentionCandidate): string | undefined {
    const { id, time, leased, damage } = backup;
    if (isFuture(backup)) return 'its time is in the future';
    // Of a damaged one: the place that it would have.
    const place = rank.get(id) ?? good.filter((other) => other.time > time).length;
    if (damage !== undefined && good.length < minGood) return `fewer than ${minGood} good ones exist`;
    if (damage === undefined && place < minGood) {
      return place === 0 ? 'the newest good backup' : `one of the ${minGood} newest`;
    }
    if (leased) return 'a restore is reading it';
    if (policy.keepLast !== undefined && place < policy.keepLast) return `one of the last ${policy.keepLast}`;
    if (policy.keepWithinDays !== undefined && newest - time <= policy.keepWithinDays * DAY) {
      return `within ${policy.keepWithinDays} days of the newest`;
    }
    return undefined;
  }

  let removable = policy.maxRemovals ?? RETENTION_DEFAULTS.maxRemovals;
  return decisions
    .toReversed()
    .map((decision) => {
      if (decision.keep) return decision;
      removable -= 1;
      return removable >= 0 ? decision : { id: decision.id, keep: true, reason: 'left for the next sweep' };
    })
    .toReversed();
}

/**
 * How many good backups a sweep may not fall below when it removes data: a backup that was marked while there were others
 * may be the last good one by now.
 *
 * @param backups all that are listed, as for {@link decideRetention}
 * @returns how many good ones are missing; 0 where there are enough
 */
export function missingGood(backups: readonly RetentionCandidate[], policy: RetentionPolicy, now: number): number {
  const good = backups.filter(({ time, damage }) => damage === undefined && time <= now + FUTURE_TOLERANCE).length;
  return Math.max(0, minGoodOf(policy) - good);
}

function minGoodOf({ minGood = RETENTION_DEFAULTS.minGood }: RetentionPolicy): number {
  return Math.max(1, minGood);
}

/** Newest first; the id breaks ties, so that the order of a listing decides nothing. */
function sorted(backups: readonly RetentionCandidate[]): RetentionCandidate[] {
  return backups.toSorted((a, b) => b.time - a.time || (a.id < b.id ? 1 : -1));
}
