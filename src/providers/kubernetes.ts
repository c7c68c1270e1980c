/** Bring your own: all Qdrant clusters live in the Kubernetes cluster that the worker's configuration names. */
import { Helm } from '../clients/helm.ts';
import { Kubernetes } from '../clients/kubernetes.ts';
import { capabilitiesOf } from '../domain/provider.ts';
import type { Provider } from './provider.ts';

interface Options {
  readonly helm: string;
  /** Names of variables that reach Helm besides the usual ones. */
  readonly helmEnv: readonly string[];
  readonly kubeconfig?: string | undefined;
  readonly namespaceRole?: string | undefined;
}

export function kubernetesProvider({ helm, helmEnv, kubeconfig, namespaceRole }: Options): Provider {
  const access = {
    kubernetes: new Kubernetes(kubeconfig),
    helm: new Helm({ binary: helm, env: helmEnv, ...(kubeconfig !== undefined && { kubeconfig }) }),
    ...(namespaceRole !== undefined && { namespaceRole }),
  };
  return {
    name: 'kubernetes',
    capabilities: capabilitiesOf('kubernetes'),
    access: () => Promise.resolve(access),
    close: () => Promise.resolve(),
  };
}
