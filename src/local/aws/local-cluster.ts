import type { KubeConfig } from '@kubernetes/client-node';
import type { ClusterAccessPoint } from './proxy/eks.ts';

/**
 * The local API server as what DescribeCluster answers for every cluster. It stands in for the control planes that no
 * emulator runs here: their own endpoints are addresses where nobody listens.
 */
export function localClusterAccess(config: KubeConfig): ClusterAccessPoint {
  const cluster = config.getCurrentCluster();
  return { endpoint: cluster?.server ?? '', certificateAuthority: cluster?.caData ?? '' };
}
