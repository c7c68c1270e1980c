/**
 * What a cluster gets in its namespace beside the chart, by server-side apply. The chart has no fields for these, or
 * leaves them off: Pod Security, default-deny network policy, a service account without a token, an internal load
 * balancer, and metrics behind the API key.
 */
import type { ClusterSpec } from './cluster.ts';
import { serviceNameOf, TRUST_SECRET } from './tls.ts';
import { API_KEY_SECRET, clusterLabels, namespaceOf, RELEASE_NAME, type ClusterRef } from './naming.ts';
import { networkPolicySpec, POD_LABELS, PORTS, type NetworkSurroundings } from './network-policy.ts';

/** What this installation knows about itself. */
export interface Surroundings extends NetworkSurroundings {
  /** Whether the cluster knows the Prometheus operator's ServiceMonitor. */
  readonly serviceMonitors: boolean;
}

/** An object to apply: what the API server needs to know it by, and the rest. */
export interface AppliedObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    /** Omitted for objects of the whole cluster. */
    readonly namespace?: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly [rest: string]: unknown;
}

/** Enforced by the API server itself (Kubernetes Pod Security Standards, level restricted). */
export const POD_SECURITY_LABELS = {
  'pod-security.kubernetes.io/enforce': 'restricted',
  'pod-security.kubernetes.io/warn': 'restricted',
} as const;

/** Name of the Service of an internal load balancer. */
export const LOAD_BALANCER = `${RELEASE_NAME}-internal`;

/**
 * All objects of a cluster, in the order in which to apply them.
 *
 * @throws FleetError `NotConfigured` when nothing says where the workers are
 */
export function surroundingObjects(ref: ClusterRef, spec: ClusterSpec, around: Surroundings): AppliedObject[] {
  return [
    serviceAccount(ref),
    networkPolicy(ref, spec, around),
    ...(spec.network?.internalLoadBalancer === true ? [internalLoadBalancer(ref)] : []),
    ...(around.serviceMonitors ? [serviceMonitor(ref, spec)] : []),
  ];
}

/**
 * The chart's own service account, made first and marked so that Helm takes it over; the chart has no field for
 * `automountServiceAccountToken`. Qdrant never speaks to Kubernetes.
 */
function serviceAccount(ref: ClusterRef): AppliedObject {
  return {
    apiVersion: 'v1',
    kind: 'ServiceAccount',
    metadata: {
      ...metadata(ref, RELEASE_NAME),
      labels: { ...clusterLabels(ref), 'app.kubernetes.io/managed-by': 'Helm' },
      annotations: {
        'meta.helm.sh/release-name': RELEASE_NAME,
        'meta.helm.sh/release-namespace': namespaceOf(ref),
      },
    },
    automountServiceAccountToken: false,
  };
}

function networkPolicy(ref: ClusterRef, { network }: ClusterSpec, around: Surroundings): AppliedObject {
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: metadata(ref, RELEASE_NAME),
    spec: networkPolicySpec(network, around),
  };
}

function internalLoadBalancer(ref: ClusterRef): AppliedObject {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: {
      ...metadata(ref, LOAD_BALANCER),
      annotations: {
        // AWS Load Balancer Controller, then the providers' in-tree names; each reads only its own.
        'service.beta.kubernetes.io/aws-load-balancer-type': 'external',
        'service.beta.kubernetes.io/aws-load-balancer-nlb-target-type': 'ip',
        'service.beta.kubernetes.io/aws-load-balancer-scheme': 'internal',
        'service.beta.kubernetes.io/aws-load-balancer-internal': 'true',
        'networking.gke.io/load-balancer-type': 'Internal',
        'service.beta.kubernetes.io/azure-load-balancer-internal': 'true',
      },
    },
    spec: {
      type: 'LoadBalancer',
      selector: POD_LABELS,
      ports: [
        { name: 'http', port: PORTS.http, targetPort: PORTS.http, protocol: 'TCP' },
        { name: 'grpc', port: PORTS.grpc, targetPort: PORTS.grpc, protocol: 'TCP' },
      ],
    },
  };
}

/** Each pod is scraped by itself, since `/metrics` speaks for one peer, and with the key, which it asks for. */
function serviceMonitor(ref: ClusterRef, { tls }: ClusterSpec): AppliedObject {
  return {
    apiVersion: 'monitoring.coreos.com/v1',
    kind: 'ServiceMonitor',
    metadata: metadata(ref, RELEASE_NAME),
    spec: {
      selector: { matchLabels: { ...POD_LABELS, 'app.kubernetes.io/component': 'cluster-discovery' } },
      endpoints: [
        {
          port: 'http',
          path: '/metrics',
          interval: '30s',
          ...(tls === true && {
            scheme: 'https',
            tlsConfig: {
              ca: { secret: { name: TRUST_SECRET.name, key: TRUST_SECRET.ca } },
              serverName: serviceNameOf(ref),
            },
          }),
          authorization: { credentials: { name: API_KEY_SECRET.name, key: API_KEY_SECRET.key } },
        },
      ],
    },
  };
}

/** What the users of a cluster need to reach it. Holds no secret. */
export interface ClusterOutputs {
  readonly namespace: string;
  readonly serviceName: string;
  readonly serviceFqdn: string;
  readonly httpUrl: string;
  readonly grpcUrl: string;
  readonly httpPort: number;
  readonly grpcPort: number;
  readonly apiKeySecret: { readonly name: string; readonly key: string };
  /** Authorities that sign the cluster's certificate; for clusters with TLS. */
  readonly caSecret?: { readonly name: string; readonly key: string };
  /** Service of type LoadBalancer, where one was asked for. */
  readonly internalLoadBalancer?: string;
}

export function outputsOf(ref: ClusterRef, { network, tls }: Pick<ClusterSpec, 'network' | 'tls'>): ClusterOutputs {
  const scheme = tls === true ? 'https' : 'http';
  const namespace = namespaceOf(ref);
  const serviceFqdn = `${RELEASE_NAME}.${namespace}.svc.cluster.local`;
  return {
    namespace,
    serviceName: RELEASE_NAME,
    serviceFqdn,
    httpUrl: `${scheme}://${serviceFqdn}:${PORTS.http}`,
    grpcUrl: `${scheme}://${serviceFqdn}:${PORTS.grpc}`,
    httpPort: PORTS.http,
    grpcPort: PORTS.grpc,
    apiKeySecret: { name: API_KEY_SECRET.name, key: API_KEY_SECRET.key },
    ...(tls === true && { caSecret: { name: TRUST_SECRET.name, key: TRUST_SECRET.ca } }),
    ...(network?.internalLoadBalancer === true && { internalLoadBalancer: LOAD_BALANCER }),
  };
}

function metadata(ref: ClusterRef, name: string): AppliedObject['metadata'] {
  return { name, namespace: namespaceOf(ref), labels: clusterLabels(ref) };
}
