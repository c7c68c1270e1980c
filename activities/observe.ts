/** A cluster as it is: pods, peers, where the shards are, the claims. Each collection is asked about once. */
import type { QdrantClient } from '../src/clients/qdrant.ts';
import { FleetError } from '../src/domain/errors.ts';
import { namespaceOf, RELEASE_NAME, type ClusterRef } from '../src/domain/naming.ts';
import type { CollectionPlacement } from '../src/domain/topology.ts';
import { bytesOf } from '../src/domain/quantities.ts';
import type { ObservedCluster } from '../src/domain/update-plan.ts';
import type { ActivityDeps } from './deps.ts';
import { POD_SELECTOR, survey, type Peer, type Unreachable } from './peers.ts';

/** What an activity works with after it has looked. */
export interface Observation {
  readonly cluster: ObservedCluster;
  /** The peers that answer, by ordinal; at least one. */
  readonly peers: readonly [Peer, ...Peer[]];
  readonly unreachable: readonly Unreachable[];
}

/** @throws FleetError `ClusterNotReady` when no peer answers */
export async function observe(deps: ActivityDeps, ref: ClusterRef, signal: AbortSignal): Promise<Observation> {
  const namespace = namespaceOf(ref);
  const { kubernetes } = await deps.clusters.of(ref);
  const [{ peers, unreachable }, pods, set, found] = await Promise.all([
    survey(deps, ref, signal),
    kubernetes.pods(namespace, POD_SELECTOR),
    kubernetes.statefulSet(namespace, RELEASE_NAME),
    kubernetes.claims(namespace),
  ]);
  const [first, ...others] = peers;
  if (first === undefined) {
    const why = unreachable.map(({ name, reason }) => `${name}: ${reason}`).join('; ') || 'it has no pods';
    throw new FleetError('ClusterNotReady', `No peer of ${ref.tenant}/${ref.cluster} answers (${why}).`);
  }
  const classes = [...new Set(found.map(({ className }) => className))];
  const expandable = new Map(
    await Promise.all(classes.map(async (name) => [name, await kubernetes.allowsExpansion(name)] as const)),
  );
  const versions = await Promise.all(peers.map(({ client }) => client.version()));
  const sizes = await Promise.all(peers.map(({ client }) => client.dataBytes()));
  const cluster: ObservedCluster = {
    ...(set !== undefined && { replicas: set.replicas }),
    pods: pods.map(({ name, ready, revision }) => {
      const at = peers.findIndex((peer) => peer.name === name);
      const [peer, version] = [peers[at], versions[at]];
      return {
        name,
        ready,
        current: revision !== undefined && revision === set?.revision,
        ...(peer !== undefined && { peer: peer.id }),
        ...(version !== undefined && { version }),
      };
    }),
    peers: Object.keys(first.view.peers),
    placements: await readPlacements(first.client, await first.client.collections()),
    claims: found.map(({ name, requested, className, labels }) => ({
      name,
      bytes: bytesOf(requested),
      className,
      expandable: expandable.get(className) ?? false,
      ofSet: labels['app.kubernetes.io/instance'] === RELEASE_NAME,
    })),
    dataBytes: Object.fromEntries(peers.flatMap(({ id }, at) => (sizes[at] === undefined ? [] : [[id, sizes[at]]]))),
  };
  return { cluster, peers: [first, ...others], unreachable };
}

/** Where all replicas of all shards are, in the eyes of one peer. */
async function readPlacements(client: QdrantClient, names: readonly string[]): Promise<CollectionPlacement[]> {
  const placements: CollectionPlacement[] = [];
  const queue = names.entries();
  const lane = async (): Promise<void> => {
    for (const [index, collection] of queue) {
      const view = await client.collectionCluster(collection);
      const replicas = [...view.local.map((shard) => ({ ...shard, peerId: view.peerId })), ...view.remote];
      const shards = [...Map.groupBy(replicas, ({ shard_id: shard }) => shard)]
        .sort(([a], [b]) => a - b)
        .map(([shard, found]) => ({
          shard,
          replicas: found
            .map(({ peerId, state }) => ({ peer: peerId, state }))
            .sort((a, b) => a.peer.localeCompare(b.peer)),
        }));
      placements[index] = { collection, shards, transfers: view.transfers, resharding: view.resharding };
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  return placements;
}

/** Collections that are asked about at a time: a cluster may have thousands. */
const LANES = 8;

/**
 * Whether the cluster is at rest and whole: all pods ready, all peers know each other, all replicas Active, nothing on
 * its way. A pod that is `excused` may be missing together with its replicas.
 *
 * @returns what is not, or `undefined`
 */
export function unrest(observed: Observation, nodes: number, excused = ''): string | undefined {
  const { cluster, peers, unreachable } = observed;
  const down = unreachable.filter(({ name }) => name !== excused);
  if (down.length > 0) return down.map(({ name, reason }) => `${name}: ${reason}`).join('; ');
  const missing = excused === '' ? 0 : unreachable.filter(({ name }) => name === excused).length;
  if (peers.length + missing !== nodes) return `${peers.length} of ${nodes} peers answer`;
  for (const { name, view } of peers) {
    const known = Object.keys(view.peers).length;
    if (known !== nodes) return `${name} knows ${known} peers of ${nodes} in consensus`;
    if (!view.working && missing === 0) return `consensus does not work on ${name}`;
  }
  const answering = new Set(peers.map(({ id }) => id));
  for (const { collection, shards, transfers, resharding } of cluster.placements) {
    if (transfers > 0) return `"${collection}" has ${transfers} shard transfers running`;
    if (resharding > 0) return `"${collection}" is being resharded`;
    for (const { shard, replicas } of shards) {
      const waiting = replicas.find(({ peer, state }) => state !== 'Active' && (excused === '' || answering.has(peer)));
      if (waiting !== undefined) {
        return `shard ${shard} of "${collection}" is ${waiting.state} on peer ${waiting.peer}`;
      }
    }
  }
  return undefined;
}
