/** Whom to trust when the peers of a cluster show their certificate. */
import type { Catalog } from '../src/clients/catalog.ts';
import type { Kubernetes } from '../src/clients/kubernetes.ts';
import { FleetError } from '../src/domain/errors.ts';
import { namespaceOf, type ClusterRef } from '../src/domain/naming.ts';
import { CERTIFICATE_SECRET, TRUST_NOTES, TRUST_SECRET } from '../src/domain/tls.ts';

interface Authorities {
  /** In PEM. */
  readonly ca: string;
  /** The Secret that they come from. */
  readonly source: string;
}

/**
 * The authorities of a cluster, from its Secret; `undefined` for a cluster without TLS.
 *
 * @throws FleetError `QdrantRejected` when the cluster has TLS and the Secret is gone: its nodes are never spoken to
 *   without it
 */
export async function authoritiesOf(
  {
    catalog,
    kubernetes,
  }: { catalog: Pick<Catalog, 'cluster'>; kubernetes: Pick<Kubernetes, 'secret' | 'secretValue'> },
  ref: ClusterRef,
): Promise<Authorities | undefined> {
  const namespace = namespaceOf(ref);
  const [row, trust] = await Promise.all([catalog.cluster(ref), kubernetes.secret(namespace, TRUST_SECRET.name)]);
  const source = `Secret ${namespace}/${TRUST_SECRET.name}`;
  const ca = trust?.values[TRUST_SECRET.ca];
  if (ca !== undefined) {
    // The issuer of cert-manager may have changed its authority already.
    const current =
      trust?.annotations[TRUST_NOTES.issuer] === 'cert-manager'
        ? await kubernetes.secretValue(namespace, CERTIFICATE_SECRET.name, CERTIFICATE_SECRET.ca)
        : undefined;
    return { ca: current === undefined || ca.includes(current.trim()) ? ca : `${ca}\n${current}`, source };
  }
  if (row?.spec.tls !== true) return undefined;
  throw new FleetError(
    'QdrantRejected',
    `${source} with the authorities of ${ref.tenant}/${ref.cluster} is missing, so its nodes cannot be told from others. ` +
      'Nothing was sent. RotateCertificates makes it anew.',
  );
}
