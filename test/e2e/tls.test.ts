/** A cluster with TLS on real parts: made, backed up, restored, its certificates and its authority changed under traffic. */
import { CoreV1Api } from '@kubernetes/client-node';
import { connect } from 'node:tls';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { certificatesIn, issue, makeAuthority } from '../../src/clients/x509.ts';
import { namespaceOf } from '../../src/domain/naming.ts';
import { CERTIFICATE_SECRET, certificateNames, serverNameOf, TRUST_SECRET } from '../../src/domain/tls.ts';
import { Traffic } from '../../src/local/demo/traffic.ts';
import { Fleet, until } from '../support/fleet.ts';

let fleet: Fleet;
beforeAll(async () => {
  fleet = await Fleet.open();
  await fleet.worker();
});
afterAll(() => fleet.close());

const ref = (cluster = 'sealed') => ({ tenant: fleet.tenant, cluster });
const core = () => fleet.kubernetes(CoreV1Api);

async function secret(name: string, cluster?: string): Promise<Record<string, string>> {
  const { data = {} } = await core().readNamespacedSecret({ namespace: namespaceOf(ref(cluster)), name });
  return Object.fromEntries(Object.entries(data).map(([key, text]) => [key, Buffer.from(text, 'base64').toString()]));
}

/** What a port of a pod shows to somebody who trusts the cluster's authorities only. */
async function shown(host: string, port: number, pod: string): Promise<{ serial: string; trusted: boolean }> {
  const { [TRUST_SECRET.ca]: ca = '' } = await secret(TRUST_SECRET.name);
  return new Promise((resolve, reject) => {
    const servername = serverNameOf(ref(), pod);
    const socket = connect({ host, port, ca, servername, rejectUnauthorized: false }, () => {
      resolve({ serial: socket.getPeerX509Certificate()?.serialNumber ?? '', trusted: socket.authorized });
      socket.destroy();
    });
    socket.on('error', reject);
  });
}

test('is made with TLS on all ports, speaks to nobody without it, and its data survives a restore', async () => {
  const collections = [{ preset: 'documents', vectorSize: 4, shardNumber: 4 }];
  const made = await fleet.run('ProvisionCluster', { ...ref(), nodes: 2, tls: true, collections });
  expect(made).toMatchObject({ httpUrl: expect.stringMatching(/^https:/), caSecret: { name: 'qdrant-trust' } });
  const access = await fleet.access('sealed');
  const points = Array.from({ length: 200 }, (_, id) => ({ id, vector: [id, 1, 2, 3], payload: { n: id } }));
  await access.load('documents', points);
  const { peers } = await access.call<{ peers: Record<string, { uri: string }> }>('GET', '/cluster');
  expect(Object.values(peers).map(({ uri }) => new URL(uri).protocol)).toEqual(['https:', 'https:']);
  const host = new URL(access.peers[0] ?? '').hostname;
  await expect(fetch(`http://${host}:6333/`)).rejects.toThrow();
  expect(await shown(host, 6333, 'qdrant-0')).toMatchObject({ trusted: true });

  const before = await access.digest('documents');
  const { backup } = await fleet.run<{ backup: string }>('BackupCluster', ref());
  await fleet.run('RestoreCluster', { ...ref('again'), source: 'sealed', backup });
  expect(await (await fleet.access('again')).digest('documents')).toEqual(before);
  expect((await fleet.catalog.cluster(ref('again')))?.spec.tls).toBe(true);
  // An authority of its own.
  expect((await secret(TRUST_SECRET.name, 'again'))[TRUST_SECRET.ca]).not.toBe(
    (await secret(TRUST_SECRET.name))[TRUST_SECRET.ca],
  );
});

test.each([
  ['certificate', {}, 2],
  ['authority and key', { authority: true, newKey: true, graceSeconds: 0 }, 6],
] as const)('a new %s comes under traffic without a failed request', async (_what, input, restarts) => {
  const before = await secret(CERTIFICATE_SECRET.name);
  const traffic = await Traffic.start({
    ...{ kubeconfig: fleet.env['KUBECONFIG'] ?? '', ref: ref(), collection: 'documents', dimensions: 4 },
    ...{ firstId: 10_000 * (restarts + 1), pace: 80 },
  });
  let rotated: object;
  try {
    rotated = await fleet.run('RotateCertificates', { ...ref(), ...input });
  } finally {
    await traffic.stop();
  }
  const { failed, failures, sent } = traffic.report;
  expect({ failed, failures }).toEqual({ failed: 0, failures: [] });
  expect(sent).toBeGreaterThan(20);
  expect(await traffic.lost()).toEqual([]);
  expect(rotated).toMatchObject({ rotated: true, restarts });

  const after = await secret(CERTIFICATE_SECRET.name);
  const [leaf] = certificatesIn(after[CERTIFICATE_SECRET.cert] ?? '');
  expect(leaf?.serialNumber).not.toBe(certificatesIn(before[CERTIFICATE_SECRET.cert] ?? '')[0]?.serialNumber);
  expect(after[CERTIFICATE_SECRET.key] === before[CERTIFICATE_SECRET.key]).toBe(!('newKey' in input));
  const { peers } = await fleet.access('sealed');
  for (const [index, peer] of peers.entries()) {
    expect(await shown(new URL(peer).hostname, 6333, `qdrant-${index}`)).toEqual({
      serial: leaf?.serialNumber,
      trusted: true,
    });
  }
  expect(certificatesIn((await secret(TRUST_SECRET.name))[TRUST_SECRET.ca] ?? '')).toHaveLength(1);
  expect(await fleet.run('RotateCertificates', { ...ref(), onlyIfDue: true })).toMatchObject({
    ...{ rotated: false, restarts: 0, notAfter: leaf?.validToDate.toISOString() },
  });
});

test('a certificate of another authority is refused, with what to do', async () => {
  const stranger = issue(makeAuthority('stranger', 2), { names: certificateNames(ref()), days: 1 });
  const change = { [CERTIFICATE_SECRET.cert]: stranger.cert, [CERTIFICATE_SECRET.key]: stranger.key };
  const found = await core().readNamespacedSecret({ namespace: namespaceOf(ref()), name: CERTIFICATE_SECRET.name });
  const good = { ...found.data };
  const replace = (data: Record<string, string>) =>
    core().replaceNamespacedSecret({
      ...{ namespace: namespaceOf(ref()), name: CERTIFICATE_SECRET.name },
      body: { metadata: { name: CERTIFICATE_SECRET.name, annotations: found.metadata?.annotations ?? {} }, data },
    });
  await replace(Object.fromEntries(Object.entries(change).map(([k, v]) => [k, Buffer.from(v).toString('base64')])));
  await core().deleteCollectionNamespacedPod({ namespace: namespaceOf(ref()) });
  const host = new URL((await fleet.access('sealed')).peers[0] ?? '').hostname;
  await until('the stranger answers', async () =>
    shown(host, 6333, 'qdrant-0').then(
      ({ trusted }) => !trusted,
      () => false,
    ),
  );
  const failure = await fleet.run('BackupCluster', ref()).catch((error: unknown) => error);
  const { message } = (failure as Error & { cause: Error }).cause;
  expect(message).toMatch(/certificate was refused .*qdrant-0\.qdrant-headless.*RotateCertificates/);
  await replace(good);
});
