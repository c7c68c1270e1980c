/** Shards on their way from peer to peer, and peers that have none any more out of consensus. */
import type { QdrantClient } from '../src/clients/qdrant.ts';
import { FleetError } from '../src/domain/errors.ts';
import { namespaceOf, type ClusterRef } from '../src/domain/naming.ts';
import { planMoves, type ShardMove } from '../src/domain/rebalance.ts';
import { missingPeers, repairProblem } from '../src/domain/repair-plan.ts';
import { ordinalOf, stayingPeers } from '../src/domain/scaling-plan.ts';
import type { LostPod } from '../src/domain/update-plan.ts';
import { tellAbsent } from './absence.ts';
import { signal } from './context.ts';
import type { ActivityDeps } from './deps.ts';
import { observe } from './observe.ts';
import { reachablePeers, requireAwake, survey } from './peers.ts';

export function createShardMoveActivities(deps: ActivityDeps) {
  return {
    /**
     * The next shard moves that lead to an even placement on the first `nodes` pods, with as many replicas of each shard as
     * its collection asks for; empty when there is one.
     *
     * @param input `copies`: make missing replicas only
     * @throws FleetError `ClusterNotReady` while a peer is away that has to give or take shards, or has to heal first
     */
    async planShardMoves({
      nodes,
      limit,
      copies = false,
      ...ref
    }: ClusterRef & { nodes: number; limit: number; copies?: boolean }): Promise<{
      moves: ShardMove[];
      remaining: number;
    }> {
      const { cluster, unreachable } = await observe(deps, ref, signal());
      const keep = stayingPeers(cluster.pods, nodes);
      const away = cluster.peers.filter((id) => !cluster.pods.some(({ peer }) => peer === id));
      const needed = cluster.placements.some(({ shards }) =>
        shards.some(({ replicas }) => replicas.some(({ peer }) => away.includes(peer))),
      );
      if (keep.length < nodes || needed) {
        const why = await tellAbsent(deps, ref, unreachable);
        throw new FleetError('ClusterNotReady', `${keep.length} of the ${nodes} peers that stay answer (${why}).`);
      }
      try {
        const moves = planMoves(cluster.placements, keep, copies ? 'copies' : 'all');
        return { moves: moves.slice(0, limit), remaining: Math.max(moves.length - limit, 0) };
      } catch (error) {
        // A replica that is not Active heals by itself, now that all peers answer.
        if (FleetError.is(error, 'TopologyUnstable')) throw new FleetError('ClusterNotReady', error.message);
        throw error;
      }
    },

    /**
     * See to it that a replica has moved, or has been copied. Starts the transfer, or looks at the one that runs; to be
     * repeated until it no longer says `ClusterNotReady`. A transfer that Qdrant gave up is started again.
     *
     * @returns nothing when there is nothing left to do; otherwise which peer does not answer and why, to be repeated
     *   when it does
     */
    async moveShard({ move, ...ref }: ClusterRef & { move: ShardMove }): Promise<{ away: string } | undefined> {
      const { collection, shard, from, to, copy = false } = move;
      const { peers, unreachable } = await survey(deps, ref, signal());
      const [first] = peers;
      if (first === undefined) {
        await requireAwake(deps, ref);
        return { away: `No peer of ${ref.tenant}/${ref.cluster} answers. ${await tellAbsent(deps, ref, unreachable)}` };
      }
      const { client, view } = first;
      const what = `Shard ${shard} of "${collection}"`;
      const replicas = await replicasOf(client, move);
      if (replicas === undefined) return undefined;
      const { source, target, moving } = replicas;
      const arrived = !moving && target === 'Active';
      if (copy ? arrived : source === undefined && (arrived || (!moving && target === undefined))) return undefined;
      // Somebody has removed it; what has to move now is planned anew.
      if ([from, to].some((id) => view.peers[id] === undefined)) return undefined;
      // A transfer that one of them was about to make may be shown as running for as long as that one is away.
      const away = [from, to].filter((id) => !peers.some((peer) => peer.id === id));
      if (away.length > 0) {
        const why = await tellAbsent(deps, ref, unreachable);
        return { away: `${what} waits until peer ${away.join(' and ')} answers. ${why}` };
      }
      if (moving) throw new FleetError('ClusterNotReady', `${what} is on its way.`);
      // Its source has gone, so the copy is planned anew from another one.
      if (copy && source === undefined && target === undefined) return undefined;
      if (source === undefined) throw new FleetError('ClusterNotReady', `${what} is ${target} on peer ${to}.`);
      if (target !== undefined) {
        const still = copy ? '' : `, and still on peer ${from}`;
        throw new FleetError('ClusterNotReady', `${what} is ${target} on peer ${to}${still}.`);
      }
      if (source !== 'Active') {
        throw new FleetError('ClusterNotReady', `${what} is ${source} on peer ${from} and has to heal first.`);
      }
      const begin = copy ? client.replicateShard(collection, move) : client.moveShard(collection, move);
      await begin.catch(async (error: unknown) => {
        if (!FleetError.is(error, 'QdrantRejected')) throw error;
        const now = await replicasOf(client, move);
        // Refused for what it has become since we looked.
        if (now?.moving === false && now.source === 'Active' && now.target === undefined) throw error;
      });
      throw new FleetError(
        'ClusterNotReady',
        `${what} begins ${copy ? 'to be copied' : 'to move'} from peer ${from} to peer ${to}.`,
      );
    },

    /** Stop the transfers of these moves, so that nothing moves any more when nobody waits for it. */
    async abortShardMoves({ moves, ...ref }: ClusterRef & { moves: readonly ShardMove[] }): Promise<void> {
      const [{ client }] = await reachablePeers(deps, ref, signal());
      for (const { collection, shard, from, to } of moves) {
        await client.abortTransfer(collection, { shard, from, to });
      }
    },

    /**
     * Give up peers that do not answer: take them out of consensus with all that they held, and let their pods be made
     * anew with empty volumes. To be repeated until it no longer says `ClusterNotReady`; only what is named by its uid goes.
     *
     * @throws FleetError `UpdateRefused` when there is no majority, or a shard would be lost; then nothing was changed.
     *   `ClusterNotReady` while the old pods and claims are there
     */
    async replacePeers({
      peers: lost,
      pods,
      ...ref
    }: ClusterRef & { peers: readonly string[]; pods: readonly LostPod[] }): Promise<{ removed: number }> {
      const namespace = namespaceOf(ref);
      const { kubernetes } = await deps.clusters.of(ref);
      const { cluster, peers } = await observe(deps, ref, signal());
      const dead = missingPeers(cluster).filter((id) => lost.includes(id));
      const problem = dead.length === 0 ? undefined : repairProblem(cluster);
      if (problem !== undefined) throw new FleetError('UpdateRefused', `The lost peers stay: ${problem}.`);
      for (const id of dead) await peers[0].client.removePeer(id, true);
      // Those that answer by now are not lost.
      const away = new Set(cluster.pods.filter(({ peer }) => peer === undefined).map(({ uid }) => uid));
      const left = pods.filter(({ uid }) => away.has(uid));
      for (const { name, uid, claims } of left) {
        for (const claim of claims) await kubernetes.deleteVolumeClaim(namespace, claim.name, claim.uid);
        await kubernetes.deletePod(namespace, name, uid);
      }
      if (left.length > 0) {
        throw new FleetError(
          'ClusterNotReady',
          `${left.map(({ name }) => name).join(', ')} of a lost peer is stopping.`,
        );
      }
      return { removed: dead.length };
    },

    /**
     * Take every peer out of consensus that is not one of the first `nodes` pods, whether it still answers or not. They
     * hold no shards any more.
     *
     * @throws FleetError `ClusterNotReady` while one that stays does not answer: nobody could tell it from the others;
     *   `TopologyUnstable` when one of them holds a shard
     */
    async removePeers({ nodes, ...ref }: ClusterRef & { nodes: number }): Promise<{ removed: number }> {
      const { cluster, peers, unreachable } = await observe(deps, ref, signal());
      const staying = stayingPeers(cluster.pods, nodes);
      if (staying.length < nodes) {
        const absent = unreachable.filter(({ name }) => ordinalOf(name) < nodes);
        const why = await tellAbsent(deps, ref, absent);
        throw new FleetError('ClusterNotReady', `${staying.length} of the ${nodes} peers that stay answer (${why}).`);
      }
      const leaving = cluster.peers.filter((id) => !staying.includes(id));
      const held = cluster.placements.find(({ shards }) =>
        shards.some(({ replicas }) => replicas.some(({ peer }) => leaving.includes(peer))),
      );
      if (held !== undefined) {
        throw new FleetError('TopologyUnstable', `Shards of "${held.collection}" came back to a peer that is leaving.`);
      }
      // The highest ordinal first, as the pods will go.
      const order = peers.map(({ id }) => id);
      leaving.sort((a, b) => order.indexOf(b) - order.indexOf(a));
      let removed = 0;
      for (const id of leaving) if (await peers[0].client.removePeer(id)) removed += 1;
      return { removed };
    },
  };
}

/** States of the two replicas that a move is about, in the eyes of one peer; `undefined` when the collection is gone. */
async function replicasOf(
  client: QdrantClient,
  { collection, shard, from, to }: ShardMove,
): Promise<{ source: string | undefined; target: string | undefined; moving: boolean } | undefined> {
  const view = await client.collectionCluster(collection).catch((error: unknown) => {
    // Dropped meanwhile, by whoever owns the data.
    if (FleetError.is(error, 'QdrantRejected') && error.message.includes("doesn't exist")) return undefined;
    throw error;
  });
  if (view === undefined) return undefined;
  const replicas = [...view.local.map((local) => ({ ...local, peerId: view.peerId })), ...view.remote].filter(
    (replica) => replica.shard_id === shard,
  );
  const stateOn = (peer: string) => replicas.find(({ peerId }) => peerId === peer)?.state;
  return { source: stateOn(from), target: stateOn(to), moving: view.moving.some((each) => each.shard === shard) };
}
