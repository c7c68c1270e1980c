/** How much disk the pods of a cluster have free, by the kubelets' own measurement. */
import { kubeletStats, type KubeletStats } from '../src/clients/kubelet.ts';
import type { Kubernetes } from '../src/clients/kubernetes.ts';
import type { Config } from '../src/config.ts';
import { FleetError } from '../src/domain/errors.ts';
import type { FreeDisk, PodVolumes } from '../src/domain/disk.ts';
import { foreignMap } from '../src/domain/input/names.ts';
import { namespaceOf, type ClusterRef } from '../src/domain/naming.ts';
import type { ActivityDeps } from './deps.ts';
import { POD_SELECTOR } from './peers.ts';

/** Where Qdrant keeps its data and its snapshots in the container, in the image and in the chart. */
const MOUNTS = { storage: '/qdrant/storage', snapshots: '/qdrant/snapshots' } as const;

/**
 * Free, used and total bytes of the storage and the snapshot volume of each pod, as the kubelets' stats summary has them.
 * The kubelets are asked directly, with a token of an account that may read stats and nothing else: with the worker's own
 * token a captured machine could act as the worker. Without that account, or without a kubelet that can be reached and
 * measures, nothing is known.
 *
 * @returns what is known by pod name, and why the rest is not
 */
export async function freeDisk(
  { clusters, config }: Pick<ActivityDeps, 'clusters' | 'config'>,
  ref: ClusterRef,
): Promise<{ disks: FreeDisk; unknown: string[] }> {
  const namespace = namespaceOf(ref);
  const { kubernetes } = await clusters.of(ref);
  const places = await kubernetes.podPlaces(namespace, POD_SELECTOR);
  const disks = foreignMap<PodVolumes>();
  const unknown: string[] = [];
  const ask = await askKubelets(kubernetes, config);
  if (typeof ask === 'string') return { disks, unknown: [ask] };
  for (const [node, pods] of Map.groupBy(places, (place) => place.node)) {
    try {
      const stats = await ask(node);
      for (const { name, volumes } of pods) {
        const found = volumesOf(stats, namespace, name, volumes);
        if (found === undefined) unknown.push(`pod ${name} is not in the stats of node ${node}`);
        else disks[name] = found;
      }
    } catch (error) {
      if (!FleetError.is(error)) throw error;
      unknown.push(error.message);
    }
  }
  return { disks, unknown };
}

/** @returns what asks the kubelet of a node, or why nobody can */
async function askKubelets(
  kubernetes: Kubernetes,
  { FLEET_STATS_SERVICE_ACCOUNT: account, FLEET_KUBELET_CA_FILE: ca }: Config,
): Promise<string | ((node: string) => Promise<KubeletStats>)> {
  if (account === undefined) return 'FLEET_STATS_SERVICE_ACCOUNT is not set, so no kubelet is asked';
  try {
    const token = await kubernetes.serviceAccountToken(account.namespace, account.name);
    const authority = ca ?? kubernetes.authority;
    return async (node) => {
      const origin = await kubernetes.kubeletOrigin(node);
      if (origin === undefined) throw new FleetError('KubernetesUnavailable', `Node ${node} has no address.`);
      return kubeletStats(origin, { token, authority });
    };
  } catch (error) {
    if (!FleetError.is(error)) throw error;
    return error.message;
  }
}

function volumesOf(
  stats: KubeletStats,
  namespace: string,
  pod: string,
  mounted: Readonly<Record<string, string>>,
): PodVolumes | undefined {
  const found = stats.pods?.find(({ podRef }) => podRef.name === pod && podRef.namespace === namespace);
  const volume = (path: string) => {
    const name = mounted[path];
    const measured = found?.volume?.find((candidate) => candidate.name === name);
    if (measured?.availableBytes === undefined || measured.usedBytes === undefined) return undefined;
    const { availableBytes: free, usedBytes: used, capacityBytes: capacity = free + used } = measured;
    return { free, used, capacity };
  };
  const storage = volume(MOUNTS.storage);
  // Where no volume of its own is mounted, snapshots lie in the container's layer or below the storage.
  const snapshots = volume(MOUNTS.snapshots) ?? storage;
  return storage === undefined || snapshots === undefined ? undefined : { storage, snapshots };
}
