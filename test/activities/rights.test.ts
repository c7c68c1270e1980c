/** The rights of deploy/rbac, on a real API server: what the worker may do, what it may not, and where. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  AuthorizationV1Api,
  CoreV1Api,
  KubeConfig,
  RbacAuthorizationV1Api,
  type ApiConstructor,
  type ApiType,
  type V1ResourceAttributes,
} from '@kubernetes/client-node';
import { parseAllDocuments } from 'yaml';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { kubeletStats } from '../../src/clients/kubelet.ts';
import { Kubernetes } from '../../src/clients/kubernetes.ts';
import { Helm } from '../../src/clients/helm.ts';
import { namespaceOf } from '../../src/domain/naming.ts';
import { until } from '../support/fleet.ts';
import { Parts } from './support.ts';

const env = () => inject('localEnv');
const ROLE = 'qdrant-fleet-namespace';

function as<T extends ApiType>(who: 'admin' | 'worker', api: ApiConstructor<T>): T {
  const config = new KubeConfig();
  config.loadFromFile(env()[who === 'admin' ? 'KUBECONFIG' : 'FLEET_LOCAL_WORKER_KUBECONFIG'] ?? '');
  return config.makeApiClient(api);
}

async function may(resourceAttributes: V1ResourceAttributes): Promise<boolean> {
  const { status } = await as('worker', AuthorizationV1Api).createSelfSubjectAccessReview({
    body: { spec: { resourceAttributes } },
  });
  return status?.allowed === true;
}

let parts: Parts;
let own: string;
const ref = () => ({ tenant: parts.tenant, cluster: 'mine' });

beforeAll(async () => {
  const kubernetes = new Kubernetes(env()['FLEET_LOCAL_WORKER_KUBECONFIG']);
  const access = { kubernetes, helm: new Helm({ binary: 'helm' }), namespaceRole: ROLE };
  parts = await Parts.open({ kubernetes, clusters: { of: () => Promise.resolve(access) } });
  own = namespaceOf(ref());
  const make = () =>
    parts
      .as('mine', (activities) => activities.ensureNamespace(ref()))
      .then(
        () => true,
        (error: { code?: string }) => {
          if (error.code !== 'KubernetesUnavailable') throw error;
          return false;
        },
      );
  await until('the namespace is the worker’s', make);
});
afterAll(async () => {
  await as('admin', CoreV1Api).deleteNamespace({ name: own });
  await parts.close();
});

describe('in a namespace that it has made', () => {
  test.each([
    { verb: 'create', resource: 'secrets' },
    { verb: 'patch', group: 'apps', resource: 'statefulsets' },
    { verb: 'patch', group: 'networking.k8s.io', resource: 'networkpolicies' },
    { verb: 'delete', resource: 'pods' },
    { verb: 'delete', resource: 'persistentvolumeclaims' },
  ])('the worker may $verb $resource', async (attributes) => {
    expect(await may({ ...attributes, namespace: own })).toBe(true);
  });

  test.each([
    { verb: 'create', resource: 'pods', subresource: 'exec' },
    { verb: 'get', resource: 'pods', subresource: 'exec' },
    { verb: 'create', resource: 'pods', subresource: 'attach' },
    { verb: 'create', resource: 'pods', subresource: 'portforward' },
    { verb: 'get', resource: 'pods', subresource: 'log' },
    { verb: 'create', resource: 'pods' },
    { verb: 'create', resource: 'serviceaccounts', subresource: 'token' },
    { verb: 'create', group: 'rbac.authorization.k8s.io', resource: 'roles' },
    { verb: 'update', group: 'rbac.authorization.k8s.io', resource: 'rolebindings' },
  ])('the worker may not $verb $resource $subresource', async (attributes) => {
    expect(await may({ ...attributes, namespace: own })).toBe(false);
  });
});

describe('elsewhere', () => {
  test.each([
    { verb: 'get', resource: 'secrets', namespace: 'kube-system' },
    { verb: 'list', resource: 'secrets', namespace: 'default' },
    { verb: 'list', resource: 'secrets', namespace: 'fleet-somebody--else' },
    { verb: 'get', resource: 'secrets', namespace: 'fleet-system' },
    { verb: 'list', resource: 'pods', namespace: 'fleet-somebody--else' },
    { verb: 'get', resource: 'nodes', subresource: 'proxy' },
    { verb: 'get', resource: 'nodes', subresource: 'stats' },
    { verb: 'create', resource: 'serviceaccounts', subresource: 'token', name: 'other', namespace: 'fleet-system' },
    { verb: 'bind', group: 'rbac.authorization.k8s.io', resource: 'clusterroles', name: 'cluster-admin' },
    { verb: 'escalate', group: 'rbac.authorization.k8s.io', resource: 'clusterroles', name: ROLE },
    { verb: 'create', group: 'rbac.authorization.k8s.io', resource: 'clusterrolebindings' },
    { verb: 'impersonate', resource: 'users' },
    { verb: 'update', resource: 'namespaces', name: 'kube-system' },
    { verb: 'list', resource: 'nodes' },
    { verb: 'create', resource: 'persistentvolumes' },
    { verb: 'create', group: 'storage.k8s.io', resource: 'storageclasses' },
  ])('the worker may not $verb $resource $subresource $name $namespace', async (attributes) => {
    expect(await may(attributes)).toBe(false);
  });

  test('it cannot make, remove or enter a namespace that is not the fleet’s', async () => {
    const core = as('worker', CoreV1Api);
    const labels = { 'pod-security.kubernetes.io/enforce': 'restricted' };
    const refused = /may touch namespaces named/;
    // The API server takes note of an admission policy a moment after it is made.
    await until('the admission policy is in force', () =>
      core.createNamespace({ body: { metadata: { name: 'shop', labels } }, dryRun: 'All' }).then(
        () => false,
        (error: Error) => refused.test(error.message),
      ),
    );
    await expect(core.createNamespace({ body: { metadata: { name: 'shop', labels } } })).rejects.toThrow(refused);
    await expect(core.deleteNamespace({ name: 'kube-node-lease' })).rejects.toThrow(refused);
    await expect(core.deleteNamespace({ name: 'fleet-system' })).rejects.toThrow(refused);
    const body = {
      metadata: { name: ROLE },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: ROLE },
    };
    const bind = (namespace: string, subjects: { kind: string; name: string; namespace?: string }[]) =>
      as('worker', RbacAuthorizationV1Api).createNamespacedRoleBinding({ namespace, body: { ...body, subjects } });
    const worker = { kind: 'ServiceAccount', name: 'qdrant-fleet-worker', namespace: 'fleet-system' };
    await expect(bind('kube-system', [worker])).rejects.toThrow(refused);
    await expect(bind(own, [worker, { kind: 'User', name: 'somebody' }])).rejects.toThrow(/to itself/);
    await expect(core.createNamespace({ body: { metadata: { name: 'fleet-a--b' } } })).rejects.toThrow(/restricted/);
  });
});

test('a kubelet answers the account for stats, not the worker, and nobody without a token', async () => {
  const kubernetes = new Kubernetes(env()['FLEET_LOCAL_WORKER_KUBECONFIG']);
  const origin = (await kubernetes.kubeletOrigin('local-1')) ?? '';
  const token = await kubernetes.serviceAccountToken('fleet-system', 'qdrant-fleet-stats');
  expect(await kubeletStats(origin, { token })).toHaveProperty('pods');
  const config = new KubeConfig();
  config.loadFromFile(env()['FLEET_LOCAL_WORKER_KUBECONFIG'] ?? '');
  const worker = kubeletStats(origin, { token: config.getCurrentUser()?.token ?? '' });
  await expect(worker).rejects.toThrow('status 403');
  await expect(kubeletStats(origin, { token: 'guessed' })).rejects.toThrow('status 401');
});

test('no rule of the shipped roles has a wildcard, and none reads pods’ consoles', async () => {
  const folder = join(import.meta.dirname, '../../deploy/rbac');
  const texts = ['worker.yaml', 'namespace-role.yaml', 'stats.yaml'].map((file) =>
    readFile(join(folder, file), 'utf8'),
  );
  const rules = (await Promise.all(texts))
    .flatMap((text) => parseAllDocuments(text).map((document) => document.toJS() as { rules?: object[] }))
    .flatMap((object) => object.rules ?? []);
  expect(rules.length).toBeGreaterThan(10);
  expect(JSON.stringify(rules)).not.toMatch(/\*|proxy|exec|attach|portforward|escalate|impersonate/);
});
