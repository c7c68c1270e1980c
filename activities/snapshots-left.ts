/** Snapshots that an operation could not remove from a node: noted in the catalogue, removed by the next one. */
import type { SnapshotDescription } from '../src/clients/qdrant.ts';
import { FleetError } from '../src/domain/errors.ts';
import type { ClusterRef } from '../src/domain/naming.ts';
import type { ShardTask } from '../src/domain/topology.ts';
import { signal, workflowRun } from './context.ts';
import type { ActivityDeps } from './deps.ts';
import { survey, type Peer } from './peers.ts';

/** What a removal came to. */
export interface LeftRemoval {
  /** Snapshots that went. */
  readonly removed: number;
  /** Shards whose node could not be cleaned yet. */
  readonly left: number;
}

/** Milliseconds after the note in which a node may still have finished what we began. Later ones are somebody's own. */
const LATE = 3_600_000;

export function createSnapshotsLeftActivities(deps: ActivityDeps) {
  const { catalog, temporal } = deps;
  return {
    /**
     * Note that shards of a peer may still have snapshots of this operation: all of them that are not in `known`.
     * Repeating is harmless.
     */
    async noteSnapshotsLeft(
      input: ClusterRef & { peer: string; tasks: readonly ShardTask[]; known: readonly string[] },
    ): Promise<void> {
      const { tenant, cluster, peer, tasks, known } = input;
      const { workflowId, runId } = workflowRun();
      const rows = tasks.map(({ collection, shard }) => ({
        ...{ tenant, cluster, peer, collection, shard },
        known: JSON.stringify(known),
        operation: workflowId,
        operation_run: runId,
      }));
      await catalog.run('note what is left on a node', (db) =>
        db
          .insertInto('snapshots_left')
          .values(rows)
          .onConflict((conflict) => conflict.doNothing())
          .execute(),
      );
    },

    /** Remove what earlier operations left on the nodes, unless a backup copies the cluster now: it has done so. */
    async removeSnapshotsLeft(ref: ClusterRef): Promise<LeftRemoval> {
      const { workflowId } = workflowRun();
      const rows = await notes(ref);
      if (rows.length === 0) return { removed: 0, left: 0 };
      if (!(await setCopying(true))) return { removed: 0, left: rows.length };
      try {
        return await removeLeft(deps, ref);
      } finally {
        await setCopying(false);
      }

      /** Whether our lease is the one under which snapshots are made and removed. */
      async function setCopying(copying: boolean): Promise<boolean> {
        return catalog.run('take the turn to copy', (db) =>
          db.transaction().execute(async (tx) => {
            const leases = await tx
              .selectFrom('leases')
              .selectAll()
              .where('tenant', '=', ref.tenant)
              .where('cluster', '=', ref.cluster)
              .forUpdate()
              .execute();
            if (copying && leases.some(({ holder, copying: busy }) => busy && holder !== workflowId)) return false;
            const mine = tx.updateTable('leases').set({ copying }).where('holder', '=', workflowId);
            const { numUpdatedRows } = await mine
              .where('tenant', '=', ref.tenant)
              .where('cluster', '=', ref.cluster)
              .executeTakeFirstOrThrow();
            return numUpdatedRows > 0n;
          }),
        );
      }
    },
  };

  function notes(ref: ClusterRef) {
    return notesOf(deps, ref).then((rows) => Promise.all(rows.map(closed)).then((kept) => kept.flat()));

    async function closed(row: Note): Promise<Note[]> {
      return (await temporal.isOpen(row.operation, row.operation_run)) ? [] : [row];
    }
  }
}

type Note = Awaited<ReturnType<typeof notesOf>>[number];

function notesOf({ catalog }: Pick<ActivityDeps, 'catalog'>, { tenant, cluster }: ClusterRef) {
  return catalog.run('read what is left on the nodes', (db) =>
    db
      .selectFrom('snapshots_left')
      .selectAll()
      .where('tenant', '=', tenant)
      .where('cluster', '=', cluster)
      .orderBy('since')
      .execute(),
  );
}

/**
 * Remove what operations that are closed have left on the nodes, and the notes of it. For the holder of the lease that
 * is copying: nobody else makes a snapshot meanwhile. What cannot be removed yet stays noted, and is no failure.
 */
export async function removeLeft(deps: ActivityDeps, ref: ClusterRef): Promise<LeftRemoval> {
  const rows = await notesOf(deps, ref);
  if (rows.length === 0) return { removed: 0, left: 0 };
  const { peers } = await survey(deps, ref, signal());
  let removed = 0;
  let left = 0;
  for (const row of rows) {
    if (await deps.temporal.isOpen(row.operation, row.operation_run)) continue;
    try {
      const gone = await clean(peers, row);
      if (gone === undefined) {
        left += 1;
        continue;
      }
      removed += gone;
      await drop(deps, row);
    } catch (error) {
      if (!FleetError.is(error) || error.code === 'CatalogUnavailable') throw error;
      left += 1;
    }
  }
  return { removed, left };
}

/** @returns how many snapshots went, or `undefined` when the node cannot tell or is still making one */
async function clean(peers: readonly Peer[], row: Note): Promise<number | undefined> {
  const peer = peers.find(({ id }) => id === row.peer);
  if (peer === undefined) {
    // A peer that consensus has forgotten took its files with it.
    const forgotten = peers.length > 0 && peers.every(({ view }) => view.peers[row.peer] === undefined);
    return forgotten ? 0 : undefined;
  }
  const { client } = peer;
  // Snapshots of a collection that was dropped went with it.
  if (!(await client.collections()).includes(row.collection)) return 0;
  if ((await client.gauge('snapshot_creation_running', row.collection)) > 0) return undefined;
  const found = await client.shardSnapshots(row.collection, row.shard);
  const ours = found.filter((snapshot) => !row.known.includes(snapshot.name) && madeBy(snapshot, row.since));
  for (const { name } of ours) await client.deleteShardSnapshot(row.collection, row.shard, name);
  return ours.length;
}

/** Whether the snapshot is old enough to be what the note is about. */
function madeBy({ creation_time: time }: SnapshotDescription, since: Date): boolean {
  return time === undefined || Date.parse(`${time}Z`) <= since.getTime() + LATE;
}

async function drop({ catalog }: ActivityDeps, row: Note): Promise<void> {
  await catalog.run('drop a note', (db) =>
    db
      .deleteFrom('snapshots_left')
      .where('tenant', '=', row.tenant)
      .where('cluster', '=', row.cluster)
      .where('peer', '=', row.peer)
      .where('collection', '=', row.collection)
      .where('shard', '=', row.shard)
      .where('operation_run', '=', row.operation_run)
      .execute(),
  );
}
