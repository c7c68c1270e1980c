/** Finds the provider of a cluster. */
import type { AwsClients } from '../clients/aws/clients.ts';
import type { Catalog } from '../clients/catalog.ts';
import type { Config } from '../config.ts';
import type { ProviderName } from '../domain/cluster.ts';
import type { ClusterRef } from '../domain/naming.ts';
import { supportedProvider, type SupportedProvider } from '../domain/provider.ts';
import { awsProvider } from './aws.ts';
import { kubernetesProvider } from './kubernetes.ts';
import type { KubernetesAccess, Provider } from './provider.ts';

interface Parts {
  readonly config: Config;
  readonly catalog: Catalog;
  readonly aws: AwsClients;
}

export class Providers {
  readonly #parts: Parts;
  readonly #made = new Map<SupportedProvider, Provider>();

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** @throws FleetError `ProviderNotSupported` that says which ones are */
  providerOf(name: ProviderName): Provider {
    const supported = supportedProvider(name);
    const provider = this.#made.get(supported) ?? this.#make(supported);
    this.#made.set(supported, provider);
    return provider;
  }

  /** Access to the Kubernetes of a cluster that the catalogue knows; the worker's own for any other. */
  async of(ref: ClusterRef): Promise<KubernetesAccess> {
    const spec = (await this.#parts.catalog.cluster(ref))?.spec;
    return this.providerOf(spec?.provider ?? 'kubernetes').access(ref, spec);
  }

  async close(): Promise<void> {
    await Promise.all([...this.#made.values()].map((provider) => provider.close()));
  }

  #make(name: SupportedProvider): Provider {
    const { config, aws, catalog } = this.#parts;
    const helm = config.FLEET_HELM_BIN;
    if (name === 'aws') return awsProvider({ aws, helm, installation: () => catalog.installation() });
    const { KUBECONFIG: kubeconfig, FLEET_NAMESPACE_ROLE: namespaceRole, FLEET_HELM_ENV: helmEnv } = config;
    return kubernetesProvider({ helm, helmEnv, kubeconfig, namespaceRole });
  }
}
