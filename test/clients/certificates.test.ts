/** The certificates' Secrets over a Kubernetes of memory that fails at any write: what is shown is always trusted. */
import { describe, expect, test } from 'vitest';
import { createCertificateActivities, type CertificateStage } from '../../activities/certificates.ts';
import type { ActivityDeps } from '../../activities/deps.ts';
import type { SecretInfo } from '../../src/clients/kubernetes.ts';
import { certificatesIn, isPair, issue, makeAuthority } from '../../src/clients/x509.ts';
import type { ClusterSpec } from '../../src/domain/cluster.ts';
import { environment } from '../activities/support.ts';
import { AUTHORITY_SECRET, CERTIFICATE_SECRET, certificateNames, TRUST_SECRET } from '../../src/domain/tls.ts';

const REF = { tenant: 'acme', cluster: 'docs' };

/** Secrets by name; the write of a number fails, before or after it has happened. */
class Secrets {
  readonly all = new Map<string, SecretInfo>();
  readonly applied: { kind: string; spec?: unknown }[] = [];
  groups: readonly string[] = [];
  writes = 0;
  failAt: { readonly write: number; readonly after: boolean } | undefined;
  onWrite: () => void = () => undefined;

  secret(_namespace: string, name: string) {
    return Promise.resolve(this.all.get(name));
  }

  createSecret(_namespace: string, name: string, values: object, labels: object, annotations: object = {}) {
    if (this.all.has(name)) return Promise.resolve(false);
    return this.#write(name, { values, labels, annotations, version: '1' } as SecretInfo).then(() => true);
  }

  replaceSecret(_namespace: string, name: string, secret: SecretInfo) {
    if (this.all.get(name)?.version !== secret.version) throw new Error('409: it was changed since it was read');
    return this.#write(name, { ...secret, version: String(Number(secret.version) + 1) });
  }

  apply(object: { kind: string }) {
    this.applied.push(object);
    return Promise.resolve();
  }

  hasApiGroup(name: string) {
    return Promise.resolve(this.groups.includes(name));
  }

  value(name: string, key: string): string {
    return this.all.get(name)?.values[key] ?? '';
  }

  #write(name: string, secret: SecretInfo): Promise<void> {
    this.writes += 1;
    const fails = this.failAt?.write === this.writes;
    if (fails && this.failAt?.after === false) return Promise.reject(new Error('killed'));
    this.all.set(name, secret);
    this.onWrite();
    return fails ? Promise.reject(new Error('killed')) : Promise.resolve();
  }
}

function activitiesOver(secrets: Secrets, { issuer, spec }: { issuer?: object; spec?: Partial<ClusterSpec> } = {}) {
  const deps = {
    clusters: { of: () => Promise.resolve({ kubernetes: secrets }) },
    catalog: { cluster: () => Promise.resolve({ spec: { tls: true, ...spec } }) },
    config: { FLEET_CERT_ISSUER: issuer },
  } as unknown as ActivityDeps;
  const activities = createCertificateActivities(deps);
  const as = (runId: string) => {
    const run = environment(runId);
    return {
      ensure: () => run.run(() => activities.ensureCertificates(REF)),
      look: () => run.run(() => activities.inspectCertificates(REF)),
      stage: (stage: CertificateStage, newKey = false) =>
        run.run(() => activities.stageCertificates({ ...REF, stage, newKey })),
    };
  };
  return as;
}

const pair = (secrets: Secrets) => ({
  cert: secrets.value(CERTIFICATE_SECRET.name, CERTIFICATE_SECRET.cert),
  key: secrets.value(CERTIFICATE_SECRET.name, CERTIFICATE_SECRET.key),
});
const trusted = (secrets: Secrets) => certificatesIn(secrets.value(TRUST_SECRET.name, TRUST_SECRET.ca));

/** Whoever trusts what is in the Secret now accepts the certificate that is in the Secret now. */
function isAccepted(secrets: Secrets): boolean {
  const [leaf] = certificatesIn(pair(secrets).cert);
  return leaf === undefined || trusted(secrets).some((ca) => leaf.checkIssued(ca) && leaf.verify(ca.publicKey));
}

