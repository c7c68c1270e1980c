/** Which names a cluster's certificate has, and what the chart is told. */
import { X509Certificate } from 'node:crypto';
import { expect, test } from 'vitest';
import { issue, makeAuthority } from '../../src/clients/x509.ts';
import { chartValues } from '../../src/domain/chart-values.ts';
import { requestOf, resolveSpec, type ClusterSpec } from '../../src/domain/cluster.ts';
import { outputsOf } from '../../src/domain/kubernetes-objects.ts';
import { certificateNames, isDue, serverNameOf, TLS_SETTINGS } from '../../src/domain/tls.ts';

const REF = { tenant: 'acme', cluster: 'docs' };
const NAMESPACE = 'fleet-acme--docs';

test('a certificate is good for each name that a pod of the largest cluster goes by, and for no other cluster', () => {
  const pair = issue(makeAuthority('authority', 2), { names: certificateNames(REF), days: 1 });
  const cert = new X509Certificate(pair.cert);
  const names = [0, 1, 63].flatMap((ordinal) => [
    // As the chart starts the peers, and as clients find them.
    `qdrant-${ordinal}.qdrant-headless`,
    `qdrant-${ordinal}.qdrant-headless.${NAMESPACE}`,
    serverNameOf(REF, `qdrant-${ordinal}`),
    `qdrant-${ordinal}.qdrant-headless.${NAMESPACE}.svc.cluster.local`,
  ]);
  names.push(`qdrant.${NAMESPACE}`, `qdrant.${NAMESPACE}.svc`, new URL(outputsOf(REF, { tls: true }).httpUrl).hostname);
  expect(names.filter((name) => cert.checkHost(name) === undefined)).toEqual([]);
  const others = ['qdrant-0.qdrant-headless.fleet-acme--other.svc', 'qdrant.fleet-beta--docs.svc', 'other', 'qdrant'];
  expect(others.filter((name) => cert.checkHost(name) !== undefined)).toEqual([]);
  // It is shown in each handshake.
  expect(cert.raw.length).toBeLessThan(4096);
});

test('the chart gets settings and files with TLS, and neither without; keys are in no value', () => {
  const values = chartValues(REF, resolveSpec({ tls: true, collections: [] }, {}));
  expect(values).toMatchObject({
    config: { service: { enable_tls: true }, cluster: { p2p: { enable_tls: true } }, tls: { cert_ttl: 60 } },
    additionalVolumes: [{ secret: { secretName: 'qdrant-tls' } }, { secret: { secretName: 'qdrant-trust' } }],
  });
  const paths = [TLS_SETTINGS['tls.cert'], TLS_SETTINGS['tls.key'], TLS_SETTINGS['tls.ca_cert']];
  const mounts = (values['additionalVolumeMounts'] as { mountPath: string }[]).map(({ mountPath }) => mountPath);
  for (const path of paths) expect(mounts.some((mount) => path.startsWith(`${mount}/`))).toBe(true);
  expect(JSON.stringify(values)).not.toMatch(/qdrant-ca"|PRIVATE KEY/);
  const plain = chartValues(REF, resolveSpec({ tls: false, collections: [] }, {}, { tls: true }));
  expect(JSON.stringify(plain)).not.toMatch(/tls|trust/);
  const revised = chartValues(REF, { ...resolveSpec({ tls: true, collections: [] }, {}), certificateRevision: 3 });
  expect(revised).toMatchObject({ podAnnotations: { 'qdrant-fleet/certificate-revision': '3' } });
});

test('a backup may ask for TLS in the cluster that is made from it, and never for none', () => {
  const spec = resolveSpec({ tls: true, collections: [] }, {});
  expect(requestOf({ ...spec, certificateRevision: 7 })).toMatchObject({ tls: true });
  expect(requestOf({ ...spec, certificateRevision: 7 })).not.toHaveProperty('certificateRevision');
  expect(requestOf({ ...spec, tls: false } as unknown as ClusterSpec)).not.toHaveProperty('tls');
});

test('a certificate is due with a third of its life left', () => {
  const [from, until] = [new Date('2026-01-01'), new Date('2026-01-31')];
  expect(isDue({ from, until }, new Date('2026-01-20'))).toBe(false);
  expect(isDue({ from, until }, new Date('2026-01-22'))).toBe(true);
  expect(isDue({ from, until }, new Date('2026-03-01'))).toBe(true);
});
