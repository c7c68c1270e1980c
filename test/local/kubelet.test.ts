import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { hasStatus, strategicMerge } from '../../src/local/kubelet/api.ts';
import { identify, processesWithEnvironment } from '../../src/local/process-identity.ts';
import { until } from '../../src/local/wait.ts';
import { CHART, isReady, KubeletHarness } from './kubelet-harness.ts';

const KEY = randomBytes(16).toString('hex');
const secret = { metadata: { name: 'api-key' }, stringData: { key: KEY } };

/** The tests follow one release through its life, in order: each starts from where the one before left it. */
describe('process kubelet', () => {
  const kubelet = new KubeletHarness(inject('localEnv'));
  const { api, namespace, release } = kubelet;
  let doomed: ReturnType<typeof deleteBusyNamespace>;

  const install = (replicas: number, ...more: string[]) => {
    const values = {
      replicaCount: replicas,
      nodeSelector: { 'qdrant-fleet/pool': kubelet.pool },
      tolerations: [kubelet.toleration],
      env: [{ name: 'QDRANT__SERVICE__API_KEY', valueFrom: { secretKeyRef: { name: 'api-key', key: 'key' } } }],
      snapshotPersistence: { enabled: true },
      topologySpreadConstraints: [
        {
          maxSkew: 1,
          topologyKey: 'topology.kubernetes.io/zone',
          whenUnsatisfiable: 'DoNotSchedule',
          labelSelector: { matchLabels: { 'app.kubernetes.io/instance': release } },
        },
      ],
    };
    const set = Object.entries(values).flatMap(([key, value]) => ['--set-json', `${key}=${JSON.stringify(value)}`]);
    return kubelet.helm('upgrade', '--install', release, CHART, ...set, ...more);
  };
  const waitFor = (what: string, probe: () => Promise<boolean> | boolean) => until(what, probe, { withinMs: 15_000 });
  const running = (ip: string | undefined) => processesWithEnvironment('QDRANT__SERVICE__HOST', ip ?? '');
  const warnings = async () => {
    const { items } = await api.core.listNamespacedEvent({ namespace });
    return items.filter(({ type }) => type === 'Warning').map(({ reason }) => reason);
  };

  beforeAll(async () => {
    await kubelet.start();
    await api.core.createNamespace({ body: { metadata: { name: namespace } } });
    await api.core.createNamespacedSecret({ namespace, body: secret });
    doomed = deleteBusyNamespace();
    doomed.catch(() => undefined); // the last test looks at it
  });

  afterAll(async () => {
    await api.core.deleteNamespace({ name: namespace }).catch((error: unknown) => {
      if (!hasStatus(error, 404)) throw error;
    });
    await kubelet.close();
  });

  test('helm install --wait makes three ready nodes, one per zone, that know each other', async () => {
    await install(3, '--wait', '--timeout', '30s');
    const pods = await kubelet.pods();
    expect(pods.map(isReady)).toEqual([true, true, true]);
    expect(new Set(pods.map(({ spec }) => spec?.nodeName)).size).toBe(3);
    const { items: nodes } = await api.core.listNode({ labelSelector: `qdrant-fleet/pool=${kubelet.pool}` });
    expect(nodes.map(({ spec }) => spec?.taints?.some(({ key }) => key === kubelet.pool))).toEqual([true, true, true]);

    const ips = pods.map(({ status }) => status?.podIP);
    expect(new Set(ips).size).toBe(3);
    const first = ['--bootstrap', `http://${ips[0]}:6335`];
    const answers = await kubelet.askAll();
    expect(answers.map(({ args }) => args)).toEqual([
      ['--uri', `http://${ips[0]}:6335`],
      ['--uri', `http://${ips[1]}:6335`, ...first],
      ['--uri', `http://${ips[2]}:6335`, ...first],
    ]);
    expect(answers[1]?.env).toMatchObject({
      QDRANT__CLUSTER__ENABLED: 'true',
      QDRANT__CLUSTER__CONSENSUS__TICK_PERIOD_MS: '100',
      QDRANT__SERVICE__HOST: ips[1],
    });
    expect(answers[1]?.env['QDRANT__STORAGE__STORAGE_PATH']).not.toBe(
      answers[1]?.env['QDRANT__STORAGE__SNAPSHOTS_PATH'],
    );
  });

  test('a secret reaches the process and nothing that Helm keeps', async () => {
    const answers = await kubelet.askAll();
    expect(answers.map(({ env }) => env['QDRANT__SERVICE__API_KEY'])).toEqual([KEY, KEY, KEY]);
    expect(await kubelet.helm('get', 'values', release, '--all')).not.toContain(KEY);
    expect(await kubelet.helm('get', 'manifest', release)).not.toContain(KEY);
  });

  test('a deleted pod comes back under its address and with its data', async () => {
    const before = await kubelet.pod(1);
    await api.core.deleteNamespacedPod({ namespace, name: `${release}-1` });
    await waitFor('another pod', async () => {
      const pod = await kubelet.pod(1);
      return pod.metadata?.uid !== before.metadata?.uid && isReady(pod);
    });
    const after = await kubelet.pod(1);
    expect(after.status?.podIP).toBe(before.status?.podIP);
    expect(await kubelet.ask(after)).toMatchObject({ starts: 2 });
    expect(running(after.status?.podIP)).toHaveLength(1);
  });

  test('a killed process is started again and the pod tells how it ended', async () => {
    const { pid } = await kubelet.ask(await kubelet.pod(2));
    process.kill(pid, 'SIGKILL');
    await waitFor('the restart', async () => {
      const pod = await kubelet.pod(2);
      return isReady(pod) && pod.status?.containerStatuses?.[0]?.restartCount === 1;
    });
    const [container] = (await kubelet.pod(2)).status?.containerStatuses ?? [];
    expect(container?.lastState?.terminated).toMatchObject({ exitCode: 137, signal: 9, reason: 'Error' });
    expect(await warnings()).toContain('ProcessExited');
  });

  test('a pod whose secret is missing waits for it', async () => {
    await api.core.deleteNamespacedSecret({ namespace, name: 'api-key' });
    await api.core.deleteNamespacedPod({ namespace, name: `${release}-2` });
    await waitFor('the reason', async () => {
      const [container] = (await kubelet.pod(2)).status?.containerStatuses ?? [];
      return container?.state?.waiting?.reason === 'CreateContainerConfigError';
    });
    await api.core.createNamespacedSecret({ namespace, body: secret });
    await kubelet.ready(3);
  });

  test('scaling to zero and back keeps the data', async () => {
    const before = await kubelet.askAll();
    await kubelet.scale(0);
    await kubelet.ready(0);
    await kubelet.scale(3);
    await kubelet.ready(3);
    const after = await kubelet.askAll();
    expect(after.map(({ starts }) => starts)).toEqual(before.map(({ starts }) => starts + 1));
  });

  test('a claim may grow', async () => {
    const name = `qdrant-storage-${release}-0`;
    const body = { spec: { resources: { requests: { storage: '20Gi' } } } };
    await api.core.patchNamespacedPersistentVolumeClaim({ namespace, name, body }, strategicMerge);
    await waitFor('the growth', async () => {
      const { status } = await api.core.readNamespacedPersistentVolumeClaim({ namespace, name });
      return status?.capacity?.['storage'] === '20Gi';
    });
  });

  test('after kill -9 the next kubelet ends what is left and starts every pod once', async () => {
    const before = await kubelet.askAll();
    await kubelet.end('SIGKILL');
    expect(before.map(({ pid }) => isAlive(pid))).toEqual([true, true, true]);
    await kubelet.start();
    expect(before.map(({ pid }) => isAlive(pid))).toEqual([false, false, false]);
    const pods = await startedAgain(before.map(({ starts }) => starts + 1));
    expect(pods.map(({ status }) => running(status?.podIP).length)).toEqual([1, 1, 1]);
    const [container] = pods[0]?.status?.containerStatuses ?? [];
    expect(container?.lastState?.terminated?.reason).toBe('ContainerStatusUnknown');
  });

  test('a stopped kubelet leaves no process and the next one takes its pods over', async () => {
    const before = await kubelet.askAll();
    const uids = (await kubelet.pods()).map(({ metadata }) => metadata?.uid);
    expect(await kubelet.end('SIGTERM')).toBe(0);
    expect(before.map(({ pid }) => isAlive(pid))).toEqual([false, false, false]);
    expect((await kubelet.pods()).map(isReady)).toEqual([false, false, false]);
    await kubelet.start();
    const pods = await startedAgain(before.map(({ starts }) => starts + 1));
    expect(pods.map(({ metadata }) => metadata?.uid)).toEqual(uids);
  });

  test('a pod without Qdrant is refused, not faked', async () => {
    const spec = {
      nodeSelector: { 'qdrant-fleet/pool': kubelet.pool },
      tolerations: [kubelet.toleration],
      containers: [{ name: 'other', image: 'busybox' }],
    };
    await api.core.createNamespacedPod({ namespace, body: { metadata: { name: 'other' }, spec } });
    await waitFor('the refusal', async () => (await warnings()).includes('UnsupportedByLocalKubelet'));
    const { status } = await api.core.readNamespacedPod({ namespace, name: 'other' });
    expect(status?.phase).toBe('Pending');
    await api.core.deleteNamespacedPod({ namespace, name: 'other' });
  });

  test('a misspelt value is refused by the chart', async () => {
    await expect(install(3, '--set', 'replicacount=4')).rejects.toThrow(/replicacount/);
  });

  test('uninstalling and deleting the claims removes volumes and folders', async () => {
    const volumes = join(kubelet.dir, 'volumes');
    const own = async () => {
      const { items } = await api.core.listPersistentVolume();
      return items
        .filter(({ spec }) => spec?.claimRef?.namespace === namespace)
        .map(({ metadata }) => metadata?.name ?? '');
    };
    const names = await own();
    expect(names).toHaveLength(6);
    await kubelet.helm('uninstall', release);
    await api.core.deleteCollectionNamespacedPersistentVolumeClaim({ namespace });
    await waitFor('the volumes to go', async () => (await own()).length === 0);
    expect(readdirSync(volumes).filter((folder) => names.includes(folder))).toEqual([]);
  });

  test('a namespace is deleted with everything that runs in it', async () => {
    const { ip, uid, claim } = await doomed;
    expect(running(ip)).toEqual([]);
    expect(existsSync(join(kubelet.dir, 'sandboxes', uid))).toBe(false);
    await waitFor('the folder to go', () => !existsSync(join(kubelet.dir, 'volumes', `pvc-${claim}`)));
    // Its address may be given to somebody else now.
    await waitFor(
      'the address to be free',
      () => !readFileSync(join(kubelet.dir, 'addresses.json'), 'utf8').includes(ip),
    );
  });

  /** Makes a namespace with a running pod and deletes it: about 20 s, nearly all of them the namespace controller's own pace. */
  async function deleteBusyNamespace() {
    const name = `${namespace}-doomed`;
    await api.core.createNamespace({ body: { metadata: { name } } });
    const claim = await api.core.createNamespacedPersistentVolumeClaim({
      namespace: name,
      body: {
        metadata: { name: 'data' },
        spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Gi' } } },
      },
    });
    await api.core.createNamespacedPod({
      namespace: name,
      body: {
        metadata: { name: 'single' },
        spec: {
          nodeSelector: { 'qdrant-fleet/pool': kubelet.pool },
          tolerations: [kubelet.toleration],
          terminationGracePeriodSeconds: 1,
          containers: [
            {
              name: 'db',
              image: 'qdrant/qdrant:v1.18.3',
              volumeMounts: [{ name: 'data', mountPath: '/qdrant/storage' }],
            },
          ],
          volumes: [{ name: 'data', persistentVolumeClaim: { claimName: 'data' } }],
        },
      },
    });
    const read = () => api.core.readNamespacedPod({ namespace: name, name: 'single' });
    await waitFor('the pod to run', async () => isReady(await read()));
    const pod = await read();
    await api.core.deleteNamespace({ name });
    await until(
      'the namespace to go',
      async () => !(await api.core.listNamespace()).items.some(({ metadata }) => metadata?.name === name),
      { withinMs: 60_000, everyMs: 250 },
    );
    return { ip: pod.status?.podIP ?? '', uid: pod.metadata?.uid ?? '', claim: claim.metadata?.uid ?? '' };
  }

  /** Waits until every pod is ready and its process has been started as often as expected. */
  async function startedAgain(starts: number[]) {
    await waitFor('the processes', async () => {
      const answers = await kubelet.askAll();
      return answers.every((answer, i) => answer.starts === starts[i]) && (await kubelet.pods()).every(isReady);
    });
    return await kubelet.pods();
  }
});

function isAlive(pid: number): boolean {
  return identify(pid) !== undefined;
}
