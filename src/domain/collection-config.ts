/** From what Qdrant reports about a collection to the requests that make it again. */

type Json = Readonly<Record<string, unknown>>;

/**
 * Body of `PUT /collections/{c}` that makes a collection like the one whose `config` was recorded.
 *
 * `shard_number` is the number of shards found, not the recorded parameter, because resharding changes the former.
 * With custom sharding it is the number of shards per key and stays as recorded.
 */
export function createRequestOf(
  config: Json,
  { shards, replicationFactor }: { shards: number; replicationFactor: number },
): Record<string, unknown> {
  const params = config['params'] as Json;
  const custom = usesCustomSharding(config);
  const consistency = params['write_consistency_factor'];
  return withoutNulls({
    vectors: params['vectors'],
    sparse_vectors: params['sparse_vectors'],
    shard_number: custom ? params['shard_number'] : shards,
    sharding_method: params['sharding_method'],
    replication_factor: replicationFactor,
    write_consistency_factor: typeof consistency === 'number' ? Math.min(consistency, replicationFactor) : undefined,
    on_disk_payload: params['on_disk_payload'],
    hnsw_config: config['hnsw_config'],
    optimizers_config: config['optimizer_config'],
    wal_config: config['wal_config'],
    quantization_config: config['quantization_config'],
    strict_mode_config: config['strict_mode_config'],
    metadata: config['metadata'],
  });
}

/** Parameters that creation does not accept and a later `PATCH` does; `undefined` when there are none. */
export function laterParamsOf(config: Json): Record<string, unknown> | undefined {
  const params = config['params'] as Json;
  const later = withoutNulls({
    read_fan_out_factor: params['read_fan_out_factor'],
    read_fan_out_delay_ms: params['read_fan_out_delay_ms'],
  });
  return Object.keys(later).length === 0 ? undefined : { params: later };
}

export function usesCustomSharding(config: Json): boolean {
  return (config['params'] as Json)['sharding_method'] === 'custom';
}

/** Replicas per shard to restore with: as asked, else as recorded, and never more than there are peers. */
export function replicasOf(config: Json, peers: number, wanted?: number): number {
  const recorded = (config['params'] as Json)['replication_factor'];
  return wanted ?? Math.min(typeof recorded === 'number' ? recorded : 1, peers);
}

/** `field_schema` of a payload index, from its entry in the recorded `payload_schema`. */
export function indexSchemaOf(entry: unknown): unknown {
  const { data_type: type, params } = entry as { data_type: string; params?: Json };
  return params === undefined ? type : { type, ...params };
}

/** Names of the payload indexes that are wanted and not there; a field may have any name, `constructor` too. */
export function missingIndexes(wanted: object, present: object): string[] {
  return Object.keys(wanted).filter((field) => !Object.hasOwn(present, field));
}

function withoutNulls(object: Json): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(object)
      .filter(([, value]) => value !== undefined && value !== null)
      .map(([key, value]) => [key, isPlain(value) ? withoutNulls(value) : value]),
  );
}

function isPlain(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Bytes of an element of a vector, by Qdrant's name of its type. */
const ELEMENT_BYTES: ReadonlyMap<string, number> = new Map([
  ['float32', 4],
  ['float16', 2],
  ['uint8', 1],
]);
/** What is guessed for what a collection's configuration does not tell. */
const GUESS = { payload: 512, sparse: 512, vectorsOfMulti: 16 };

/**
 * A guess at the bytes that one point takes, without indexes: its vectors by their size and type, and half a kilobyte
 * of payload. Good for comparing shards; a payload of megabytes it does not foresee.
 *
 * @param params `config.params` of `GET /collections/{c}`
 */
export function bytesPerPoint(params: Readonly<Record<string, unknown>>): number {
  const { vectors = {}, sparse_vectors: sparse } = params as { vectors?: object; sparse_vectors?: object | null };
  // One unnamed vector, or several by name.
  const dense = ('size' in vectors ? [vectors] : Object.values(vectors)) as {
    size?: number;
    datatype?: string | null;
    multivector_config?: object | null;
  }[];
  const bytes = dense.reduce((sum, { size = 0, datatype, multivector_config: multi }) => {
    const one = size * (ELEMENT_BYTES.get(datatype ?? 'float32') ?? 4);
    return sum + (multi == null ? one : one * GUESS.vectorsOfMulti);
  }, 0);
  return bytes + Object.keys(sparse ?? {}).length * GUESS.sparse + GUESS.payload;
}
