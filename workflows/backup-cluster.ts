import { ApplicationFailure, CancellationScope, executeChild, patched, workflowInfo } from '@temporalio/workflow';
import type { BackupTotals } from '../src/domain/backup.ts';
import { parseBackupInput } from '../src/domain/input.ts';
import { inBucket, placeOf } from '../src/domain/naming.ts';
import type { RetentionPolicy } from '../src/domain/retention.ts';
import type { ShardTask } from '../src/domain/topology.ts';
import { SCHEDULED_START_TIME } from '../src/temporal-search-attributes.ts';
import { BackupPeer, type CopiedLane } from './backup-peer.ts';
import { RetentionSweep } from './retention-sweep.ts';
import { committing, control, persistent, polled, preflight, queued, recorded } from './shared/activity-proxies.ts';
import { hasCode, isFailure, leftoversOf, reasonOf, toWorkflowFailure } from './shared/failures.ts';
import { checked } from './shared/input.ts';
import { runOperation, type Ended } from './shared/operation.ts';

const STEPS = {
  lease: 'Take the lease',
  plan: 'Plan the shards',
  copy: 'Copy the shards',
  commit: 'Commit the backup',
  retention: 'Apply the retention policy',
} as const;

type BackupLanes = readonly { readonly peer: string; readonly shards: number }[];

/** Rounds in which another Active replica is looked for, the planned one included. */
const MAX_ROUNDS = 3;
/** Seconds that a cluster may take to have an Active replica of every shard again. */
const REPLAN_SECONDS = 900;

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
      const all: CopiedLane[] = [];
      let [next, round] = [lanes, 1];
      for (;;) {
        const carried = all.reduce((sum, { copied }) => sum + copied.length, 0);
        const done = await copyLanes(next, round, Math.max(0, MAX_CARRIED - carried));
        all.push(...done);
        const inactive = done.flatMap((lane) => lane.inactive ?? []);
        if (inactive.length === 0) return all;
        if (round === MAX_ROUNDS) throw notActive(inactive, `in ${MAX_ROUNDS} rounds`);
        round += 1;
        operation.say(STEPS.copy, `${inactive.length} shards are taken from other replicas, round ${round}`);
        next = await replan(inactive, round);
      }
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

    /** All lanes at once, so that each node makes one snapshot at a time. One that fails stops the others. */
    async function copyLanes(of: BackupLanes, round: number, carry: number): Promise<CopiedLane[]> {
      let copied = 0;
      const maxCarried = Math.floor(carry / Math.max(1, of.length));
      return allOrFirstFailure(of, async ({ peer, shards }): Promise<CopiedLane> => {
        const result = await executeChild(BackupPeer, {
          workflowId: `${workflowInfo().workflowId}/peer-${peer}${round === 1 ? '' : `-round-${round}`}`,
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
              ...(round > 1 && { round }),
              ...(format !== 'full' && { format }),
            },
          ],
          staticSummary: `${shards} shards from peer ${peer}`,
        });
        copied += result.shards;
        operation.advance(STEPS.copy, copied, sumOf(of), 'shards');
        return result;
      });
    }

    async function replan(tasks: readonly ShardTask[], round: number): Promise<BackupLanes> {
      try {
        const options = polled(REPLAN_SECONDS, `Other sources for ${tasks.length} shards`);
        return (await control.replanShards.executeWithOptions(options, [{ location, attempt, round, tasks }])).lanes;
      } catch (error) {
        if (!hasCode(error, 'ClusterNotReady')) throw error;
        throw notActive(tasks, reasonOf(error).message);
      }
    }

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

function notActive(tasks: readonly ShardTask[], why: string): ApplicationFailure {
  const shards = tasks.slice(0, 10).map(({ collection, shard }) => `"${collection}" shard ${shard}`);
  const told = [...shards, ...(tasks.length > 10 ? [`${tasks.length - 10} more`] : [])].join(', ');
  return ApplicationFailure.nonRetryable(
    `No replica of ${told} was Active for as long as it was copied: ${why} Wait until the cluster is whole and try again.`,
    'TopologyUnstable',
  );
}

/**
 * Run every lane. The first one that fails stops the others, and all of them are waited for: a failed backup is cleaned
 * up, and nothing may still be writing then. What any of them left behind is told with the first failure.
 */
async function allOrFirstFailure<L, T>(lanes: readonly L[], run: (lane: L) => Promise<T>): Promise<T[]> {
  const failures: unknown[] = [];
  const scope = new CancellationScope();
  const outcomes = await scope.run(() =>
    Promise.allSettled(
      lanes.map(async (lane) => {
        try {
          return await run(lane);
        } catch (error) {
          failures.push(error);
          if (failures.length === 1 && isFailure(error) && patched('failed-lane-stops-others')) scope.cancel();
          throw error;
        }
      }),
    ),
  );
  const [first] = failures;
  if (first === undefined) {
    return outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
  }
  const leftovers = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? leftoversOf(outcome.reason) : []));
  throw leftovers.length === 0 ? first : toWorkflowFailure(first, leftovers);
}
