/** How activities reach the Qdrant peers of a cluster: one by one, never through a Service. */
import { QdrantClient, type ClusterInfo } from '../src/clients/qdrant.ts';
import { FleetError, messageOf } from '../src/domain/errors.ts';
import { strangers } from '../src/domain/membership.ts';
import { API_KEY_SECRET, namespaceOf, RELEASE_NAME, type ClusterRef } from '../src/domain/naming.ts';
import { isLoopback, PLAINTEXT_ADVICE } from '../src/domain/plaintext.ts';
import { whyNotStarting } from '../src/domain/pod-trouble.ts';
import { serverNameOf } from '../src/domain/tls.ts';
import type { ActivityDeps } from './deps.ts';
import { authoritiesOf } from './trust.ts';

export interface Peer {
  /** Qdrant's peer id, a decimal number of up to 64 bits. */
  readonly id: string;
  /** Pod name, such as `qdrant-0`. */
  readonly name: string;
  readonly client: QdrantClient;
  /** What this peer says about the cluster. */
  readonly view: ClusterInfo;
}

/** A pod that did not answer as a peer, and why. */
export interface Unreachable {
  readonly name: string;
  readonly reason: string;
  readonly ip?: string;
  /** The node that it is bound to, or why no node has it. */
  readonly node?: string;
  readonly unscheduled?: string;
  /** Why waiting for it is of no use. */
  readonly trouble?: string;
}

type PeerDeps = Pick<ActivityDeps, 'catalog' | 'clusters' | 'config'>;

/** Selects the pods of a cluster in its namespace. */
export const POD_SELECTOR = `app.kubernetes.io/name=qdrant,app.kubernetes.io/instance=${RELEASE_NAME}`;

/**
 * Ask every pod of the cluster who it is. A pod that runs a cluster of its own is none of its peers.
 *
 * @param patience milliseconds that a peer has for each answer; default: as long as the client waits
 */
export async function survey(
  { catalog, clusters, config }: PeerDeps,
  ref: ClusterRef,
  signal: AbortSignal,
  patience?: number,
): Promise<{ peers: Peer[]; unreachable: Unreachable[] }> {
  const namespace = namespaceOf(ref);
  const { kubernetes } = await clusters.of(ref);
  const [pods, authorities, apiKey] = await Promise.all([
    kubernetes.pods(namespace, POD_SELECTOR),
    authoritiesOf({ catalog, kubernetes }, ref),
    kubernetes.secretValue(namespace, API_KEY_SECRET.name, API_KEY_SECRET.key),
  ]);
  if (apiKey === undefined) {
    throw new FleetError(
      'QdrantRejected',
      `Secret ${namespace}/${API_KEY_SECRET.name} with the API key is missing; put it back or delete the cluster.`,
    );
  }
  const peers: Peer[] = [];
  const unreachable: Unreachable[] = [];
  await Promise.all(
    pods.map(async (pod) => {
      const { name, ip, ready, reason, node, unscheduled } = pod;
      const place = {
        ...(ip !== undefined && { ip }),
        ...(node !== undefined && { node }),
        ...(unscheduled !== undefined && { unscheduled }),
      };
      const host = config.FLEET_QDRANT_RESOLVER === 'dns' ? `${name}.${RELEASE_NAME}-headless.${namespace}.svc` : ip;
      if (!ready || host === undefined) {
        const trouble = whyNotStarting(namespace, pod);
        const because = `pod is not ready (${reason})`;
        unreachable.push({ name, reason: because, ...place, ...(trouble !== undefined && { trouble }) });
        return;
      }
      if (authorities === undefined && !config.FLEET_ALLOW_PLAINTEXT && !isLoopback(host)) {
        throw plaintextRefused(ref);
      }
      const client = new QdrantClient({
        url: `${authorities === undefined ? 'http' : 'https'}://${host}:${config.FLEET_QDRANT_HTTP_PORT}`,
        apiKey,
        signal,
        ...(patience !== undefined && { patience }),
        ...(authorities !== undefined && { trust: { ...authorities, servername: serverNameOf(ref, name) } }),
      });
      try {
        const view = await client.cluster();
        peers.push({ id: view.peerId, name, client, view });
      } catch (error) {
        if (!FleetError.is(error, 'QdrantUnavailable')) throw error;
        unreachable.push({ name, reason: messageOf(error), ...place });
      }
    }),
  );
  const alone = strangers(peers);
  for (const { name, id } of alone) {
    const reason = `it runs a cluster of its own as peer ${id}, as a first pod does that starts on an empty disk`;
    unreachable.push({ name, reason, trouble: `${name} does not belong to the cluster: ${reason}.` });
  }
  const members = peers.filter((peer) => !alone.includes(peer));
  members.sort((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }));
  return { peers: members, unreachable };
}

function plaintextRefused({ tenant, cluster }: ClusterRef): FleetError {
  return new FleetError(
    'PlaintextRefused',
    `${tenant}/${cluster} was made without TLS, and its API key would go to other machines in plain text. Nothing was sent. ` +
      `Restore a backup into a new cluster, which has TLS. ${PLAINTEXT_ADVICE}`,
  );
}

/**
 * The reachable peers, at least one.
 *
 * @throws FleetError `ClusterSuspended`; `QdrantUnavailable` naming what is wrong with each pod
 */
export async function reachablePeers(deps: PeerDeps, ref: ClusterRef, signal: AbortSignal): Promise<[Peer, ...Peer[]]> {
  const { peers, unreachable } = await survey(deps, ref, signal);
  const [first, ...rest] = peers;
  if (first !== undefined) return [first, ...rest];
  await requireAwake(deps, ref);
  const why = unreachable.map(({ name, reason }) => `${name}: ${reason}`).join('; ') || 'it has no pods';
  throw new FleetError('QdrantUnavailable', `No peer of ${ref.tenant}/${ref.cluster} answers: ${why}.`);
}

/** @throws FleetError `ClusterSuspended` when nobody can answer, because that is how somebody wanted it */
export async function requireAwake({ catalog }: Pick<ActivityDeps, 'catalog'>, ref: ClusterRef): Promise<void> {
  const row = await catalog.cluster(ref);
  if (row?.spec.suspended !== true) return;
  throw new FleetError(
    'ClusterSuspended',
    `${ref.tenant}/${ref.cluster} is suspended, so no peer runs. Resume it (ResumeCluster), then repeat this.`,
  );
}

/** The peer with an id. @throws FleetError `QdrantUnavailable` when it does not answer */
export async function peerById(deps: PeerDeps, ref: ClusterRef, id: string, signal: AbortSignal): Promise<Peer> {
  const { peers, unreachable } = await survey(deps, ref, signal);
  const peer = peers.find((candidate) => candidate.id === id);
  if (peer !== undefined) return peer;
  throw unreachablePeer(ref, id, unreachable);
}

/** What is told of a peer that {@link survey} did not find. */
export function unreachablePeer(ref: ClusterRef, id: string, unreachable: readonly Unreachable[]): FleetError {
  const why = unreachable.map(({ name, reason }) => `${name}: ${reason}`).join('; ');
  return new FleetError(
    'QdrantUnavailable',
    `Peer ${id} of ${ref.tenant}/${ref.cluster} does not answer${why === '' ? '' : ` (${why})`}.`,
  );
}
