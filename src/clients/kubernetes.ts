/** Kubernetes, as far as a cluster's namespace needs it. */
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import {
  ApiException,
  ApisApi,
  AppsV1Api,
  AuthenticationV1Api,
  AuthorizationV1Api,
  CoreV1Api,
  KubeConfig,
  PatchStrategy,
  RbacAuthorizationV1Api,
  setHeaderOptions,
  StorageV1Api,
  VersionApi,
  type Cluster,
  type V1ContainerStatus,
} from '@kubernetes/client-node';
import { FleetError, messageOf } from '../domain/errors.ts';
import { isLoopback } from '../domain/plaintext.ts';
import type { ContainerState } from '../domain/pod-trouble.ts';
import type { NodeState, PlacedVolume } from '../domain/pod-absence.ts';
import type { FixedShape } from '../domain/stateful-set.ts';
import type { AppliedObject } from '../domain/kubernetes-objects.ts';
import { ServerSideApply } from './server-side-apply.ts';

export interface PodInfo {
  readonly name: string;
  readonly uid: string;
  /** The template's revision that its StatefulSet made it from. */
  readonly revision?: string;
  /** Being deleted. */
  readonly terminating: boolean;
  readonly ip?: string;
  readonly ready: boolean;
  /** Why it is not ready, as Kubernetes words it. */
  readonly reason: string;
  /** The node that it is bound to, or why no node has it. */
  readonly node?: string;
  readonly unscheduled?: string;
  /** Of its Qdrant container; absent until a kubelet has told. */
  readonly container?: ContainerState;
}

/** Where a pod runs, and the names of its volumes by where its Qdrant container mounts them. */
export interface PodPlace {
  readonly name: string;
  readonly node: string;
  readonly volumes: Readonly<Record<string, string>>;
}

export interface StatefulSetInfo {
  readonly replicas: number;
  /** Of the present template; absent until the controller has seen it. */
  readonly revision?: string;
  /** What each claim template asks for. */
  readonly storage: readonly string[];
}

/** A machine as Kubernetes knows it. */
export interface MachineInfo {
  readonly name: string;
  readonly ready: boolean;
  /** EC2's id of the instance, such as `i-0a1b2c3d4e5f60718`; empty until the cloud provider has told. */
  readonly instance: string;
}

export interface ClaimInfo {
  readonly name: string;
  readonly uid: string;
  /** Kubernetes quantities. */
  readonly requested: string;
  readonly capacity: string;
  readonly className: string;
  readonly conditions: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
}

export interface SecretInfo {
  readonly values: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly labels: Readonly<Record<string, string>>;
  readonly version: string;
}

export interface NamespaceInfo {
  readonly labels: Readonly<Record<string, string>>;
  readonly terminating: boolean;
  readonly uid: string;
}

export class Kubernetes {
  readonly #core: CoreV1Api;
  readonly #apps: AppsV1Api;
  readonly #version: VersionApi;
  readonly #objects: ServerSideApply;
  readonly #storage: StorageV1Api;
  readonly #groups: ApisApi;
  readonly #authentication: AuthenticationV1Api;
  readonly #authorization: AuthorizationV1Api;
  readonly #rbac: RbacAuthorizationV1Api;
  readonly #cluster: Cluster | null;

  /** Uses `KUBECONFIG`, the user's file or the pod's service account, in kubectl's order. */
  constructor(kubeconfig?: string) {
    const config = new KubeConfig();
    if (kubeconfig === undefined) config.loadFromDefault();
    else config.loadFromString(readFileSync(kubeconfig, 'utf8'));
    this.#cluster = config.getCurrentCluster();
    this.#core = config.makeApiClient(CoreV1Api);
    this.#apps = config.makeApiClient(AppsV1Api);
    this.#version = config.makeApiClient(VersionApi);
    this.#objects = config.makeApiClient(ServerSideApply);
    this.#storage = config.makeApiClient(StorageV1Api);
    this.#groups = config.makeApiClient(ApisApi);
    this.#authentication = config.makeApiClient(AuthenticationV1Api);
    this.#authorization = config.makeApiClient(AuthorizationV1Api);
    this.#rbac = config.makeApiClient(RbacAuthorizationV1Api);
  }