describe('by an authority of the cluster', () => {
  test('all is made once; a renewal keeps the key and happens once in an operation', async () => {
    const secrets = new Secrets();
    const as = activitiesOver(secrets);
    expect(await as('a').ensure()).toMatchObject({ issuedBy: 'fleet', revision: 0 });
    const made = { ...pair(secrets), ca: secrets.value(TRUST_SECRET.name, TRUST_SECRET.ca) };
    expect(isPair(made)).toBe(true);
    expect(secrets.value(AUTHORITY_SECRET.name, AUTHORITY_SECRET.cert)).toBe(made.ca);
    for (const name of [CERTIFICATE_SECRET.name, TRUST_SECRET.name]) {
      expect(Object.keys(secrets.all.get(name)?.values ?? {})).not.toContain(AUTHORITY_SECRET.key);
    }
    const { writes } = secrets;
    expect(await as('b').ensure()).toMatchObject({ revision: 0 });
    expect(secrets.writes).toBe(writes);
    expect(await as('b').look()).toMatchObject({ due: false, stage: 'settled', expired: false });

    expect(await as('c').stage('renewed')).toMatchObject({ revision: 1 });
    expect(await as('c').stage('renewed')).toMatchObject({ revision: 1 });
    expect(pair(secrets).cert).not.toBe(made.cert);
    expect(pair(secrets).key).toBe(made.key);
    // The pods have not been restarted with it.
    expect(await as('d').look()).toMatchObject({ due: true });
    expect(await activitiesOver(secrets, { spec: { certificateRevision: 1 } })('d').look()).toMatchObject({
      due: false,
    });
    await as('e').stage('renewed', true);
    expect(pair(secrets).key).not.toBe(made.key);
    expect(isPair(pair(secrets))).toBe(true);
  });

  test('one that is near its end, or has been taken away, is made anew by ensureCertificates', async () => {
    const secrets = new Secrets();
    const as = activitiesOver(secrets);
    await as('a').ensure();
    const authority = {
      cert: secrets.value(AUTHORITY_SECRET.name, AUTHORITY_SECRET.cert),
      key: secrets.value(AUTHORITY_SECRET.name, AUTHORITY_SECRET.key),
    };
    const old = new Date(Date.now() - 250 * 86_400_000);
    const aged = issue(authority, { names: certificateNames(REF), days: 365, now: old });
    const held = secrets.all.get(CERTIFICATE_SECRET.name);
    if (held === undefined) throw new Error('no certificate');
    const values = { [CERTIFICATE_SECRET.cert]: aged.cert, [CERTIFICATE_SECRET.key]: aged.key };
    secrets.all.set(CERTIFICATE_SECRET.name, { ...held, values });
    expect(await as('b').look()).toMatchObject({ due: true });
    await as('b').ensure();
    expect(pair(secrets).cert).not.toBe(aged.cert);
    secrets.all.delete(CERTIFICATE_SECRET.name);
    secrets.all.delete(TRUST_SECRET.name);
    await as('c').ensure();
    expect(isPair(pair(secrets)) && isAccepted(secrets)).toBe(true);
  });

  test('a new authority is trusted before it signs, and the old one goes last, whatever write is lost', async () => {
    const stages = ['trusted', 'issued', 'settled'] as const;
    let cases = 0;
    for (let write = 1; ; write += 1) {
      let reached = false;
      for (const after of [false, true]) {
        const secrets = new Secrets();
        const as = activitiesOver(secrets);
        await as('a').ensure();
        const [old] = trusted(secrets);
        const { key } = pair(secrets);
        secrets.writes = 0;
        secrets.failAt = { write, after };
        const broken: string[] = [];
        for (const stage of stages) {
          secrets.onWrite = () => {
            if (!isAccepted(secrets) || !isPair(pair(secrets))) broken.push(`${stage} write ${secrets.writes}`);
          };
          // What Temporal does with an activity that fails.
          await as('b')
            .stage(stage)
            .catch(() => as('b').stage(stage));
          const has = trusted(secrets).some(({ fingerprint256 }) => fingerprint256 === old?.fingerprint256);
          expect({ stage, has, authorities: trusted(secrets).length }).toEqual({
            ...{ stage, has: stage !== 'settled', authorities: stage === 'settled' ? 1 : 2 },
          });
        }
        expect(broken).toEqual([]);
        expect(pair(secrets).key).toBe(key);
        expect(await as('c').look()).toMatchObject({ stage: 'settled' });
        reached ||= secrets.writes >= write;
        cases += 1;
      }
      if (!reached) break;
    }
    expect(cases).toBeGreaterThan(10);
  });

  test('a cluster without TLS is told how to get it', async () => {
    const as = activitiesOver(new Secrets(), { spec: { tls: undefined } as object });
    await expect(as('a').look()).rejects.toMatchObject({
      code: 'UpdateRefused',
      message: expect.stringMatching(/Restore/),
    });
  });
});

