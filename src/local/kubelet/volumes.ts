import { mkdir, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { V1PersistentVolume, V1PersistentVolumeClaim, V1StorageClass } from '@kubernetes/client-node';
import { type Api, ignoring, type Log, strategicMerge } from './api.ts';
import { type KubeletConfig, layout } from './config.ts';

const PROVISIONER = 'local.qdrant-fleet/host-path';
/** Volumes of EKS' own driver become folders too, so that a cluster made by the AWS provider runs here. */
const EBS = 'ebs.csi.aws.com';
const SERVED = new Set([PROVISIONER, EBS]);
const STORAGE_CLASS = 'local-path';
const SELECTED_NODE = 'volume.kubernetes.io/selected-node';
const PROVISIONED_BY = 'pv.kubernetes.io/provisioned-by';

/** The default class. Other classes may name the same provisioner, for example one called gp3 as on EKS. */
export async function createStorageClass(api: Api): Promise<void> {
  const body: V1StorageClass = {
    metadata: { name: STORAGE_CLASS, annotations: { 'storageclass.kubernetes.io/is-default-class': 'true' } },
    provisioner: PROVISIONER,
    reclaimPolicy: 'Delete',
    volumeBindingMode: 'WaitForFirstConsumer',
    allowVolumeExpansion: true,
  };
  await ignoring([409], api.storage.createStorageClass({ body }));
}

/** Makes host folders into PersistentVolumes and back; every method may be repeated at will. */
export class VolumeProvisioner {
  readonly #api: Api;
  readonly #config: KubeletConfig;
  readonly #log: Log;

  constructor(api: Api, config: KubeletConfig, log: Log) {
    this.#api = api;
    this.#config = config;
    this.#log = log;
  }

  async reconcileClaim(claim: V1PersistentVolumeClaim): Promise<void> {
    if (claim.metadata?.deletionTimestamp) return;
    if (claim.spec?.volumeName) await this.#expand(claim);
    else await this.#provision(claim);
  }

  /** Deletes folder and object of a released volume, the folder first: an object without a folder can be repeated, not the reverse. */
  async reconcileVolume(volume: V1PersistentVolume): Promise<void> {
    const name = volume.metadata?.name ?? '';
    const path = volume.spec?.hostPath?.path ?? '';
    if (volume.metadata?.annotations?.[PROVISIONED_BY] !== PROVISIONER) return;
    if (volume.status?.phase !== 'Released' || volume.spec?.persistentVolumeReclaimPolicy !== 'Delete') return;
    // Another kubelet on the same control plane looks after its own folder.
    if (dirname(path) !== layout.volumes(this.#config.dir)) return;
    await rm(path, { recursive: true, force: true });
    await ignoring([404], this.#api.core.deletePersistentVolume({ name }));
    this.#log(`volume ${name} deleted`);
  }

  async #provision(claim: V1PersistentVolumeClaim): Promise<void> {
    const { name, namespace, uid, annotations } = claim.metadata ?? {};
    const className = claim.spec?.storageClassName;
    if (!name || !namespace || !uid || !className) return;
    const storageClass = await ignoring([404], this.#api.storage.readStorageClass({ name: className }));
    if (storageClass === undefined || !SERVED.has(storageClass.provisioner)) return;
    const immediate = storageClass.volumeBindingMode !== 'WaitForFirstConsumer';
    const node = annotations?.[SELECTED_NODE] ?? (immediate ? this.#config.nodes[0]?.name : undefined);
    const own = this.#config.nodes.find(({ name: known }) => known === node);
    if (own === undefined) return;
    // A folder is of one node; EBS' volumes are of a zone, and any machine there can have them.
    const place =
      storageClass.provisioner === EBS
        ? { key: 'topology.kubernetes.io/zone', operator: 'In', values: [own.zone] }
        : { key: 'kubernetes.io/hostname', operator: 'In', values: [own.name] };

    const volume = `pvc-${uid}`;
    const path = layout.volume(this.#config.dir, volume);
    await mkdir(path, { recursive: true });
    const body: V1PersistentVolume = {
      metadata: { name: volume, annotations: { [PROVISIONED_BY]: PROVISIONER } },
      spec: {
        capacity: { storage: claim.spec?.resources?.requests?.['storage'] ?? '1Gi' },
        accessModes: claim.spec?.accessModes ?? ['ReadWriteOnce'],
        volumeMode: 'Filesystem',
        storageClassName: className,
        persistentVolumeReclaimPolicy: storageClass.reclaimPolicy ?? 'Delete',
        hostPath: { path, type: 'DirectoryOrCreate' },
        // With the uid: a claim made anew under the same name must not inherit the data.
        claimRef: { apiVersion: 'v1', kind: 'PersistentVolumeClaim', name, namespace, uid },
        nodeAffinity: {
          required: { nodeSelectorTerms: [{ matchExpressions: [place] }] },
        },
      },
    };
    if (await ignoring([409], this.#api.core.createPersistentVolume({ body }))) {
      this.#log(`volume ${volume} made on ${node} for ${namespace}/${name}`);
    }
  }

  /** A folder has no size of its own, so growing is a matter of saying so. */
  async #expand(claim: V1PersistentVolumeClaim): Promise<void> {
    const wanted = claim.spec?.resources?.requests?.['storage'];
    const actual = claim.status?.capacity?.['storage'];
    const { name, namespace } = claim.metadata ?? {};
    const volume = claim.spec?.volumeName;
    if (!wanted || !actual || !name || !namespace || !volume) return;
    // The API lets a claim never ask for less than it has, so different means more (or written differently, which is harmless).
    if (wanted === actual) return;
    const found = await ignoring([404], this.#api.core.readPersistentVolume({ name: volume }));
    if (dirname(found?.spec?.hostPath?.path ?? '') !== layout.volumes(this.#config.dir)) return;
    const capacity = { storage: wanted };
    await this.#api.core.patchPersistentVolume({ name: volume, body: { spec: { capacity } } }, strategicMerge);
    const body = { status: { capacity } };
    await this.#api.core.patchNamespacedPersistentVolumeClaimStatus({ name, namespace, body }, strategicMerge);
  }
}
