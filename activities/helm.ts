/** The Helm release of a cluster. */
import { chartValues } from '../src/domain/chart-values.ts';
import type { ClusterSpec } from '../src/domain/cluster.ts';
import { FleetError } from '../src/domain/errors.ts';
import { namespaceOf, RELEASE_NAME, type ClusterRef } from '../src/domain/naming.ts';
import { chartOf } from './chart.ts';
import { signal } from './context.ts';
import type { ActivityDeps } from './deps.ts';

/**
 * Milliseconds for which a release that is pending is taken to be in work: a worker may be gone while its Helm goes on.
 * A Helm of ours waits for no pod and is done in seconds.
 */
export const AT_WORK = 15_000;

export function createHelmActivities({ clusters, config }: ActivityDeps) {
  return {
    /**
     * Apply the chart. A release that a killed Helm left pending blocks every later upgrade, so it is mended first:
     * a first install is removed, an upgrade or a rollback is rolled back to what was deployed. The caller holds the
     * cluster's lease, so no other Helm of ours is at work, but for one that outlives its worker by seconds.
     *
     * @throws FleetError `ChartFailed`; `KubernetesUnavailable` also while another Helm may still be at work
     */
    async installRelease(input: ClusterRef & { spec: ClusterSpec }): Promise<{ revision: number }> {
      const namespace = namespaceOf(input);
      const { helm } = await clusters.of(input);
      const found = await helm.status(namespace, RELEASE_NAME);
      if (found?.status.startsWith('pending-') === true) {
        if (Date.now() - found.since < AT_WORK) {
          throw new FleetError(
            'KubernetesUnavailable',
            `Release ${namespace}/${RELEASE_NAME} is in ${found.status}: a Helm that outlived its worker may be at work on it.`,
          );
        }
        const deployed = await helm.lastDeployed(namespace, RELEASE_NAME);
        if (deployed === undefined) await helm.uninstall(namespace, RELEASE_NAME, signal());
        else await helm.rollback(namespace, RELEASE_NAME, deployed);
      }
      const revision = await helm.upgradeInstall({
        namespace,
        release: RELEASE_NAME,
        chart: chartOf(config),
        values: chartValues(input, input.spec),
        signal: signal(),
      });
      return { revision };
    },

    /** Succeeds when there is no release. */
    async uninstallRelease(ref: ClusterRef): Promise<void> {
      const { helm, kubernetes } = await clusters.of(ref);
      // Where there is no namespace any more, or one that is going, the worker has no rights that Helm could use.
      const found = await kubernetes.namespace(namespaceOf(ref));
      if (found === undefined || found.terminating) return;
      await helm.uninstall(namespaceOf(ref), RELEASE_NAME, signal());
    },
  };
}
