import { CancellationScope, executeChild, patched, workflowInfo } from '@temporalio/workflow';
import type { BackupTotals } from '../src/domain/backup.ts';
import { parseBackupInput } from '../src/domain/input.ts';
import { inBucket, placeOf } from '../src/domain/naming.ts';
import type { RetentionPolicy } from '../src/domain/retention.ts';
import { SCHEDULED_START_TIME } from '../src/temporal-search-attributes.ts';
import { BackupPeer, type CopiedLane } from './backup-peer.ts';
import { RetentionSweep } from './retention-sweep.ts';
import { committing, control, persistent, preflight, queued, recorded } from './shared/activity-proxies.ts';
import { isFailure, leftoversOf, reasonOf, toWorkflowFailure } from './shared/failures.ts';
import { checked } from './shared/input.ts';
import { runOperation, type Ended } from './shared/operation.ts';

const STEPS = {
  lease: 'Take the lease',
  plan: 'Plan the shards',
  copy: 'Copy the shards',
  commit: 'Commit the backup',
  retention: 'Apply the retention policy',
} as const;

/** Copied shards that the lanes may answer with altogether: with the longest names a quarter of a payload's 2 MB. */
const MAX_CARRIED = 300;

/**
 * Back a cluster up: one verified object per logical shard, the manifest and the commit record last. This is also what
 * a schedule starts; a scheduled run is named by its slot.
 *
 * Point of no return: the record says COMMITTED. Whether it does is asked of the record and of nothing else.
 *
 * Input: `{"tenant":"acme","cluster":"docs"}`; see `BackupInput` for the rest.
 */
