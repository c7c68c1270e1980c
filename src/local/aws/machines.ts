/**
 * The machines of the node groups: a Node object for each that a group is to have, made when the group is active and
 * taken away with it. The process kubelet adopts them, so that pods on them become processes.
 */
import { createHash } from 'node:crypto';
import { CoreV1Api, type KubeConfig, type V1Node } from '@kubernetes/client-node';
import { KUBERNETES_EFFECTS, type NodeTaint } from '../../domain/aws.ts';
import { ignoring } from '../kubelet/api.ts';
import { POOL_LABEL } from '../kubelet/nodes.ts';
import type { Nodegroup } from './proxy/eks.ts';
import type { AwsProxy } from './proxy/proxy.ts';

/** Value of the label by which the kubelet knows them. */
export const EKS_POOL = 'eks';

export class Machines {
  readonly #core: CoreV1Api;
  #running: Promise<void> = Promise.resolve();
  #again = false;
  /** Machines that there ever were, which their names count. */
  #made = 0;

  constructor(config: KubeConfig) {
    this.#core = config.makeApiClient(CoreV1Api);
  }

  /** Makes the nodes as the groups want them. Calls during one are answered by one more after it. */
  reconcile(proxy: AwsProxy, log: (line: string) => void): Promise<void> {
    if (this.#again) return this.#running;
    this.#again = true;
    this.#running = this.#running
      .then(() => {
        this.#again = false;
        return this.#reconcile(proxy);
      })
      .catch((error: unknown) => log(`machines: ${String(error)}`));
    return this.#running;
  }

  /** When nothing of it is under way any more. */
  idle(): Promise<void> {
    return this.#running;
  }

  async #reconcile(proxy: AwsProxy): Promise<void> {
    const groups = (await proxy.nodegroups()).filter(({ status }) => /^(ACTIVE|UPDATING|DEGRADED)$/.test(status));
    const { items } = await this.#core.listNode({ labelSelector: `${POOL_LABEL}=${EKS_POOL}` });
    const surplus = new Set(items.map(nameOf));
    for (const group of groups) {
      const wanted = group.scalingConfig?.desiredSize ?? 0;
      const there = items.filter((node) => nameOf(node).startsWith(prefixOf(group)));
      const leaving = toTake(there, there.length - wanted, (instance) => proxy.isProtected(instance));
      const staying = there.filter((node) => !leaving.includes(node));
      for (const node of staying) surplus.delete(nameOf(node));
      const zones = await proxy.zones(group);
      const places = [
        ...new Set((group.subnets ?? []).map((subnet) => zones.get(subnet) ?? `${group.region}a`)),
      ].sort();
      while (staying.length < wanted) {
        this.#made += 1;
        const body = nodeOf(group, this.#made, emptiest(places, staying) ?? `${group.region}a`);
        staying.push(body);
        await ignoring([409], this.#core.createNode({ body }));
      }
    }
    for (const name of surplus) await ignoring([404], this.#core.deleteNode({ name }));
  }
}

/** As an Auto Scaling group chooses: from the zone with the most, the oldest first, and never a protected one. */
function toTake(there: readonly V1Node[], count: number, isProtected: (instance: string) => boolean): V1Node[] {
  const taken: V1Node[] = [];
  while (taken.length < count) {
    const left = there.filter((node) => !taken.includes(node));
    const free = left.filter((node) => !isProtected(instanceOf(nameOf(node))));
    const [next] = free.sort((a, b) => inZone(left, zoneOf(b)) - inZone(left, zoneOf(a)) || ageOf(a) - ageOf(b));
    if (next === undefined) break;
    taken.push(next);
  }
  return taken;
}

function inZone(nodes: readonly V1Node[], zone: string): number {
  return nodes.filter((node) => zoneOf(node) === zone).length;
}

/** Where the next machine starts: machines are spread evenly over the zones. */
function emptiest(places: readonly string[], nodes: readonly V1Node[]): string | undefined {
  return places.toSorted((a, b) => inZone(nodes, a) - inZone(nodes, b))[0];
}

function nameOf({ metadata }: V1Node): string {
  return metadata?.name ?? '';
}

function zoneOf({ metadata }: V1Node): string {
  return metadata?.labels?.['topology.kubernetes.io/zone'] ?? '';
}

/** The number at the end of its name. */
function ageOf(node: V1Node): number {
  return Number(nameOf(node).split('-').at(-1));
}

/** The id of the instance that a machine would be. */
function instanceOf(name: string): string {
  return `i-${createHash('sha256').update(name).digest('hex').slice(0, 17)}`;
}

function prefixOf({ region, clusterName, nodegroupName }: Nodegroup): string {
  const id = createHash('sha256').update(`${region}/${clusterName}/${nodegroupName}`).digest('hex').slice(0, 10);
  return `eks-${id}-`;
}

function nodeOf(group: Nodegroup, serial: number, zone: string): V1Node {
  const { nodegroupName, region, labels = {}, taints = [], instanceTypes = [] } = group;
  const name = `${prefixOf(group)}${serial}`;
  return {
    metadata: {
      name,
      labels: {
        'kubernetes.io/hostname': name,
        'kubernetes.io/os': 'linux',
        'kubernetes.io/arch': 'amd64',
        'topology.kubernetes.io/region': region,
        'topology.kubernetes.io/zone': zone,
        'node.kubernetes.io/instance-type': instanceTypes[0] ?? 't3.medium',
        'eks.amazonaws.com/nodegroup': nodegroupName,
        'eks.amazonaws.com/capacityType': 'ON_DEMAND',
        [POOL_LABEL]: EKS_POOL,
        ...labels,
      },
    },
    spec: {
      providerID: `aws:///${zone}/${instanceOf(name)}`,
      taints: taints.map(({ key, value, effect }) => ({
        key,
        ...(value !== undefined && { value }),
        effect: KUBERNETES_EFFECTS[effect as NodeTaint['effect']] ?? effect,
      })),
    },
  };
}
