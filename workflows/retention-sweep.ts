import { isCancellation, patched } from '@temporalio/workflow';
import { parseRetentionInput } from '../src/domain/input.ts';
import {
  decideRetention,
  missingGood,
  RETENTION_DEFAULTS,
  type RetentionCandidate,
  type RetentionDecision,
} from '../src/domain/retention.ts';
import { control, described } from './shared/activity-proxies.ts';
import { isFailure, reasonOf } from './shared/failures.ts';
import { checked } from './shared/input.ts';
import { runOperation, type Ended } from './shared/operation.ts';

const STEPS = {
  lease: 'Take the lease',
  survey: 'Survey the backups',
  mark: 'Mark what no rule keeps',
  purge: 'Remove what was marked',
  collect: 'Collect the unfinished',
} as const;

const HOUR = 3_600_000;

/**
 * Apply a retention policy to a cluster's backups, finish interrupted removals and collect unfinished backups. The
 * last good backup is never removed, and a damaged one does not count as good. A marked backup keeps its data for
 * `undoHours`, and longer while fewer than `minGood` good ones exist.
 *
 * Point of no return: of each backup, its record: marked it can be taken back, PURGING it cannot. What earlier operations
 * on the cluster could not tidy is done too.
 *
 * Input: `{"tenant":"acme","cluster":"docs","policy":{"keepLast":7}}`; `"dryRun":true` only reports.
 */
export async function RetentionSweep(input: unknown): Promise<
  Ended<{
    decisions: RetentionDecision[];
    marked: string[];
    purged: string[];
    collected: string[];
    /** Removed from the lists, but kept because these backups refer to their blocks. */
    held: Record<string, readonly string[]>;
    /** Their time to be taken back is over, and their data stays all the same: fewer than `minGood` good ones exist. */
    spared: string[];
    dryRun: boolean;
  }>
