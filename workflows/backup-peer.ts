import {
  CancellationScope,
  continueAsNew,
  isCancellation,
  log,
  setCurrentDetails,
  workflowInfo,
} from '@temporalio/workflow';
import type { CopiedShard } from '../activities/backup-store.ts';
import type { NodeSnapshot } from '../activities/qdrant.ts';
import type { BackupFormat, ShardEntry } from '../src/domain/backup.ts';
import { backupKeys, type BackupLocation } from '../src/domain/naming.ts';
import type { ShardTask } from '../src/domain/topology.ts';
import { control, described, persistent, polled, snapshotting, streaming } from './shared/activity-proxies.ts';
import { hasCode, isFailure, reasonOf, toWorkflowFailure } from './shared/failures.ts';

export interface BackupPeerInput {
  readonly location: BackupLocation;
  readonly attempt: string;
  readonly transferQueue: string;
  readonly peer: string;
  readonly tasks: readonly ShardTask[];
  /** Shards up to this size are opened by Qdrant's engine; default none. */
  readonly engineMaxBytes?: number;
  /** Default `full`. */
  readonly format?: BackupFormat;
  /** Carried through continue-as-new. */
  readonly known?: readonly string[];
  readonly copied?: readonly CopiedShard[];
}

type Stored = Pick<ShardEntry, 'key' | 'size' | 'sha256' | 'crc32' | 'incremental'>;

/** Times that a snapshot may vanish from its node before the backup gives up. */
const MAX_SNAPSHOTS = 3;

/**
 * Back up the shards that one peer gives, one after the other, so that no node ever makes two snapshots at a time.
 * A child of `BackupCluster`; not meant to be started by hand.
 */
export async function BackupPeer(input: BackupPeerInput): Promise<readonly CopiedShard[]> {
  const { location, peer, tasks } = input;
  const { tenant, cluster } = location;
  const ref = { tenant, cluster };
  try {
    const known = input.known ?? (await control.listShardSnapshots({ ...ref, peer, tasks }));
    const copied = [...(input.copied ?? [])];
    for (const task of tasks.slice(copied.length)) {
      setCurrentDetails(`Shard ${copied.length + 1} of ${tasks.length}: "${task.collection}" shard ${task.shard}`);
      copied.push(await backUpShard(input, known, task));
      if (workflowInfo().continueAsNewSuggested && copied.length < tasks.length) {
        await continueAsNew<typeof BackupPeer>({ ...input, known, copied });
      }
    }
    return copied;
  } catch (error) {
    // Continue-as-new is thrown too and is neither.
    if (isCancellation(error) || !isFailure(error)) throw error;
    throw toWorkflowFailure(error);
  }
}

async function backUpShard(input: BackupPeerInput, known: readonly string[], task: ShardTask): Promise<CopiedShard> {
  const { location, attempt, transferQueue, peer } = input;
  const { tenant, cluster } = location;
  const ref = { tenant, cluster };
  const { collection, shard } = task;
  const what = `"${collection}" shard ${shard}`;

  for (let round = 1; ; round += 1) {
    let snapshot: NodeSnapshot | undefined;
    try {
      snapshot = await control.createShardSnapshot.executeWithOptions(snapshotting(`Snapshot of ${what}`), [
        { ...ref, task, known },
      ]);
      const stored = await transfer(snapshot);
      // The node's file goes as soon as it is copied; what is looked at from here on is the copy.
      await remove(snapshot.name);
      const { exact, sample } = await openCopy(stored);
      const points = { ...snapshot.points, ...(exact !== undefined && { exact }) };
      return {
        collection,
        shard,
        ...stored,
        points,
        ...(sample !== undefined && { sample }),
        cutAt: snapshot.cutAt,
        ...(task.shardKey !== undefined && { shardKey: task.shardKey }),
        sourcePeer: peer,
      };
    } catch (error) {
      const leftovers = await CancellationScope.nonCancellable(cleanUp);
      if (hasCode(error, 'SnapshotVanished') && round < MAX_SNAPSHOTS) continue;
      throw leftovers.length === 0 ? error : toWorkflowFailure(error, leftovers);
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
    const key = backupKeys(location).shard(attempt, collection, shard);
    const copy = await control.transferShardSnapshot.executeWithOptions(options, [{ ...ref, task, snapshot, key }]);
    return { key, size: copy.size, sha256: copy.sha256, crc32: copy.crc32 };
  }

  async function openCopy(stored: Stored): Promise<Pick<CopiedShard, 'sample'> & { exact?: number }> {
    if (stored.size > (input.engineMaxBytes ?? 0)) return {};
    const { points, sample } = await control.openCopiedShard.executeWithOptions(
      streaming(transferQueue, `Open and count the copy of ${what}`),
      [stored.incremental === undefined ? stored : { ...stored, location }],
    );
    return { exact: points, sample };
  }

  function remove(name: string): Promise<void> {
    return control.deleteShardSnapshot.executeWithOptions(described(`Remove the node's copy of ${what}`), [
      { ...ref, task, name },
    ]);
  }

  /** The next backup of the cluster, or the next sweep, removes what we could not. */
  async function note(): Promise<void> {
    try {
      await persistent.noteSnapshotsLeft({ ...ref, peer, tasks: [task], known });
    } catch (error) {
      if (!isFailure(error)) throw error;
      log.error(`could not note a snapshot of ${what} that is left on peer ${peer}`, { ...reasonOf(error) });
    }
  }

  /**
   * Whatever was made for this shard goes, whether or not its name ever came back. Data in the bucket is the parent's.
   *
   * @returns what could not be removed; the failure that led here stays the one that is told
   */
  async function cleanUp(): Promise<string[]> {
    try {
      await persistent.sweepShardSnapshots.executeWithOptions(
        polled(300, `Remove what is left of ${what} on its node`),
        [{ ...ref, peer, tasks: [task], known }],
      );
      return [];
    } catch (error) {
      if (!isFailure(error)) throw error;
      await note();
      return [`a snapshot of ${what} on peer ${peer} (${reasonOf(error).message})`];
    }
  }
}