  async serverVersion(): Promise<string> {
    return (await call('read the version', () => this.#version.getCode())).gitVersion;
  }

  async namespace(name: string): Promise<NamespaceInfo | undefined> {
    const found = await orMissing(`read namespace ${name}`, () => this.#core.readNamespace({ name }));
    return (
      found && {
        labels: found.metadata?.labels ?? {},
        terminating: found.metadata?.deletionTimestamp !== undefined,
        uid: found.metadata?.uid ?? '',
      }
    );
  }

  /** Returns false when it exists already. */
  async createNamespace(name: string, labels: Record<string, string>): Promise<boolean> {
    return orConflict(`create namespace ${name}`, () =>
      this.#core.createNamespace({ body: { metadata: { name, labels } } }),
    );
  }

  async deleteNamespace(name: string): Promise<void> {
    await orMissing(`delete namespace ${name}`, () => this.#core.deleteNamespace({ name }));
  }

  /** Bind a ClusterRole to whoever this client is, in one namespace. Harmless when it is bound already. */
  async bindToSelf(namespace: string, clusterRole: string): Promise<void> {
    const { status } = await call('ask who we are', () => this.#authentication.createSelfSubjectReview({ body: {} }));
    const user = status?.userInfo?.username ?? '';
    const [, home, account] = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(user) ?? [];
    const subject =
      home === undefined || account === undefined
        ? { kind: 'User', apiGroup: 'rbac.authorization.k8s.io', name: user }
        : { kind: 'ServiceAccount', namespace: home, name: account };
    await orConflict(`bind ${clusterRole} to ${user} in ${namespace}`, () =>
      this.#rbac.createNamespacedRoleBinding({
        namespace,
        body: {
          metadata: { name: clusterRole },
          roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: clusterRole },
          subjects: [subject],
        },
      }),
    );
  }

  /** Whether this client may do `verb` to a resource of the core group in a namespace, as the API server sees it now. */
  async may(namespace: string, verb: string, resource: string): Promise<boolean> {
    const { status } = await call(`ask whether we may ${verb} ${resource} in ${namespace}`, () =>
      this.#authorization.createSelfSubjectAccessReview({
        body: { spec: { resourceAttributes: { namespace, verb, resource } } },
      }),
    );
    return status?.allowed === true;
  }

  /** One value of a Secret, decoded, or `undefined` when there is none. Never log it. */
  async secretValue(namespace: string, name: string, key: string): Promise<string | undefined> {
    const secret = await orMissing(`read secret ${namespace}/${name}`, () =>
      this.#core.readNamespacedSecret({ namespace, name }),
    );
    const encoded = secret?.data?.[key];
    return encoded === undefined ? undefined : Buffer.from(encoded, 'base64').toString('utf8');
  }

