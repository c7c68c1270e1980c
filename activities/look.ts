/** One look at a cluster: which pods answer, what the peers say, where the replicas are. Changes nothing. */
import type { ClusterSpec } from '../src/domain/cluster.ts';
import { FleetError, messageOf } from '../src/domain/errors.ts';
import { healthOf, type Health } from '../src/domain/health.ts';
import { rememberedAfter, type Identities } from '../src/domain/lost-disk.ts';
import { namespaceOf, type ClusterRef } from '../src/domain/naming.ts';
import type { CollectionPlacement } from '../src/domain/topology.ts';
import { explainAbsent } from './absence.ts';
import type { ActivityDeps } from './deps.ts';
import { dataClaims, findLost, readPlacements } from './observe.ts';
import { POD_SELECTOR, survey, type Peer } from './peers.ts';

export interface Sight {
  readonly health: Health;
  /** Who ran where, to be remembered. */
  readonly identities: Identities;
}

interface LookOptions {
  /** What was remembered of the look before. */
  readonly remembered: Identities;
  /** Milliseconds that a peer has for each answer. */
  readonly patience?: number;
}

/**
 * @param spec nodes, and whether it is suspended, as they should be
 * @throws FleetError when Kubernetes or the cloud cannot be asked, so that nobody knows how the cluster is
 */
export async function look(
  deps: ActivityDeps,
  ref: ClusterRef,
  spec: Pick<ClusterSpec, 'nodes' | 'suspended'>,
  { remembered, patience }: LookOptions,
  signal: AbortSignal,
): Promise<Sight> {
  if (spec.suspended === true) return { health: await asleep(deps, ref), identities: remembered };
  const { kubernetes } = await deps.clusters.of(ref);
  const [found, claims] = await Promise.all([survey(deps, ref, signal, patience), kubernetes.claims(namespaceOf(ref))]);
  const { peers, unreachable } = found;
  const speaker = speakerOf(peers);
  const [placements, absent] = await Promise.all([placementsBy(peers), explainAbsent(deps, ref, unreachable)]);
  const pods = [
    ...peers.map(({ name, id }) => ({ name, ready: true, current: true, peer: id })),
    ...unreachable.map(({ name }) => ({ name, ready: false, current: true })),
  ];
  const health = healthOf({
    nodes: spec.nodes,
    peers: peers.map(({ name, id, view }) => ({ name, id, working: view.working, known: Object.keys(view.peers) })),
    absent,
    lost: findLost(claims, found, remembered),
    cluster: { pods, peers: Object.keys(speaker?.view.peers ?? {}), placements },
  });
  return { health, identities: rememberedAfter({ pods, claims: dataClaims(claims), remembered }) };
}

/** A suspended cluster has no pods, and lacks nothing. */
async function asleep({ clusters }: ActivityDeps, ref: ClusterRef): Promise<Health> {
  const { kubernetes } = await clusters.of(ref);
  const pods = await kubernetes.pods(namespaceOf(ref), POD_SELECTOR);
  const left = pods.filter(({ terminating }) => !terminating);
  return {
    serving: false,
    ...(left.length > 0 && { degraded: `It is suspended, and ${left.map(({ name }) => name).join(', ')} still run.` }),
  };
}

/** Who speaks for the cluster: one that takes no part in consensus may be behind. */
function speakerOf(peers: readonly Peer[]): Peer | undefined {
  return peers.find(({ view }) => view.working) ?? peers[0];
}

/** Where the replicas are, by the first peer that can tell. @throws FleetError of the last one when none can */
async function placementsBy(peers: readonly Peer[]): Promise<CollectionPlacement[]> {
  const first = speakerOf(peers);
  let failure: unknown;
  for (const { client } of [...(first === undefined ? [] : [first]), ...peers.filter((peer) => peer !== first)]) {
    try {
      return await readPlacements(client, await client.collections());
    } catch (error) {
      if (!FleetError.is(error, 'QdrantUnavailable')) throw error;
      failure = error;
    }
  }
  if (failure !== undefined) throw failure;
  return [];
}

/** Codes that say nothing about the cluster: whoever should be asked about it does not answer. */
const BLIND = new Set<string>([
  'KubernetesUnavailable',
  'CatalogUnavailable',
  'CloudUnavailable',
  'CloudDenied',
  'PlaintextRefused',
]);

/** How the cluster is, or why nobody could see it. */
export async function healthOrReason(
  ...[deps, ref, spec, options, signal]: Parameters<typeof look>
): Promise<Sight | { readonly unseen: string }> {
  try {
    return await look(deps, ref, spec, options, signal);
  } catch (error) {
    if (!FleetError.is(error)) throw error;
    if (BLIND.has(error.code)) return { unseen: messageOf(error) };
    return { health: { degraded: error.message, serving: false }, identities: options.remembered };
  }
}
