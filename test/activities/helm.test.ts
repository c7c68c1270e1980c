/** Helm on a real API server: processes of it that are killed in the middle, and fields that cannot be changed. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AppsV1Api, KubeConfig, PatchStrategy, setHeaderOptions } from '@kubernetes/client-node';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { AT_WORK } from '../../activities/helm.ts';
import { refuseFixedFields } from '../../activities/chart.ts';
import { Helm } from '../../src/clients/helm.ts';
import { Kubernetes } from '../../src/clients/kubernetes.ts';
import { resolveSpec } from '../../src/domain/cluster.ts';
import { namespaceOf } from '../../src/domain/naming.ts';
import { until } from '../support/fleet.ts';
import { Parts } from './support.ts';

/** Each waits until that Helm is taken for dead; `npm run test:crash` has all. */
const ALL = process.env['FLEET_TEST_CRASHES'] === 'all';

const env = inject('localEnv');
const binary = env['FLEET_HELM_BIN'] ?? 'helm';
const kubeconfig = env['KUBECONFIG'] ?? '';
const chart = env['FLEET_HELM_CHART'] ?? '';
const helm = new Helm({ binary, kubeconfig });
const kubernetes = new Kubernetes(kubeconfig);
/** No pods: what is proven is the release. */
const SPEC = { ...resolveSpec({ nodes: 1, storage: '1Gi', collections: [] }, {}), suspended: true };

const config = new KubeConfig();
config.loadFromFile(kubeconfig);
const apps = config.makeApiClient(AppsV1Api);

let parts: Parts;
beforeAll(async () => {
  parts = await Parts.open({ clusters: { of: () => Promise.resolve({ kubernetes, helm }) } });
});
afterAll(() => parts.close());

const ref = (cluster: string) => ({ tenant: parts.tenant, cluster });
const apply = (cluster: string, spec = SPEC) =>
  parts.as('mine', (activities) => activities.installRelease({ ...ref(cluster), spec }));

/** Begin a Helm that waits for a pod that cannot start, wait until the release says so, and kill it. */
async function killIn(status: string, cluster: string, ...args: string[]): Promise<void> {
  const namespace = namespaceOf(ref(cluster));
  const process: ChildProcess = spawn(binary, [...args, '--namespace', namespace, '--wait', '--timeout', '5m'], {
    env: { KUBECONFIG: kubeconfig, HOME: tmpdir(), PATH: '/usr/bin:/bin' },
    stdio: 'ignore',
  });
  await until(`the release is in ${status}`, async () => (await helm.status(namespace, 'qdrant'))?.status === status);
  process.kill('SIGKILL');
  await once(process, 'exit');
  expect(await helm.status(namespace, 'qdrant')).toMatchObject({ status });
}

/** No node carries the label, and with this strategy Helm waits for the pod. */
const STUCK = ['--set', 'replicaCount=1,updateStrategy.type=RollingUpdate,nodeSelector.no=such'];

/** Not while that Helm might still be at work; then at once. */
async function recovers(cluster: string): Promise<void> {
  await expect(apply(cluster)).rejects.toMatchObject({
    code: 'KubernetesUnavailable',
    message: expect.stringMatching('may be at work'),
  });
  const namespace = namespaceOf(ref(cluster));
  const { since = 0 } = (await helm.status(namespace, 'qdrant')) ?? {};
  await until('it is taken for dead', () => Promise.resolve(Date.now() > since + AT_WORK));
  await apply(cluster);
  expect(await helm.status(namespace, 'qdrant')).toMatchObject({ status: 'deployed' });
  expect(await kubernetes.statefulSetReplicas(namespace, 'qdrant')).toBe(0);
}

describe.concurrent('a release that a killed Helm left', { timeout: 120_000 }, () => {
  test.runIf(ALL)('in pending-install is made anew', async () => {
    await parts.as('mine', (activities) => activities.ensureNamespace(ref('installed')));
    await killIn('pending-install', 'installed', 'upgrade', 'qdrant', chart, '--install', ...STUCK);
    await recovers('installed');
  });

  test('in pending-upgrade goes back to what was deployed, and on from there', async () => {
    await parts.as('mine', (activities) => activities.ensureNamespace(ref('upgraded')));
    await apply('upgraded');
    await killIn('pending-upgrade', 'upgraded', 'upgrade', 'qdrant', chart, '--reuse-values', ...STUCK);
    await recovers('upgraded');
  });

  test.runIf(ALL)('in pending-rollback too', async () => {
    await parts.as('mine', (activities) => activities.ensureNamespace(ref('rolled')));
    await apply('rolled');
    const namespace = namespaceOf(ref('rolled'));
    const args = ['upgrade', 'qdrant', chart, '--reuse-values', ...STUCK, '--namespace', namespace];
    await execa(binary, args, { env: { KUBECONFIG: kubeconfig } });
    const stuck = (await helm.status(namespace, 'qdrant'))?.revision ?? 0;
    await apply('rolled');
    await killIn('pending-rollback', 'rolled', 'rollback', 'qdrant', String(stuck));
    await recovers('rolled');
  });

  test.runIf(ALL)('in uninstalling is removed', async () => {
    await parts.as('mine', (activities) => activities.ensureNamespace(ref('removed')));
    await apply('removed');
    const namespace = namespaceOf(ref('removed'));
    const hold = async (finalizers: string[]) =>
      apps.patchNamespacedStatefulSet(
        { namespace, name: 'qdrant', body: { metadata: { finalizers } } },
        setHeaderOptions('Content-Type', PatchStrategy.MergePatch),
      );
    await hold(['qdrant-fleet.test/hold']);
    await killIn('uninstalling', 'removed', 'uninstall', 'qdrant');
    await hold([]);
    await parts.as('mine', (activities) => activities.uninstallRelease(ref('removed')));
    expect(await helm.status(namespace, 'qdrant')).toBeUndefined();
  });
});

test('fields that cannot be changed are named before anything is applied', async () => {
  await parts.as('mine', (activities) => activities.ensureNamespace(ref('fixed')));
  await apply('fixed');
  const folder = await mkdtemp(join(tmpdir(), 'fleet-chart-'));
  try {
    const other = join(folder, 'qdrant');
    await cp(chart, other, { recursive: true });
    const file = join(other, 'templates/statefulset.yaml');
    const template = await readFile(file, 'utf8');
    await writeFile(
      file,
      template.replace('-headless', '-peers').replace('{{ .Values.podManagementPolicy }}', 'OrderedReady'),
    );
    const deps = { clusters: { of: () => Promise.resolve({ kubernetes, helm }) }, config: parts.config };
    const signal = new AbortController().signal;
    await refuseFixedFields(deps, ref('fixed'), { ...SPEC, storage: '5Gi' }, signal);
    const changed = { ...deps, config: { ...parts.config, FLEET_HELM_CHART: other } };
    await expect(refuseFixedFields(changed, ref('fixed'), SPEC, signal)).rejects.toMatchObject({
      code: 'UpdateRefused',
      message: expect.stringMatching(
        /would change spec\.serviceName from "qdrant-headless" to "qdrant-peers"; spec\.podManagementPolicy from "Parallel" to "OrderedReady" .*Nothing was changed/,
      ),
    });
  } finally {
    await rm(folder, { recursive: true });
  }
});
