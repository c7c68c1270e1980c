/** What is wrong with a cluster after a change, by looking at Kubernetes, the catalogue and every peer. */
import { AppsV1Api, CoreV1Api } from '@kubernetes/client-node';
import { namespaceOf } from '../../src/domain/naming.ts';
import type { Digest } from '../../src/local/demo/cluster-access.ts';
import type { Fleet } from './fleet.ts';

export interface Expected {
  readonly nodes: number;
  /** The points that have to be behind each peer. */
  readonly digest: Digest;
  /** A collection with so many replicas of each shard. */
  readonly collection: string;
  readonly replicas: number;
  readonly version?: string;
  readonly storage?: string;
  readonly suspended?: boolean;
}

interface CollectionView {
  readonly peer_id: number;
  readonly local_shards: { readonly shard_id: number; readonly state: string }[];
  readonly remote_shards: { readonly shard_id: number; readonly state: string; readonly peer_id: number }[];
  readonly shard_transfers: unknown[];
}

/** A cluster that has come to the end of a change. */
export async function notWhole(fleet: Fleet, cluster: string, expected: Expected): Promise<string[]> {
  const ref = { tenant: fleet.tenant, cluster };
  const { nodes, suspended = false, version, storage } = expected;
  const wrong = await unsettled(fleet, cluster);
  const row = await fleet.catalog.cluster(ref);
  const phase = suspended ? 'SUSPENDED' : 'HEALTHY';
  if (row?.phase !== phase) wrong.push(`phase ${row?.phase}, not ${phase}: ${row?.reason}`);
  const failed = row?.conditions.find(({ type, status }) => type === 'Failed' && status === 'True');
  if (failed !== undefined) wrong.push(`condition Failed: ${failed.reason}`);
  if (row?.spec.nodes !== nodes) wrong.push(`the catalogue says ${row?.spec.nodes} nodes`);
  if (version !== undefined && row?.spec.version !== version) wrong.push(`the catalogue says ${row?.spec.version}`);
  if (storage !== undefined && row?.spec.storage !== storage) wrong.push(`the catalogue says ${row?.spec.storage}`);

  const namespace = namespaceOf(ref);
  const core = fleet.kubernetes(CoreV1Api);
  const { items: sets } = await fleet.kubernetes(AppsV1Api).listNamespacedStatefulSet({ namespace });
  const wanted = suspended ? 0 : nodes;
  if (sets.length !== 1 || sets[0]?.spec?.replicas !== wanted) {
    wrong.push(`${sets.length} StatefulSets, ${sets[0]?.spec?.replicas} replicas`);
  }
  const { items: pods } = await core.listNamespacedPod({ namespace });
  if (pods.length !== wanted) wrong.push(`${pods.length} pods`);
  for (const { metadata, status } of pods) {
    const ready = status?.conditions?.some((condition) => condition.type === 'Ready' && condition.status === 'True');
    if (ready !== true) wrong.push(`${metadata?.name} is not ready`);
    if (metadata?.labels?.['controller-revision-hash'] !== sets[0]?.status?.updateRevision) {
      wrong.push(`${metadata?.name} runs an older template`);
    }
  }
  const { items: claims } = await core.listNamespacedPersistentVolumeClaim({ namespace });
  if (claims.length !== 2 * nodes) wrong.push(`${claims.length} volume claims`);
  for (const { metadata, spec, status } of claims) {
    if (storage === undefined) continue;
    const [asked, has] = [spec?.resources?.requests?.['storage'], status?.capacity?.['storage']];
    if (asked !== storage || has !== storage) wrong.push(`${metadata?.name} has ${has} of ${asked}`);
  }
  const keys = await fleet.secretKeys(namespace, 'Opaque');
  if (keys.join() !== 'api-key') wrong.push(`keys in secrets: ${keys.join()}`);
  return suspended ? wrong : [...wrong, ...(await notEqual(fleet, cluster, expected))];
}

