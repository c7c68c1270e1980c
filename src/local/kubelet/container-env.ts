import type { V1Container, V1EnvVar, V1Pod } from '@kubernetes/client-node';
import { type Api, ignoring } from './api.ts';

/** The pod refers to something that isn't there (yet); the pod waits with this reason, as under a real kubelet. */
export class ContainerConfigError extends Error {
  readonly reason = 'CreateContainerConfigError';
}

/**
 * The container's environment as its spec says: envFrom first, then env in order, `$(NAME)` expanded.
 * Secrets are read here, given to the process and never written anywhere.
 * @throws ContainerConfigError when a Secret, ConfigMap or key that isn't optional is missing.
 */
export async function resolveEnv(
  api: Api,
  pod: V1Pod,
  container: V1Container,
  podIp: string,
): Promise<Record<string, string>> {
  const namespace = pod.metadata?.namespace ?? '';
  const sources = new Sources(api, namespace);
  const env: Record<string, string> = {};
  for (const { prefix = '', secretRef, configMapRef } of container.envFrom ?? []) {
    const data = secretRef
      ? await sources.secret(secretRef.name ?? '', secretRef.optional)
      : await sources.configMap(configMapRef?.name ?? '', configMapRef?.optional);
    for (const [key, value] of Object.entries(data ?? {})) env[prefix + key] = value;
  }
  for (const variable of container.env ?? []) {
    const value = variable.valueFrom
      ? await valueFrom(sources, pod, variable, podIp)
      : expand(variable.value ?? '', env);
    if (value !== undefined) env[variable.name] = value;
  }
  return env;
}

async function valueFrom(sources: Sources, pod: V1Pod, variable: V1EnvVar, podIp: string): Promise<string | undefined> {
  const { secretKeyRef, configMapKeyRef, fieldRef } = variable.valueFrom ?? {};
  if (fieldRef) return fieldOf(pod, fieldRef.fieldPath, podIp);
  const ref = secretKeyRef ?? configMapKeyRef;
  if (!ref) throw new ContainerConfigError(`env ${variable.name}: this kind of valueFrom is not supported here`);
  const [kind, data] = secretKeyRef
    ? ['secret', await sources.secret(ref.name ?? '', ref.optional)]
    : ['configmap', await sources.configMap(ref.name ?? '', ref.optional)];
  const value = data?.[ref.key];
  if (value === undefined && !ref.optional) {
    throw new ContainerConfigError(`couldn't find key ${ref.key} in ${kind} ${ref.name}`);
  }
  return value;
}

function fieldOf(pod: V1Pod, path: string, podIp: string): string {
  const { metadata, spec } = pod;
  const bracketed = /^metadata\.(labels|annotations)\['(.+)'\]$/.exec(path);
  if (bracketed?.[2]) {
    return metadata?.[bracketed[1] === 'labels' ? 'labels' : 'annotations']?.[bracketed[2]] ?? '';
  }
  const fields: Record<string, string | undefined> = {
    'metadata.name': metadata?.name,
    'metadata.namespace': metadata?.namespace,
    'metadata.uid': metadata?.uid,
    'spec.nodeName': spec?.nodeName,
    'spec.serviceAccountName': spec?.serviceAccountName ?? 'default',
    'status.podIP': podIp,
    'status.podIPs': podIp,
    'status.hostIP': '127.0.0.1',
  };
  const value = fields[path];
  if (value === undefined) throw new ContainerConfigError(`fieldRef ${path} is not supported here`);
  return value;
}

/** `$(NAME)` becomes the value of an earlier variable, `$$(NAME)` stays literally `$(NAME)`. */
function expand(value: string, env: Record<string, string>): string {
  return value.replaceAll(/\$(\$?)\(([\w.-]+)\)/g, (whole, escaped: string, name: string) =>
    escaped ? whole.slice(1) : (env[name] ?? whole),
  );
}

/** Reads each Secret and ConfigMap once per start of a container. */
class Sources {
  readonly #api: Api;
  readonly #namespace: string;
  readonly #cache = new Map<string, Promise<Record<string, string> | undefined>>();

  constructor(api: Api, namespace: string) {
    this.#api = api;
    this.#namespace = namespace;
  }

  secret(name: string, optional = false): Promise<Record<string, string> | undefined> {
    return this.#read(`secret "${name}"`, optional, async () => {
      const secret = await ignoring([404], this.#api.core.readNamespacedSecret({ name, namespace: this.#namespace }));
      const entries = Object.entries(secret?.data ?? {});
      return (
        secret && Object.fromEntries(entries.map(([key, value]) => [key, Buffer.from(value, 'base64').toString()]))
      );
    });
  }

  configMap(name: string, optional = false): Promise<Record<string, string> | undefined> {
    return this.#read(`configmap "${name}"`, optional, async () => {
      const map = await ignoring([404], this.#api.core.readNamespacedConfigMap({ name, namespace: this.#namespace }));
      return map && { ...map.data };
    });
  }

  async #read(
    what: string,
    optional: boolean,
    read: () => Promise<Record<string, string> | undefined>,
  ): Promise<Record<string, string> | undefined> {
    const reading = this.#cache.get(what) ?? read();
    this.#cache.set(what, reading);
    const data = await reading;
    if (!data && !optional) throw new ContainerConfigError(`${what} not found`);
    return data;
  }
}
