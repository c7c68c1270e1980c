/** What a cluster is: the request for one, the resolved specification, and the phases of its life. */
import { awsRequestOf, resolveAws, type AwsRequest, type AwsSpec } from './aws.ts';

export const PROVIDERS = ['kubernetes', 'aws', 'google', 'azure'] as const;
export type ProviderName = (typeof PROVIDERS)[number];

export const CLUSTER_PHASES = [
  'CREATING',
  'FAILED_TO_CREATE',
  'UPDATING',
  'SCALING',
  'UPGRADING',
  'SUSPENDING',
  'SUSPENDED',
  'RESUMING',
  'RESTORING',
  'HEALTHY',
  'NOT_READY',
  'DELETING',
] as const;
export type ClusterPhase = (typeof CLUSTER_PHASES)[number];

export const DISTANCES = ['Cosine', 'Dot', 'Euclid', 'Manhattan'] as const;
export type Distance = (typeof DISTANCES)[number];

/** Payload index types that a preset may name (Qdrant's `field_schema`). */
export const INDEX_TYPES = ['keyword', 'integer', 'float', 'bool', 'geo', 'datetime', 'text', 'uuid'] as const;
export type IndexType = (typeof INDEX_TYPES)[number];

/** A collection that a cluster starts with, complete. */
export interface CollectionSpec {
  readonly name: string;
  /** Dimensions of the one unnamed dense vector. */
  readonly vectorSize: number;
  readonly distance: Distance;
  readonly onDiskPayload: boolean;
  readonly hnsw: { readonly m: number; readonly efConstruct: number; readonly onDisk?: boolean };
  readonly replicationFactor: number;
  /** Omitted: Qdrant chooses one shard per peer. */
  readonly shardNumber?: number;
  /** Payload field to index type. */
  readonly indexes: Readonly<Record<string, IndexType>>;
}

/** A collection as a user asks for it: a preset's name, and what to change of it. */
export interface CollectionRequest {
  readonly preset?: string;
  readonly name?: string;
  readonly vectorSize?: number;
  readonly distance?: Distance;
  readonly replicationFactor?: number;
  readonly shardNumber?: number;
}

/** A Kubernetes toleration, as in a pod's spec. */
export interface Toleration {
  readonly key?: string;
  readonly operator?: 'Exists' | 'Equal';
  readonly value?: string;
  readonly effect?: 'NoSchedule' | 'PreferNoSchedule' | 'NoExecute';
}

/** On which nodes the pods may run. */
export interface Placement {
  readonly nodeSelector?: Readonly<Record<string, string>>;
  readonly tolerations?: readonly Toleration[];
}

/** Who may reach ports 6333 and 6334, besides the fleet's own workers. */
export interface NetworkAccess {
  readonly allowNamespaces?: readonly string[];
  /** Such as `10.20.0.0/16`. */
  readonly allowCidrs?: readonly string[];
  /** A second Service, of type LoadBalancer, inside the network of the provider. */
  readonly internalLoadBalancer?: boolean;
}

/** A cluster as a user asks for it; everything has a default. */
export interface ClusterRequest {
  readonly provider?: ProviderName;
  /** Its infrastructure, where the provider is `aws`. */
  readonly aws?: AwsRequest;
  /** Qdrant nodes, 1 to 64; default 3. */
  readonly nodes?: number;
  /** Qdrant image tag such as `v1.18.3`; default: the chart's own. */
  readonly version?: string;
  /** Kubernetes quantity of the data volume of each node; default `10Gi`. */
  readonly storage?: string;
  /** Copies of each shard in the collections that we create; default 2, at most the number of nodes. */
  readonly replicationFactor?: number;
  readonly resources?: { readonly cpu?: string; readonly memory?: string };
  readonly placement?: Placement;
  readonly network?: NetworkAccess;
  /** TLS on all ports, for the whole life of the cluster; default: the configuration's, which is yes. */
  readonly tls?: boolean;
  readonly config?: QdrantSettings;
  /** Collections to create. Omitted: every preset of the configuration. Empty: none. */
  readonly collections?: readonly CollectionRequest[];
}

/** Settings of Qdrant's configuration file by their dotted names, such as `storage.optimizers.max_segment_size_kb`. */
export type QdrantSettings = Readonly<Record<string, string | number | boolean>>;

/** A cluster's specification with every default filled in. */
export interface ClusterSpec {
  readonly provider: ProviderName;
  readonly aws?: AwsSpec;
  readonly nodes: number;
  readonly version?: string;
  readonly storage: string;
  readonly replicationFactor: number;
  readonly resources?: { readonly cpu?: string; readonly memory?: string };
  readonly placement?: Placement;
  readonly network?: NetworkAccess;
  /** Omitted: plaintext. */
  readonly tls?: true;
  readonly config?: QdrantSettings;
  readonly collections: readonly CollectionSpec[];
  /** No pods run; data, claims and the API key are kept. */
  readonly suspended?: boolean;
  /** Which state of the API key's Secret the pods were started with; counts up while the key is rotated. */
  readonly keyRevision?: number;
  /** The most collections that Qdrant lets exist; the tenant's quota when the cluster was made. */
  readonly maxCollections?: number;
  /** The same for the certificates. */
  readonly certificateRevision?: number;
}

