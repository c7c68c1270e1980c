/**
 * The certificates of a cluster: by cert-manager where an issuer of it is configured and it is there, else by an authority
 * of the cluster's own. What is to be done is read from the Secrets themselves, so every attempt goes on where the last
 * one stopped.
 */
import { createHash, X509Certificate } from 'node:crypto';
import { Context } from '@temporalio/activity';
import { sql } from 'kysely';
import type { Kubernetes, SecretInfo } from '../src/clients/kubernetes.ts';
import { certificatesIn, isPair, issue, makeAuthority, type KeyPair } from '../src/clients/x509.ts';
import type { ClusterSpec } from '../src/domain/cluster.ts';
import { FleetError } from '../src/domain/errors.ts';
import { clusterLabels, namespaceOf, type ClusterRef } from '../src/domain/naming.ts';
import {
  AUTHORITY_DAYS,
  AUTHORITY_SECRET,
  AUTHORITY_STAGE,
  CERTIFICATE_DAYS,
  CERTIFICATE_SECRET,
  certificateNames,
  isDue,
  managedCertificate,
  TRUST_NOTES,
  TRUST_SECRET,
} from '../src/domain/tls.ts';
import { workflowRun } from './context.ts';
import type { ActivityDeps } from './deps.ts';
import { LANES, mapInLanes } from './lanes.ts';

/**
 * How far a change is.
 *
 * - `renewed`: a new certificate by the same authority.
 * - `trusted`: a second authority stands beside the first, and both are trusted.
 * - `issued`: the second one has signed a new certificate; both are still trusted.
 * - `settled`: only the second one is trusted.
 */
export type CertificateStage = 'renewed' | 'trusted' | 'issued' | 'settled';

export interface CertificateState {
  readonly issuedBy: 'fleet' | 'cert-manager';
  /** ISO 8601. */
  readonly notAfter: string;
  /** Counts up with each change that needs a restart of the pods. */
  readonly revision: number;
}

/** How the certificates of a cluster are. */
interface CertificateLook {
  /** Less than a third of the certificate's or its authority's life is left, or the pods were not restarted since. */
  readonly due: boolean;
  readonly authorityDue: boolean;
  readonly expired: boolean;
  /** How far a change of the authority is. */
  readonly stage: string;
  /** ISO 8601; absent when there is no certificate. */
  readonly notAfter?: string;
}

/** Clusters that are looked at by one activity. */
const PAGE = 100;

/** On the Secret of the certificate: the operation that had it made. */
const MADE_BY = 'qdrant-fleet/made-by-operation';

