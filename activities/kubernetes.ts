/** A cluster's namespace, its API key and its volumes. */
import { randomBytes } from 'node:crypto';
import type { NamespaceInfo } from '../src/clients/kubernetes.ts';
import type { Config } from '../src/config.ts';
import type { ClusterSpec } from '../src/domain/cluster.ts';
import { FleetError } from '../src/domain/errors.ts';
import {
  LOAD_BALANCER,
  POD_SECURITY_LABELS,
  surroundingObjects,
  type Surroundings,
} from '../src/domain/kubernetes-objects.ts';
import { API_KEY_SECRET, clusterLabels, LABELS, namespaceOf, type ClusterRef } from '../src/domain/naming.ts';
import { accessInWords, storeLocation, type NetworkSurroundings } from '../src/domain/network-policy.ts';
import { workflowRun } from './context.ts';
import type { ActivityDeps } from './deps.ts';

export function createKubernetesActivities({ clusters, config }: ActivityDeps) {
  return {
    /**
     * Make the namespace, or find the one that this operation made, with the worker's rights in it.
     *
     * @throws FleetError `KubernetesUnavailable` until the rights are in force
     * @throws FleetError `NamespaceNotOurs` when it exists and was not made by this operation: what is in it is not
     *   ours to change or to remove
     */
    async ensureNamespace(ref: ClusterRef): Promise<void> {
      const { kubernetes, namespaceRole } = await clusters.of(ref);
      const name = namespaceOf(ref);
      const labels = { ...clusterLabels(ref), ...POD_SECURITY_LABELS, [LABELS.operation]: operationLabel() };
      if (!(await kubernetes.createNamespace(name, labels))) refuseForeign(await kubernetes.namespace(name));
      if (namespaceRole === undefined) return;
      await kubernetes.bindToSelf(name, namespaceRole);
      if (await kubernetes.may(name, 'create', 'secrets')) return;
      throw new FleetError(
        'KubernetesUnavailable',
        `The worker bound itself to ClusterRole "${namespaceRole}" in namespace "${name}" and may not create Secrets there yet.`,
      );

      function refuseForeign(found: NamespaceInfo | undefined): void {
        if (found?.labels[LABELS.operation] === operationLabel() && isOurs(found.labels, ref)) return;
        if (found?.terminating === true) {
          throw new FleetError('KubernetesUnavailable', `Namespace "${name}" is still being removed.`);
        }
        throw new FleetError(
          'NamespaceNotOurs',
          `Namespace "${name}" exists and was not made by this operation. Remove it, or choose another cluster name.`,
        );
      }
    },

    /** Generate the cluster's API key into a Secret, once. It never leaves Kubernetes and this process. */
    async ensureApiKey(ref: ClusterRef): Promise<void> {
      const key = newApiKey();
      const { name, key: entry } = API_KEY_SECRET;
      const { kubernetes } = await clusters.of(ref);
      await kubernetes.createSecret(namespaceOf(ref), name, { [entry]: key }, clusterLabels(ref));
    },

    /**
     * What the chart leaves out: network policy, service account without a token, load balancer, ServiceMonitor.
     *
     * @returns what was applied, and who can reach the cluster, in words
     * @throws FleetError `NotConfigured` when nothing says where the workers are
     */
    async applySurroundings(input: ClusterRef & { spec: ClusterSpec }): Promise<{ objects: number; access: string }> {
      const { kubernetes } = await clusters.of(input);
      const around: Surroundings = {
        ...networkSurroundings(config),
        serviceMonitors: await kubernetes.hasApiGroup('monitoring.coreos.com'),
      };
      const { network } = input.spec;
      const objects = surroundingObjects(input, input.spec, around);
      for (const object of objects) await kubernetes.apply(object);
      if (network?.internalLoadBalancer !== true) await kubernetes.deleteService(namespaceOf(input), LOAD_BALANCER);
      return { objects: objects.length, access: accessInWords(network, around) };
    },

    /** Remove the volume claims, which outlive their StatefulSet. */
    async deleteVolumeClaims(ref: ClusterRef): Promise<void> {
      const { kubernetes } = await clusters.of(ref);
      const namespace = namespaceOf(ref);
      if (!(await holdsOurs(ref))) return;
      for (const name of await kubernetes.volumeClaims(namespace)) {
        await kubernetes.deleteVolumeClaim(namespace, name);
      }
    },

    /**
     * Remove the namespace with everything in it, if it is ours, and report whether it is gone.
     *
     * @param input `onlyOwn`: leave it alone unless this very operation made it, as a compensation must
     * @throws FleetError `ClusterNotReady` while it is still there; repeat until it is not
     */
    async removeNamespace(input: ClusterRef & { onlyOwn?: boolean }): Promise<void> {
      const { kubernetes } = await clusters.of(input);
      const name = namespaceOf(input);
      const found = await kubernetes.namespace(name);
      if (found === undefined || !isOurs(found.labels, input)) return;
      if (input.onlyOwn === true && found.labels[LABELS.operation] !== operationLabel()) return;
      if (!found.terminating) {
        // The namespace controller looks again only after half a pod's grace period, so the pods go first.
        const pods = await kubernetes.pods(name).catch((error: unknown) => {
          // Nothing of ours can run where the worker's rights have never come into force.
          if (FleetError.is(error, 'KubernetesDenied')) return [];
          throw error;
        });
        if (pods.length > 0) throw new FleetError('ClusterNotReady', `${pods.length} pods of "${name}" are stopping.`);
        await kubernetes.deleteNamespace(name);
      }
      throw new FleetError('ClusterNotReady', `Namespace "${name}" is being removed.`);
    },
  };

  async function holdsOurs(ref: ClusterRef): Promise<boolean> {
    const { kubernetes } = await clusters.of(ref);
    const found = await kubernetes.namespace(namespaceOf(ref));
    return found !== undefined && !found.terminating && isOurs(found.labels, ref);
  }
}

/** What the network policies of all clusters are made of, out of the configuration. */
function networkSurroundings(config: Config): NetworkSurroundings {
  const { FLEET_WORKER_NAMESPACE: workerNamespace, FLEET_SCRAPE_NAMESPACE: scraper } = config;
  return {
    ...(workerNamespace !== undefined && { workerNamespace }),
    workerCidrs: config.FLEET_WORKER_CIDRS,
    relayPort: config.FLEET_RELAY_PORT,
    store: storeLocation(config.FLEET_S3_NODE_ENDPOINT ?? config.FLEET_S3_ENDPOINT, {
      cidrs: config.FLEET_STORE_CIDRS,
      podPorts: config.FLEET_STORE_POD_PORTS,
      private: config.FLEET_PRIVATE_CIDRS,
    }),
    dnsNamespace: config.FLEET_DNS_NAMESPACE,
    dnsCidrs: config.FLEET_DNS_CIDRS,
    ...(scraper !== undefined && { scrape: { namespace: scraper, labels: config.FLEET_SCRAPE_LABELS } }),
  };
}

/** A letter first and no punctuation: the official chart writes keys unquoted into YAML. */
export function newApiKey(): string {
  return `q${randomBytes(32).toString('base64url').replaceAll(/[-_]/g, 'x')}`;
}

function isOurs(labels: Readonly<Record<string, string>>, ref: ClusterRef): boolean {
  return Object.entries(clusterLabels(ref)).every(([name, value]) => labels[name] === value);
}

/** Run ids are UUIDs, which fit a label; workflow ids may not. */
function operationLabel(): string {
  return workflowRun().runId;
}
