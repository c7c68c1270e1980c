import { CancellationScope, continueAsNew, executeChild, workflowInfo } from '@temporalio/workflow';
import { parseUpdateInput, type UpdateInput } from '../src/domain/input.ts';
import type { ShardMove } from '../src/domain/rebalance.ts';
import type { UpdateStep } from '../src/domain/update-plan.ts';
import { BackupCluster } from './backup-cluster.ts';
import { control, persistent, polled, preflight } from './shared/activity-proxies.ts';
import { changeMachines, isMachineStep, machineWords } from './shared/aws-machines.ts';
import { Change } from './shared/change.ts';
import { isFailure } from './shared/failures.ts';
import { checked } from './shared/input.ts';
import { runOperation, type Operation } from './shared/operation.ts';

const LEASE = 'Take the lease';
const PLAN = 'Look at the cluster';

/** Seconds that shards may take to come to rest before a change begins. */
const REST_SECONDS = 600;
/** Shard moves that are planned at a time: an update of any size fits into payloads. */
const BATCH = 50;
/** Collections whose shards move at the same time, one shard of each. */
const LANES = 4;

/**
 * Change a cluster: nodes, version, volumes, resources, configuration. The difference to what is there decides what is
 * done, so repeating an update that failed or was cancelled goes on where it stopped. Every step leaves a working
 * cluster, and the catalogue says what it is made of.
 *
 * Input: `{"tenant":"acme","cluster":"docs","nodes":5}`; see `UpdateInput` for the rest.
 */
export async function UpdateCluster(
  input: unknown,
): Promise<{ steps: readonly string[]; downtime: readonly string[] }> {
  const {
    tenant,
    cluster,
    dryRun,
    readyTimeoutSeconds,
    moveTimeoutSeconds = 21_600,
    ...request
  } = checked(input, parseUpdateInput);
  const ref = { tenant, cluster };
  const steps = dryRun === true ? [PLAN] : [LEASE, PLAN];
  return runOperation({ kind: 'update', ref, steps }, async (operation) => {
    if (dryRun === true) {
      const plan = await operation.step(PLAN, () => preflight.planClusterUpdate({ ...ref, request }));
      return { steps: plan.steps.map(wordsOf), downtime: plan.downtime };
    }
    await operation.step(LEASE, () => control.takeLease({ ...ref, mode: 'exclusive' }));
    const plan = await operation.step(
      PLAN,
      () =>
        control.planClusterUpdate.executeWithOptions(polled(REST_SECONDS, 'Look at the cluster, plan the change'), [
          { ...ref, request },
        ]),
      ({ steps: found }) => (found.length === 0 ? 'nothing to do' : `${found.length} steps`),
    );
    const names = plan.steps.map(wordsOf);
    operation.expect(names);
    if (names.length > 0) {
      const change = new Change(ref, plan.spec, readyTimeoutSeconds);
      await change.settle(async () => {
        for (const [index, step] of plan.steps.entries()) {
          const name = names[index] ?? '';
          await operation.step(name, () =>
            perform(step, name, change, { operation, input, request, moveTimeoutSeconds }),
          );
        }
      });
    }
    return { steps: names, downtime: plan.downtime };
  });
}

interface Context {
  readonly operation: Operation;
  readonly input: unknown;
  readonly request: UpdateInput | Omit<UpdateInput, 'tenant' | 'cluster'>;
  readonly moveTimeoutSeconds: number;
}

