/** Volumes of a cluster on AWS: the class that Kubernetes makes them by, and that none is left. */
import { findEc2 } from '../src/clients/aws/inventory.ts';
import { carries, clusterTags, eksNameOf, type Tags } from '../src/domain/aws-names.ts';
import type { AwsSpec } from '../src/domain/aws.ts';
import { canonicalJson } from '../src/domain/canonical-json.ts';
import { FleetError } from '../src/domain/errors.ts';
import type { AppliedObject } from '../src/domain/kubernetes-objects.ts';
import { clusterLabels, storageClassOf, type ClusterRef } from '../src/domain/naming.ts';
import { ifThere } from '../src/clients/aws/answers.ts';
import { Ledger } from './aws-ledger.ts';
import type { ActivityDeps } from './deps.ts';

export function createAwsStorageActivities(deps: ActivityDeps) {
  return {
    /**
     * Encrypted gp3 volumes that can grow, are made in the zone of their pod, and go with their claim. One that an
     * earlier operation left is made anew: Kubernetes changes no parameters, and volumes do not depend on it.
     *
     * @throws FleetError `ResourceNotOurs` when one of that name is somebody else's
     */
    async ensureStorageClass({ spec, ...ref }: ClusterRef & { spec: AwsSpec }): Promise<{ storageClass: string }> {
      const { kubernetes } = await deps.clusters.of(ref);
      const ledger = await Ledger.open(deps, ref, spec.region);
      const name = storageClassOf(ref);
      const wanted = storageClassObject(ref, spec, ledger.scope(true));
      const found = await kubernetes.storageClass(name);
      if (found !== undefined && !carries(found.labels, clusterLabels(ref))) {
        throw new FleetError(
          'ResourceNotOurs',
          `The StorageClass "${name}" was not made for ${ref.tenant}/${ref.cluster}. Remove it, or choose another cluster name.`,
        );
      }
      if (found !== undefined && canonicalJson(found.parameters) !== canonicalJson(wanted['parameters'])) {
        await kubernetes.deleteStorageClass(name);
      }
      await kubernetes.apply(wanted);
      return { storageClass: name };
    },

    /**
     * Whether there is a Kubernetes API to take the cluster out of. A removal that was interrupted comes back after
     * the EKS cluster has gone, and then has nothing more to do there.
     */
    async controlPlaneExists(input: ClusterRef & { region: string; eksCluster?: string }): Promise<boolean> {
      const { eks } = await deps.aws.of(input.region);
      const found = await ifThere(() => eks.describeCluster({ name: input.eksCluster ?? eksNameOf(input) }));
      return found?.cluster?.status === 'ACTIVE' || found?.cluster?.status === 'UPDATING';
    },

    /**
     * Remove the storage class, and wait for Kubernetes to remove the cluster's volumes: only its driver, which runs
     * on the machines, detaches them in good order.
     *
     * @throws FleetError `InfrastructureBlocked` while volumes are left
     */
    async drainVolumes({ region, ...ref }: ClusterRef & { region: string }): Promise<void> {
      const { kubernetes } = await deps.clusters.of(ref);
      await kubernetes.deleteStorageClass(storageClassOf(ref));
      const { owner } = await Ledger.open(deps, ref, region);
      const volumes = await findEc2(await deps.aws.of(region), 'volume', clusterTags(owner));
      // The machines' own go with the machines.
      const claims = volumes.filter(({ slot }) => slot === undefined);
      if (claims.length === 0) return;
      throw new FleetError(
        'InfrastructureBlocked',
        `Volumes ${claims.map(({ id }) => id).join(', ')} of ${ref.tenant}/${ref.cluster} are not removed yet.`,
      );
    },
  };
}

function storageClassObject(ref: ClusterRef, spec: AwsSpec, tags: Tags): AppliedObject {
  // The driver's own way of tagging: without these a volume that outlives its claim would be nobody's.
  const specifications = Object.entries(tags).map(([key, value], index) => [
    `tagSpecification_${index + 1}`,
    `${key}=${value}`,
  ]);
  return {
    apiVersion: 'storage.k8s.io/v1',
    kind: 'StorageClass',
    metadata: {
      name: storageClassOf(ref),
      labels: clusterLabels(ref),
    },
    provisioner: 'ebs.csi.aws.com',
    parameters: {
      type: 'gp3',
      encrypted: 'true',
      iops: String(spec.volumeIops),
      throughput: String(spec.volumeThroughput),
      ...(Object.fromEntries(specifications) as Record<string, string>),
    },
    allowVolumeExpansion: true,
    reclaimPolicy: 'Delete',
    volumeBindingMode: 'WaitForFirstConsumer',
  };
}