export async function BackupCluster(
  input: unknown,
): Promise<Ended<{ backup: string; bytes: number; points: number; shards: number; collections: number }>> {
  const { tenant, cluster, collections, format = 'full', retention } = checked(input, parseBackupInput);
  const ref = { tenant, cluster };
  const steps = Object.values(STEPS).filter((step) => retention !== undefined || step !== STEPS.retention);
  return runOperation({ kind: 'backup', ref, steps }, async (operation) => {
    const { parent } = workflowInfo();
    await operation.step(STEPS.lease, () =>
      control.takeLease.executeWithOptions(queued('Take the lease, wait until no other backup copies the cluster'), [
        { ...ref, mode: 'shared', copying: true, ...(parent !== undefined && { parent: parent.workflowId }) },
      ]),
    );

    const { spec, plan } = await operation.step(
      STEPS.plan,
      async () => {
        const cluster = await control.loadCluster(ref);
        const found = await preflight.planBackup({
          ...ref,
          nominalTime: nominalTime().toISOString(),
          ...(collections !== undefined && { collections }),
          ...(format !== 'full' && { format }),
        });
        return { spec: cluster.spec, plan: found };
      },
      ({ plan: { lanes, location, removed = 0, diskUnknown } }) =>
        [
          `${sumOf(lanes)} shards into ${placeOf(location)}`,
          ...(removed === 0 ? [] : [`${removed} snapshots that an earlier backup left are removed`]),
          ...(diskUnknown === undefined ? [] : [`free disk is unknown of ${diskUnknown}`]),
        ].join('; '),
    );
    const { location, attempt, transferQueue, lanes, startedAt, smallBytes = 0, engineMaxBytes = 0 } = plan;
    let settled = false;
    operation.saga.add(`unfinished backup ${location.backup}`, async () => {
      if (!settled) await persistent.abandonBackup({ location, attempt });
    });

    const copies = await operation.step(STEPS.copy, async () => {
      let copied = 0;
      const maxCarried = Math.floor(MAX_CARRIED / Math.max(1, lanes.length));
      const running = lanes.map(async ({ peer, shards }): Promise<CopiedLane> => {
        const result = await executeChild(BackupPeer, {
          workflowId: `${workflowInfo().workflowId}/peer-${peer}`,
          args: [
            {
              location,
              attempt,
              transferQueue,
              peer,
              shards,
              smallBytes,
              engineMaxBytes,
              maxCarried,
              ...(format !== 'full' && { format }),
            },
          ],
          staticSummary: `${shards} shards from peer ${peer}`,
        });
        copied += result.shards;
        operation.advance(STEPS.copy, copied, sumOf(lanes), 'shards');
        return result;
      });
      return allOrFirstFailure(running);
    });
    const left = copies.reduce((sum, lane) => sum + (lane.left ?? 0), 0);
    if (left > 0) {
      operation.warn(`Snapshots of ${left} shards are still on the nodes. The next backup or sweep removes them.`);
    }

    const { untidied, ...totals } = await operation.step(
      STEPS.commit,
      commit,
      ({ bytes, points }) => `${points} points, ${(bytes / 1e6).toFixed(1)} MB`,
    );
    operation.pointOfNoReturn();
    if (untidied !== undefined) {
      const what = { backup: location.backup, attempt };
      operation.tidying.handOver(
        'uploads and copies that the backup does not need',
        { ...ref, kind: 'backup-uploads', what },
        untidied,
      );
    }
    const entry = { ...ref, ...inBucket(location), backup: location.backup, createdAt: startedAt, totals } as const;
    // It is listed even if the operation is cancelled now.
    await CancellationScope.nonCancellable(() => {
      const chore = { ...ref, kind: 'backup-index', what: { backup: location.backup } } as const;
      return operation.tidying.now(`entry of backup ${location.backup} in the list`, chore, (options) =>
        persistent.indexBackup.executeWithOptions(options, [{ ...entry, state: 'COMMITTED' }]),
      );
    });

    if (retention !== undefined) await applyRetention(retention);
    return { backup: location.backup, ...totals };

    /**
     * A complete copy waits for its commit for hours. When that ends without an answer, the record decides, which only
     * the first of two writers gets: either it says that this run committed, or nobody can commit any more.
     */
    async function commit(): Promise<BackupTotals & { readonly untidied?: string }> {
      try {
        return await control.commitBackup.executeWithOptions(committing(`Commit ${location.backup}`), [
          {
            ...{ location, attempt, startedAt, spec },
            shards: copies.flatMap(({ copied }) => copied),
            lists: copies.flatMap(({ lists }) => lists),
          },
        ]);
      } catch (error) {
        if (!isFailure(error) || !patched('record-decides-on-commit')) throw error;
        settled = true;
        const committed = await CancellationScope.nonCancellable(() => settle(error));
        if (committed === undefined) throw error;
        return committed;
      }
    }

    /** @returns what was committed, or `undefined` when the backup is given up */
    async function settle(error: unknown): Promise<BackupTotals | undefined> {
      try {
        const { committed } = await persistent.abandonBackup.executeWithOptions(
          recorded(`Ask the record of ${location.backup} whether it was committed, else give it up`),
          [{ location, attempt }],
        );
        return committed;
      } catch (problem) {
        if (!isFailure(problem)) throw problem;
        const { message } = reasonOf(problem);
        const chore = { ...ref, kind: 'backup-index', what: { backup: location.backup } } as const;
        operation.tidying.handOver(
          `backup ${location.backup}, of which nobody knows whether it is committed`,
          chore,
          message,
        );
        throw toWorkflowFailure(error, [`unfinished backup ${location.backup} (${message})`]);
      }
    }

    /** The backup stands whatever becomes of the sweep. */
    async function applyRetention(policy: RetentionPolicy): Promise<void> {
      const sweep = () =>
        operation.step(STEPS.retention, () =>
          executeChild(RetentionSweep, {
            workflowId: `${workflowInfo().workflowId}/retention`,
            args: [{ ...ref, policy }],
          }),
        );
      try {
        const { warnings = [] } = await (operation.isPastReturn ? CancellationScope.nonCancellable(sweep) : sweep());
        for (const warning of warnings) operation.warn(warning);
      } catch (error) {
        if (!isFailure(error)) throw error;
        const { message } = reasonOf(error);
        operation.skip(STEPS.retention, message);
        operation.warn(`The retention policy was not applied: ${message}`);
      }
    }
  });
}

function sumOf(lanes: readonly { readonly shards: number }[]): number {
  return lanes.reduce((sum, { shards }) => sum + shards, 0);
}

/** The slot that the schedule meant, or the start. Retries and backfills of one slot share one backup id. */
function nominalTime(): Date {
  const info = workflowInfo();
  return info.typedSearchAttributes.get(SCHEDULED_START_TIME) ?? info.startTime;
}

/**
 * Wait for every lane to end, also when one fails: a failed backup is cleaned up, and nothing may still be writing
 * then. What any of them left behind is told with the first failure.
 */
async function allOrFirstFailure<T>(lanes: readonly Promise<T>[]): Promise<T[]> {
  const outcomes = await Promise.allSettled(lanes);
  const reasons = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason as unknown] : []));
  const leftovers = reasons.flatMap(leftoversOf);
  if (reasons.length > 0) throw leftovers.length === 0 ? reasons[0] : toWorkflowFailure(reasons[0], leftovers);
  return outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
}