export function createCertificateActivities({ catalog, clusters, config }: ActivityDeps) {
  return {
    /**
     * Make what is missing: authority, certificate, trust. What is there stays, unless less than a third of its life is left.
     *
     * @throws FleetError `ClusterNotReady` while cert-manager has not issued yet
     */
    async ensureCertificates(ref: ClusterRef): Promise<CertificateState> {
      const { kubernetes } = await clusters.of(ref);
      return bringAbout(kubernetes, ref, {});
    },

    /**
     * How the certificates are. Nothing is changed.
     *
     * @throws FleetError `UpdateRefused` when the cluster was made without TLS, `ClusterNotFound`
     */
    async inspectCertificates(ref: ClusterRef): Promise<CertificateLook> {
      const row = await catalog.cluster(ref);
      const name = `${ref.tenant}/${ref.cluster}`;
      if (row === undefined) {
        throw new FleetError('ClusterNotFound', `Tenant "${ref.tenant}" has no cluster "${ref.cluster}".`);
      }
      if (row.spec.tls !== true) {
        throw new FleetError(
          'UpdateRefused',
          `${name} was made without TLS, and nodes with and without it cannot speak to each other. Restore a backup into a new cluster, which has it.`,
        );
      }
      return lookAt(ref, row.spec);
    },

    /**
     * Of the next clusters with TLS, by name: those whose certificates are due. Clusters that sleep, go or are being made
     * are left alone.
     *
     * @returns `unseen`: clusters that could not be looked at; `next`: where the next page begins
     */
    async listDueCertificates({
      after,
    }: {
      after?: ClusterRef;
    }): Promise<{ looked: number; unseen: number; due: ClusterRef[]; next?: ClusterRef }> {
      const rows = await catalog.run('read a page of clusters', (db) =>
        db
          .selectFrom('clusters')
          .select(['tenant', 'cluster', 'spec'])
          .where(sql<boolean>`spec ->> 'tls' = 'true'`)
          .where('phase', 'not in', ['CREATING', 'FAILED_TO_CREATE', 'SUSPENDING', 'SUSPENDED', 'DELETING'])
          .$if(after !== undefined, (query) =>
            query.where((eb) =>
              eb(eb.refTuple('tenant', 'cluster'), '>', eb.tuple(after?.tenant ?? '', after?.cluster ?? '')),
            ),
          )
          .orderBy('tenant')
          .orderBy('cluster')
          .limit(PAGE)
          .execute(),
      );
      let unseen = 0;
      const states = await mapInLanes(rows, LANES, async ({ tenant, cluster, spec }) => {
        Context.current().heartbeat({ tenant, cluster });
        try {
          const { due, stage } = await lookAt({ tenant, cluster }, spec);
          return due || stage !== 'settled' ? [{ tenant, cluster }] : [];
        } catch (error) {
          if (!FleetError.is(error)) throw error;
          unseen += 1;
          return [];
        }
      });
      const last = rows.length === PAGE ? rows.at(-1) : undefined;
      return {
        looked: rows.length,
        unseen,
        due: states.flat(),
        ...(last !== undefined && { next: { tenant: last.tenant, cluster: last.cluster } }),
      };
    },

    /**
     * Bring the Secrets to a stage. One that is further already is left as it is, so a change that was interrupted goes
     * on where it stopped.
     *
     * @param input `newKey`: make a new private key as well
     */
    async stageCertificates({
      stage,
      newKey = false,
      ...ref
    }: ClusterRef & { stage: CertificateStage; newKey?: boolean }): Promise<CertificateState> {
      const { kubernetes } = await clusters.of(ref);
      return bringAbout(kubernetes, ref, { stage, newKey });
    },
  };

  async function lookAt(ref: ClusterRef, spec: ClusterSpec): Promise<CertificateLook> {
    const { kubernetes } = await clusters.of(ref);
    const namespace = namespaceOf(ref);
    const [leaf, trust, authority] = await Promise.all([
      kubernetes.secret(namespace, CERTIFICATE_SECRET.name),
      kubernetes.secret(namespace, TRUST_SECRET.name),
      kubernetes.secret(namespace, AUTHORITY_SECRET.name),
    ]);
    const [cert] = certificatesIn(leaf?.values[CERTIFICATE_SECRET.cert] ?? '');
    const [ca] = certificatesIn(authority?.values[AUTHORITY_SECRET.cert] ?? '');
    const now = new Date();
    const managed = trust?.annotations[TRUST_NOTES.issuer] === 'cert-manager';
    const revision = Number(trust?.annotations[TRUST_NOTES.revision] ?? 0);
    const changed =
      trust?.annotations[TRUST_NOTES.leaf] !== digestOf(leaf, trust?.values[TRUST_SECRET.ca] ?? '') ||
      revision !== (spec.certificateRevision ?? 0);
    const authorityDue = !managed && ca !== undefined && isDue(lifeOf(ca), now);
    return {
      due: cert === undefined || changed || authorityDue || isDue(lifeOf(cert), now),
      authorityDue,
      expired: cert !== undefined && cert.validToDate <= now,
      stage: authority?.annotations[AUTHORITY_STAGE] ?? 'settled',
      ...(cert !== undefined && { notAfter: cert.validToDate.toISOString() }),
    };
  }

  async function bringAbout(
    kubernetes: Kubernetes,
    ref: ClusterRef,
    { stage, newKey = false }: { stage?: CertificateStage; newKey?: boolean },
  ): Promise<CertificateState> {
    const namespace = namespaceOf(ref);
    const trust = await kubernetes.secret(namespace, TRUST_SECRET.name);
    const issuer = config.FLEET_CERT_ISSUER;
    const known = trust?.annotations[TRUST_NOTES.issuer];
    const managed =
      known === undefined
        ? issuer !== undefined && (await kubernetes.hasApiGroup('cert-manager.io'))
        : known === 'cert-manager';
    if (managed) {
      if (issuer !== undefined) await kubernetes.apply(managedCertificate(ref, issuer));
      const leaf = await kubernetes.secret(namespace, CERTIFICATE_SECRET.name);
      const ca = authorityOfManaged(namespace, leaf);
      const before = stage === 'settled' ? '' : (trust?.values[TRUST_SECRET.ca] ?? '');
      return keepTrust(kubernetes, ref, { issuedBy: 'cert-manager', bundle: bundleOf(before, ca), leaf });
    }
    const { values } = await authorityAt(kubernetes, ref, stage);
    const { cert, key, next, previous } = AUTHORITY_SECRET;
    const own = { cert: values[cert] ?? '', key: values[key] ?? '' };
    const bundle = bundleOf(own.cert, values[next] ?? '', values[previous] ?? '');
    // Trust first, so that no certificate is shown that is not trusted yet.
    await keepTrust(kubernetes, ref, { issuedBy: 'fleet', bundle });
    const renew = stage === 'renewed' ? 'now' : stage === undefined ? 'when due' : 'never';
    const leaf = await certificateBy(kubernetes, ref, own, { renew, newKey });
    return keepTrust(kubernetes, ref, { issuedBy: 'fleet', bundle, leaf });
  }
}

