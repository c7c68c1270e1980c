/**
 * TLS of a cluster: all three ports, by one certificate for all of its pods.
 *
 * What Qdrant does with the files (1.18, 1.19): the REST port reads certificate and key again once `tls.cert_ttl` has passed;
 * the gRPC port and the peer port read them when the process starts. Peers show each other the certificate and check it
 * against `tls.ca_cert`, in both directions. So a renewed certificate needs a restart of each pod, and peers with and
 * without TLS cannot speak to each other: TLS is chosen when a cluster is made.
 */
import type { AppliedObject } from './kubernetes-objects.ts';
import { clusterLabels, namespaceOf, RELEASE_NAME, type ClusterRef } from './naming.ts';

/** The authority of a cluster, with its private key. For workers only; no pod mounts it. */
export const AUTHORITY_SECRET = {
  name: 'qdrant-ca',
  cert: 'ca.crt',
  key: 'ca.key',
  /** The authority that takes over, and the one that it took over from. */
  next: 'next.crt',
  nextKey: 'next.key',
  previous: 'previous.crt',
} as const;

/** Certificate and private key of the pods, by the names that cert-manager gives them, too. */
export const CERTIFICATE_SECRET = { name: 'qdrant-tls', cert: 'tls.crt', key: 'tls.key', ca: 'ca.crt' } as const;

/** Which authorities to trust: for the pods, the workers and the users of the cluster. Holds no secret. */
export const TRUST_SECRET = { name: 'qdrant-trust', ca: 'ca.crt' } as const;

/** Annotations on {@link TRUST_SECRET}, which keep what is known about the certificates. */
export const TRUST_NOTES = {
  /** `fleet` or `cert-manager`. */
  issuer: 'qdrant-fleet/issued-by',
  /** Counts up with each change that the pods have to be restarted for. */
  revision: 'qdrant-fleet/certificate-revision',
  /** SHA-256 of the certificate that the revision stands for. */
  leaf: 'qdrant-fleet/certificate',
} as const;

/** How far a change of the authority is; written on {@link AUTHORITY_SECRET}. */
export const AUTHORITY_STAGE = 'qdrant-fleet/authority-stage';

/** Where the pods find them. */
const TLS_PATHS = { pair: '/qdrant/tls', trust: '/qdrant/trust' } as const;

/** Seconds after which the REST port looks at the files again. */
const RELOAD_SECONDS = 60;

export const AUTHORITY_DAYS = 5 * 365;
export const CERTIFICATE_DAYS = 365;

/** Most nodes of a cluster: a certificate names the pods of all that there can be, so that scaling out needs no new one. */
const MOST_PODS = 64;

/** A pod's name in the cluster's DNS: what its certificate is checked for, however the pod is reached. */
export function serverNameOf(ref: ClusterRef, pod: string): string {
  return `${pod}.${RELEASE_NAME}-headless.${namespaceOf(ref)}.svc`;
}

/** The Service's name, which every pod's certificate has as well. */
export function serviceNameOf(ref: ClusterRef): string {
  return `${RELEASE_NAME}.${namespaceOf(ref)}.svc`;
}

/**
 * All names that the pods go by. Peers call each other `qdrant-0.qdrant-headless`, as the chart starts them; a wildcard
 * is of no use there, because it needs two labels behind it.
 */
export function certificateNames(ref: ClusterRef): string[] {
  const namespace = namespaceOf(ref);
  const headless = `${RELEASE_NAME}-headless`;
  const suffixes = [namespace, `${namespace}.svc`, `${namespace}.svc.cluster.local`];
  return [
    serviceNameOf(ref),
    ...suffixes.map((suffix) => `${RELEASE_NAME}.${suffix}`).filter((name) => name !== serviceNameOf(ref)),
    ...suffixes.map((suffix) => `*.${headless}.${suffix}`),
    ...Array.from({ length: MOST_PODS }, (_, ordinal) => `${RELEASE_NAME}-${ordinal}.${headless}`),
    'localhost',
  ];
}

/** Qdrant's settings for TLS, by their dotted names. */
export const TLS_SETTINGS = {
  'service.enable_tls': true,
  'cluster.p2p.enable_tls': true,
  'tls.cert': `${TLS_PATHS.pair}/${CERTIFICATE_SECRET.cert}`,
  'tls.key': `${TLS_PATHS.pair}/${CERTIFICATE_SECRET.key}`,
  'tls.ca_cert': `${TLS_PATHS.trust}/${TRUST_SECRET.ca}`,
  'tls.cert_ttl': RELOAD_SECONDS,
} as const;

/** The chart's values that mount the files. */
export function tlsVolumes(): Record<string, unknown> {
  const volume = (name: string, secretName: string, keys: readonly string[]) => ({
    name,
    // Readable by the pod's group, which is not root's.
    secret: { secretName, defaultMode: 0o440, items: keys.map((key) => ({ key, path: key })) },
  });
  return {
    additionalVolumes: [
      volume('tls', CERTIFICATE_SECRET.name, [CERTIFICATE_SECRET.cert, CERTIFICATE_SECRET.key]),
      volume('trust', TRUST_SECRET.name, [TRUST_SECRET.ca]),
    ],
    additionalVolumeMounts: [
      { name: 'tls', mountPath: TLS_PATHS.pair, readOnly: true },
      { name: 'trust', mountPath: TLS_PATHS.trust, readOnly: true },
    ],
  };
}

/** What cert-manager is asked for, by its API `cert-manager.io/v1`. */
export function managedCertificate(ref: ClusterRef, issuer: { kind: string; name: string }): AppliedObject {
  return {
    apiVersion: 'cert-manager.io/v1',
    kind: 'Certificate',
    metadata: { name: CERTIFICATE_SECRET.name, namespace: namespaceOf(ref), labels: clusterLabels(ref) },
    spec: {
      secretName: CERTIFICATE_SECRET.name,
      secretTemplate: { labels: clusterLabels(ref) },
      commonName: namespaceOf(ref),
      dnsNames: certificateNames(ref),
      duration: `${CERTIFICATE_DAYS * 24}h`,
      renewBefore: `${Math.round((CERTIFICATE_DAYS * 24) / 3)}h`,
      // A node that reads the two files while they are being replaced has a pair in any case.
      privateKey: { algorithm: 'ECDSA', size: 256, rotationPolicy: 'Never' },
      // Peers are servers and clients of each other.
      usages: ['digital signature', 'server auth', 'client auth'],
      issuerRef: { group: 'cert-manager.io', kind: issuer.kind, name: issuer.name },
    },
  };
}

/** Whether a certificate has less than a third of its life left. */
export function isDue({ from, until }: { from: Date; until: Date }, now: Date): boolean {
  return until.getTime() - now.getTime() < (until.getTime() - from.getTime()) / 3;
}