/** Collection presets by name, from the configuration. */
export type CollectionPresets = Readonly<Record<string, Omit<CollectionSpec, 'name' | 'replicationFactor'>>>;

const DOCUMENT_INDEXES = {
  document_id: 'keyword',
  filename: 'keyword',
  content_type: 'keyword',
  customer_id: 'keyword',
  tags: 'keyword',
  upload_timestamp: 'datetime',
} as const satisfies Record<string, IndexType>;

/** The presets that apply where the configuration names none. */
export const DEFAULT_PRESETS = {
  documents: {
    vectorSize: 1536,
    distance: 'Cosine',
    onDiskPayload: true,
    hnsw: { m: 16, efConstruct: 100 },
    indexes: DOCUMENT_INDEXES,
  },
  conversations: {
    vectorSize: 1536,
    distance: 'Cosine',
    onDiskPayload: true,
    hnsw: { m: 16, efConstruct: 100 },
    indexes: DOCUMENT_INDEXES,
  },
} as const satisfies CollectionPresets;

/**
 * Fill in a request's defaults. The replication factor is capped by the number of nodes: Qdrant accepts a larger one
 * but can never satisfy it.
 *
 * @param defaults `tls`: whether a cluster that does not say has TLS
 * @throws RangeError naming the field when a preset is unknown or a collection has no name or size to go by
 */
export function resolveSpec(
  request: ClusterRequest,
  presets: CollectionPresets,
  defaults: { readonly tls: boolean } = { tls: false },
): ClusterSpec {
  const nodes = request.nodes ?? 3;
  const replicationFactor = Math.min(request.replicationFactor ?? 2, nodes);
  const requested = request.collections ?? Object.keys(presets).map((preset) => ({ preset }));
  return {
    provider: request.provider ?? 'kubernetes',
    ...(request.provider === 'aws' && { aws: resolveAws(request.aws ?? {}, nodes) }),
    nodes,
    ...(request.version !== undefined && { version: request.version }),
    storage: request.storage ?? '10Gi',
    replicationFactor,
    ...(request.resources !== undefined && { resources: request.resources }),
    ...(request.placement !== undefined && { placement: request.placement }),
    ...(request.network !== undefined && { network: request.network }),
    ...((request.tls ?? defaults.tls) && { tls: true }),
    ...(request.config !== undefined && { config: request.config }),
    collections: requested.map((item, index) => resolveCollection(item, index, presets, nodes, replicationFactor)),
  };
}

/** Fields of a request that a specification keeps as they were; the compiler sees to it that none is missing. */
const KEPT = {
  provider: true,
  nodes: true,
  version: true,
  storage: true,
  replicationFactor: true,
  resources: true,
  placement: true,
  network: true,
  tls: true,
  config: true,
} as const satisfies Record<Exclude<keyof ClusterRequest, 'aws' | 'collections'>, true>;

/**
 * A request for an empty cluster like this one. A specification that comes out of a bucket may be anything: only known
 * fields are taken, so that none of them names another tenant, and the guard of requests is the judge of their values.
 */
export function requestOf(spec: ClusterSpec): ClusterRequest {
  const kept = Object.entries(spec).filter(([field]) => Object.hasOwn(KEPT, field));
  // Without TLS is what the configuration allows now, never what a backup says.
  const { tls, ...request } = Object.fromEntries(kept) as ClusterRequest;
  return {
    ...request,
    ...(tls === true && { tls }),
    ...(spec.aws !== undefined && { aws: awsRequestOf(spec.aws) }),
    collections: [],
  };
}

function resolveCollection(
  request: CollectionRequest,
  index: number,
  presets: CollectionPresets,
  nodes: number,
  replicationFactor: number,
): CollectionSpec {
  const field = `collections[${index}]`;
  const presetName = request.preset ?? request.name;
  if (presetName === undefined) throw new RangeError(`${field}: needs a "preset" or a "name"`);
  const preset = Object.hasOwn(presets, presetName) ? presets[presetName] : undefined;
  if (request.preset !== undefined && preset === undefined) {
    throw new RangeError(
      `${field}.preset: "${request.preset}" is not configured; known: ${Object.keys(presets).join(', ')}`,
    );
  }
  const vectorSize = request.vectorSize ?? preset?.vectorSize;
  if (vectorSize === undefined) {
    throw new RangeError(`${field}.vectorSize: is needed, since no preset is called "${presetName}"`);
  }
  const shardNumber = request.shardNumber ?? preset?.shardNumber;
  return {
    name: request.name ?? presetName,
    vectorSize,
    distance: request.distance ?? preset?.distance ?? 'Cosine',
    onDiskPayload: preset?.onDiskPayload ?? true,
    hnsw: preset?.hnsw ?? { m: 16, efConstruct: 100 },
    replicationFactor: Math.min(request.replicationFactor ?? replicationFactor, nodes),
    ...(shardNumber !== undefined && { shardNumber }),
    indexes: preset?.indexes ?? {},
  };
}
