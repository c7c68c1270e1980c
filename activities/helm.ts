/** The Helm release of a cluster. */
import { chartValues } from '../src/domain/chart-values.ts';
import type { ClusterSpec } from '../src/domain/cluster.ts';
import { namespaceOf, RELEASE_NAME, type ClusterRef } from '../src/domain/naming.ts';
import { signal } from './context.ts';
import type { ActivityDeps } from './deps.ts';

export function createHelmActivities({ clusters, config }: ActivityDeps) {
  return {
    /**
     * Apply the chart. A release that a killed Helm left pending blocks every later upgrade, so it is mended first:
     * a first install is removed, an upgrade rolled back to what was deployed. The caller holds the cluster's lease,
     * so no other Helm of ours is at work.
     */
    async installRelease(input: ClusterRef & { spec: ClusterSpec }): Promise<{ revision: number }> {
      const namespace = namespaceOf(input);
      const { helm } = await clusters.of(input);
      const found = await helm.status(namespace, RELEASE_NAME);
      if (found?.status.startsWith('pending-') === true) {
        const deployed = await helm.lastDeployed(namespace, RELEASE_NAME);
        if (deployed === undefined) await helm.uninstall(namespace, RELEASE_NAME, signal());
        else await helm.rollback(namespace, RELEASE_NAME, deployed);
      }
      const revision = await helm.upgradeInstall({
        namespace,
        release: RELEASE_NAME,
        chart: {
          chart: config.FLEET_HELM_CHART,
          ...(config.FLEET_HELM_REPOSITORY !== undefined && { repository: config.FLEET_HELM_REPOSITORY }),
          ...(config.FLEET_HELM_CHART_VERSION !== undefined && { version: config.FLEET_HELM_CHART_VERSION }),
        },
        values: chartValues(input, input.spec),
        signal: signal(),
      });
      return { revision };
    },

    /** Succeeds when there is no release. */
    async uninstallRelease(ref: ClusterRef): Promise<void> {
      const { helm } = await clusters.of(ref);
      await helm.uninstall(namespaceOf(ref), RELEASE_NAME, signal());
    },
  };
}