describe('by cert-manager', () => {
  const issuer = { kind: 'ClusterIssuer', name: 'internal-ca' };
  const manager = makeAuthority('internal', 3650);
  const issued = (authority = manager) => {
    const { cert, key } = issue(authority, { names: certificateNames(REF), days: 90 });
    const values = {
      [CERTIFICATE_SECRET.cert]: cert,
      [CERTIFICATE_SECRET.key]: key,
      [CERTIFICATE_SECRET.ca]: authority.cert,
    };
    return { values, annotations: {}, labels: {}, version: '1' };
  };

  test('a Certificate is applied and waited for; its renewals ask for a restart', async () => {
    const secrets = new Secrets();
    secrets.groups = ['cert-manager.io'];
    const as = activitiesOver(secrets, { issuer });
    await expect(as('a').ensure()).rejects.toMatchObject({ code: 'ClusterNotReady' });
    expect(secrets.applied[0]).toMatchObject({ kind: 'Certificate', spec: { issuerRef: issuer } });
    expect(secrets.all.has(AUTHORITY_SECRET.name)).toBe(false);
    secrets.all.set(CERTIFICATE_SECRET.name, issued());
    expect(await as('a').ensure()).toMatchObject({ issuedBy: 'cert-manager', revision: 0 });
    expect(await as('a').look()).toMatchObject({ due: false });

    // Renewed by itself, then by another authority.
    secrets.all.set(CERTIFICATE_SECRET.name, issued());
    expect(await as('b').look()).toMatchObject({ due: true });
    expect(await as('b').ensure()).toMatchObject({ revision: 1 });
    secrets.all.set(CERTIFICATE_SECRET.name, issued(makeAuthority('next', 3650)));
    expect(await as('c').ensure()).toMatchObject({ revision: 2 });
    expect(trusted(secrets)).toHaveLength(2);
    expect(await as('c').stage('settled')).toMatchObject({ revision: 3 });
    expect(trusted(secrets)).toHaveLength(1);
    expect(isAccepted(secrets)).toBe(true);
  });

  test('where it is not there, the cluster gets an authority of its own, and keeps it', async () => {
    const secrets = new Secrets();
    const as = activitiesOver(secrets, { issuer });
    expect(await as('a').ensure()).toMatchObject({ issuedBy: 'fleet' });
    secrets.groups = ['cert-manager.io'];
    expect(await as('b').ensure()).toMatchObject({ issuedBy: 'fleet' });
    expect(secrets.applied).toEqual([]);
  });

  test('an issuer that does not tell its authority is refused', async () => {
    const secrets = new Secrets();
    secrets.groups = ['cert-manager.io'];
    const { values, ...rest } = issued();
    secrets.all.set(CERTIFICATE_SECRET.name, { ...rest, values: { ...values, [CERTIFICATE_SECRET.ca]: '' } });
    await expect(activitiesOver(secrets, { issuer })('a').ensure()).rejects.toMatchObject({
      code: 'CertificateFailed',
    });
  });
});
