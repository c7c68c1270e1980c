import { CancellationScope, executeChild, isCancellation, workflowInfo } from '@temporalio/workflow';
import type { ReplicaTask } from '../activities/recovery.ts';
import type { RestorePlan, RestorePreview } from '../activities/restore.ts';
import { isRetryable } from '../src/domain/errors.ts';
import { parseRestoreInput } from '../src/domain/input.ts';
import type { ClusterRef } from '../src/domain/naming.ts';
import { DeleteCluster } from './delete-cluster.ts';
import { ProvisionCluster } from './provision-cluster.ts';
import { control, described, once, persistent, polled, preflight, relaying } from './shared/activity-proxies.ts';
import { hasCode, isFailure, reasonOf } from './shared/failures.ts';
import { checked } from './shared/input.ts';
import { runOperation } from './shared/operation.ts';

const STEPS = {
  open: 'Open the backup',
  cluster: 'Create the cluster',
  lease: 'Take the lease',
  gates: 'Check the gates',
  restore: 'Restore the collections',
  aliases: 'Switch the aliases',
} as const;

/** Times that a collection is dropped and made again after a recovery with unknown outcome. */
const MAX_ROUNDS = 3;
/** Collections that are restored side by side. */
const PARALLEL_COLLECTIONS = 2;

/**
 * Restore a backup into another cluster, which is made when it does not exist, with any number of nodes. Every replica
 * pulls its shard from the bucket; counts are proven on each; aliases come last. A failure removes what was made.
 *
 * Input: `{"tenant":"acme","source":"docs","backup":"<id>","cluster":"docs2","nodes":2}`; `"dryRun":true` only tells what
 * would happen, how many bytes would be pulled, and which gate would refuse.
 */
export async function RestoreCluster(input: unknown): Promise<Restored | (RestorePreview & { dryRun: true })> {
  const parsed = checked(input, parseRestoreInput);
  const { tenant, source, backup, cluster, nodes, replicationFactor, collections, via, dryRun = false } = parsed;
  const target = { tenant, cluster };
  return runOperation({ kind: 'restore', ref: target, steps: Object.values(STEPS) }, async (operation) => {
    const { saga } = operation;
    // The lease is written first of all, so it has to go however little came after it.
    saga.add(`lease on backup ${backup} of ${source}`, () => persistent.closeBackup({ tenant, source, backup }));
    const plan = await operation.step(
      STEPS.open,
      () =>
        preflight.openBackup({
          ...{ tenant, source, backup },
          ...(collections !== undefined && { collections }),
          ...(via !== undefined && { via }),
        }),
      (found) => `${found.collections.length} collections, ${megabytes(found)} MB, Qdrant ${found.qdrantVersion}`,
    );
    const { location, transferQueue } = plan;
    const relayQueue = plan.via === 'worker' ? transferQueue : undefined;
    let relayed = 0;

    const names = plan.collections.map(({ name }) => name);
    const replicas = replicationFactor === undefined ? {} : { replicationFactor };

    const existed = await control.clusterExists(target);
    if (dryRun) {
      for (const step of [STEPS.cluster, STEPS.lease, STEPS.restore, STEPS.aliases]) operation.skip(step, 'dry run');
      const asMade = existed ? {} : { nodes: nodes ?? plan.spec.nodes };
      const preview = await operation.step(
        STEPS.gates,
        () => control.previewRestore({ target, location, collections: names, ...replicas, ...asMade }),
        ({ refusals }) => refusals.map(({ detail }) => detail).join('; ') || 'nothing is in the way',
      );
      await control.closeBackup({ tenant, source, backup });
      return { ...preview, dryRun };
    }
    if (existed) operation.skip(STEPS.cluster, 'it exists');
    else {
      await operation.step(STEPS.cluster, () => provision(plan));
      saga.add(`cluster ${tenant}/${cluster}`, async () => {
        await persistent.releaseLease(target);
        await executeChild(DeleteCluster, { workflowId: `${workflowInfo().workflowId}/undo`, args: [target] });
      });
    }
    await operation.step(STEPS.lease, () => control.takeLease({ ...target, mode: 'exclusive' }));

    await operation.step(STEPS.gates, () =>
      control.checkRestoreGates({ target, location, collections: names, ...replicas }),
    );

    const points = await operation.step(
      STEPS.restore,
      async () => {
        let total = 0;
        let restored = 0;
        await inParallel(names, PARALLEL_COLLECTIONS, async (collection) => {
          let ours = true;
          // A cluster that we made goes as a whole.
          if (existed) {
            saga.add(`collection "${collection}"`, async () => {
              if (ours) await dropWhenIdle({ target, collection });
            });
          }
          const restoredPoints = await restoreCollection(
            { target, location, collection, ...replicas },
            {
              ...(relayQueue !== undefined && { relayQueue }),
              onForeign: () => {
                ours = false;
              },
              onRelayed: (bytes) => {
                relayed += bytes;
              },
            },
          );
          // Not `total += await ...`: that would add to what the total was before the other lane's result.
          total += restoredPoints;
          restored += 1;
          operation.advance(STEPS.restore, restored, names.length, 'collections');
        });
        return total;
      },
      (total) => `${total} points, counted on every replica`,
    );

    const { aliases } = await operation.step(
      STEPS.aliases,
      () => control.restoreAliases({ target, location, collections: names }),
      (switched) => `${switched.aliases} aliases`,
    );
    await control.closeBackup({ tenant, source, backup });
    const bytes = plan.collections.reduce((sum, collection) => sum + collection.bytes, 0);
    return { cluster, backup, collections: names.length, points, bytes, relayed, aliases };
  });

  /** A cluster like the one backed up, empty. It cleans up after itself when it fails. */
  function provision({ spec }: RestorePlan): Promise<unknown> {
    const { collections: _, ...request } = spec;
    return executeChild(ProvisionCluster, {
      workflowId: `${workflowInfo().workflowId}/provision`,
      args: [{ ...target, ...request, ...(nodes !== undefined && { nodes }), collections: [] }],
    });
  }
}