> {
  const { tenant, cluster, policy, dryRun = false } = checked(input, parseRetentionInput);
  const ref = { tenant, cluster };
  return runOperation({ kind: 'retention', ref, steps: Object.values(STEPS) }, async (operation) => {
    // A dry run keeps nobody from anything.
    if (dryRun && patched('dry-run-without-lease')) operation.skip(STEPS.lease, 'dry run');
    else await operation.step(STEPS.lease, () => control.takeLease({ ...ref, mode: 'shared' }));
    const found = await operation.step(
      STEPS.survey,
      () => control.surveyBackups(ref),
      ({ committed, deleting, purging, abandoned, elsewhere = [] }) =>
        [
          `${counted(committed)}, ${deleting.length + purging.length} being removed, ${abandoned.length} unfinished`,
          ...elsewhere.map(({ bucket, backups }) => `${backups.length} of all in bucket ${bucket.name}`),
        ].join('; '),
    );
    for (const { id, reason } of (found.untrusted ?? []).slice(0, 20)) {
      operation.warn(`Backup ${id} is left alone and does not count: ${reason}`);
    }
    const placed = (backup: string) => {
      const bucket = found.elsewhere?.find(({ backups }) => backups.includes(backup))?.bucket;
      return { ...ref, backup, ...(bucket !== undefined && { bucket }) };
    };
    const decisions = decideRetention(found.committed, policy, found.now);
    const falling = decisions.filter(({ keep }) => !keep).map(({ id }) => id);
    if (dryRun) {
      for (const step of [STEPS.mark, STEPS.purge, STEPS.collect]) operation.skip(step, 'dry run');
      return { decisions, marked: falling, purged: [], collected: [], held: {}, spared: [], dryRun };
    }

    const grace = (policy.undoHours ?? RETENTION_DEFAULTS.undoHours) * HOUR;
    const deletingSince = new Date(found.now).toISOString();
    const purgeAfter = new Date(found.now + grace).toISOString();
    const marked: string[] = [];
    await operation.step(
      STEPS.mark,
      async () => {
        for (const backup of falling) {
          const at = placed(backup);
          const state = await control.markBackupDeleting.executeWithOptions(described(`Mark ${backup}`), [
            { ...at, purgeAfter },
          ]);
          const since = state === 'DELETING' ? { deletingSince, purgeAfter } : {};
          await index({ ...at, state, createdAt: createdAt(backup), ...since });
          marked.push(backup);
        }
      },
      () => `${marked.length} marked`,
    );

    const over = found.deleting.filter(({ since }) => found.now - since >= grace).map(({ id }) => id);
    // What was marked when there were enough good ones may be the last good one by now.
    const spares = over.length > 0 && missingGood(found.committed, policy, found.now) > 0 && patched('spare-last-good');
    const [due, spared] = spares ? [[], over] : [over, []];
    const purged: string[] = [];
    const held: Record<string, readonly string[]> = {};
    await operation.step(
      STEPS.purge,
      async () => {
        // The newest first: what refers to others goes before them.
        for (const backup of [...found.purging, ...due, ...(grace === 0 ? marked : [])].sort().reverse()) {
          const at = placed(backup);
          const { state, heldBy } = await control.purgeBackup.executeWithOptions(
            described(`Remove the data of ${backup}`),
            [at],
          );
          await index({ ...at, state, createdAt: createdAt(backup) });
          if (state === 'DELETED') purged.push(backup);
          if (heldBy !== undefined) held[backup] = heldBy;
        }
      },
      () => {
        const count = Object.keys(held).length;
        return [
          `${purged.length} removed`,
          ...(count === 0 ? [] : [`${count} held by backups that refer to them`]),
          ...(spared.length === 0 ? [] : [`${spared.length} kept, since too few good backups exist: take them back`]),
        ].join(', ');
      },
    );

    const collected: string[] = [];
    await operation.step(
      STEPS.collect,
      async () => {
        for (const backup of found.abandoned) {
          const { state } = await control.collectUnfinished.executeWithOptions(described(`Collect ${backup}`), [
            placed(backup),
          ]);
          if (state === 'ABORTED') collected.push(backup);
        }
        return removeLeft();
      },
      ({ removed, left }) =>
        `${collected.length} collected, ${removed} snapshots removed from nodes${left === 0 ? '' : `, ${left} shards still to clean`}`,
    );
    operation.pointOfNoReturn();
    await operation.afterwards(
      `Something that earlier operations on ${tenant}/${cluster} left is still to do`,
      async () => {
        if (patched('sweep-does-chores')) await control.workOffChores(ref);
      },
    );
    return { decisions, marked, purged, collected, held, spared, dryRun };

    /** The record counts; the list follows, now or by the next sweep. */
    function index(entry: Parameters<typeof control.indexBackup>[0]): Promise<void> {
      const chore = { ...ref, kind: 'backup-index', what: { backup: entry.backup } } as const;
      return operation.tidying.now(`entry of backup ${entry.backup} in the list`, chore, (options) =>
        control.indexBackup.executeWithOptions(options, [entry]),
      );
    }

    /** What cannot be removed stays noted for the next sweep. */
    async function removeLeft(): Promise<{ removed: number; left: number }> {
      try {
        return await control.removeSnapshotsLeft(ref);
      } catch (error) {
        if (!isFailure(error) || isCancellation(error) || !patched('sweep-goes-on-with-snapshots')) throw error;
        operation.warn(`Snapshots that backups left may still be on the nodes: ${reasonOf(error).message}`);
        return { removed: 0, left: 0 };
      }
    }
  });
}

function counted(listed: readonly RetentionCandidate[]): string {
  const damaged = listed.filter(({ damage }) => damage !== undefined).length;
  return `${listed.length - damaged} good${damaged === 0 ? '' : `, ${damaged} damaged`}`;
}

/** ISO 8601 of the time within a backup id. */
function createdAt(backup: string): string {
  return backup.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z-.*$/, '$1-$2-$3T$4:$5:$6Z');
}