/** The authority's Secret, at a stage. */
async function authorityAt(
  kubernetes: Kubernetes,
  ref: ClusterRef,
  stage: CertificateStage | undefined,
): Promise<SecretInfo> {
  const namespace = namespaceOf(ref);
  const { name, cert, key, next, nextKey, previous } = AUTHORITY_SECRET;
  let found = await kubernetes.secret(namespace, name);
  if (found === undefined) {
    const made = makeAuthority(namespace, AUTHORITY_DAYS);
    await kubernetes.createSecret(namespace, name, { [cert]: made.cert, [key]: made.key }, clusterLabels(ref));
    found = await kubernetes.secret(namespace, name);
  }
  if (found?.values[cert] === undefined || found.values[key] === undefined) {
    throw new FleetError('CertificateFailed', `Secret ${namespace}/${name} has no "${cert}" and "${key}".`);
  }
  const at = found.annotations[AUTHORITY_STAGE] ?? 'settled';
  const values: Record<string, string> = { ...found.values };
  if (stage === 'trusted' && at === 'settled') {
    const made = makeAuthority(namespace, AUTHORITY_DAYS);
    values[next] = made.cert;
    values[nextKey] = made.key;
  } else if (stage === 'issued' && at === 'trusted') {
    values[previous] = found.values[cert];
    values[cert] = found.values[next] ?? found.values[cert];
    values[key] = found.values[nextKey] ?? found.values[key];
    delete values[next];
    delete values[nextKey];
  } else if (stage === 'settled' && at === 'issued') {
    delete values[previous];
  } else {
    return found;
  }
  const annotations = { ...found.annotations, [AUTHORITY_STAGE]: stage };
  await kubernetes.replaceSecret(namespace, name, { ...found, values, annotations });
  return { ...found, values, annotations };
}

/** The pods' certificate by an authority; made anew where it has to be. */
async function certificateBy(
  kubernetes: Kubernetes,
  ref: ClusterRef,
  authority: KeyPair,
  { renew, newKey }: { renew: 'now' | 'when due' | 'never'; newKey: boolean },
): Promise<SecretInfo | undefined> {
  const namespace = namespaceOf(ref);
  const { name, cert, key } = CERTIFICATE_SECRET;
  const { runId } = workflowRun();
  const found = await kubernetes.secret(namespace, name);
  const [read] = certificatesIn(found?.values[cert] ?? '');
  const wanted = newKey || renew === 'now' || (renew === 'when due' && (!read || isDue(lifeOf(read), new Date())));
  // What this very operation has made is not made again by a second attempt.
  if (isSound(found, authority) && (!wanted || found?.annotations[MADE_BY] === runId)) return found;
  // The key stays: a node that reads the two files while they are being replaced has a pair in any case.
  const kept = newKey ? undefined : found?.values[key];
  const names = certificateNames(ref);
  const pair = issue(authority, { names, days: CERTIFICATE_DAYS, ...(kept !== undefined && { key: kept }) });
  const values = { [cert]: pair.cert, [key]: pair.key };
  const annotations = { ...found?.annotations, [MADE_BY]: runId };
  if (found === undefined) {
    await kubernetes.createSecret(namespace, name, values, clusterLabels(ref), annotations);
  } else {
    await kubernetes.replaceSecret(namespace, name, { ...found, values, annotations });
  }
  return kubernetes.secret(namespace, name);
}

