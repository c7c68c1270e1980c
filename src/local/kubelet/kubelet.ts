import { mkdir } from 'node:fs/promises';
import type { V1Namespace, V1Node, V1PersistentVolume, V1PersistentVolumeClaim, V1Pod } from '@kubernetes/client-node';
import { tryLock } from '../lock.ts';
import { AddressBook } from './addresses.ts';
import { type Api, log } from './api.ts';
import { type KubeletConfig, layout } from './config.ts';
import { heartbeat, POOL_LABEL, POWER, registerNode } from './nodes.ts';
import { PodWorker, type WorkerDeps } from './pod-worker.ts';
import { PolicyEnforcer, removeLeftoverRules } from './policies.ts';
import { killLeftovers } from './processes.ts';
import { Reflector } from './reflector.ts';
import { serveStats } from './stats.ts';
import { createStorageClass, VolumeProvisioner } from './volumes.ts';
import { Workqueue } from './workqueue.ts';

/** A running kubelet; `stop` ends its processes and leaves the API objects for the next start. */
export interface Kubelet {
  stop(): Promise<void>;
}

/**
 * Registers the nodes, then turns every Qdrant pod bound to them into a local process.
 * @throws Error when another kubelet holds the folder or the API server refuses.
 */
export async function startKubelet(api: Api, config: KubeletConfig): Promise<Kubelet> {
  for (const part of ['volumes', 'pods', 'sandboxes', 'processes']) {
    await mkdir(`${config.dir}/${part}`, { recursive: true, mode: 0o700 });
  }
  const folder = tryLock(layout.lock(config.dir));
  if ('holder' in folder) {
    // Two of them would end each other's processes.
    throw new Error(`Another kubelet (process ${folder.holder.pid}) already runs on ${config.dir}`);
  }
  await killLeftovers(layout.processes(config.dir), log);
  await removeLeftoverRules(config);
  const policies = config.enforcePolicies === true ? await PolicyEnforcer.start(api, config, log) : undefined;

  const addresses = new AddressBook(layout.addresses(config.dir), config.podCidr);
  const pods = new PodManager({ api, config, addresses, log, policies });
  const volumes = new VolumeProvisioner(api, config, log);
  const queue = new Workqueue(log);

  await createStorageClass(api);
  const stats = await serveStats(api, config, log);
  await Promise.all(config.nodes.map((node) => registerNode(api, node, stats.ports.get(node.name), config.taint)));
  const stopping = new AbortController();
  const beating = heartbeat(api, config.nodes, stats.ports, log, stopping.signal, config.taint);

  const lose = (machine: string) => {
    const index = config.nodes.findIndex(({ name, adopted }) => adopted && name === machine);
    for (const { name } of index < 0 ? [] : config.nodes.splice(index, 1)) {
      stats.remove(name);
      pods.onNodeGone(name);
    }
  };
  const watch = { config: api.config, log };
  const reflectors = [
    new Reflector<V1Namespace>({
      ...watch,
      path: '/api/v1/namespaces',
      list: () => api.core.listNamespace(),
      onChange: () => undefined,
      onList: (all) => addresses.keepOnly(new Set(all.map(({ metadata }) => metadata?.name ?? ''))),
      onGone: ({ metadata }) => addresses.free(metadata?.name ?? ''),
    }),
    new Reflector<V1Node>({
      ...watch,
      path: '/api/v1/nodes',
      list: () => api.core.listNode(),
      onChange: ({ metadata }) => {
        const { name = '', labels = {}, annotations = {} } = metadata ?? {};
        if (annotations[POWER] === 'off') {
          lose(name);
          return;
        }
        if (config.adopt?.includes(labels[POOL_LABEL] ?? '') !== true) return;
        if (config.nodes.some((node) => node.name === name)) return;
        const node = { name, zone: labels['topology.kubernetes.io/zone'] ?? '', adopted: true } as const;
        config.nodes.push(node);
        queue.add(`node ${name}`, async () => {
          await stats.add(node);
          await registerNode(api, node, stats.ports.get(name));
          // A machine that was here before finds the pods that nobody has given up meanwhile.
          const { items } = await api.core.listPodForAllNamespaces({ fieldSelector: `spec.nodeName=${name}` });
          for (const pod of items) pods.onChange(pod);
        });
      },
      onGone: ({ metadata }) => lose(metadata?.name ?? ''),
    }),
    new Reflector<V1PersistentVolumeClaim>({
      ...watch,
      path: '/api/v1/persistentvolumeclaims',
      list: () => api.core.listPersistentVolumeClaimForAllNamespaces(),
      onChange: (object) =>
        queue.add(`claim ${object.metadata?.namespace}/${object.metadata?.name}`, () => volumes.reconcileClaim(object)),
    }),
    new Reflector<V1PersistentVolume>({
      ...watch,
      path: '/api/v1/persistentvolumes',
      list: () => api.core.listPersistentVolume(),
      onChange: (object) => queue.add(`volume ${object.metadata?.name}`, () => volumes.reconcileVolume(object)),
    }),
    new Reflector<V1Pod>({
      ...watch,
      path: '/api/v1/pods',
      list: () => api.core.listPodForAllNamespaces(),
      onChange: (pod) => pods.onChange(pod),
      onGone: (pod) => pods.onGone(pod),
    }),
  ];
  await Promise.all(reflectors.map((reflector) => reflector.start()));

  return {
    stop: async () => {
      stopping.abort();
      await Promise.all([...reflectors.map((reflector) => reflector.stop()), beating, queue.close(), pods.stop()]);
      await stats.stop();
      await policies?.stop();
      folder.release();
    },
  };
}

/** Keeps one worker per pod name. */
class PodManager {
  readonly #deps: WorkerDeps;
  readonly #workers = new Map<string, PodWorker>();

  constructor(deps: WorkerDeps) {
    this.#deps = deps;
  }

  onChange(pod: V1Pod): void {
    if (!this.#deps.config.nodes.some(({ name }) => name === pod.spec?.nodeName)) return;
    const key = `${pod.metadata?.namespace}/${pod.metadata?.name}`;
    const current = this.#workers.get(key);
    if (current?.uid === pod.metadata?.uid) {
      current?.update(pod);
      return;
    }
    current?.stop('gone');
    const worker = new PodWorker(this.#deps, pod, current?.done);
    this.#workers.set(key, worker);
    void worker.done.then(() => {
      if (this.#workers.get(key) === worker) this.#workers.delete(key);
    });
  }

  onGone(pod: V1Pod): void {
    const worker = this.#workers.get(`${pod.metadata?.namespace}/${pod.metadata?.name}`);
    if (worker && worker.uid === pod.metadata?.uid) worker.stop('gone');
  }

  /** The machine is no more, and neither is what ran there, whatever the API still says. */
  onNodeGone(node: string): void {
    for (const worker of this.#workers.values()) if (worker.node === node) worker.stop('gone');
  }

  async stop(): Promise<void> {
    const workers = [...this.#workers.values()];
    for (const worker of workers) worker.stop('shutdown');
    await Promise.all(workers.map(({ done }) => done));
  }
}
