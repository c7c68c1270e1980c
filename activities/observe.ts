/** A cluster as it is: pods, peers, where the shards are, the claims. Each collection is asked about once. */
import type { Kubernetes } from '../src/clients/kubernetes.ts';
import type { QdrantClient } from '../src/clients/qdrant.ts';
import { FleetError } from '../src/domain/errors.ts';
import { lostDisks, type Identities, type LostDisk } from '../src/domain/lost-disk.ts';
import { namespaceOf, RELEASE_NAME, type ClusterRef } from '../src/domain/naming.ts';
import type { CollectionPlacement } from '../src/domain/topology.ts';
import { bytesOf } from '../src/domain/quantities.ts';
import type { ObservedCluster } from '../src/domain/update-plan.ts';
import type { ActivityDeps } from './deps.ts';
import { LANES, mapInLanes } from './lanes.ts';
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
  const [{ peers, unreachable }, pods, set, found, row] = await Promise.all([
    survey(deps, ref, signal),
    kubernetes.pods(namespace, POD_SELECTOR),
    kubernetes.statefulSet(namespace, RELEASE_NAME),
    kubernetes.claims(namespace),
    deps.catalog.cluster(ref),
  ]);
  const [first, ...others] = peers;
  if (first === undefined) {
    const why = unreachable.map(({ name, reason }) => `${name}: ${reason}`).join('; ') || 'it has no pods';
    throw new FleetError('ClusterNotReady', `No peer of ${ref.tenant}/${ref.cluster} answers (${why}).`);
  }
  // One that takes no part in consensus may be behind.
  const speaker = peers.find(({ view }) => view.working) ?? first;
  const classes = [...new Set(found.map(({ className }) => className))];
  const expandable = new Map(
    await Promise.all(classes.map(async (name) => [name, await kubernetes.allowsExpansion(name)] as const)),
  );
  const versions = await Promise.all(peers.map(({ client }) => client.version()));
  const sizes = await Promise.all(peers.map(({ client }) => client.dataBytes()));
  const cluster: ObservedCluster = {
    ...(set !== undefined && { replicas: set.replicas }),
    pods: pods.map(({ name, uid, ready, revision }) => {
      const at = peers.findIndex((peer) => peer.name === name);
      const [peer, version] = [peers[at], versions[at]];
      return {
        name,
        uid,
        ready,
        current: revision !== undefined && revision === set?.revision,
        ...(peer !== undefined && { peer: peer.id }),
        ...(version !== undefined && { version }),
      };
    }),
    peers: Object.keys(speaker.view.peers),
    placements: await readPlacements(speaker.client, await speaker.client.collections()),
    lost: findLost(found, { peers, unreachable }, row?.identities ?? {}),
    claims: found.map(({ name, uid, requested, className, labels }) => ({
      name,
      uid,
      bytes: bytesOf(requested),
      className,
      expandable: expandable.get(className) ?? false,
      ofSet: labels['app.kubernetes.io/instance'] === RELEASE_NAME,
    })),
    dataBytes: Object.fromEntries(peers.flatMap(({ id }, at) => (sizes[at] === undefined ? [] : [[id, sizes[at]]]))),
  };
  return { cluster, peers: [first, ...others], unreachable };
}

/** Uid of the claim that holds a pod's data, by pod. */
export function dataClaims(claims: Awaited<ReturnType<Kubernetes['claims']>>): Record<string, string> {
  const prefix = `${RELEASE_NAME}-storage-`;
  const ofData = claims.filter(({ name }) => name.startsWith(prefix));
  return Object.fromEntries(ofData.map(({ name, uid }) => [name.slice(prefix.length), uid]));
}

/** Pods whose disk was lost, by their claims, by what was known of them before, and by what the peers say. */
export function findLost(
  claims: Awaited<ReturnType<Kubernetes['claims']>>,
  { peers, unreachable }: Awaited<ReturnType<typeof survey>>,
  remembered: Identities,
): LostDisk[] {
  const speaker = peers.find(({ view }) => view.working) ?? peers[0];
  if (speaker === undefined) return [];
  const hosts = new Map(unreachable.flatMap(({ name, ip }) => [[name, name] as const, [ip ?? name, name] as const]));
  const members = Object.fromEntries(
    Object.entries(speaker.view.peers).map(([id, { uri }]) => {
      const host = URL.canParse(uri) ? new URL(uri).hostname : '';
      return [id, hosts.get(host) ?? hosts.get(host.split('.')[0] ?? '') ?? ''];
    }),
  );
  const pods = [
    ...peers.map(({ name, id }) => ({ name, peer: id })),
    ...unreachable.map(({ name, trouble }) => ({ name, ...(trouble !== undefined && { trouble }) })),
  ];
  return lostDisks({ pods, members, claims: dataClaims(claims), remembered });
}

/** Where all replicas of all shards are, in the eyes of one peer, and how many there should be. */
export async function readPlacements(client: QdrantClient, names: readonly string[]): Promise<CollectionPlacement[]> {
  const read = async (collection: string): Promise<CollectionPlacement[]> => {
    const [view, replicationFactor] = await Promise.all([
      client.collectionCluster(collection).catch(unlessDropped),
      replicationFactorOf(client, collection),
    ]);
    if (view === undefined) return [];
    const replicas = [...view.local.map((shard) => ({ ...shard, peerId: view.peerId })), ...view.remote];
    const shards = [...Map.groupBy(replicas, ({ shard_id: shard }) => shard)]
      .sort(([a], [b]) => a - b)
      .map(([shard, found]) => ({
        shard,
        replicas: found
          .map(({ peerId, state }) => ({ peer: peerId, state }))
          .sort((a, b) => a.peer.localeCompare(b.peer)),
      }));
    const { transfers, resharding } = view;
    return [
      { collection, ...(replicationFactor !== undefined && { replicationFactor }), shards, transfers, resharding },
    ];
  };
  return (await mapInLanes(names, LANES, read)).flat();
}

/** `undefined` where the peer cannot say: one whose own shard does not load, say. */
async function replicationFactorOf(client: QdrantClient, collection: string): Promise<number | undefined> {
  try {
    const factor = (await client.collection(collection)).config.params['replication_factor'];
    return typeof factor === 'number' ? factor : undefined;
  } catch (error) {
    if (FleetError.is(error, 'QdrantRejected') || FleetError.is(error, 'QdrantUnavailable')) return undefined;
    throw error;
  }
}

/** Whoever owns the data may drop a collection at any time. */
function unlessDropped(error: unknown): undefined {
  if (FleetError.is(error, 'QdrantRejected') && error.message.includes("doesn't exist")) return undefined;
  throw error;
}

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
