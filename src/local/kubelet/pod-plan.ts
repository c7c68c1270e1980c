import { mkdir, readFile } from 'node:fs/promises';
import { join, normalize } from 'node:path';
import type { V1Container, V1Pod } from '@kubernetes/client-node';
import { STACK_MARK } from '../leftovers.ts';
import { qdrantCommand } from '../qdrant-node/launch.ts';
import type { AddressBook } from './addresses.ts';
import { type Api, ignoring } from './api.ts';
import { type KubeletConfig, layout } from './config.ts';
import { ContainerConfigError, resolveEnv } from './container-env.ts';
import type { Command } from './processes.ts';
import { configToEnv } from './qdrant-config.ts';
import { secretFolders, writeSecrets } from './secret-volumes.ts';

const STORAGE = '/qdrant/storage';
const SNAPSHOTS = '/qdrant/snapshots';
const CONFIG_FILE = '/qdrant/config/production.yaml';

/** A volume of the pod can't be mounted yet. */
export class VolumeNotReady extends Error {
  readonly reason = 'ContainerCreating';
}

/** The image cannot be had. Nothing is pulled here; which tags are missing is written in a file of the state folder. */
export class ImageNotPulled extends Error {
  readonly reason = 'ErrImagePull';
}

async function pullImage(dir: string, image: string): Promise<void> {
  const missing = await readFile(layout.missingImages(dir), 'utf8').catch(() => '');
  const tag = /:([^:/@]+)(?:@.*)?$/.exec(image)?.[1] ?? 'latest';
  if (!missing.split('\n').some((line) => line !== '' && tag.startsWith(line))) return;
  throw new ImageNotPulled(
    `rpc error: code = NotFound desc = failed to pull and unpack image "${image}": failed to resolve reference "${image}": ${image}: not found`,
  );
}

/** The container we know how to run as a process, if the pod has one. */
export function qdrantContainer(pod: V1Pod): V1Container | undefined {
  const containers = pod.spec?.containers ?? [];
  const imageName = (container: V1Container) => container.image?.split('/').at(-1)?.split(/[:@]/)[0] ?? '';
  return (
    containers.find(({ name }) => name === 'qdrant') ??
    containers.find((container) => imageName(container).includes('qdrant'))
  );
}

/**
 * Everything needed to start the pod's Qdrant: what its spec says, translated from a container's world to this machine's.
 * @throws ContainerConfigError, VolumeNotReady, ImageNotPulled when the pod has to wait for something.
 */
export async function planPod(
  api: Api,
  config: KubeletConfig,
  addresses: AddressBook,
  pod: V1Pod,
  container: V1Container,
): Promise<Command> {
  const { namespace = '', name = '', uid = '' } = pod.metadata ?? {};
  await pullImage(config.dir, container.image ?? '');
  const ip = addresses.addressOf(namespace, name);
  const cwd = layout.sandbox(config.dir, uid);
  const storage = join(cwd, 'storage');
  const snapshots = join(cwd, 'snapshots');
  const mounts = {
    [STORAGE]: storage,
    [SNAPSHOTS]: snapshots,
    ...(await mountFolders(api, config, pod, container)),
    ...secretFolders(config.dir, pod, container),
  };
  for (const folder of [cwd, ...Object.values(mounts)]) await mkdir(folder, { recursive: true });
  if (!(await writeSecrets(api, config.dir, pod, container))) throw new VolumeNotReady('a secret is not there yet');

  const port = (portName: string, usual: number) =>
    String(container.ports?.find((candidate) => candidate.name === portName)?.containerPort ?? usual);
  const env: Record<string, string> = {
    ...inherited(),
    QDRANT__TELEMETRY_DISABLED: 'true',
    QDRANT__CLUSTER__ENABLED: 'true',
    ...versionOf(container),
    // Here peers call each other by address; their certificates are for names.
    FLEET_QDRANT_NODE_PEER_NAME: `${name.replace(/-\d+$/, '')}.${namespace}.svc`,
    ...toLocalPaths(configToEnv(await configFile(api, pod, container)), mounts),
    ...toLocalPaths(await resolveEnv(api, pod, container, ip), mounts),
    QDRANT__SERVICE__HOST: ip,
    QDRANT__SERVICE__HTTP_PORT: port('http', 6333),
    QDRANT__SERVICE__GRPC_PORT: port('grpc', 6334),
    QDRANT__CLUSTER__P2P__PORT: port('p2p', 6335),
    QDRANT__STORAGE__STORAGE_PATH: mounts[STORAGE] ?? storage,
    QDRANT__STORAGE__SNAPSHOTS_PATH: mounts[SNAPSHOTS] ?? snapshots,
  };

  const scheme = env['QDRANT__CLUSTER__P2P__ENABLE_TLS'] === 'true' ? 'https' : 'http';
  const peer = (address: string) => `${scheme}://${address}:${env['QDRANT__CLUSTER__P2P__PORT']}`;
  const first = firstPeer(name);
  const clustered = env['QDRANT__CLUSTER__ENABLED'] === 'true';
  const bootstrap = first && clustered ? peer(addresses.addressOf(namespace, first)) : undefined;
  return { ...command(config, peer(ip), bootstrap), cwd, env };
}