/** Write down whom to trust, and count a change that the pods have to be restarted for. */
async function keepTrust(
  kubernetes: Kubernetes,
  ref: ClusterRef,
  change: { issuedBy: CertificateState['issuedBy']; bundle: string; leaf?: SecretInfo | undefined },
): Promise<CertificateState> {
  const { issuedBy, bundle, leaf } = change;
  const namespace = namespaceOf(ref);
  const { name, ca } = TRUST_SECRET;
  const found = await kubernetes.secret(namespace, name);
  const before = found?.annotations ?? {};
  let revision = Number(before[TRUST_NOTES.revision] ?? 0);
  const digest = leaf === undefined ? before[TRUST_NOTES.leaf] : digestOf(leaf, bundle);
  const changed = digest !== before[TRUST_NOTES.leaf];
  if (changed && before[TRUST_NOTES.leaf] !== undefined) revision += 1;
  const annotations = {
    ...before,
    [TRUST_NOTES.issuer]: issuedBy,
    [TRUST_NOTES.revision]: String(revision),
    ...(digest !== undefined && { [TRUST_NOTES.leaf]: digest }),
  };
  const values = { [ca]: bundle };
  if (found === undefined) {
    await kubernetes.createSecret(namespace, name, values, clusterLabels(ref), annotations);
  } else if (changed || found.values[ca] !== bundle || before[TRUST_NOTES.issuer] !== issuedBy) {
    await kubernetes.replaceSecret(namespace, name, { ...found, values, annotations });
  }
  const [cert] = certificatesIn(leaf?.values[CERTIFICATE_SECRET.cert] ?? '');
  return { issuedBy, revision, notAfter: cert?.validToDate.toISOString() ?? '' };
}

/** A pair, signed by the authority, for all names. */
function isSound(secret: SecretInfo | undefined, authority: KeyPair): boolean {
  const { cert, key } = CERTIFICATE_SECRET;
  const pair = { cert: secret?.values[cert] ?? '', key: secret?.values[key] ?? '' };
  const [read] = certificatesIn(pair.cert);
  return read !== undefined && read.verify(new X509Certificate(authority.cert).publicKey) && isPair(pair);
}

/** @throws FleetError `ClusterNotReady` until it is there; `CertificateFailed` when the issuer does not tell its authority */
function authorityOfManaged(namespace: string, secret: SecretInfo | undefined): string {
  const { name, cert, ca } = CERTIFICATE_SECRET;
  if (secret?.values[cert] === undefined || secret.values[cert] === '') {
    throw new FleetError(
      'ClusterNotReady',
      `cert-manager has not issued Secret ${namespace}/${name} yet; \`kubectl -n ${namespace} describe certificate ${name}\` says why.`,
    );
  }
  const found = secret.values[ca];
  if (found !== undefined && certificatesIn(found).length > 0) return found;
  throw new FleetError(
    'CertificateFailed',
    `Secret ${namespace}/${name} of cert-manager has no "${ca}", so nobody could check the certificate. ` +
      'FLEET_CERT_ISSUER has to name an issuer with an authority of its own, such as a CA or Vault issuer.',
  );
}

/** Each certificate once, in order. */
function bundleOf(...texts: readonly string[]): string {
  const all = texts.flatMap((text) => certificatesIn(text)).map((cert) => cert.toString());
  return [...new Set(all)].join('');
}

function digestOf(leaf: SecretInfo | undefined, bundle: string): string {
  const cert = leaf?.values[CERTIFICATE_SECRET.cert] ?? '';
  return createHash('sha256').update(`${cert}\n${bundle}`).digest('hex');
}

function lifeOf({ validFromDate: from, validToDate: until }: X509Certificate): { from: Date; until: Date } {
  return { from, until };
}
