import {
  CancellationScope,
  continueAsNew,
  executeChild,
  isCancellation,
  log,
  workflowInfo,
} from '@temporalio/workflow';
import { FleetError } from '../src/domain/errors.ts';
import { parseUpdateInput, type UpdateInput } from '../src/domain/input.ts';
import type { ShardMove } from '../src/domain/rebalance.ts';
import type { UpdateStep } from '../src/domain/update-plan.ts';
import { BackupCluster } from './backup-cluster.ts';
import { control, persistent, polled, preflight } from './shared/activity-proxies.ts';
import { changeMachines, isMachineStep, machineWords } from './shared/aws-machines.ts';
import { Change } from './shared/change.ts';
import { isFailure, reasonOf } from './shared/failures.ts';
import { checked } from './shared/input.ts';
import { runOperation, type Ended, type Operation } from './shared/operation.ts';

const LEASE = 'Take the lease';
const PLAN = 'Look at the cluster';

/** Seconds that shards may take to come to rest before a change begins. */
const REST_SECONDS = 600;
/** Shard moves that are planned at a time: an update of any size fits into payloads. */
const BATCH = 50;
/** Collections whose shards move at the same time, one shard of each. */
const LANES = 4;
/** A peer that goes away so often while one shard moves will go again. */
const MAX_ABSENCES = 20;
/** Seconds that those who stay have to answer, so that the others can leave; nobody can cancel it meanwhile. */
const REMOVE_SECONDS = 120;
/** Seconds that a failing change tries to stop the transfers that it began; without a majority of peers nobody can. */
const ABORT_SECONDS = 120;

/**
 * Change a cluster: nodes, version, volumes, resources, configuration, network, placement. The difference to what is there decides what is
 * done, so repeating an update that failed or was cancelled goes on where it stopped. Every step leaves a working
 * cluster, and the catalogue says what it is made of.
 *
 * Point of no return: of each step, the chart that was applied with it, except that pods which do not come up with it are
 * put back; of the whole, the last step.
 *
 * Input: `{"tenant":"acme","cluster":"docs","nodes":5}`; see `UpdateInput` for the rest.
 */
export async function UpdateCluster(
  input: unknown,
): Promise<Ended<{ steps: readonly string[]; downtime: readonly string[]; notes?: readonly string[] }>> {
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
      const { downtime, notes } = plan;
      return { steps: plan.steps.map(wordsOf), downtime, ...(notes !== undefined && { notes }) };
    }
    await operation.step(LEASE, () => control.takeLease({ ...ref, mode: 'exclusive' }));
    const plan = await operation.step(
      PLAN,
      () =>
        control.planClusterUpdate.executeWithOptions(polled(REST_SECONDS, 'Look at the cluster, plan the change'), [
          { ...ref, request },
        ]),
      ({ steps: found, notes = [] }) =>
        [found.length === 0 ? 'nothing to do' : `${found.length} steps`, ...notes].join('; '),
    );
    const names = plan.steps.map(wordsOf);
    operation.expect(names);
    const change = new Change(ref, plan.spec, readyTimeoutSeconds);
    // Also with nothing to do: one that repeats what was cancelled at its end tells that the cluster is well again.
    await change.settle(async () => {
      for (const [index, step] of plan.steps.entries()) {
        const name = names[index] ?? '';
        await operation.step(name, () =>
          perform(step, name, change, { operation, input, request, moveTimeoutSeconds }),
        );
      }
    }, operation);
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
    case 'surroundings': {
      const { network = {} } = request;
      await change.enter('UPDATING');
      await control.applySurroundings({ ...ref, spec: { ...change.spec, network } });
      await change.record({ network });
      return;
    }
    case 'configure': {
      await change.enter('UPDATING');
      const { resources, config, placement } = request;
      await change.rollOut(
        {
          ...(resources !== undefined && { resources }),
          ...(config !== undefined && { config }),
          ...(placement !== undefined && { placement }),
        },
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
    case 'copy-shards':
      await change.enter('SCALING');
      await moveShards(step.nodes, name, change, context, true);
      return;
    case 'replace-peers':
      await change.enter('UPDATING');
      // A pod whose peer has left consensus must not keep its volumes.
      await CancellationScope.nonCancellable(() =>
        control.replacePeers.executeWithOptions(polled(REMOVE_SECONDS, 'Remove the lost peers, empty their volumes'), [
          { ...ref, peers: step.peers, pods: step.pods },
        ]),
      );
      await change.awaitPeers();
      return;
    case 'remove-nodes':
      await change.enter('SCALING');
      // A peer that has left consensus must not go on running.
      await CancellationScope.nonCancellable(async () => {
        await control.removePeers.executeWithOptions(polled(REMOVE_SECONDS, 'Take empty peers out of consensus'), [
          { ...ref, nodes: step.nodes },
        ]);
        await change.apply({ nodes: step.nodes });
        await change.awaitPodsGone(step.nodes);
        await control.removeSurplusClaims({ ...ref, nodes: step.nodes });
      });
      await change.awaitPeers();
      return;
  }
}

