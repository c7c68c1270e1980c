/** Many small shards of one peer in one activity, one after the other. */
import { Context } from '@temporalio/activity';
import type { BackupFormat, ShardEntry } from '../src/domain/backup.ts';
import { FleetError } from '../src/domain/errors.ts';
import { backupKeys, inBucket, type BackupLocation } from '../src/domain/naming.ts';
import type { ShardTask } from '../src/domain/topology.ts';
import type { CopiedShard } from './backup-store.ts';
import { attempt, heartbeats, keepInHeartbeats } from './context.ts';
import type { createIncrementalTransferActivities } from './incremental-transfer.ts';
import type { createQdrantActivities, NodeSnapshot } from './qdrant.ts';
import type { createSnapshotTransferActivities } from './snapshot-transfer.ts';
import type { createSnapshotsLeftActivities } from './snapshots-left.ts';
import type { createVerificationActivities } from './verification.ts';

export interface ShardPack {
  readonly location: BackupLocation;
  readonly attempt: string;
  /** All of one peer. */
  readonly tasks: readonly ShardTask[];
  readonly known: readonly string[];
  /** Shards up to this size are opened by Qdrant's engine; default none. */
  readonly engineMaxBytes?: number;
  /** Default `full`. */
  readonly format?: BackupFormat;
}

type Stored = Pick<ShardEntry, 'key' | 'size' | 'sha256' | 'crc32' | 'incremental'>;

/** The steps of a single shard, which a pack repeats. */
type Steps = Pick<
  ReturnType<typeof createQdrantActivities>,
  'createShardSnapshot' | 'deleteShardSnapshot' | 'sweepShardSnapshots'
> &
  Pick<ReturnType<typeof createSnapshotTransferActivities>, 'transferShardSnapshot'> &
  Pick<ReturnType<typeof createIncrementalTransferActivities>, 'transferIncrementalShard'> &
  Pick<ReturnType<typeof createVerificationActivities>, 'openCopiedShard'> &
  Pick<ReturnType<typeof createSnapshotsLeftActivities>, 'noteSnapshotsLeft'>;

/** Times that a snapshot may vanish from its node before the backup gives up. */
const MAX_SNAPSHOTS = 3;
const BEAT_MS = 3000;

export function createShardPackActivities(steps: Steps) {
  return {
    /**
     * Make, copy, count and remove the snapshots of small shards, one after the other. What is done goes into the
     * heartbeats: an attempt after a killed worker goes on where the last heartbeat was.
     *
     * @returns what was copied; a shard whose replica was not Active is not among it
     * @throws FleetError as the single steps do
     */
    async copyShardPack(pack: ShardPack): Promise<CopiedShard[]> {
      const { heartbeatDetails } = Context.current().info;
      const before = (heartbeatDetails ?? {}) as { copied?: CopiedShard[]; inactive?: ShardTask[] };
      const done = [...(before.copied ?? [])];
      const inactive = [...(before.inactive ?? [])];
      keepInHeartbeats({ copied: done, inactive });
      const beat = heartbeats();
      for (const task of pack.tasks.slice(done.length + inactive.length)) {
        const copied = await copyShard(pack, task);
        if (copied === undefined) inactive.push(task);
        else done.push(copied);
        beat({});
        // Told first, so that another attempt does not take up what was cut of it.
        if (copied === undefined) await beating(() => discard(pack, task));
      }
      const [first] = pack.tasks;
      if (attempt() > 1 && first !== undefined) {
        const { tenant, cluster } = pack.location;
        const { tasks, known } = pack;
        // An attempt that was taken for dead may have woken up and begun one more snapshot.
        await beating(() => steps.sweepShardSnapshots({ tenant, cluster, peer: first.peer, tasks, known }));
      }
      return done;
    },
  };

  /** @returns nothing where the replica was not Active */
  async function copyShard(pack: ShardPack, task: ShardTask): Promise<CopiedShard | undefined> {
    for (let round = 1; ; round += 1) {
      try {
        return await copyOnce(pack, task);
      } catch (error) {
        if (FleetError.is(error, 'ReplicaNotActive')) return undefined;
        if (!FleetError.is(error, 'SnapshotVanished') || round === MAX_SNAPSHOTS) throw error;
      }
    }
  }

  async function copyOnce(pack: ShardPack, task: ShardTask): Promise<CopiedShard> {
    const { location, known, engineMaxBytes = 0 } = pack;
    const { tenant, cluster } = location;
    const { collection, shard, shardKey, peer } = task;
    const ref = { tenant, cluster };
    const snapshot = await beating(() => steps.createShardSnapshot({ ...ref, task, known }));
    // Beats by the bytes that it moves: one that stands still is one that Temporal ends.
    const stored = await transfer(pack, task, snapshot);
    await beating(() => remove(pack, task, snapshot));
    const copy = { ...stored, location };
    const opened = stored.size <= engineMaxBytes ? await beating(() => steps.openCopiedShard(copy)) : undefined;
    return {
      ...{ collection, shard, ...stored },
      points: { ...snapshot.points, ...(opened !== undefined && { exact: opened.points }) },
      ...(opened !== undefined && { sample: opened.sample }),
      cutAt: snapshot.cutAt,
      ...(shardKey !== undefined && { shardKey }),
      sourcePeer: peer,
    };
  }

  /** Whatever was cut of a replica that was not Active. */
  async function discard({ location, known }: ShardPack, task: ShardTask): Promise<void> {
    const { tenant, cluster } = location;
    const left = { tenant, cluster, peer: task.peer, tasks: [task], known };
    try {
      await steps.sweepShardSnapshots(left);
    } catch (error) {
      if (!FleetError.is(error)) throw error;
      await steps.noteSnapshotsLeft(left);
    }
  }

  /** The copy is what counts: a node that keeps its file is cleaned by the next backup or sweep. */
  async function remove({ location, known }: ShardPack, task: ShardTask, { name }: NodeSnapshot): Promise<void> {
    const { tenant, cluster } = location;
    const ref = { tenant, cluster };
    try {
      await steps.deleteShardSnapshot({ ...ref, task, name });
    } catch (error) {
      if (!FleetError.is(error)) throw error;
      await steps.noteSnapshotsLeft({ ...ref, peer: task.peer, tasks: [task], known });
    }
  }

  async function transfer(
    { location, attempt: run, format }: ShardPack,
    task: ShardTask,
    snapshot: NodeSnapshot,
  ): Promise<Stored> {
    if (format === 'incremental') {
      const input = { location, attempt: run, task, snapshot };
      // It reads from the bucket, too, and then no byte of the node moves.
      const { sent: _, ...stored } = await beating(() => steps.transferIncrementalShard(input));
      return stored;
    }
    const { tenant, cluster } = location;
    const ref = { tenant, cluster, ...inBucket(location) };
    const key = backupKeys(location).shard(run, task.collection, task.shard, snapshot.sha256);
    const { size, sha256, crc32 } = await steps.transferShardSnapshot({ ...ref, task, snapshot, key });
    return { key, size, sha256, crc32 };
  }
}

/** Heartbeats while something is waited for that has bounds of its own. */
async function beating<T>(run: () => Promise<T>): Promise<T> {
  const beat = heartbeats();
  beat({});
  const timer = setInterval(() => beat({}), BEAT_MS);
  try {
    return await run();
  } finally {
    clearInterval(timer);
  }
}