interface Restored {
  readonly cluster: string;
  readonly backup: string;
  readonly collections: number;
  readonly points: number;
  /** Of one full copy. */
  readonly bytes: number;
  /** Bytes that went through workers; 0 where the nodes read the bucket. */
  readonly relayed: number;
  readonly aliases: number;
}

interface RestoreWay {
  /** Queue of the workers that serve the shards; absent where the nodes read the bucket. */
  readonly relayQueue?: string;
  /** Called when the collection turns out to be somebody else's, who made it after the gates. */
  readonly onForeign: () => void;
  /** Called with the bytes that one replica got through a worker. */
  readonly onRelayed: (bytes: number) => void;
}

interface CollectionInput {
  readonly target: ClusterRef;
  readonly location: RestorePlan['location'];
  readonly collection: string;
  readonly replicationFactor?: number;
}

/**
 * Restore one collection. When a recovery ends without an answer nobody knows whether it still runs, and two that
 * overlap undo each other; so the collection, which is ours, is dropped once all nodes are idle, and made again.
 *
 * @returns points in it
 */
async function restoreCollection(input: CollectionInput, way: RestoreWay): Promise<number> {
  const { target, collection } = input;
  const what = `"${collection}"`;
  for (let round = 1; ; round += 1) {
    try {
      await create();
      const replicas = await control.placeReplicas.executeWithOptions(polled(300, `Replicas of ${what} in place`), [
        input,
      ]);
      await pullAll(input, replicas, way);
      const verified = await control.verifyRestoredCollection.executeWithOptions(
        polled(600, `Count ${what} on every replica`),
        [input],
      );
      return verified.points;
    } catch (error) {
      if (isCancellation(error) || !isFailure(error)) throw error;
      // A recovery is tried once only, so whatever another try could mend ends up here.
      if (!isRetryable(reasonOf(error).code) || round === MAX_ROUNDS) throw error;
      await CancellationScope.nonCancellable(() => dropWhenIdle({ target, collection }));
    }
  }

  async function create(): Promise<void> {
    try {
      await control.createRestoredCollection.executeWithOptions(described(`Collection ${what}`), [input]);
    } catch (error) {
      if (hasCode(error, 'RestoreRefused')) way.onForeign();
      throw error;
    }
  }
}

/** Drop a collection that we made, once no node recovers any of it: a recovery goes on when nobody waits for it. */
async function dropWhenIdle(made: { target: ClusterRef; collection: string }): Promise<void> {
  await control.awaitRecoveriesIdle.executeWithOptions(polled(3600, `Recoveries of "${made.collection}" have ended`), [
    made,
  ]);
  await persistent.dropRestoredCollection(made);
}

/** All replicas at once; the failure, if any, only after every pull has ended. */
async function pullAll(input: CollectionInput, replicas: readonly ReplicaTask[], way: RestoreWay): Promise<void> {
  const { relayQueue, onRelayed } = way;
  const pulls = replicas.map(async (replica) => {
    const what = `"${input.collection}" shard ${replica.shard}`;
    const task = { ...input, ...replica };
    if (relayQueue === undefined) {
      await control.recoverReplica.executeWithOptions(once(`Peer ${replica.peer} pulls ${what}`), [task]);
      return;
    }
    const options = relaying(relayQueue, `Peer ${replica.peer} gets ${what} through a worker`);
    const { relayed } = await control.relayReplica.executeWithOptions(options, [task]);
    onRelayed(relayed);
  });
  const failed = (await Promise.allSettled(pulls)).find((outcome) => outcome.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

/** Once one fails no other is begun; the failure comes when all that were begun have ended. */
async function inParallel<T>(items: readonly T[], width: number, run: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items];
  const lanes = Array.from({ length: width }, async () => {
    try {
      for (let item = queue.shift(); item !== undefined; item = queue.shift()) await run(item);
    } catch (error) {
      queue.length = 0;
      throw error;
    }
  });
  const failed = (await Promise.allSettled(lanes)).find((outcome) => outcome.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

function megabytes({ collections }: RestorePlan): string {
  return (collections.reduce((sum, { bytes }) => sum + bytes, 0) / 1e6).toFixed(1);
}