/** Batch by batch, each planned on what is there then, until nothing is left to move. */
async function moveShards(
  nodes: number,
  name: string,
  change: Change,
  context: Context,
  copies = false,
): Promise<void> {
  const { ref } = change;
  let moved = 0;
  for (;;) {
    const { moves, remaining } = await control.planShardMoves.executeWithOptions(
      change.wait('Choose the shards to move'),
      [{ ...ref, nodes, limit: BATCH, ...(copies && { copies }) }],
    );
    if (moves.length === 0) return;
    const total = moved + moves.length + remaining;
    try {
      await inLanes([...Map.groupBy(moves, ({ collection }) => collection).values()], async (lane) => {
        for (const move of lane) {
          await moveShard(move);
          moved += 1;
          context.operation.advance(name, moved, total, copies ? 'replicas made' : 'shards moved');
        }
      });
    } catch (error) {
      if (!isFailure(error)) throw error;
      await CancellationScope.nonCancellable(() => abort(moves));
      throw error;
    }
    if (workflowInfo().continueAsNewSuggested) await continueAsNew<typeof UpdateCluster>(context.input);
  }

  /**
   * A transfer may take its time. A peer that is away may take no longer than a pod may take to start: its machine may
   * never come back.
   */
  async function moveShard(move: ShardMove): Promise<void> {
    const kind = move.copy === true ? 'Copy of shard' : 'Shard';
    const what = `${kind} ${move.shard} of "${move.collection}" from peer ${move.from} to peer ${move.to}`;
    const end = Date.now() + context.moveTimeoutSeconds * 1000;
    for (let absences = 1; ; absences += 1) {
      const seconds = Math.max((end - Date.now()) / 1000, 1);
      const waits = await control.moveShard.executeWithOptions(polled(seconds, what), [{ ...ref, move }]);
      // Nothing, or null out of a history.
      if (!waits) return;
      if (absences === MAX_ABSENCES) {
        throw new FleetError('ClusterNotReady', `${waits.away} That was the ${MAX_ABSENCES}th time while it moved.`);
      }
      context.operation.say(name, waits.away);
      try {
        await change.awaitPeers();
      } catch (error) {
        if (!isFailure(error) || isCancellation(error)) throw error;
        const { code, message } = reasonOf(error);
        const [told, why] = code === 'Internal' ? (['ClusterNotReady', waits.away] as const) : [code, message];
        throw new FleetError(told, `${what} did not move. ${why} What has moved stays; repeat the update afterwards.`);
      }
    }
  }

  async function abort(moves: readonly ShardMove[]): Promise<void> {
    try {
      await persistent.abortShardMoves.executeWithOptions(polled(ABORT_SECONDS, 'Stop what is on its way'), [
        { ...ref, moves },
      ]);
    } catch (error) {
      if (!isFailure(error)) throw error;
      // What the change failed with says more.
      log.warn('could not stop the shards on their way', { ...reasonOf(error) });
    }
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
    case 'surroundings':
      return 'Apply the network policy';
    case 'configure':
      return `Apply the configuration, restart ${step.restarts} pods`;
    case 'upgrade':
      return `Upgrade to ${step.version}, restart ${step.restarts} pods`;
    case 'add-nodes':
      return step.added > 0 ? `Add ${step.added} nodes, ${step.nodes} in all` : `Wait for all ${step.nodes} nodes`;
    case 'move-shards': {
      const copies = step.copies === undefined ? '' : `, make ${step.copies} missing replicas`;
      return `Move ${step.moves} shards over ${step.nodes} nodes${copies}`;
    }
    case 'copy-shards':
      return `Make ${step.copies} missing replicas`;
    case 'replace-peers':
      return `Replace ${Math.max(step.peers.length, step.pods.length)} lost peers`;
    default:
      return `Remove ${step.removed} nodes, keep ${step.nodes}`;
  }
}
