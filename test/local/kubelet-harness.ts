import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { V1Pod } from '@kubernetes/client-node';
import { AppsV1Api, KubeConfig } from '@kubernetes/client-node';
import { execa } from 'execa';
import type { Api } from '../../src/local/kubelet/api.ts';
import { connect, strategicMerge } from '../../src/local/kubelet/api.ts';
import { reservePodRange } from '../../src/local/pod-range.ts';
import { until } from '../../src/local/wait.ts';

const REPOSITORY = join(import.meta.dirname, '../..');
export const CHART = join(REPOSITORY, 'src/local/chart/qdrant');

/** What the stub that stands in for Qdrant says of itself. */
export interface StubAnswer {
  pid: number;
  args: string[];
  starts: number;
  env: Record<string, string>;
}

/**
 * A kubelet of the test's own on the shared control plane: its nodes carry a pool label of their own, its pods an address range
 * of their own, so that other tests and their kubelet go on undisturbed.
 */
export class KubeletHarness {
  readonly dir = mkdtempSync(join(tmpdir(), 'fleet-kubelet-'));
  readonly pool: string;
  readonly namespace: string;
  readonly release = 'demo-qdrant';
  /** Lets a pod come to its nodes. */
  readonly toleration: { readonly key: string; readonly operator: 'Exists' };
  readonly api: Api;
  readonly apps: AppsV1Api;
  readonly #kubeconfig: string;
  readonly #helm: string;
  readonly #podRange = reservePodRange();
  #process: ChildProcess | undefined;

  constructor(env: Record<string, string | undefined>, name = 'kubelet-test') {
    this.pool = `${name}-${process.pid}`;
    this.namespace = this.pool;
    this.toleration = { key: this.pool, operator: 'Exists' };
    this.#kubeconfig = env['KUBECONFIG'] ?? '';
    this.#helm = env['FLEET_HELM_BIN'] ?? 'helm';
    const config = new KubeConfig();
    config.loadFromFile(this.#kubeconfig);
    this.api = connect(config);
    this.apps = config.makeApiClient(AppsV1Api);
  }

  /** Starts the kubelet and returns when it says `ready`. @param change to its environment; empty takes away */
  async start(change: Record<string, string> = {}): Promise<void> {
    const log = openSync(join(this.dir, 'kubelet.log'), 'a');
    const child = spawn(process.execPath, [join(REPOSITORY, 'src/local/kubelet/main.ts')], {
      stdio: ['ignore', 'pipe', log],
      env: {
        PATH: process.env['PATH'],
        HOME: process.env['HOME'],
        KUBECONFIG: this.#kubeconfig,
        FLEET_KUBELET_DIR: this.dir,
        FLEET_KUBELET_NODE_PREFIX: this.pool,
        // It runs a stub: a pod of another test would never become a Qdrant here, or go down with this kubelet.
        FLEET_KUBELET_TAINT: this.pool,
        FLEET_KUBELET_POD_CIDR: this.#podRange.cidr,
        FLEET_KUBELET_COMMAND: JSON.stringify([process.execPath, join(import.meta.dirname, 'qdrant-stub.ts')]),
        ...change,
      },
    });
    closeSync(log);
    this.#process = child;
    const ended = once(child, 'exit').then(() => {
      throw new Error(`kubelet ended: ${readFileSync(join(this.dir, 'kubelet.log'), 'utf8')}`);
    });
    ended.catch(() => undefined);
    if (!child.stdout) throw new Error('the kubelet has no output');
    await Promise.race([once(createInterface(child.stdout), 'line'), ended]);
  }

  /** Ends the kubelet by this signal and returns its exit code. */
  async end(signal: NodeJS.Signals): Promise<number | null> {
    const child = this.#process;
    if (!child || child.exitCode !== null || child.signalCode !== null) return null;
    const exit = once(child, 'exit');
    child.kill(signal);
    const [code] = (await exit) as [number | null];
    return code;
  }

  async helm(...args: string[]): Promise<string> {
    const { stdout } = await execa(this.#helm, [...args, '--namespace', this.namespace], {
      env: { KUBECONFIG: this.#kubeconfig },
    });
    return stdout;
  }

  async pods(): Promise<V1Pod[]> {
    const { items } = await this.api.core.listNamespacedPod({ namespace: this.namespace });
    return items.sort((a, b) => (a.metadata?.name ?? '').localeCompare(b.metadata?.name ?? ''));
  }

  async pod(ordinal: number): Promise<V1Pod> {
    return await this.api.core.readNamespacedPod({ namespace: this.namespace, name: `${this.release}-${ordinal}` });
  }

  async scale(replicas: number): Promise<void> {
    const at = { namespace: this.namespace, name: this.release };
    await this.apps.patchNamespacedStatefulSet({ ...at, body: { spec: { replicas } } }, strategicMerge);
  }

  /** Waits until exactly this many pods exist, all ready. */
  async ready(replicas: number): Promise<void> {
    await until(
      `${replicas} pods ready`,
      async () => {
        const pods = await this.pods();
        return pods.length === replicas && pods.every(isReady);
      },
      { withinMs: 15_000 },
    );
  }

  async ask(pod: V1Pod): Promise<StubAnswer> {
    const response = await fetch(`http://${pod.status?.podIP}:6333/`);
    return (await response.json()) as StubAnswer;
  }

  async askAll(): Promise<StubAnswer[]> {
    return await Promise.all((await this.pods()).map((pod) => this.ask(pod)));
  }

  /** Ends everything and takes the nodes away again. */
  async close(): Promise<void> {
    await this.end('SIGTERM');
    const { items } = await this.api.core.listNode({ labelSelector: `qdrant-fleet/pool=${this.pool}` });
    for (const { metadata } of items) await this.api.core.deleteNode({ name: metadata?.name ?? '' });
    this.#podRange.release();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

export function isReady(pod: V1Pod): boolean {
  const conditions = pod.status?.conditions ?? [];
  return (
    !pod.metadata?.deletionTimestamp && conditions.some(({ type, status }) => type === 'Ready' && status === 'True')
  );
}
