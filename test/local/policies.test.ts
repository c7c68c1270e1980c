/**
 * The network policies of clusters, enforced: a kubelet of its own holds its pods to them by the packet filter, and a
 * probe that runs as a pod's process does tries every way. Needs root and nft.
 */
import { spawn } from 'node:child_process';
import { createServer, type Server } from 'node:net';
import { CoreV1Api, NetworkingV1Api } from '@kubernetes/client-node';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { namespaceOf } from '../../src/domain/naming.ts';
import { whyNotEnforced } from '../../src/local/kubelet/policies.ts';
import { groupOf } from '../../src/local/kubelet/policy-rules.ts';
import { Fleet, freePort, smallPoints, until } from '../support/fleet.ts';
import { KubeletHarness } from './kubelet-harness.ts';

const problem = await whyNotEnforced();
if (problem !== undefined) console.warn(`Skipped: ${problem}.`);

/** What a connection comes to that a policy closes; one to a port that nobody listens on is ECONNREFUSED. */
const CLOSED = 'EHOSTUNREACH';
const PROBE = `
  const [host, port, localAddress] = process.argv.slice(1);
  const socket = require('node:net').connect({ host, port: Number(port), localAddress: localAddress || undefined });
  const tell = (text) => { process.stdout.write(text); process.exit(); };
  socket.setTimeout(5000, () => tell('timeout'));
  socket.on('connect', () => tell('open')).on('error', ({ code }) => tell(code));
`;

/** Try a connection. @param as address of the pod to be; left out, it is a process of this machine */
async function probe(as: string | undefined, host: string, port: number | string, from = ''): Promise<string> {
  const child = spawn(process.execPath, ['-e', PROBE, host, String(port), from], {
    stdio: ['ignore', 'pipe', 'inherit'],
    ...(as !== undefined && { gid: groupOf(as) }),
  });
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()));
  await new Promise((resolve) => child.once('close', resolve));
  return text;
}

