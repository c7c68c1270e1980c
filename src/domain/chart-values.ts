/** Values for Qdrant's Helm chart, by the official chart's keys (qdrant-helm 1.18 and 1.19). */
import type { ClusterSpec } from './cluster.ts';
import { API_KEY_SECRET, LABELS, MANAGED_BY, type ClusterRef } from './naming.ts';

/**
 * Values for a cluster. They hold no secret: the API key reaches the pods as an environment variable read from our own
 * Secret. The chart's `apiKey` would put it into the rendered manifest, and its `valueFrom` form copies the key with a
 * `lookup` that is empty in dry runs.
 */
export function chartValues(ref: ClusterRef, spec: ClusterSpec): Record<string, unknown> {
  const { cpu, memory } = spec.resources ?? {};
  const requests = { ...(cpu !== undefined && { cpu }), ...(memory !== undefined && { memory }) };
  return {
    replicaCount: spec.nodes,
    image: { useUnprivilegedImage: true, ...(spec.version !== undefined && { tag: spec.version }) },
    env: [
      {
        name: 'QDRANT__SERVICE__API_KEY',
        valueFrom: { secretKeyRef: { name: API_KEY_SECRET.name, key: API_KEY_SECRET.key } },
      },
    ],
    config: { cluster: { enabled: true } },
    persistence: { size: spec.storage },
    // Off by default, and then snapshots go to an emptyDir on the node's own disk.
    snapshotPersistence: { enabled: true, size: spec.storage },
    podDisruptionBudget: { enabled: spec.nodes > 1, maxUnavailable: 1 },
    podLabels: { [LABELS.tenant]: ref.tenant, [LABELS.cluster]: ref.cluster },
    additionalLabels: { 'qdrant-fleet/managed-by': MANAGED_BY },
    ...(Object.keys(requests).length > 0 && {
      resources: { requests, ...(memory !== undefined && { limits: { memory } }) },
    }),
  };
}
