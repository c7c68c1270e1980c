/** How much disk the pods of a cluster have free, by the kubelets' own measurement. */
import { Agent, request } from 'undici';
import type { KubeletStats } from '../src/clients/kubernetes.ts';
import { FleetError, messageOf } from '../src/domain/errors.ts';
import type { FreeDisk, PodVolumes } from '../src/domain/disk.ts';
import { namespaceOf, type ClusterRef } from '../src/domain/naming.ts';
import type { ActivityDeps } from './deps.ts';
import { POD_SELECTOR } from './peers.ts';

/** Where Qdrant keeps its data and its snapshots in the container, in the image and in the chart. */
const MOUNTS = { storage: '/qdrant/storage', snapshots: '/qdrant/snapshots' } as const;

/**
 * Free, used and total bytes of the storage and the snapshot volume of each pod, as the kubelets' stats summary has
 * them. It needs the right to `get` `nodes/proxy`; without it, or without a kubelet that measures, nothing is known.
 *
 * @returns what is known by pod name, and why the rest is not
 */
export async function freeDisk(
  { clusters }: Pick<ActivityDeps, 'clusters'>,
  ref: ClusterRef,
): Promise<{ disks: FreeDisk; unknown: string[] }> {
  const namespace = namespaceOf(ref);
  const { kubernetes } = await clusters.of(ref);
  const places = await kubernetes.podPlaces(namespace, POD_SELECTOR);
  const disks: Record<string, PodVolumes> = {};
  const unknown: string[] = [];
  for (const [node, pods] of Map.groupBy(places, (place) => place.node)) {
    try {
      const { endpoint } = await kubernetes.node(node);
      const stats = endpoint === undefined ? await kubernetes.kubeletStats(node) : await askDirectly(endpoint);
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

const agent = new Agent({ connect: { timeout: 2000 }, headersTimeout: 5000, bodyTimeout: 5000 });

/**
 * The API server connects to no loopback address, which the nodes of a local stack have: their kubelets, which serve
 * plain HTTP, are asked without it.
 */
async function askDirectly(endpoint: string): Promise<KubeletStats> {
  try {
    const { statusCode, body } = await request(`${endpoint}/stats/summary`, { dispatcher: agent });
    if (statusCode !== 200) throw new Error(`status ${statusCode}`);
    return (await body.json()) as KubeletStats;
  } catch (error) {
    throw new FleetError('KubernetesUnavailable', `The kubelet at ${endpoint} tells no stats: ${messageOf(error)}`, {
      cause: error,
    });
  }
}