/** Every peer in consensus, every shard with all its replicas, the same points behind each peer. */
async function notEqual(fleet: Fleet, cluster: string, expected: Expected): Promise<string[]> {
  const { nodes, digest, collection, replicas, version } = expected;
  const wrong: string[] = [];
  const access = await fleet.access(cluster);
  for (const peer of access.peers.keys()) {
    const { peers } = await access.call<{ peers: object }>('GET', '/cluster', undefined, peer);
    if (Object.keys(peers).length !== nodes) wrong.push(`peer ${peer} knows ${Object.keys(peers).length} peers`);
    const view = await access.call<CollectionView>('GET', `/collections/${collection}/cluster`, undefined, peer);
    if (view.shard_transfers.length > 0) wrong.push(`${view.shard_transfers.length} transfers run`);
    const all = [...view.local_shards, ...view.remote_shards];
    for (const [shard, found] of Map.groupBy(all, (replica) => replica.shard_id)) {
      const active = found.filter(({ state }) => state === 'Active');
      if (active.length !== replicas || found.length !== replicas) {
        wrong.push(`shard ${shard}: ${found.map(({ state }) => state).join()} in the eyes of peer ${peer}`);
      }
    }
    const found = await access.digest(collection, peer);
    if (found.sha256 !== digest.sha256) wrong.push(`peer ${peer} answers with ${found.points} points, another digest`);
    const about = (await (await fetch(access.peers[peer] ?? '')).json()) as { version: string };
    if (version !== undefined && `v${about.version}` !== version) wrong.push(`peer ${peer} runs ${about.version}`);
  }
  return wrong;
}

/** What an operation must not leave behind however it ended. */
export async function unsettled(fleet: Fleet, cluster: string): Promise<string[]> {
  const ref = { tenant: fleet.tenant, cluster };
  const wrong: string[] = [];
  const leases = await fleet.catalog.run('read the leases', (db) =>
    db.selectFrom('leases').select('holder').where('tenant', '=', ref.tenant).where('cluster', '=', cluster).execute(),
  );
  if (leases.length > 0) wrong.push(`leases left: ${leases.map(({ holder }) => holder).join()}`);
  const row = await fleet.catalog.cluster(ref);
  const busy = row?.conditions.find(({ type, status }) => type === 'Progressing' && status === 'True');
  if (busy !== undefined && row?.phase !== 'DELETING') wrong.push(`still ${row?.phase}`);
  const { items } = await fleet
    .kubernetes(CoreV1Api)
    .listNamespacedSecret({ namespace: namespaceOf(ref), labelSelector: 'owner=helm' });
  const states = items.map(({ metadata }) => metadata?.labels?.['status'] ?? '');
  const pending = states.filter((state) => state.startsWith('pending') || state === 'uninstalling');
  if (pending.length > 0) wrong.push(`Helm releases: ${pending.join()}`);
  if (items.length > 0 && states.filter((state) => state === 'deployed').length !== 1)
    wrong.push(`releases: ${states.join()}`);
  return wrong;
}

/** As {@link unsettled}, and every peer that answers has all points: for a change that was cancelled half-way. */
export async function notServing(fleet: Fleet, cluster: string, { collection, digest }: Expected): Promise<string[]> {
  const wrong = await unsettled(fleet, cluster);
  const row = await fleet.catalog.cluster({ tenant: fleet.tenant, cluster });
  if (row?.spec.suspended === true || row?.phase === 'DELETING') return wrong;
  const access = await fleet.access(cluster);
  const digests = await Promise.all(
    [...access.peers.keys()].map((peer) => access.digest(collection, peer).catch(() => undefined)),
  );
  const answers = digests.filter((found) => found !== undefined);
  if (answers.length < digests.length - 1) wrong.push(`${answers.length} of ${digests.length} peers answer`);
  for (const found of answers) if (found.sha256 !== digest.sha256) wrong.push(`${found.points} points, another digest`);
  return wrong;
}
