/** Values for Qdrant's Helm chart, by the official chart's keys (qdrant-helm 1.18 and 1.19). */
import type { ClusterSpec, QdrantSettings } from './cluster.ts';
import type { FleetError } from './errors.ts';
import { foreignMap, isReservedName, memberPath } from './input/names.ts';
import { invalidInput } from './input/reader.ts';
import { TLS_SETTINGS, tlsVolumes } from './tls.ts';
import { API_KEY_SECRET, LABELS, MANAGED_BY, storageClassOf, type ClusterRef } from './naming.ts';
import { POD_LABELS } from './network-policy.ts';

/**
 * Values for a cluster. They hold no secret: the API key reaches the pods as an environment variable read from our own
 * Secret. The chart's `apiKey` would put it into the rendered manifest, and its `valueFrom` form copies the key with a
 * `lookup` that is empty in dry runs.
 */
export function chartValues(ref: ClusterRef, spec: ClusterSpec): Record<string, unknown> {
  const { cpu, memory } = spec.resources ?? {};
  const requests = { cpu: cpu ?? DEFAULT_REQUESTS.cpu, memory: memory ?? DEFAULT_REQUESTS.memory };
  // Elsewhere the cluster's own default class is the right one.
  const storageClass = spec.provider === 'aws' ? { storageClassName: storageClassOf(ref) } : {};
  const { nodeSelector, tolerations } = spec.placement ?? {};
  return {
    replicaCount: spec.suspended === true ? 0 : spec.nodes,
    image: { useUnprivilegedImage: true, ...(spec.version !== undefined && { tag: spec.version }) },
    env: [
      {
        name: 'QDRANT__SERVICE__API_KEY',
        valueFrom: { secretKeyRef: { name: API_KEY_SECRET.name, key: API_KEY_SECRET.key } },
      },
      {
        // The second key that is valid while the first one is rotated.
        name: 'QDRANT__SERVICE__ALT_API_KEY',
        valueFrom: { secretKeyRef: { name: API_KEY_SECRET.name, key: API_KEY_SECRET.alternate, optional: true } },
      },
    ],
    config: nested({
      ...spec.config,
      ...(spec.tls === true && TLS_SETTINGS),
      'cluster.enabled': true,
      ...maxCollections(spec),
    }),
    ...(spec.tls === true && tlsVolumes()),
    // No pod is restarted by itself: we take them one by one, and wait for its replicas before the next.
    updateStrategy: { type: 'OnDelete' },
    ...podAnnotations(spec),
    persistence: { size: spec.storage, ...storageClass },
    // Off by default, and then snapshots go to an emptyDir on the node's own disk.
    snapshotPersistence: { enabled: true, size: spec.storage, ...storageClass },
    podDisruptionBudget: { enabled: spec.nodes > 1, maxUnavailable: 1 },
    podLabels: { [LABELS.tenant]: ref.tenant, [LABELS.cluster]: ref.cluster },
    additionalLabels: { 'qdrant-fleet/managed-by': MANAGED_BY },
    // Without requests the scheduler takes a pod for weightless and fills one node with all of them.
    resources: { requests, ...(memory !== undefined && { limits: { memory } }) },
    podSecurityContext: {
      fsGroup: 3000,
      fsGroupChangePolicy: 'OnRootMismatch',
      runAsNonRoot: true,
      seccompProfile: { type: 'RuntimeDefault' },
    },
    // What the Pod Security Standard "restricted" asks for beyond the chart's own settings.
    containerSecurityContext: {
      runAsNonRoot: true,
      runAsUser: 1000,
      runAsGroup: 2000,
      allowPrivilegeEscalation: false,
      privileged: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
      seccompProfile: { type: 'RuntimeDefault' },
    },
    affinity: {
      podAntiAffinity: {
        preferredDuringSchedulingIgnoredDuringExecution: [
          { weight: 100, podAffinityTerm: { labelSelector: PODS, topologyKey: 'kubernetes.io/hostname' } },
        ],
      },
    },
    topologySpreadConstraints: [
      {
        maxSkew: 1,
        topologyKey: 'topology.kubernetes.io/zone',
        whenUnsatisfiable: 'ScheduleAnyway',
        labelSelector: PODS,
      },
    ],
    ...(nodeSelector !== undefined && { nodeSelector }),
    ...(tolerations !== undefined && { tolerations }),
  };
}

/** The tenant's quota, or fewer where the cluster's own configuration says so. */
function maxCollections({ maxCollections: most, config }: ClusterSpec): QdrantSettings {
  const own = config?.['storage.max_collections'];
  if (most === undefined) return {};
  return { 'storage.max_collections': typeof own === 'number' ? Math.min(own, most) : most };
}

/** What changes the pods' template, so that they are restarted, although it is not in their specification. */
function podAnnotations({ keyRevision, certificateRevision }: ClusterSpec): {
  podAnnotations?: Record<string, string>;
} {
  const annotations = {
    ...(keyRevision !== undefined && { 'qdrant-fleet/key-revision': String(keyRevision) }),
    ...(certificateRevision !== undefined && { 'qdrant-fleet/certificate-revision': String(certificateRevision) }),
  };
  return Object.keys(annotations).length === 0 ? {} : { podAnnotations: annotations };
}

/** What a node asks for where the request says nothing: enough to start, little enough for a small machine. */
const DEFAULT_REQUESTS = { cpu: '250m', memory: '512Mi' } as const;

const PODS = { matchLabels: POD_LABELS } as const;

/**
 * `{"a.b": 1}` as `{a: {b: 1}}`, of objects without a prototype: a name that comes from outside leads nowhere else.
 *
 * @throws FleetError `InvalidInput` naming a setting that leads to a prototype, or through the value of another
 */
export function nested(settings: QdrantSettings): Record<string, unknown> {
  const root = foreignMap<unknown>();
  for (const [name, value] of Object.entries(settings)) {
    const path = name.split('.');
    const last = path.pop() ?? '';
    if ([...path, last].some(isReservedName)) throw badSetting(name, 'must not be used as a name');
    let at = root;
    for (const key of path) {
      const group = (at[key] ??= foreignMap<unknown>());
      if (typeof group !== 'object') throw badSetting(name, CONFLICT);
      at = group as Record<string, unknown>;
    }
    if (last in at) throw badSetting(name, CONFLICT);
    at[last] = value;
  }
  return root;
}

const CONFLICT = 'is a setting, and so is a name below it: remove one of them';

function badSetting(name: string, detail: string): FleetError {
  return invalidInput({ fields: [{ field: memberPath('config', name), detail }] });
}
