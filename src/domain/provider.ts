/** Where clusters can live, and what can be done with them there. */
import { AWS_REGIONS, AWS_ROOMS } from './aws.ts';
import type { ProviderName } from './cluster.ts';
import { FleetError } from './errors.ts';

export interface ProviderCapabilities {
  /** Regions by name; none where the provider has none. */
  readonly regions: readonly string[];
  /** A cluster can be brought down to no nodes, with its data kept. */
  readonly suspend: boolean;
  /** Volumes can grow while they are in use. */
  readonly volumeExpansion: boolean;
  /** Parts of the infrastructure that are made with a cluster, in order; none where it has to be there already. */
  readonly rooms: readonly string[];
}

export type SupportedProvider = Extract<ProviderName, 'kubernetes' | 'aws'>;

const CAPABILITIES: Readonly<Record<SupportedProvider, ProviderCapabilities>> = {
  // Whether volumes can grow is up to the cluster's StorageClass, which is asked when one is to grow.
  kubernetes: { regions: [], suspend: true, volumeExpansion: true, rooms: [] },
  aws: { regions: AWS_REGIONS, suspend: true, volumeExpansion: true, rooms: AWS_ROOMS },
};

/** @throws FleetError `ProviderNotSupported` that says which ones are */
export function supportedProvider(name: ProviderName): SupportedProvider {
  if (Object.hasOwn(CAPABILITIES, name)) return name as SupportedProvider;
  throw new FleetError(
    'ProviderNotSupported',
    `Provider "${name}" is not supported yet; supported: ${Object.keys(CAPABILITIES).join(', ')}.`,
  );
}

/** @throws FleetError `ProviderNotSupported` */
export function capabilitiesOf(name: ProviderName): ProviderCapabilities {
  return CAPABILITIES[supportedProvider(name)];
}