describe.skipIf(problem !== undefined)('network policies', () => {
  let fleet: Fleet;
  let kubelet: KubeletHarness;
  let elsewhere: Server;
  const relay = { port: 0 };
  const docs: string[] = [];
  let neighbour = '';
  const other = () => `${fleet.tenant}b`;
  const portOf = (variable: string) => new URL(fleet.env[variable] ?? '').port;

  async function addresses(tenant: string, cluster: string): Promise<string[]> {
    const namespace = namespaceOf({ tenant, cluster });
    const { items } = await fleet.kubernetes(CoreV1Api).listNamespacedPod({ namespace });
    return items.map(({ status }) => status?.podIP ?? '').sort();
  }

  beforeAll(async () => {
    fleet = await Fleet.open();
    kubelet = new KubeletHarness(inject('localEnv'), 'policy-test');
    relay.port = await freePort();
    await Promise.all([
      fleet.worker({ env: { FLEET_RELAY_PORT: String(relay.port) } }),
      kubelet.start({
        FLEET_KUBELET_COMMAND: '',
        FLEET_KUBELET_ENFORCE_POLICIES: 'true',
        FLEET_QDRANT_NODE_PYTHON: fleet.env['FLEET_ENGINE_PYTHON'] ?? '',
        ...(process.env['QDRANT_BIN'] !== undefined && { QDRANT_BIN: process.env['QDRANT_BIN'] }),
      }),
    ]);
    const placement = { nodeSelector: { 'qdrant-fleet/pool': kubelet.pool }, tolerations: [kubelet.toleration] };
    const collections = [{ preset: 'documents', vectorSize: 4, shardNumber: 2, replicationFactor: 2 }];
    await Promise.all([
      fleet.run('ProvisionCluster', { tenant: fleet.tenant, cluster: 'docs', nodes: 2, placement, collections }),
      fleet.run('ProvisionCluster', { tenant: other(), cluster: 'docs', nodes: 1, placement, collections: [] }),
    ]);
    docs.push(...(await addresses(fleet.tenant, 'docs')));
    neighbour = (await addresses(other(), 'docs'))[0] ?? '';
    elsewhere = createServer((socket) => socket.end()).listen(0, '0.0.0.0');
    await new Promise((resolve) => elsewhere.once('listening', resolve));
  }, 300_000);

  afterAll(async () => {
    elsewhere?.close();
    for (const tenant of [fleet.tenant, other()]) {
      for (const cluster of ['docs', 'again']) {
        await fleet.run('DeleteCluster', { tenant, cluster }).catch(() => undefined);
      }
    }
    await kubelet.close();
    await fleet.close();
  }, 120_000);

  test('a neighbour reaches no port of another cluster', async () => {
    const [first = ''] = docs;
    for (const port of [6333, 6334, 6335]) expect([port, await probe(neighbour, first, port)]).toEqual([port, CLOSED]);
    expect(await probe(first, neighbour, 6333)).toBe(CLOSED);
  });

  test('a neighbour that may go anywhere is stopped at the other cluster’s door', async () => {
    const namespace = namespaceOf({ tenant: other(), cluster: 'docs' });
    const networking = fleet.kubernetes(NetworkingV1Api);
    const open = { podSelector: {}, policyTypes: ['Egress'], egress: [{}] };
    await networking.createNamespacedNetworkPolicy({ namespace, body: { metadata: { name: 'open' }, spec: open } });
    const { port } = elsewhere.address() as { port: number };
    await until('it may go anywhere', async () => (await probe(neighbour, '127.0.0.1', port)) === 'open');
    const [first = ''] = docs;
    for (const closed of [6333, 6334, 6335])
      expect([closed, await probe(neighbour, first, closed)]).toEqual([closed, CLOSED]);
    await networking.deleteNamespacedNetworkPolicy({ namespace, name: 'open' });
    await until('it may not any more', async () => (await probe(neighbour, '127.0.0.1', port)) === CLOSED);
  });

  test('peers reach each other, and the worker reaches them', async () => {
    const [first = '', second = ''] = docs;
    expect(await probe(first, second, 6335)).toBe('open');
    expect(await probe(second, first, 6333)).toBe('open');
    expect(await probe(undefined, first, 6333, '127.0.0.1')).toBe('open');
  });

  test('the worker does not reach the peers’ own port, and a stranger reaches nothing', async () => {
    const [first = ''] = docs;
    expect(await probe(undefined, first, 6335, '127.0.0.1')).toBe(CLOSED);
    for (const port of [6333, 6334, 6335]) expect(await probe(undefined, first, port, '127.0.0.9')).toBe(CLOSED);
  });

  test('a pod reaches the store, and nothing else of the world: no other port, no other address, no metadata', async () => {
    const [first = ''] = docs;
    expect(await probe(first, '127.0.0.1', portOf('FLEET_S3_ENDPOINT'))).toBe('open');
    expect(await probe(first, '127.0.0.9', portOf('FLEET_S3_ENDPOINT'))).toBe(CLOSED);
    expect(await probe(first, '127.0.0.1', portOf('DATABASE_URL'))).toBe(CLOSED);
    const { port } = elsewhere.address() as { port: number };
    expect(await probe(undefined, '127.0.0.1', port)).toBe('open');
    expect(await probe(first, '127.0.0.1', port)).toBe(CLOSED);
    // A machine without a way out says so before the filter does.
    expect([CLOSED, 'ENETUNREACH']).toContain(await probe(first, '169.254.169.254', 80));
  });

  test('an exception of a block is closed, and a policy that goes closes what it had opened', async () => {
    const { port } = elsewhere.address() as { port: number };
    const namespace = namespaceOf({ tenant: other(), cluster: 'docs' });
    const networking = fleet.kubernetes(NetworkingV1Api);
    await networking.createNamespacedNetworkPolicy({
      namespace,
      body: {
        metadata: { name: 'more' },
        spec: {
          podSelector: {},
          policyTypes: ['Egress'],
          egress: [{ to: [{ ipBlock: { cidr: '127.0.0.0/24', except: ['127.0.0.77/32'] } }], ports: [{ port }] }],
        },
      },
    });
    await until('the policy is in force', async () => (await probe(neighbour, '127.0.0.78', port)) === 'open');
    expect(await probe(neighbour, '127.0.0.77', port)).toBe(CLOSED);
    await networking.deleteNamespacedNetworkPolicy({ namespace, name: 'more' });
    await until('the policy is gone', async () => (await probe(neighbour, '127.0.0.78', port)) === CLOSED);
  });

  test('a restore through the worker: the nodes reach its relay, and still no other cluster', async () => {
    const { tenant } = fleet;
    const cluster = await fleet.access('docs');
    await cluster.load('documents', smallPoints(500));
    const digest = await cluster.digest('documents');
    const { backup } = await fleet.run('BackupCluster', { tenant, cluster: 'docs' });
    const input = { tenant, backup, source: 'docs', cluster: 'again', via: 'worker' };
    expect(await fleet.run('RestoreCluster', input)).toMatchObject({ points: 500 });
    expect(await (await fleet.access('again')).digest('documents')).toEqual(digest);
    const [again = ''] = await addresses(tenant, 'again');
    expect(await probe(again, '127.0.0.1', relay.port)).toBe('open');
    expect(await probe(again, docs[0] ?? '', 6333)).toBe(CLOSED);
  }, 180_000);

  test('UpdateCluster lets a network in without a restart, to the API ports only', async () => {
    const [first = ''] = docs;
    const { tenant } = fleet;
    const namespace = namespaceOf({ tenant, cluster: 'docs' });
    const uids = async () =>
      (await fleet.kubernetes(CoreV1Api).listNamespacedPod({ namespace })).items.map(({ metadata }) => metadata?.uid);
    const before = await uids();
    const network = { allowCidrs: ['127.0.0.8/29'] };
    const { steps } = await fleet.run('UpdateCluster', { tenant, cluster: 'docs', network });
    expect(steps).toEqual(['Apply the network policy']);
    await until('it is let in', async () => (await probe(undefined, first, 6333, '127.0.0.9')) === 'open');
    expect(await probe(undefined, first, 6335, '127.0.0.9')).toBe(CLOSED);
    expect(await uids()).toEqual(before);
    expect((await fleet.catalog.cluster({ tenant, cluster: 'docs' }))?.spec.network).toEqual(network);
  }, 120_000);
});
