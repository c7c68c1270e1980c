import { arch, platform } from 'node:os';
import { type V1Node, type V1NodeCondition, V1MicroTime } from '@kubernetes/client-node';
import { pause } from '../wait.ts';
import { type Api, describe, hasStatus, ignoring, type Log, strategicMerge } from './api.ts';
import type { LocalNode } from './config.ts';

/** Tells the nodes of one kubelet from another's on the same control plane: the prefix of their names. */
export const POOL_LABEL = 'qdrant-fleet/pool';
/** Pool of the nodes that somebody makes and takes away by hand, such as `kubectl delete node`: a machine that goes. */
export const MACHINES_POOL = 'machines';
/** Annotation of such a node, `off`: its machine hangs. What ran there runs no more, and nobody speaks for it. */
export const POWER = 'qdrant-fleet/power';
const LEASE_SECONDS = 40;
const RENEW_MS = 10_000;

/** Generous on purpose: requests meant for cloud machines must be schedulable on a laptop, and nothing here enforces them. */
const CAPACITY = { cpu: '64', memory: '256Gi', 'ephemeral-storage': '1Ti', pods: '250' };

/** Creates the Node object if need be and reports it ready. @param port where its kubelet answers, on loopback */
export async function registerNode(api: Api, node: LocalNode, port: number | undefined, taint?: string): Promise<void> {
  const labels = {
    'kubernetes.io/hostname': node.name,
    'kubernetes.io/os': platform() === 'win32' ? 'windows' : platform(),
    'kubernetes.io/arch': arch() === 'x64' ? 'amd64' : arch(),
    'topology.kubernetes.io/region': 'local',
    'topology.kubernetes.io/zone': node.zone,
    [POOL_LABEL]: node.name.replace(/-\d+$/, ''),
  };
  const spec = taint === undefined ? {} : { taints: [{ key: taint, effect: 'NoSchedule' }] };
  if (!node.adopted) {
    await ignoring([409], api.core.createNode({ body: { metadata: { name: node.name, labels }, spec } }));
  }
  await renewLease(api, node);
  const body = { status: readyStatus(node, port) };
  const patched = api.core.patchNodeStatus({ name: node.name, body }, strategicMerge);
  await (node.adopted ? ignoring([404], patched) : patched);
}

/** Keeps the nodes' leases fresh; without it the control plane calls them unknown after 40 s and evicts their pods. */
export async function heartbeat(
  api: Api,
  nodes: LocalNode[],
  ports: ReadonlyMap<string, number>,
  log: Log,
  signal: AbortSignal,
  taint?: string,
): Promise<void> {
  while (!signal.aborted) {
    await pause(RENEW_MS, signal);
    if (signal.aborted) return;
    for (const node of nodes) {
      try {
        await renewLease(api, node);
        // A machine that slept finds its nodes marked unknown, or even collected.
        const seen = await ignoring([404], api.core.readNode({ name: node.name }));
        if (!isReady(seen)) await registerNode(api, node, ports.get(node.name), taint);
      } catch (error) {
        log(`heartbeat of node ${node.name}: ${describe(error)}`);
      }
    }
  }
}

async function renewLease(api: Api, node: LocalNode): Promise<void> {
  const at = { name: node.name, namespace: 'kube-node-lease' };
  const spec = {
    holderIdentity: node.name,
    leaseDurationSeconds: LEASE_SECONDS,
    renewTime: new V1MicroTime(),
  };
  try {
    await api.coordination.patchNamespacedLease({ ...at, body: { spec } }, strategicMerge);
  } catch (error) {
    if (!hasStatus(error, 404)) throw error;
    // A young control plane may not have made its namespaces yet.
    const namespace = { metadata: { name: at.namespace } };
    await ignoring([409], api.core.createNamespace({ body: namespace }));
    const body = { metadata: at, spec };
    await ignoring([409], api.coordination.createNamespacedLease({ namespace: at.namespace, body }));
  }
}

function readyStatus(node: LocalNode, port: number | undefined): NonNullable<V1Node['status']> {
  const now = new Date();
  const condition = (type: string, status: string, reason: string, message: string): V1NodeCondition => ({
    type,
    status,
    reason,
    message,
    lastHeartbeatTime: now,
    lastTransitionTime: now,
  });
  return {
    capacity: CAPACITY,
    allocatable: CAPACITY,
    addresses: [
      { type: 'InternalIP', address: '127.0.0.1' },
      { type: 'Hostname', address: node.name },
    ],
    ...(port !== undefined && { daemonEndpoints: { kubeletEndpoint: { Port: port } } }),
    conditions: [
      condition('Ready', 'True', 'KubeletReady', 'process kubelet of the local stack'),
      condition('MemoryPressure', 'False', 'KubeletHasSufficientMemory', 'not measured'),
      condition('DiskPressure', 'False', 'KubeletHasNoDiskPressure', 'not measured'),
      condition('PIDPressure', 'False', 'KubeletHasSufficientPID', 'not measured'),
    ],
  };
}

function isReady(node: V1Node | undefined): boolean {
  return node?.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false;
}