/** The stand-in for Qdrant is one program: it says that it is the version that the image's tag names. */
function versionOf(container: V1Container): Record<string, string> {
  const version = /:v?(\d+\.\d+\.\d+)/.exec(container.image ?? '')?.[1];
  return version === undefined ? {} : { FLEET_QDRANT_NODE_VERSION: version };
}

/** Pod 0 of the StatefulSet for every later pod: it starts the cluster, the others join it. */
function firstPeer(pod: string): string | undefined {
  const match = /^(.+)-(\d+)$/.exec(pod);
  return match && Number(match[2]) > 0 ? `${match[1]}-0` : undefined;
}

function command(config: KubeletConfig, uri: string, bootstrap?: string): { file: string; args: string[] } {
  if (config.command) {
    const [file = '', ...args] = config.command;
    return { file, args: [...args, '--uri', uri, ...(bootstrap ? ['--bootstrap', bootstrap] : [])] };
  }
  return qdrantCommand({ uri, ...(bootstrap ? { bootstrap } : {}) });
}

/** Host folder of every mount that is a claim or an emptyDir. The configuration is read elsewhere. */
async function mountFolders(
  api: Api,
  config: KubeletConfig,
  pod: V1Pod,
  container: V1Container,
): Promise<Record<string, string>> {
  const folders: Record<string, string> = {};
  for (const mount of container.volumeMounts ?? []) {
    const volume = pod.spec?.volumes?.find(({ name }) => name === mount.name);
    const claim = volume?.persistentVolumeClaim?.claimName;
    let folder: string | undefined;
    if (claim) folder = (await claimVolume(api, pod.metadata?.namespace ?? '', claim)).path;
    else if (volume?.emptyDir)
      folder = join(layout.sandbox(config.dir, pod.metadata?.uid ?? ''), 'volumes', mount.name);
    if (folder) folders[mount.mountPath] = mount.subPath ? inside(folder, mount.subPath) : folder;
  }
  return folders;
}

/** The folder behind a claim, and its size as a quantity. @throws VolumeNotReady */
export async function claimVolume(
  api: Api,
  namespace: string,
  name: string,
): Promise<{ path: string; capacity: string | undefined }> {
  const claim = await ignoring([404], api.core.readNamespacedPersistentVolumeClaim({ name, namespace }));
  const volumeName = claim?.spec?.volumeName;
  if (!claim || claim.status?.phase !== 'Bound' || !volumeName) throw new VolumeNotReady(`claim ${name} is not bound`);
  const volume = await ignoring([404], api.core.readPersistentVolume({ name: volumeName }));
  const path = volume?.spec?.hostPath?.path;
  if (!path) throw new VolumeNotReady(`volume ${volumeName} of claim ${name} is not a folder of this machine`);
  return { path, capacity: volume?.spec?.capacity?.['storage'] };
}

function inside(folder: string, subPath: string): string {
  const path = normalize(join(folder, subPath));
  if (!path.startsWith(`${folder}/`)) throw new ContainerConfigError(`subPath ${subPath} leaves its volume`);
  return path;
}

/** The text of the configuration file that the chart mounts from a ConfigMap; empty without one. */
async function configFile(api: Api, pod: V1Pod, container: V1Container): Promise<string> {
  const mount = container.volumeMounts?.find(({ mountPath }) => mountPath === CONFIG_FILE);
  const map = pod.spec?.volumes?.find(({ name }) => name === mount?.name)?.configMap;
  if (!mount || !map?.name) return '';
  const at = { name: map.name, namespace: pod.metadata?.namespace ?? '' };
  const found = await ignoring([404], api.core.readNamespacedConfigMap(at));
  if (!found && !map.optional) throw new VolumeNotReady(`configmap "${map.name}" not found`);
  return found?.data?.[mount.subPath ?? 'production.yaml'] ?? '';
}

/** Values that are paths below a mount (such as QDRANT_INIT_FILE_PATH) point to the folder behind it. */
function toLocalPaths(env: Record<string, string>, mounts: Record<string, string>): Record<string, string> {
  const translate = (value: string) => {
    const mount = Object.keys(mounts).find((path) => value === path || value.startsWith(`${path}/`));
    return mount ? `${mounts[mount]}${value.slice(mount.length)}` : value;
  };
  return Object.fromEntries(Object.entries(env).map(([key, value]) => [key, translate(value)]));
}

/** A container inherits nothing; a process needs a little, and must not see the credentials of the kubelet's environment.
 * The mark lets the stack find every process of its own. */
function inherited(): Record<string, string> {
  const names = ['PATH', 'HOME', 'TMPDIR', 'LANG', 'LC_ALL', 'XDG_CACHE_HOME', 'LD_LIBRARY_PATH', STACK_MARK];
  return Object.fromEntries(names.flatMap((name) => (process.env[name] ? [[name, process.env[name]]] : [])));
}
