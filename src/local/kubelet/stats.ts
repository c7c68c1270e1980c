/** `GET /stats/summary`, as far as it tells of volumes: what is used in a folder, of the size that its claim asked for. */
import { lstat, readdir, statfs } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { V1Pod } from '@kubernetes/client-node';
import { type Api, describe, type Log } from './api.ts';
import { claimVolume, qdrantContainer } from './pod-plan.ts';
import { type KubeletConfig, type LocalNode, layout } from './config.ts';

interface VolumeStats {
  readonly name: string;
  readonly usedBytes: number;
  readonly availableBytes: number;
  readonly capacityBytes: number;
  readonly pvcRef?: { readonly name: string; readonly namespace: string };
}

export interface StatsServers {
  /** By the node's name. */
  readonly ports: ReadonlyMap<string, number>;
  add(node: LocalNode): Promise<void>;
  remove(name: string): void;
  stop(): Promise<void>;
}

/** One server for each node, as each machine has its own kubelet. */
export async function serveStats(api: Api, config: KubeletConfig, log: Log): Promise<StatsServers> {
  const ports = new Map<string, number>();
  const servers = new Map<string, Server>();
  const add = async (node: LocalNode) => {
    if (servers.has(node.name)) return;
    const server = createServer((request, response) => {
      if (request.url !== '/stats/summary') {
        response.writeHead(404).end();
        return;
      }
      const answer = async () => {
        const status = await refusal(api, node, request.headers.authorization);
        if (status !== undefined) response.writeHead(status).end();
        else {
          const stats = await summary(api, config, node);
          response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(stats));
        }
      };
      answer().catch((error: unknown) => {
        log(`stats of node ${node.name}: ${describe(error)}`);
        response.writeHead(500).end();
      });
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, '127.0.0.1', resolve);
    });
    ports.set(node.name, (server.address() as AddressInfo).port);
    servers.set(node.name, server);
  };
  const remove = (name: string) => {
    const server = servers.get(name);
    server?.closeAllConnections();
    server?.close();
    servers.delete(name);
    ports.delete(name);
  };
  await Promise.all(config.nodes.map(add));
  return {
    ports,
    add,
    remove,
    stop: async () => {
      const all = [...servers.values()];
      for (const server of all) server.closeAllConnections();
      await Promise.all(all.map((server) => new Promise((resolve) => server.close(resolve))));
    },
  };
}

/**
 * As a kubelet whose authentication and authorization are those of the API server: who is it, and may it `get`
 * `nodes/stats` of this node?
 *
 * @returns the status to refuse with
 */
async function refusal(api: Api, node: LocalNode, authorization = ''): Promise<401 | 403 | undefined> {
  const token = /^Bearer (.+)$/.exec(authorization)?.[1];
  if (token === undefined) return 401;
  const review = await api.authentication.createTokenReview({ body: { spec: { token } } });
  const { authenticated, user } = review.status ?? {};
  if (authenticated !== true || user === undefined) return 401;
  const access = await api.authorization.createSubjectAccessReview({
    body: {
      spec: {
        ...(user.username !== undefined && { user: user.username }),
        ...(user.groups !== undefined && { groups: user.groups }),
        resourceAttributes: { verb: 'get', resource: 'nodes', subresource: 'stats', name: node.name },
      },
    },
  });
  return access.status?.allowed === true ? undefined : 403;
}

async function summary(api: Api, config: KubeletConfig, node: LocalNode) {
  const { items } = await api.core.listPodForAllNamespaces({ fieldSelector: `spec.nodeName=${node.name}` });
  const pods = await Promise.all(
    items.map(async (pod) => {
      const { name = '', namespace = '', uid = '' } = pod.metadata ?? {};
      return { podRef: { name, namespace, uid }, volume: await volumes(api, config, pod) };
    }),
  );
  return { node: { nodeName: node.name }, pods };
}

async function volumes(api: Api, config: KubeletConfig, pod: V1Pod): Promise<VolumeStats[]> {
  const { namespace = '', uid = '' } = pod.metadata ?? {};
  const found: VolumeStats[] = [];
  for (const { name } of qdrantContainer(pod)?.volumeMounts ?? []) {
    const volume = pod.spec?.volumes?.find((candidate) => candidate.name === name);
    const claim = volume?.persistentVolumeClaim?.claimName;
    if (claim !== undefined) {
      const bound = await claimVolume(api, namespace, claim).catch(() => undefined);
      if (bound === undefined) continue;
      const pvcRef = { name: claim, namespace };
      found.push({ name, pvcRef, ...(await measure(bound.path, bytesOf(bound.capacity))) });
    } else if (volume?.emptyDir !== undefined) {
      const folder = join(layout.sandbox(config.dir, uid), 'volumes', name);
      found.push({ name, ...(await measure(folder, bytesOf(volume.emptyDir.sizeLimit))) });
    }
  }
  return found;
}

/** A folder has no limit of its own: what is free is what the claim leaves, or the disk, whichever is less. */
async function measure(folder: string, limit = Number.POSITIVE_INFINITY) {
  const [usedBytes, disk] = await Promise.all([
    usage(folder),
    statfs(folder).catch(() => ({ bavail: 0, blocks: 0, bsize: 0 })),
  ]);
  return {
    usedBytes,
    availableBytes: Math.max(0, Math.min(limit - usedBytes, disk.bavail * disk.bsize)),
    capacityBytes: Math.min(limit, disk.blocks * disk.bsize),
  };
}

/** Bytes on disk, as `du` counts them; files may go while we look. */
async function usage(path: string): Promise<number> {
  const stat = await lstat(path).catch(() => undefined);
  if (stat === undefined) return 0;
  let bytes = stat.blocks * 512;
  if (!stat.isDirectory()) return bytes;
  for (const name of await readdir(path).catch(() => [])) bytes += await usage(join(path, name));
  return bytes;
}

const UNITS: Readonly<Record<string, number>> = {
  ...{ k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15 },
  ...{ Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40, Pi: 2 ** 50 },
};

/** A quantity of Kubernetes in bytes, such as `10Gi`. */
export function bytesOf(quantity: string | undefined): number | undefined {
  const [, number, unit = ''] = /^(\d+(?:\.\d+)?)([kMGTP]i?|Ki)?$/.exec(quantity ?? '') ?? [];
  return number === undefined ? undefined : Number(number) * (UNITS[unit] ?? 1);
}
