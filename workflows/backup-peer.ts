import {
  ApplicationFailure,
  CancellationScope,
  continueAsNew,
  isCancellation,
  log,
  patched,
  setCurrentDetails,
  workflowInfo,
} from '@temporalio/workflow';
import type { CopiedShard } from '../activities/backup-store.ts';
import type { NodeSnapshot } from '../activities/qdrant.ts';
import type { BackupFormat, ShardEntry } from '../src/domain/backup.ts';
import { backupKeys, inBucket, type BackupLocation, type ClusterRef } from '../src/domain/naming.ts';
import { isSmall, packShards } from '../src/domain/packing.ts';
import type { ShardTask } from '../src/domain/topology.ts';
import { briefly, control, persistent, polled, snapshotting, streaming } from './shared/activity-proxies.ts';
import { hasCode, isFailure, reasonOf, toWorkflowFailure } from './shared/failures.ts';

export interface BackupPeerInput {
  readonly location: BackupLocation;
  readonly attempt: string;
  readonly transferQueue: string;
  readonly peer: string;
  /** 1, the default: as planned. Later ones take what was not Active elsewhere. */
  readonly round?: number;
  /** How many there are to copy; which, is in the plan. */
  readonly shards: number;
  /** Shards of up to so many bytes, by a guess, are copied many in one activity; default none. */
  readonly smallBytes?: number;
  /** Shards up to this size are opened by Qdrant's engine; default none. */
  readonly engineMaxBytes?: number;
  /** Default `full`. */
  readonly format?: BackupFormat;
  /** Copied shards that may be carried along and answered; default all. */
  readonly maxCarried?: number;
  /** Carried through continue-as-new. */
  readonly done?: CopiedLane;
}

/** What was copied of a peer. */
export interface CopiedLane {
  readonly shards: number;
  readonly copied: readonly CopiedShard[];
  /** Keys of lists of what is not in `copied`. */
  readonly lists: readonly string[];
  /** Shards whose snapshots could not be removed from the node yet. */
  readonly left?: number;
  /** Shards whose replica here was not Active: they have to be taken from another peer. */
  readonly inactive?: readonly ShardTask[];
}

type Stored = Pick<ShardEntry, 'key' | 'size' | 'sha256' | 'crc32' | 'incremental'>;

/** Times that a snapshot may vanish from its node before the backup gives up. */
const MAX_SNAPSHOTS = 3;

/**
 * Back up the shards that one peer gives, one after the other, so that no node ever makes two snapshots at a time.
 * A child of `BackupCluster`; not meant to be started by hand.
 */
export async function BackupPeer(input: BackupPeerInput): Promise<CopiedLane> {
  try {
    const { location, attempt, peer, smallBytes = 0, maxCarried = Number.POSITIVE_INFINITY } = input;
    const lane = { location, attempt, peer, ...(input.round !== undefined && { round: input.round }) };
    let {
      shards,
      copied,
      lists,
      left = 0,
      inactive = [],
    }: CopiedLane = input.done ?? { shards: 0, copied: [], lists: [] };
    const onLeft = () => {
      left += 1;
    };
    while (shards < input.shards) {
      const { tasks, known } = await control.nextShards({ ...lane, from: shards });
      for (const group of packShards(tasks, smallBytes)) {
        setCurrentDetails(`Shard ${shards + 1} of ${input.shards}: ${nameOf(group)}`);
        const found = await backUpGroup(input, known, group, onLeft);
        copied = [...copied, ...found];
        shards += group.length;
        inactive = [...inactive, ...group.filter((task) => !found.some((shard) => isOf(shard, task)))];
        // They are answered, and a payload has its bounds.
        if (inactive.length > Math.max(1, maxCarried)) throw tooManyInactive(peer, inactive.length);
        if (copied.length > maxCarried) {
          const { key } = await control.storeCopied({ ...lane, from: shards - copied.length, shards: copied });
          lists = [...lists, key];
          copied = [];
        }
        if (workflowInfo().continueAsNewSuggested && shards < input.shards) {
          await continueAsNew<typeof BackupPeer>({ ...input, done: { shards, copied, lists, left, inactive } });
        }
      }
    }
    return { shards, copied, lists, ...(left > 0 && { left }), ...(inactive.length > 0 && { inactive }) };
  } catch (error) {
    // Continue-as-new is thrown too and is neither.
    if (isCancellation(error) || !isFailure(error)) throw error;
    throw toWorkflowFailure(error);
  }
}

function isOf(copied: CopiedShard, { collection, shard }: ShardTask): boolean {
  return copied.collection === collection && copied.shard === shard;
}

function tooManyInactive(peer: string, count: number): ApplicationFailure {
  const what = `${count} replicas on peer ${peer} were not Active when they were to be copied`;
  return ApplicationFailure.nonRetryable(`${what}. Wait until the cluster is whole and try again.`, 'TopologyUnstable');
}

/**
 * A pack of small shards, or a single one of another size.
 *
 * @returns what was copied: not among it are shards whose replica was not Active
 */
async function backUpGroup(
  input: BackupPeerInput,
  known: readonly string[],
  group: readonly ShardTask[],
  onLeft: () => void,
): Promise<readonly CopiedShard[]> {
  const [task] = group;
  if (task === undefined) return [];
  if (!isSmall(task, input.smallBytes ?? 0)) return backUpShard(input, known, task, onLeft);
  const { location, attempt, transferQueue, engineMaxBytes = 0 } = input;
  try {
    return await control.copyShardPack.executeWithOptions(streaming(transferQueue, `Copy ${nameOf(group)}`), [
      {
        location,
        attempt,
        tasks: group,
        known,
        engineMaxBytes,
        ...(input.format !== undefined && { format: input.format }),
      },
    ]);
  } catch (error) {
    throw await cleanUp(input, known, group, error);
  }
}

