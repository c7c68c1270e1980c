/** Whether a replica holds what its shard holds: only one that is Active may be copied. */
import { FleetError } from '../src/domain/errors.ts';
import type { ClusterRef } from '../src/domain/naming.ts';
import type { ShardTask } from '../src/domain/topology.ts';
import { signal } from './context.ts';
import type { ActivityDeps } from './deps.ts';
import { survey, unreachablePeer, type Peer } from './peers.ts';

/** The replica of a shard that a backup is to copy. */
export class SourceReplica {
  readonly peer: Peer;
  readonly #others: readonly Peer[];
  readonly #task: ShardTask;

  private constructor(peer: Peer, others: readonly Peer[], task: ShardTask) {
    this.peer = peer;
    this.#others = others;
    this.#task = task;
  }

  /** @throws FleetError `QdrantUnavailable` when its peer does not answer */
  static async find(deps: ActivityDeps, ref: ClusterRef, task: ShardTask): Promise<SourceReplica> {
    const { peers, unreachable } = await survey(deps, ref, signal());
    const peer = peers.find(({ id }) => id === task.peer);
    if (peer === undefined) throw unreachablePeer(ref, task.peer, unreachable);
    return new SourceReplica(
      peer,
      peers.filter((other) => other !== peer),
      task,
    );
  }

  /**
   * As its own peer sees it.
   *
   * @returns the points that it holds
   * @throws FleetError `ReplicaNotActive`
   */
  async requireActive(when: string): Promise<number> {
    const { collection, shard } = this.#task;
    const { local } = await this.peer.client.collectionCluster(collection);
    const found = local.find(({ shard_id: id }) => id === shard);
    if (found?.state !== 'Active') throw this.#notActive(when, found?.state, this.peer.name);
    return found.points_count;
  }

  /**
   * As another peer sees it: one that was cut off from the others may not know yet that it has missed writes. Where no
   * other peer answers, its own word has to do.
   *
   * @throws FleetError `ReplicaNotActive`
   */
  async requireActiveElsewhere(when: string): Promise<void> {
    const { collection, shard, peer } = this.#task;
    for (const other of this.#others) {
      try {
        const { remote } = await other.client.collectionCluster(collection);
        const found = remote.find(({ shard_id: id, peerId }) => id === shard && peerId === peer);
        if (found?.state !== 'Active') throw this.#notActive(when, found?.state, other.name);
        return;
      } catch (error) {
        if (!FleetError.is(error, 'QdrantUnavailable')) throw error;
      }
    }
  }

  #notActive(when: string, state: string | undefined, witness: string): FleetError {
    const { collection, shard, peer } = this.#task;
    const what = `The replica of "${collection}" shard ${shard} on ${this.peer.name} (peer ${peer})`;
    const how = state === undefined ? 'is not there any more' : `is ${state}`;
    return new FleetError(
      'ReplicaNotActive',
      `${what} ${how} ${when}, says ${witness}: it may lack writes. Another Active replica is needed.`,
    );
  }
}
