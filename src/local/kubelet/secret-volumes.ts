/** Secrets as files, as a kubelet mounts them: a pod reads each file through a link, and all files change at once. */
import { createHash } from 'node:crypto';
import { mkdir, readdir, readlink, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { V1Container, V1Pod, V1SecretVolumeSource } from '@kubernetes/client-node';
import { pause } from '../wait.ts';
import { type Api, describe, ignoring, type Log } from './api.ts';
import { layout } from './config.ts';

/** A real kubelet takes up to a minute or two. Here somebody waits for it. */
const SYNC_MS = 2000;

interface Mount {
  readonly path: string;
  readonly folder: string;
  readonly source: V1SecretVolumeSource;
}

/** Host folder of each mount that is a Secret. */
export function secretFolders(dir: string, pod: V1Pod, container: V1Container): Record<string, string> {
  return Object.fromEntries(mountsOf(dir, pod, container).map(({ path, folder }) => [path, folder]));
}

/** @returns false while a Secret that is not optional, or an entry of one, is missing */
export async function writeSecrets(api: Api, dir: string, pod: V1Pod, container: V1Container): Promise<boolean> {
  let complete = true;
  for (const { folder, source } of mountsOf(dir, pod, container)) {
    const files = await filesOf(api, pod.metadata?.namespace ?? '', source);
    if (files === undefined) complete &&= source.optional === true;
    else await swap(folder, files);
  }
  return complete;
}

/** Until the signal ends it: a Secret that has changed is written anew. */
export async function followSecrets(
  api: Api,
  dir: string,
  pod: V1Pod,
  container: V1Container,
  signal: AbortSignal,
  log: Log,
): Promise<void> {
  if (mountsOf(dir, pod, container).length === 0) return;
  while (!signal.aborted) {
    await pause(SYNC_MS, signal);
    if (signal.aborted) return;
    await writeSecrets(api, dir, pod, container).catch((error: unknown) =>
      log(`${pod.metadata?.namespace}/${pod.metadata?.name}: secrets: ${describe(error)}`),
    );
  }
}

function mountsOf(dir: string, pod: V1Pod, container: V1Container): Mount[] {
  return (container.volumeMounts ?? []).flatMap(({ name, mountPath: path }) => {
    const source = pod.spec?.volumes?.find((volume) => volume.name === name)?.secret;
    const folder = join(layout.sandbox(dir, pod.metadata?.uid ?? ''), 'secrets', name);
    return source === undefined ? [] : [{ path, folder, source }];
  });
}

async function filesOf(
  api: Api,
  namespace: string,
  { secretName: name = '', items }: V1SecretVolumeSource,
): Promise<Record<string, Buffer> | undefined> {
  const data = (await ignoring([404], api.core.readNamespacedSecret({ name, namespace })))?.data;
  if (data === undefined) return undefined;
  const wanted = items ?? Object.keys(data).map((key) => ({ key, path: key }));
  if (wanted.some(({ key }) => data[key] === undefined)) return undefined;
  return Object.fromEntries(wanted.map(({ key, path }) => [path, Buffer.from(data[key] ?? '', 'base64')]));
}

/** `file -> ..data/file`, `..data -> ..<version>`: one rename changes all of them. */
async function swap(folder: string, files: Record<string, Buffer>): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const data = join(folder, '..data');
  const version = `..${versionOf(files)}`;
  const before = await readlink(data).catch(() => undefined);
  if (before === version) return;
  await mkdir(join(folder, version), { recursive: true, mode: 0o700 });
  for (const [name, content] of Object.entries(files)) {
    await writeFile(join(folder, version, name), content, { mode: 0o400, flag: 'w' });
  }
  await symlink(version, `${data}_tmp`);
  await rename(`${data}_tmp`, data);
  const present = new Set(await readdir(folder));
  for (const name of Object.keys(files)) {
    if (!present.has(name)) await symlink(join('..data', name), join(folder, name));
  }
  if (before !== undefined) await rm(join(folder, before), { recursive: true, force: true });
}

function versionOf(files: Record<string, Buffer>): string {
  const hash = createHash('sha256');
  for (const [name, content] of Object.entries(files)) hash.update(`${name} ${content.length}\n`).update(content);
  return hash.digest('hex').slice(0, 16);
}
