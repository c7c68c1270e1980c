/**
 * The machines of the node groups: a Node object for each that a group is to have, made when the group is active and
 * taken away with it. The process kubelet adopts them, so that pods on them become processes.
 */
import { createHash } from 'node:crypto';
import { CoreV1Api, type KubeConfig, type V1Node } from '@kubernetes/client-node';
import { ignoring } from '../kubelet/api.ts';
import { POOL_LABEL } from '../kubelet/nodes.ts';
import type { Nodegroup } from './proxy/eks.ts';
import type { AwsProxy } from './proxy/proxy.ts';

/** Value of the label by which the kubelet knows them. */
export const EKS_POOL = 'eks';

const EFFECTS: Readonly<Record<string, string>> = {
  NO_SCHEDULE: 'NoSchedule',
  NO_EXECUTE: 'NoExecute',
  PREFER_NO_SCHEDULE: 'PreferNoSchedule',
};

export class Machines {
  readonly #core: CoreV1Api;
  #running: Promise<void> = Promise.resolve();
  #again = false;

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
    const wanted = new Map<string, V1Node>();
    for (const group of groups) {
      const zones = await proxy.zones(group);
      for (const node of nodesOf(group, zones)) wanted.set(node.metadata?.name ?? '', node);
    }
    const { items } = await this.#core.listNode({ labelSelector: `${POOL_LABEL}=${EKS_POOL}` });
    const there = new Set(items.map(({ metadata }) => metadata?.name ?? ''));
    for (const name of there) {
      if (!wanted.has(name)) await ignoring([404], this.#core.deleteNode({ name }));
    }
    for (const [name, body] of wanted) {
      if (!there.has(name)) await ignoring([409], this.#core.createNode({ body }));
    }
  }
}

/** Spread over the zones of the group's subnets, as an Auto Scaling group does it. */
function nodesOf(group: Nodegroup, zones: ReadonlyMap<string, string>): V1Node[] {
  const { clusterName, nodegroupName, region, labels = {}, taints = [], instanceTypes = [] } = group;
  const places = [...new Set((group.subnets ?? []).map((subnet) => zones.get(subnet) ?? `${region}a`))].sort();
  const id = createHash('sha256').update(`${region}/${clusterName}/${nodegroupName}`).digest('hex').slice(0, 10);
  return Array.from({ length: group.scalingConfig?.desiredSize ?? 0 }, (_, index) => {
    const name = `eks-${id}-${index + 1}`;
    return {
      metadata: {
        name,
        labels: {
          'kubernetes.io/hostname': name,
          'kubernetes.io/os': 'linux',
          'kubernetes.io/arch': 'amd64',
          'topology.kubernetes.io/region': region,
          'topology.kubernetes.io/zone': places[index % places.length] ?? `${region}a`,
          'node.kubernetes.io/instance-type': instanceTypes[0] ?? 't3.medium',
          'eks.amazonaws.com/nodegroup': nodegroupName,
          'eks.amazonaws.com/capacityType': 'ON_DEMAND',
          [POOL_LABEL]: EKS_POOL,
          ...labels,
        },
      },
      spec: {
        taints: taints.map(({ key, value, effect }) => ({
          key,
          ...(value !== undefined && { value }),
          effect: EFFECTS[effect] ?? effect,
        })),
      },
    };
  });
}