async function backUpShard(
  input: BackupPeerInput,
  known: readonly string[],
  task: ShardTask,
  onLeft: () => void,
): Promise<readonly CopiedShard[]> {
  const { location, attempt, transferQueue, peer } = input;
  const { tenant, cluster } = location;
  const ref = { tenant, cluster };
  const { collection, shard } = task;
  const what = nameOf([task]);

  for (let round = 1; ; round += 1) {
    let snapshot: NodeSnapshot | undefined;
    try {
      snapshot = await control.createShardSnapshot.executeWithOptions(snapshotting(`Snapshot of ${what}`), [
        { ...ref, task, known },
      ]);
      const stored = await transfer(snapshot);
      // The node's file goes as soon as it is copied; what is looked at from here on is the copy.
      await remove(snapshot);
      const { exact, sample } = await openCopy(stored);
      const points = { ...snapshot.points, ...(exact !== undefined && { exact }) };
      const copied = {
        collection,
        shard,
        ...stored,
        points,
        ...(sample !== undefined && { sample }),
        cutAt: snapshot.cutAt,
        ...(task.shardKey !== undefined && { shardKey: task.shardKey }),
        sourcePeer: peer,
      };
      return [copied];
    } catch (error) {
      const failure = await cleanUp(input, known, [task], error);
      if (hasCode(error, 'ReplicaNotActive')) {
        log.warn(`${what} is taken from another peer`, { ...reasonOf(failure) });
        if (failure !== error) onLeft();
        return [];
      }
      if (hasCode(error, 'SnapshotVanished') && round < MAX_SNAPSHOTS) continue;
      throw failure;
    }
  }

  async function transfer(snapshot: NodeSnapshot): Promise<Stored> {
    const options = streaming(transferQueue, `Copy ${what}, ${(snapshot.size / 1e6).toFixed(1)} MB`);
    if (input.format === 'incremental') {
      const copy = await control.transferIncrementalShard.executeWithOptions(options, [
        { location, attempt, task, snapshot },
      ]);
      const { key, size, sha256, crc32, incremental } = copy;
      return { key, size, sha256, crc32, incremental };
    }
    const key = backupKeys(location).shard(attempt, collection, shard, snapshot.sha256);
    const copy = await control.transferShardSnapshot.executeWithOptions(options, [
      { ...ref, ...inBucket(location), task, snapshot, key },
    ]);
    return { key, size: copy.size, sha256: copy.sha256, crc32: copy.crc32 };
  }

  async function openCopy(stored: Stored): Promise<Pick<CopiedShard, 'sample'> & { exact?: number }> {
    if (stored.size > (input.engineMaxBytes ?? 0)) return {};
    const { points, sample } = await control.openCopiedShard.executeWithOptions(
      streaming(transferQueue, `Open and count the copy of ${what}`),
      [{ ...stored, location }],
    );
    return { exact: points, sample };
  }

  /** The copy is what counts: a node that keeps its file is cleaned by the next backup or sweep. */
  async function remove({ name }: NodeSnapshot): Promise<void> {
    try {
      await control.deleteShardSnapshot.executeWithOptions(briefly(`Remove the node's copy of ${what}`), [
        { ...ref, task, name },
      ]);
    } catch (error) {
      if (!isFailure(error) || isCancellation(error) || !patched('node-snapshots-are-left')) throw error;
      log.warn(`could not remove a snapshot of ${what} from peer ${peer}`, { ...reasonOf(error) });
      await note({ ...ref, peer, tasks: [task], known });
      onLeft();
    }
  }
}

/** Seconds that a node may take until what is left on it is left to a sweep: the backup holds its cluster meanwhile. */
const SWEEP_SECONDS = 60;

interface Left extends ClusterRef {
  readonly peer: string;
  readonly tasks: readonly ShardTask[];
  readonly known: readonly string[];
}

/**
 * Whatever was made for these shards goes, whether or not its name ever came back. Data in the bucket is the parent's.
 * What cannot be removed is noted: the next backup of the cluster, or the next sweep, removes it.
 *
 * @returns the failure that led here, with what could not be removed; a cancellation stays one when that is noted
 */
function cleanUp(
  { location, peer }: BackupPeerInput,
  known: readonly string[],
  tasks: readonly ShardTask[],
  error: unknown,
): Promise<unknown> {
  const { tenant, cluster } = location;
  const what = nameOf(tasks);
  const left = { tenant, cluster, peer, tasks, known };
  return CancellationScope.nonCancellable(async () => {
    try {
      const options = polled(SWEEP_SECONDS, `Remove what is left of ${what} on its node`);
      await persistent.sweepShardSnapshots.executeWithOptions(options, [left]);
      return error;
    } catch (problem) {
      if (!isFailure(problem)) throw problem;
      const noted = await note(left);
      if (noted && isCancellation(error) && patched('node-snapshots-are-left')) return error;
      return toWorkflowFailure(error, [`a snapshot of ${what} on peer ${peer} (${reasonOf(problem).message})`]);
    }
  });
}

/** @returns whether a later backup or sweep knows of it */
async function note(left: Left): Promise<boolean> {
  try {
    await persistent.noteSnapshotsLeft(left);
    return true;
  } catch (error) {
    if (!isFailure(error)) throw error;
    log.error(`could not note a snapshot of ${nameOf(left.tasks)} that is left on peer ${left.peer}`, {
      ...reasonOf(error),
    });
    return false;
  }
}

function nameOf(tasks: readonly ShardTask[]): string {
  const [first] = tasks;
  const name = `"${first?.collection}" shard ${first?.shard}`;
  return tasks.length <= 1 ? name : `${name} and ${tasks.length - 1} small ones after it`;
}
