/** Namespaces on a real API server: what is not ours, by a single label, survives everything. */
import { CoreV1Api, CustomObjectsApi, KubeConfig } from '@kubernetes/client-node';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { resolveSpec } from '../../src/domain/cluster.ts';
import { LABELS, MANAGED_BY, namespaceOf } from '../../src/domain/naming.ts';
import { until } from '../support/fleet.ts';
import { Parts } from './support.ts';

let parts: Parts;
let core: CoreV1Api;
beforeAll(async () => {
  parts = await Parts.open();
  const config = new KubeConfig();
  config.loadFromFile(inject('localEnv')['KUBECONFIG'] ?? '');
  core = config.makeApiClient(CoreV1Api);
});
afterAll(() => parts.close());

const ref = (cluster: string) => ({ tenant: parts.tenant, cluster });
const OPERATION = 'run-of-mine';
const labels = (cluster: string): Record<string, string> => ({
  [LABELS.managedBy]: MANAGED_BY,
  [LABELS.tenant]: parts.tenant,
  [LABELS.cluster]: cluster,
  [LABELS.operation]: OPERATION,
});
const remove = (cluster: string, onlyOwn: boolean, by = 'mine') =>
  parts.as(by, (activities) => activities.removeNamespace({ ...ref(cluster), ...(onlyOwn && { onlyOwn }) }));
const ensure = (cluster: string, by = 'mine') => parts.as(by, (activities) => activities.ensureNamespace(ref(cluster)));

async function removed(cluster: string, onlyOwn: boolean): Promise<void> {
  await until(`${cluster} is gone`, () =>
    remove(cluster, onlyOwn).then(
      () => true,
      (error: { code?: string }) => {
        if (error.code !== 'ClusterNotReady') throw error;
        return false;
      },
    ),
  );
}

test('without a location of the workers nothing is reserved: a policy would be open to all, or lock them out', async () => {
  const lost = await Parts.open({ config: { ...parts.config, FLEET_WORKER_CIDRS: [] } });
  const reserve = lost.as('mine', (activities) => activities.reserveCluster({ ...ref('lost'), request: {} }));
  await expect(reserve).rejects.toMatchObject({ code: 'NotConfigured' });
  await expect(reserve).rejects.toThrow(/FLEET_WORKER_NAMESPACE.*FLEET_WORKER_CIDRS/);
  expect(await lost.catalog.cluster(ref('lost'))).toBeUndefined();
  await lost.close();
});

test('the network policy arrives as it was meant, with every source and every destination', async () => {
  await ensure('policed');
  const spec = resolveSpec({ network: { allowCidrs: ['10.20.0.0/16'] } }, {});
  await parts.as('mine', (activities) => activities.applySurroundings({ ...ref('policed'), spec }));
  const config = new KubeConfig();
  config.loadFromFile(inject('localEnv')['KUBECONFIG'] ?? '');
  // As JSON: the client's own model of a policy has another name for `from`.
  const [namespace, name] = [namespaceOf(ref('policed')), 'qdrant'];
  const policy = (await config.makeApiClient(CustomObjectsApi).getNamespacedCustomObject({
    group: 'networking.k8s.io',
    version: 'v1',
    plural: 'networkpolicies',
    namespace,
    name,
  })) as {
    spec: { ingress: { from?: object[] }[]; egress: { to?: object[] }[] };
  };
  for (const { from } of policy.spec.ingress) expect(from?.length).toBeGreaterThan(0);
  for (const { to } of policy.spec.egress) expect(to?.length).toBeGreaterThan(0);
  expect(policy.spec.ingress[0]?.from).toContainEqual({ ipBlock: { cidr: '127.0.0.1/32' } });
  expect(policy.spec.ingress[0]?.from).toContainEqual({ ipBlock: { cidr: '10.20.0.0/16' } });
});

describe('ensureNamespace', () => {
  test('makes it once, labelled, and finds it again', async () => {
    await ensure('made');
    await ensure('made');
    const found = await parts.kubernetes.namespace(namespaceOf(ref('made')));
    expect(found?.labels).toMatchObject(labels('made'));
  });

  test('refuses one that another operation made, and one without labels', async () => {
    await ensure('taken', 'another');
    await expect(ensure('taken')).rejects.toMatchObject({ code: 'NamespaceNotOurs' });
    await core.createNamespace({ body: { metadata: { name: namespaceOf(ref('plain')) } } });
    await expect(ensure('plain')).rejects.toMatchObject({ code: 'NamespaceNotOurs' });
  });
});

describe.concurrent('removeNamespace', () => {
  const CANARIES = [
    ['managed by somebody else', { [LABELS.managedBy]: 'helm' }, false],
    ['of another tenant', { [LABELS.tenant]: 'somebody' }, false],
    ['of another cluster', { [LABELS.cluster]: 'other' }, false],
    ['made by another operation, when only the own may go', { [LABELS.operation]: 'run-of-another' }, true],
  ] as const;

  test.for(CANARIES.map((canary, index) => [`canary-${index}`, ...canary] as const))(
    '%s: a namespace %s survives',
    async ([cluster, _what, change, onlyOwn]) => {
      const name = namespaceOf(ref(cluster));
      await core.createNamespace({ body: { metadata: { name, labels: { ...labels(cluster), ...change } } } });
      await remove(cluster, onlyOwn);
      await parts.as('mine', (activities) => activities.deleteVolumeClaims(ref(cluster)));
      expect(await parts.kubernetes.namespace(name)).toMatchObject({ terminating: false });
    },
  );

  test('removes its own, and succeeds when there is none', async () => {
    await ensure('own');
    await expect(remove('own', true)).rejects.toMatchObject({ code: 'ClusterNotReady' });
    await removed('own', true);
    expect(await parts.kubernetes.namespace(namespaceOf(ref('own')))).toBeUndefined();
    await remove('own', true);
  });

  test('a delete by the user removes what an earlier operation made', async () => {
    await ensure('earlier', 'another');
    await removed('earlier', false);
    expect(await parts.kubernetes.namespace(namespaceOf(ref('earlier')))).toBeUndefined();
  });
});

test('the API key is made once and never changes', async () => {
  await ensure('keyed');
  const key = async () => {
    await parts.as('mine', (activities) => activities.ensureApiKey(ref('keyed')));
    return parts.kubernetes.secretValue(namespaceOf(ref('keyed')), 'qdrant-api-key', 'api-key');
  };
  const first = await key();
  expect(first).toMatch(/^q[A-Za-z0-9x]{40,}$/);
  expect(await key()).toBe(first);
});
