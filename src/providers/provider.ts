/** What a provider does for the fleet, beyond what its rooms' activities make. */
import type { Helm } from '../clients/helm.ts';
import type { Kubernetes } from '../clients/kubernetes.ts';
import type { ClusterSpec } from '../domain/cluster.ts';
import type { ClusterRef } from '../domain/naming.ts';
import type { ProviderCapabilities, SupportedProvider } from '../domain/provider.ts';

/** How to reach the Kubernetes cluster that a Qdrant cluster lives in. */
export interface KubernetesAccess {
  readonly kubernetes: Kubernetes;
  readonly helm: Helm;
  /** ClusterRole that the worker binds itself to in each namespace it makes; none where it has all rights already. */
  readonly namespaceRole?: string;
}

export interface Provider {
  readonly name: SupportedProvider;
  readonly capabilities: ProviderCapabilities;
  /** Access to a cluster's Kubernetes, good for the next minutes. */
  access(ref: ClusterRef, spec?: ClusterSpec): Promise<KubernetesAccess>;
  /** Removes what it keeps on disk. */
  close(): Promise<void>;
}
