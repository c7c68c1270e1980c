/** Machines of a test's own that can be lost: nodes that the local kubelet serves for as long as their objects exist. */
import { CoreV1Api, PatchStrategy, setHeaderOptions, StorageV1Api, type V1Pod } from '@kubernetes/client-node';
import type { Placement } from '../../src/domain/cluster.ts';
import { namespaceOf, RELEASE_NAME, type ClusterRef } from '../../src/domain/naming.ts';
import { ignoring } from '../../src/local/kubelet/api.ts';
import { MACHINES_POOL, POOL_LABEL, POWER } from '../../src/local/kubelet/nodes.ts';
import { until, type Fleet } from './fleet.ts';

/** EKS' own driver, whose volumes can be used by every machine of a zone. */
const EBS = 'ebs.csi.aws.com';

export class Machines {
  /** All machines of a test are in one zone that no others are in. */
  readonly zone: string;
  /** A StorageClass whose volumes are of a zone; those of the default class are of a machine. */
  readonly networkClass: string;
  readonly #fleet: Fleet;
  readonly #core: CoreV1Api;
  readonly #storage: StorageV1Api;
  readonly #names = new Set<string>();

  constructor(fleet: Fleet) {
    this.#fleet = fleet;
    this.#core = fleet.kubernetes(CoreV1Api);
    this.#storage = fleet.kubernetes(StorageV1Api);
    this.zone = `zone-${fleet.tenant}`;
    this.networkClass = `ebs-${fleet.tenant}`;
  }

  /** What lets a cluster's pods run here. */
  get placement(): Placement {
    return { tolerations: [{ key: this.zone, operator: 'Exists' }] };
  }

  name(suffix: string): string {
    return `machine-${this.#fleet.tenant}-${suffix}`;
  }

  /** Start it, or start it again, and wait until it is ready. */
  async start(suffix: string): Promise<string> {
    const name = this.name(suffix);
    this.#names.add(name);
    const labels = {
      'kubernetes.io/hostname': name,
      'kubernetes.io/os': 'linux',
      'topology.kubernetes.io/zone': this.zone,
      [POOL_LABEL]: MACHINES_POOL,
    };
    // Nobody else's pods may come here: they would be lost with it.
    const taints = [{ key: this.zone, effect: 'NoSchedule' }];
    await this.#core.createNode({ body: { metadata: { name, labels }, spec: { taints } } });
    await until(`node ${name} is ready`, async () => {
      const { status } = await this.#core.readNode({ name });
      return status?.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True');
    });
    return name;
  }

  /** Its processes end at once, and the cloud takes its node away; nobody tells its pods. */
  async lose(suffix: string): Promise<void> {
    await this.#core.deleteNode({ name: this.name(suffix) });
  }

  /** It hangs: its node stays, and nobody speaks for it any more. */
  async hang(suffix: string): Promise<void> {
    await this.#core.patchNode(
      { name: this.name(suffix), body: { metadata: { annotations: { [POWER]: 'off' } } } },
      setHeaderOptions('Content-Type', PatchStrategy.MergePatch),
    );
  }

  /** All of them. */
  async clear(): Promise<void> {
    for (const name of this.#names) await ignoring([404], this.#core.deleteNode({ name }));
    this.#names.clear();
  }

  /** The claims of a pod that is to come, with volumes that tie it to a machine, or to its zone. */
  async tie(ref: ClusterRef, pod: string, suffix: string, kind: 'local' | 'network'): Promise<void> {
    const namespace = namespaceOf(ref);
    const [storageClassName] = kind === 'network' ? [this.networkClass] : ['local-path'];
    if (kind === 'network') {
      await ignoring(
        [409],
        this.#storage.createStorageClass({
          body: {
            metadata: { name: this.networkClass },
            provisioner: EBS,
            reclaimPolicy: 'Delete',
            volumeBindingMode: 'WaitForFirstConsumer',
            allowVolumeExpansion: true,
          },
        }),
      );
    }
    for (const name of claimsOf(pod)) {
      await this.#core.createNamespacedPersistentVolumeClaim({
        namespace,
        body: {
          metadata: { name, annotations: { 'volume.kubernetes.io/selected-node': this.name(suffix) } },
          spec: {
            storageClassName,
            accessModes: ['ReadWriteOnce'],
            resources: { requests: { storage: '1Gi' } },
          },
        },
      });
    }
    await until(`the volumes of ${pod} are bound`, async () => {
      const { items } = await this.#core.listNamespacedPersistentVolumeClaim({ namespace });
      return (
        items.filter(({ metadata, status }) => metadata?.name?.endsWith(pod) && status?.phase === 'Bound').length === 2
      );
    });
  }

  /** Label the claims of a pod as those are that its StatefulSet makes. */
  async adopted(ref: ClusterRef, pod: string): Promise<void> {
    for (const name of claimsOf(pod)) {
      await this.#core.patchNamespacedPersistentVolumeClaim(
        {
          name,
          namespace: namespaceOf(ref),
          body: { metadata: { labels: { 'app.kubernetes.io/instance': RELEASE_NAME } } },
        },
        setHeaderOptions('Content-Type', PatchStrategy.MergePatch),
      );
    }
  }

  pod(ref: ClusterRef, name: string): Promise<V1Pod | undefined> {
    return ignoring([404], this.#core.readNamespacedPod({ namespace: namespaceOf(ref), name }));
  }

  /** Where a pod is, once it is ready there. */
  async placeOf(ref: ClusterRef, name: string): Promise<string | undefined> {
    const found = await this.pod(ref, name);
    const ready = found?.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True');
    return ready === true ? found?.spec?.nodeName : undefined;
  }

  async close(): Promise<void> {
    await this.clear();
    await ignoring([404], this.#storage.deleteStorageClass({ name: this.networkClass }));
  }
}

function claimsOf(pod: string): string[] {
  return [`qdrant-storage-${pod}`, `qdrant-snapshots-${pod}`];
}
