/** Restoring one collection: made, filled replica by replica, counted; in rounds when an outcome is not known. */
import { CancellationScope, isCancellation, patched } from '@temporalio/workflow';
import type { ReplicaTask } from '../../activities/recovery.ts';
import { isRetryable } from '../../src/domain/errors.ts';
import type { BackupLocation, ClusterRef } from '../../src/domain/naming.ts';
import { control, described, persistent, polled, pulling, relaying } from './activity-proxies.ts';
import { hasCode, isFailure, reasonOf } from './failures.ts';

/** Times that a collection is dropped and made again after a recovery with unknown outcome. */
const MAX_ROUNDS = 3;

/**
 * Replicas of one collection that are filled at the same time. Temporal lets 2,000 activities of a workflow be open, and
 * a collection may have more replicas than that.
 */
const PULLS_AT_ONCE = 8;

export interface RestoreWay {
  /** Queue of the workers that serve the shards; absent where the nodes read the bucket. */
  readonly relayQueue?: string;
  /** Called when the collection turns out to be somebody else's, who made it after the gates. */
  readonly onForeign: () => void;
  /** Called with the bytes that one replica got through a worker. */
  readonly onRelayed: (bytes: number) => void;
}

/** What was proven of a collection. */
interface RestoredCollection {
  readonly points: number;
  /** Points of its samples that were read and compared; absent in runs that began before there were any. */
  readonly compared?: number;
  /** Shards without a sample. */
  readonly unsampled?: number;
}

export interface CollectionInput {
  readonly target: ClusterRef;
  readonly location: BackupLocation;
  /** Its name in the backup. */
  readonly collection: string;
  /** Its name in the target, where that is another one. */
  readonly as?: string;
  readonly replicationFactor?: number;
}

/**
 * Restore one collection. When a recovery ends without an answer nobody knows whether it still runs, and two that
 * overlap undo each other; so the collection, which is ours, is dropped once all nodes are idle, and made again.
 *
 * Bytes that were altered on their way are another reason to start over.
 *
 * @throws ApplicationFailure what the last round failed with
 */
export async function restoreCollection(input: CollectionInput, way: RestoreWay): Promise<RestoredCollection> {
  const { target, collection, as: name = collection } = input;
  const what = `"${name}"`;
  for (let round = 1; ; round += 1) {
    let isPulling = false;
    try {
      await create();
      const replicas = await control.placeReplicas.executeWithOptions(polled(300, `Replicas of ${what} in place`), [
        input,
      ]);
      isPulling = true;
      await pullAll(input, replicas, way);
      isPulling = false;
      return await control.verifyRestoredCollection.executeWithOptions(polled(600, `Count ${what} on every replica`), [
        input,
      ]);
    } catch (error) {
      if (isCancellation(error) || !isFailure(error)) throw error;
      // A recovery is tried once only, so whatever another try could mend ends up here.
      const { code } = reasonOf(error);
      const mendable = isRetryable(code) || (isPulling && code === 'IntegrityMismatch');
      if (!mendable || round === MAX_ROUNDS) throw error;
      await CancellationScope.nonCancellable(() => dropWhenIdle({ target, collection: name }));
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
export async function dropWhenIdle(made: { target: ClusterRef; collection: string }): Promise<void> {
  await control.awaitRecoveriesIdle.executeWithOptions(polled(3600, `Recoveries of "${made.collection}" have ended`), [
    made,
  ]);
  await persistent.dropRestoredCollection(made);
}

/** A window of replicas at a time; the failure, if any, only after every pull that was begun has ended. */
async function pullAll(input: CollectionInput, replicas: readonly ReplicaTask[], way: RestoreWay): Promise<void> {
  const { relayQueue, onRelayed } = way;
  // Runs that began before there was a window pull all replicas at once.
  const width = patched('pulls-in-a-window') ? PULLS_AT_ONCE : replicas.length;
  await inParallel(replicas, width, async (replica) => {
    const what = `"${input.as ?? input.collection}" shard ${replica.shard}`;
    const task = { ...input, ...replica };
    if (relayQueue === undefined) {
      await control.recoverReplica.executeWithOptions(pulling(`Peer ${replica.peer} pulls ${what}`), [task]);
      return;
    }
    const options = relaying(relayQueue, `Peer ${replica.peer} gets ${what} through a worker`);
    const { relayed } = await control.relayReplica.executeWithOptions(options, [task]);
    onRelayed(relayed);
  });
}

/** Once one fails no other is begun; the failure comes when all that were begun have ended. */
export async function inParallel<T>(
  items: readonly T[],
  width: number,
  run: (item: T) => Promise<void>,
): Promise<void> {
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
