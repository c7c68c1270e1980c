/** A node's snapshot of a shard, opened to be copied. */
import { SnapshotSource } from '../src/clients/snapshot-source.ts';
import { FleetError } from '../src/domain/errors.ts';
import type { ClusterRef } from '../src/domain/naming.ts';
import type { ShardTask } from '../src/domain/topology.ts';
import { signal } from './context.ts';
import type { ActivityDeps } from './deps.ts';
import { peerById } from './peers.ts';

/**
 * @param snapshot as Qdrant announced it
 * @returns its bytes, and what it is in words
 * @throws FleetError `SnapshotVanished` when the node no longer has the file, `IntegrityMismatch` when it has another size
 */
export async function openSnapshot(
  deps: ActivityDeps,
  ref: ClusterRef,
  task: ShardTask,
  snapshot: { readonly name: string; readonly size: number },
): Promise<{ source: SnapshotSource; where: string }> {
  const { client } = await peerById(deps, ref, task.peer, signal());
  const url = client.shardSnapshotUrl(task.collection, task.shard, snapshot.name);
  const source = await SnapshotSource.open(url, client.authHeaders(), signal(), client.trust);
  const where = `snapshot ${snapshot.name} of peer ${task.peer}`;
  if (source.size !== snapshot.size) {
    throw mismatch(`${where} has ${source.size} bytes, Qdrant announced ${snapshot.size}`);
  }
  return { source, where };
}

export function mismatch(what: string): FleetError {
  return new FleetError('IntegrityMismatch', `${what}. Nothing was committed.`);
}