async function perform(step: UpdateStep, name: string, change: Change, context: Context): Promise<void> {
  const { ref } = change;
  const { operation, request } = context;
  const onRestart = (done: number, total: number) => operation.advance(name, done, total, 'pods restarted');
  if (isMachineStep(step)) return changeMachines(change, step);
  switch (step.kind) {
    case 'backup':
      await change.enter('UPGRADING');
      await executeChild(BackupCluster, {
        workflowId: `${workflowInfo().workflowId}/backup`,
        args: [ref],
        staticSummary: `Back up ${ref.tenant}/${ref.cluster} before the upgrade`,
      });
      return;
    case 'grow-volumes':
      await change.enter('UPDATING');
      await control.growVolumeClaims({ ...ref, storage: step.storage });
      // The StatefulSet must not stay away.
      await CancellationScope.nonCancellable(async () => {
        await control.releaseStatefulSet({ ...ref, storage: step.storage });
        await change.apply({ storage: step.storage });
      });
      await control.awaitVolumesGrown.executeWithOptions(change.wait('Wait until the volumes have grown'), [ref]);
      return;
    case 'configure': {
      await change.enter('UPDATING');
      const { resources, config } = request;
      await change.rollOut(
        { ...(resources !== undefined && { resources }), ...(config !== undefined && { config }) },
        onRestart,
      );
      return;
    }
    case 'upgrade':
      await change.enter('UPGRADING');
      await change.rollOut({ version: step.version }, onRestart, step.version);
      return;
    case 'add-nodes':
      await change.enter('SCALING');
      if (step.added > 0) await change.apply({ nodes: step.nodes });
      await change.awaitPeers();
      return;
    case 'move-shards':
      await change.enter('SCALING');
      await moveShards(step.nodes, name, change, context);
      return;
    case 'remove-nodes':
      await change.enter('SCALING');
      // A peer that has left consensus must not go on running.
      await CancellationScope.nonCancellable(async () => {
        await control.removePeers({ ...ref, nodes: step.nodes });
        await change.apply({ nodes: step.nodes });
        await change.awaitPodsGone(step.nodes);
        await control.removeSurplusClaims({ ...ref, nodes: step.nodes });
      });
      await change.awaitPeers();
      return;
  }
}

/** Batch by batch, each planned on what is there then, until nothing is left to move. */
async function moveShards(nodes: number, name: string, change: Change, context: Context): Promise<void> {
  const { ref } = change;
  let moved = 0;
  for (;;) {
    const { moves, remaining } = await control.planShardMoves.executeWithOptions(
      change.wait('Choose the shards to move'),
      [{ ...ref, nodes, limit: BATCH }],
    );
    if (moves.length === 0) return;
    const total = moved + moves.length + remaining;
    try {
      await inLanes([...Map.groupBy(moves, ({ collection }) => collection).values()], async (lane) => {
        for (const move of lane) {
          await moveShard(move);
          moved += 1;
          context.operation.advance(name, moved, total, 'shards moved');
        }
      });
    } catch (error) {
      if (!isFailure(error)) throw error;
      await CancellationScope.nonCancellable(() => persistent.abortShardMoves({ ...ref, moves }));
      throw error;
    }
    if (workflowInfo().continueAsNewSuggested) await continueAsNew<typeof UpdateCluster>(context.input);
  }

  function moveShard(move: ShardMove): Promise<void> {
    const what = `Shard ${move.shard} of "${move.collection}" from peer ${move.from} to peer ${move.to}`;
    return control.moveShard.executeWithOptions(polled(context.moveTimeoutSeconds, what), [{ ...ref, move }]);
  }
}

/** Run over all items, a few at a time; when one fails, those that run come to their end first, and no more begin. */
async function inLanes<T>(items: readonly T[], run: (item: T) => Promise<void>): Promise<void> {
  const queue = items.values();
  let failure: { error: unknown } | undefined;
  const lane = async (): Promise<void> => {
    for (const item of queue) {
      if (failure !== undefined) return;
      try {
        await run(item);
      } catch (error) {
        failure ??= { error };
      }
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  if (failure !== undefined) throw failure.error;
}

/** What a step does, in words; also its name. */
function wordsOf(step: UpdateStep): string {
  if (isMachineStep(step)) return machineWords(step);
  switch (step.kind) {
    case 'backup':
      return 'Back up';
    case 'grow-volumes':
      return `Grow ${step.claims} volumes to ${step.storage}`;
    case 'configure':
      return `Apply the configuration, restart ${step.restarts} pods`;
    case 'upgrade':
      return `Upgrade to ${step.version}, restart ${step.restarts} pods`;
    case 'add-nodes':
      return step.added > 0 ? `Add ${step.added} nodes, ${step.nodes} in all` : `Wait for all ${step.nodes} nodes`;
    case 'move-shards':
      return `Move ${step.moves} shards over ${step.nodes} nodes`;
    default:
      return `Remove ${step.removed} nodes, keep ${step.nodes}`;
  }
}