  /** Returns false when it exists already; its content is left as it is then. */
  async createSecret(
    namespace: string,
    name: string,
    values: Record<string, string>,
    labels: Record<string, string>,
    annotations: Record<string, string> = {},
  ): Promise<boolean> {
    return orConflict(`create secret ${namespace}/${name}`, () =>
      this.#core.createNamespacedSecret({
        namespace,
        body: { metadata: { name, labels, annotations }, type: 'Opaque', stringData: values },
      }),
    );
  }

  /** Server-side apply with our own field manager: made or brought up to date, and fields of others are left alone. */
  async apply(object: AppliedObject): Promise<void> {
    const { kind, metadata } = object;
    await call(`apply ${kind} ${[metadata.namespace, metadata.name].filter(Boolean).join('/')}`, () =>
      this.#objects.apply(object, FIELD_MANAGER),
    );
  }

  /** Succeeds when there is none. */
  async deleteService(namespace: string, name: string): Promise<void> {
    await orMissing(`delete service ${namespace}/${name}`, () =>
      this.#core.deleteNamespacedService({ namespace, name }),
    );
  }

  /** What a StorageClass makes volumes by, and whose it is. */
  async storageClass(
    name: string,
  ): Promise<{ labels: Record<string, string>; parameters: Record<string, string> } | undefined> {
    const found = await orMissing(`read StorageClass ${name}`, () => this.#storage.readStorageClass({ name }));
    return found && { labels: found.metadata?.labels ?? {}, parameters: found.parameters ?? {} };
  }

  async deleteStorageClass(name: string): Promise<void> {
    await orMissing(`delete StorageClass ${name}`, () => this.#storage.deleteStorageClass({ name }));
  }

  /** Whether the API server knows an API group, such as that of an operator. */
  async hasApiGroup(name: string): Promise<boolean> {
    const { groups } = await call('list the API groups', () => this.#groups.getAPIVersions());
    return groups.some((group) => group.name === name);
  }

  async pods(namespace: string, labelSelector?: string): Promise<PodInfo[]> {
    const { items } = await call(`list pods in ${namespace}`, () =>
      this.#core.listNamespacedPod({ namespace, ...(labelSelector !== undefined && { labelSelector }) }),
    );
    return items.map(({ metadata, spec, status }) => {
      const condition = status?.conditions?.find(({ type }) => type === 'Ready');
      const statuses = status?.containerStatuses ?? [];
      const container = statuses.find(({ name }) => name === 'qdrant') ?? statuses[0];
      const { waiting, terminated } = container?.state ?? {};
      const scheduled = status?.conditions?.find(({ type }) => type === 'PodScheduled');
      const reasons = [
        waiting?.reason ?? terminated?.reason,
        waiting?.message,
        scheduled?.status === 'False' ? scheduled.message : undefined,
      ];
      const revision = metadata?.labels?.['controller-revision-hash'];
      return {
        name: metadata?.name ?? '',
        uid: metadata?.uid ?? '',
        ...(revision !== undefined && { revision }),
        terminating: metadata?.deletionTimestamp !== undefined,
        ...(status?.podIP !== undefined && { ip: status.podIP }),
        ready: condition?.status === 'True',
        reason: reasons.filter((part) => part !== undefined).join(': ') || (status?.phase ?? 'Unknown'),
        ...(spec?.nodeName !== undefined && { node: spec.nodeName }),
        ...(scheduled?.status === 'False' && { unscheduled: scheduled.message ?? scheduled.reason ?? '' }),
        ...(container !== undefined && { container: containerState(container, metadata?.creationTimestamp) }),
      };
    });
  }

  /** The pods that were given to a node. */
  async podPlaces(namespace: string, labelSelector: string): Promise<PodPlace[]> {
    const { items } = await call(`list pods in ${namespace}`, () =>
      this.#core.listNamespacedPod({ namespace, labelSelector }),
    );
    return items.flatMap(({ metadata, spec }) => {
      const container = spec?.containers.find(({ name }) => name === 'qdrant') ?? spec?.containers[0];
      const volumes = Object.fromEntries((container?.volumeMounts ?? []).map((mount) => [mount.mountPath, mount.name]));
      return spec?.nodeName === undefined ? [] : [{ name: metadata?.name ?? '', node: spec.nodeName, volumes }];
    });
  }

  /** The machines of these labels that have joined. */
  async machines(labelSelector: string): Promise<MachineInfo[]> {
    const { items } = await call(`list the nodes of ${labelSelector}`, () => this.#core.listNode({ labelSelector }));
    return items.map(({ metadata, spec, status }) => ({
      name: metadata?.name ?? '',
      ready: status?.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True') === true,
      // aws:///us-east-1a/i-0a1b2c3d4e5f60718
      instance: spec?.providerID?.split('/').at(-1) ?? '',
    }));
  }

  /** Of each volume that is bound to a claim in a namespace: the claim, and the zone or the node that it is tied to. */
  async volumePlaces(namespace: string): Promise<PlacedVolume[]> {
    const { items } = await call('list the volumes', () => this.#core.listPersistentVolume());
    return items.flatMap(({ metadata, spec }) => {
      if (spec?.claimRef?.namespace !== namespace) return [];
      const expressions = (spec.nodeAffinity?.required?.nodeSelectorTerms ?? []).flatMap(
        ({ matchExpressions = [] }) => matchExpressions,
      );
      const valueOf = (suffix: string) => expressions.find(({ key }) => key.endsWith(suffix))?.values?.[0];
      const [zone, node] = [valueOf('/zone'), valueOf('/hostname')];
      return [
        {
          volume: metadata?.name ?? '',
          claim: spec.claimRef.name ?? '',
          ...(zone !== undefined && { zone }),
          ...(node !== undefined && { node }),
        },
      ];
    });
  }

  /** How a node is; `undefined` when there is none of that name. */
  async nodeState(name: string): Promise<NodeState | undefined> {
    const found = await orMissing(`read node ${name}`, () => this.#core.readNode({ name }));
    const ready = found?.status?.conditions?.find(({ type }) => type === 'Ready');
    return (
      found && {
        ready: ready?.status === 'True',
        reason: ready?.message ?? ready?.reason ?? 'it has not told yet',
        cordoned: found.spec?.unschedulable === true,
      }
    );
  }

  /** Names of the volumes that are attached to some machine. */
  async attachedVolumes(): Promise<Set<string>> {
    const { items } = await call('list the attached volumes', () => this.#storage.listVolumeAttachment());
    return new Set(items.map(({ spec }) => spec.source.persistentVolumeName ?? ''));
  }

  /**
   * Where the kubelet of a node answers. Kubelets serve HTTPS; those of a local stack, on loopback addresses, serve HTTP. A
   * node says its own address, so loopback counts only where the API server is there, too: elsewhere it would lead to
   * what runs beside the worker.
   *
   * @returns nothing for a node that is not there or has no address that may be asked
   */
  async kubeletOrigin(node: string): Promise<string | undefined> {
    const found = await orMissing(`read node ${node}`, () => this.#core.readNode({ name: node }));
    const ip = found?.status?.addresses?.find(({ type }) => type === 'InternalIP')?.address;
    const port = found?.status?.daemonEndpoints?.kubeletEndpoint?.Port ?? KUBELET_PORT;
    if (ip === undefined || isIP(ip) === 0 || isUnspecified(ip)) return undefined;
    const local = isLoopback(ip);
    if (local && !isLoopback(new URL(this.#cluster?.server ?? 'https://none').hostname)) return undefined;
    return `${local ? 'http' : 'https'}://${isIP(ip) === 6 ? `[${ip}]` : ip}:${port}`;
  }

  /** A token of a service account, good for ten minutes. Never log it. */
  async serviceAccountToken(namespace: string, name: string): Promise<string> {
    const { status } = await call(`make a token of service account ${namespace}/${name}`, () =>
      this.#core.createNamespacedServiceAccountToken({
        namespace,
        name,
        body: { spec: { audiences: [], expirationSeconds: TOKEN_SECONDS } },
      }),
    );
    return status?.token ?? '';
  }

  /** The authority that the API server's certificate is checked against, in PEM. */
  get authority(): string | undefined {
    const { caData, caFile } = this.#cluster ?? {};
    if (caData !== undefined) return Buffer.from(caData, 'base64').toString();
    return caFile === undefined ? undefined : readFileSync(caFile, 'utf8');
  }

  async statefulSetReplicas(namespace: string, name: string): Promise<number | undefined> {
    const set = await orMissing(`read StatefulSet ${namespace}/${name}`, () =>
      this.#apps.readNamespacedStatefulSet({ namespace, name }),
    );
    return set && (set.spec?.replicas ?? 1);
  }

  async statefulSet(namespace: string, name: string): Promise<StatefulSetInfo | undefined> {
    const set = await orMissing(`read StatefulSet ${namespace}/${name}`, () =>
      this.#apps.readNamespacedStatefulSet({ namespace, name }),
    );
    if (set === undefined) return undefined;
    const { metadata, spec, status } = set;
    return {
      replicas: spec?.replicas ?? 1,
      // Of an older generation the status tells about an older template.
      ...(status?.updateRevision !== undefined &&
        status.observedGeneration === metadata?.generation && { revision: status.updateRevision }),
      storage: (spec?.volumeClaimTemplates ?? []).map((claim) => claim.spec?.resources?.requests?.['storage'] ?? ''),
    };
  }

  /** Those parts of the StatefulSet that cannot be changed. */
  async statefulSetShape(namespace: string, name: string): Promise<FixedShape | undefined> {
    const set = await orMissing(`read StatefulSet ${namespace}/${name}`, () =>
      this.#apps.readNamespacedStatefulSet({ namespace, name }),
    );
    return set?.spec;
  }

  /** Remove the StatefulSet and leave its pods and claims as they are. */
  async orphanStatefulSet(namespace: string, name: string): Promise<void> {
    await orMissing(`delete StatefulSet ${namespace}/${name}`, () =>
      this.#apps.deleteNamespacedStatefulSet({ namespace, name, body: { propagationPolicy: 'Orphan' } }),
    );
  }

  /** Delete one incarnation of a pod; a later one of the same name is left alone. */
  async deletePod(namespace: string, name: string, uid: string): Promise<void> {
    await unlessReplaced(`delete pod ${namespace}/${name}`, () =>
      this.#core.deleteNamespacedPod({ namespace, name, body: { preconditions: { uid } } }),
    );
  }

  async claims(namespace: string): Promise<ClaimInfo[]> {
    const { items } = await call(`list volume claims in ${namespace}`, () =>
      this.#core.listNamespacedPersistentVolumeClaim({ namespace }),
    );
    return items.map(({ metadata, spec, status }) => ({
      name: metadata?.name ?? '',
      uid: metadata?.uid ?? '',
      requested: spec?.resources?.requests?.['storage'] ?? '0',
      capacity: status?.capacity?.['storage'] ?? '0',
      className: spec?.storageClassName ?? '',
      conditions: (status?.conditions ?? []).map(({ type, message }) => (message ? `${type}: ${message}` : type)),
      labels: metadata?.labels ?? {},
    }));
  }

  async growClaim(namespace: string, name: string, storage: string): Promise<void> {
    await call(`grow volume claim ${namespace}/${name} to ${storage}`, () =>
      this.#core.patchNamespacedPersistentVolumeClaim(
        { namespace, name, body: { spec: { resources: { requests: { storage } } } } },
        setHeaderOptions('Content-Type', PatchStrategy.MergePatch),
      ),
    );
  }

  /** Whether claims of a StorageClass may grow. */
  async allowsExpansion(className: string): Promise<boolean> {
    const found = await orMissing(`read StorageClass ${className}`, () =>
      this.#storage.readStorageClass({ name: className }),
    );
    return found?.allowVolumeExpansion === true;
  }

  /** A Secret's values, decoded, with its annotations and version. Never log it. */
  async secret(namespace: string, name: string): Promise<SecretInfo | undefined> {
    const secret = await orMissing(`read secret ${namespace}/${name}`, () =>
      this.#core.readNamespacedSecret({ namespace, name }),
    );
    if (secret === undefined) return undefined;
    const values = Object.entries(secret.data ?? {}).map(([key, encoded]) => [
      key,
      Buffer.from(encoded, 'base64').toString('utf8'),
    ]);
    return {
      values: Object.fromEntries(values),
      annotations: secret.metadata?.annotations ?? {},
      labels: secret.metadata?.labels ?? {},
      version: secret.metadata?.resourceVersion ?? '',
    };
  }

  /** Replace a Secret's content. @throws FleetError `KubernetesUnavailable` when it was changed since it was read */
  async replaceSecret(namespace: string, name: string, { values, annotations, labels, version }: SecretInfo) {
    await call(`replace secret ${namespace}/${name}`, () =>
      this.#core.replaceNamespacedSecret({
        namespace,
        name,
        body: {
          metadata: { name, labels: { ...labels }, annotations: { ...annotations }, resourceVersion: version },
          type: 'Opaque',
          stringData: { ...values },
        },
      }),
    );
  }

  async volumeClaims(namespace: string): Promise<string[]> {
    const { items } = await call(`list volume claims in ${namespace}`, () =>
      this.#core.listNamespacedPersistentVolumeClaim({ namespace }),
    );
    return items.map(({ metadata }) => metadata?.name ?? '');
  }

  /** @param uid only this one; a later one of the same name is left alone */
  async deleteVolumeClaim(namespace: string, name: string, uid?: string): Promise<void> {
    await unlessReplaced(`delete volume claim ${namespace}/${name}`, () =>
      this.#core.deleteNamespacedPersistentVolumeClaim({
        namespace,
        name,
        ...(uid !== undefined && { body: { preconditions: { uid } } }),
      }),
    );
  }
}

function containerState(
  { image, restartCount, state, lastState }: V1ContainerStatus,
  madeAt = new Date(),
): ContainerState {
  const ended = state?.terminated ?? lastState?.terminated;
  return {
    image,
    restarts: restartCount,
    started: state?.running !== undefined || ended !== undefined || restartCount > 0,
    ageSeconds: (Date.now() - new Date(madeAt).getTime()) / 1000,
    ...(state?.waiting?.reason !== undefined && {
      waiting: { reason: state.waiting.reason, message: state.waiting.message ?? '' },
    }),
    ...(ended !== undefined && { ended: { exitCode: ended.exitCode, reason: ended.reason ?? '' } }),
  };
}

const KUBELET_PORT = 10_250;
/** The least that the API server gives a token. */
const TOKEN_SECONDS = 600;
const FIELD_MANAGER = 'qdrant-fleet';

async function orMissing<T>(what: string, send: () => Promise<T>): Promise<T | undefined> {
  try {
    return await send();
  } catch (error) {
    if (error instanceof ApiException && error.code === 404) return undefined;
    throw mapError(error, what);
  }
}

/** Deletes one incarnation: what is gone, or is another one by now, is left alone. */
async function unlessReplaced(what: string, send: () => Promise<unknown>): Promise<void> {
  try {
    await orMissing(what, send);
  } catch (error) {
    const { cause } = error as { cause?: unknown };
    if (cause instanceof ApiException && cause.code === 409 && reasonOf(cause).includes('Precondition failed')) return;
    throw error;
  }
}

async function orConflict(what: string, send: () => Promise<unknown>): Promise<boolean> {
  try {
    await send();
    return true;
  } catch (error) {
    if (error instanceof ApiException && error.code === 409 && reasonOf(error).includes('already exists')) return false;
    throw mapError(error, what);
  }
}

async function call<T>(what: string, send: () => Promise<T>): Promise<T> {
  try {
    return await send();
  } catch (error) {
    throw mapError(error, what);
  }
}

function mapError(error: unknown, what: string): FleetError {
  if (error instanceof ApiException) {
    const { code } = error;
    const reason = reasonOf(error);
    // 409 on delete or create while a namespace terminates passes with time, as do throttling and server errors.
    const passing = code === 409 || code === 429 || code >= 500;
    return new FleetError(
      passing ? 'KubernetesUnavailable' : 'KubernetesDenied',
      `Kubernetes answered ${code} when asked to ${what}: ${reason}`,
      { cause: error },
    );
  }
  return new FleetError(
    'KubernetesUnavailable',
    `Kubernetes did not answer when asked to ${what}: ${messageOf(error)}`,
    {
      cause: error,
    },
  );
}

/** client-node leaves the body of an error as text. */
function reasonOf(error: ApiException<unknown>): string {
  const body = typeof error.body === 'string' ? error.body : JSON.stringify(error.body);
  try {
    return (JSON.parse(body) as { message?: string }).message ?? body;
  } catch (parseError) {
    if (!(parseError instanceof SyntaxError)) throw parseError;
    return body.slice(0, 300);
  }
}

/** `0.0.0.0` and `::` lead to this machine. */
function isUnspecified(ip: string): boolean {
  return ip === '0.0.0.0' || /^[0:]+$/.test(ip);
}
