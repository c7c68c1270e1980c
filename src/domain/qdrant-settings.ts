/**
 * The settings of Qdrant's configuration file that users may set, by their dotted names. Everything else is refused: a
 * setting that is unknown today may be a path, an address or a secret tomorrow. Names, types and ranges are those of
 * Qdrant 1.16 to 1.19 (config/config.yaml, src/settings.rs, lib/storage/src/types.rs); where Qdrant has no upper bound,
 * ours is far above what is of use. docs/qdrant-settings.md lists them, and a test keeps it equal to this table.
 */
import { typeOf } from './input/echo.ts';
import { foreignMap } from './input/names.ts';
import type { Problem } from './input/problems.ts';
import { compareVersions, parseVersion } from './releases.ts';

/** How a value of a setting looks. */
export type SettingType =
  | { readonly kind: 'boolean' }
  | { readonly kind: 'integer' | 'number'; readonly min: number; readonly max: number }
  | { readonly kind: 'enum'; readonly values: readonly string[] };

export type Setting = SettingType & {
  /** First version that knows it; absent: all that the fleet supports. */
  readonly since?: string;
};

const boolean = { kind: 'boolean' } as const;
const integer = (min: number, max: number) => ({ kind: 'integer', min, max }) as const;
const number = (min: number, max: number) => ({ kind: 'number', min, max }) as const;
const oneOf = (...values: string[]) => ({ kind: 'enum', values }) as const;

const THREADS = 1024;
const KIB = 1_000_000_000;
const MANY = 1_000_000_000_000;
const SECONDS = 86_400;

const optimizers = {
  deleted_threshold: number(0, 1),
  vacuum_min_vector_number: integer(100, MANY),
  default_segment_number: integer(0, 10_000),
  max_segment_size_kb: integer(1, KIB),
  memmap_threshold_kb: integer(0, KIB),
  indexing_threshold_kb: integer(0, KIB),
  flush_interval_sec: integer(1, SECONDS),
  max_optimization_threads: integer(0, THREADS),
  prevent_unoptimized: { ...boolean, since: 'v1.17.0' },
};

/** By dotted name. */
export const QDRANT_SETTINGS: Readonly<Record<string, Setting>> = foreignMap<Setting>([
  ['log_level', oneOf('ERROR', 'WARN', 'INFO', 'DEBUG')],
  ['logger.format', oneOf('text', 'json')],
  ...within('service', {
    max_request_size_mb: integer(1, 4096),
    max_workers: integer(0, THREADS),
    http_keep_alive_timeout_sec: { ...integer(1, SECONDS), since: 'v1.17.1' },
    http_client_request_timeout_sec: { ...integer(1, SECONDS), since: 'v1.17.1' },
    http_client_disconnect_timeout_sec: { ...integer(1, SECONDS), since: 'v1.17.1' },
    enable_cors: boolean,
    jwt_rbac: boolean,
    hide_jwt_dashboard: boolean,
    enable_static_content: boolean,
    slow_query_secs: number(0, SECONDS),
    hardware_reporting: boolean,
  }),
  ...within('storage', {
    on_disk_payload: boolean,
    'payload.memory': { ...oneOf('cold', 'cached'), since: 'v1.19.0' },
    mmap_advice: oneOf('normal', 'random', 'sequential'),
    low_memory_mode: { ...oneOf('disabled', 'no_resident', 'no_populate'), since: 'v1.18.0' },
    update_queue_size: integer(1, 1_000_000),
    update_concurrency: integer(1, THREADS),
    shard_transfer_method: oneOf('stream_records', 'snapshot', 'wal_delta'),
    max_collections: integer(1, 1_000_000),
  }),
  ...within('storage.wal', {
    wal_capacity_mb: integer(1, 4096),
    wal_segments_ahead: integer(0, 64),
    wal_retain_closed: integer(1, 1024),
  }),
  ...within('storage.performance', {
    max_search_threads: integer(0, THREADS),
    max_optimization_runtime_threads: integer(0, THREADS),
    optimizer_cpu_budget: integer(-THREADS, THREADS),
    optimizer_io_budget: integer(0, THREADS),
    update_rate_limit: integer(1, 1_000_000),
    search_timeout_sec: integer(1, SECONDS),
    incoming_shard_transfers_limit: integer(1, 64),
    outgoing_shard_transfers_limit: integer(1, 64),
    async_scorer: boolean,
    io_uring: { ...oneOf('disabled', 'auto'), since: 'v1.19.0' },
    max_concurrent_collection_loads: { ...integer(1, THREADS), since: 'v1.17.0' },
    max_concurrent_shard_loads: { ...integer(1, THREADS), since: 'v1.17.0' },
    max_concurrent_segment_loads: { ...integer(1, THREADS), since: 'v1.17.0' },
  }),
  ...within('storage.optimizers', optimizers),
  ...within('storage.optimizers_overwrite', optimizers),
  ...within('storage.hnsw_index', {
    m: integer(0, 1024),
    ef_construct: integer(4, 100_000),
    full_scan_threshold_kb: integer(0, KIB),
    max_indexing_threads: integer(0, THREADS),
    on_disk: boolean,
    memory: { ...oneOf('cold', 'cached', 'pinned'), since: 'v1.19.0' },
    payload_m: integer(0, 1024),
    inline_storage: boolean,
  }),
  ['storage.hnsw_global_config.healing_threshold', number(0, 1)],
  ...within('storage.collection', {
    replication_factor: integer(1, 64),
    write_consistency_factor: integer(1, 64),
    shard_number: integer(1, 1024),
    shard_number_per_node: integer(1, 1024),
    'vectors.on_disk': boolean,
    'vectors.memory': { ...oneOf('cold', 'cached'), since: 'v1.19.0' },
  }),
  ...within('storage.collection.strict_mode', {
    enabled: boolean,
    max_query_limit: integer(1, MANY),
    max_timeout: integer(1, SECONDS),
    unindexed_filtering_retrieve: boolean,
    unindexed_filtering_update: boolean,
    search_max_hnsw_ef: integer(0, MANY),
    search_allow_exact: boolean,
    search_max_oversampling: number(0, 1_000_000),
    upsert_max_batchsize: integer(0, MANY),
    search_max_batchsize: { ...integer(0, MANY), since: 'v1.17.1' },
    max_collection_vector_size_bytes: integer(0, Number.MAX_SAFE_INTEGER),
    max_collection_payload_size_bytes: integer(0, Number.MAX_SAFE_INTEGER),
    read_rate_limit: integer(1, MANY),
    write_rate_limit: integer(1, MANY),
    max_points_count: integer(1, Number.MAX_SAFE_INTEGER),
    filter_max_conditions: integer(0, MANY),
    condition_max_size: integer(0, MANY),
    max_payload_index_count: integer(0, 1_000_000),
    max_resident_memory_percent: { ...integer(1, 100), since: 'v1.18.0' },
  }),
  ...within('storage.quotas', {
    enabled: { ...boolean, since: 'v1.19.0' },
    max_resident_memory_percent: { ...integer(1, 100), since: 'v1.19.0' },
    max_disk_usage_percent: { ...integer(1, 100), since: 'v1.19.0' },
    release_margin_percent: { ...integer(0, 100), since: 'v1.19.0' },
  }),
]);

/** What is kept out: a name, or the beginning of names, and why. The first that matches counts. */
export const KEPT_OUT: readonly (readonly [name: string, reason: string])[] = [
  ['storage.storage_path', 'is where the chart mounts the data volume'],
  ['storage.snapshots_path', 'is where the chart mounts the snapshot volume'],
  ['storage.temp_path', 'is a path; snapshots have a volume of their own'],
  ['storage.snapshots_config', 'is where snapshots go: backups are the fleet’s, and its key for a store is a secret'],
  ['storage.recovery_mode', 'makes a node refuse every request; restore a backup instead'],
  ['storage.handle_collection_load_errors', 'hides that a collection could not be loaded'],
  ['storage.node_type', 'is the same for all nodes here: a cluster of listeners answers no query'],
  ['storage.collection.quantization', 'is of several parts that mean something together only; set it for a collection'],
  ['storage.collection.strict_mode.multivector_config', 'goes by names of vectors; set it for a collection'],
  ['storage.collection.strict_mode.sparse_config', 'goes by names of vectors; set it for a collection'],
  ['storage.collection.strict_mode.max_disk_usage_percent', 'is gone from v1.19.0 on; set storage.quotas instead'],
  ['service.host', 'is an address that the chart decides'],
  ['service.http_port', 'is a port that the chart decides'],
  ['service.grpc_port', 'is a port that the chart decides'],
  ['service.metrics_port', 'opens a port that asks for no key'],
  ['service.metrics_prefix', 'renames the metrics that the fleet reads'],
  ['service.enable_tls', 'belongs to the fleet, which has the certificates'],
  ['service.verify_https_client_certificate', 'belongs to the fleet, which has the certificates'],
  ['service.api_key', 'is a secret; keys are rotated by RotateApiKey'],
  ['service.alt_api_key', 'is a secret; keys are rotated by RotateApiKey'],
  ['service.read_only_api_key', 'is a secret, and would stand in the chart'],
  ['service.enforce_internal_auth', 'must be off while an upgrade passes through versions that send no key'],
  ['service.static_content_dir', 'is a path of the image'],
  ['service.enable_snapshot_url_recovery', 'must be on: restores hand nodes the address of a snapshot'],
  ['cluster', 'belongs to the fleet, which forms the cluster'],
  ['tls', 'belongs to the fleet, which has the certificates'],
  ['telemetry_disabled', 'is for whoever runs the fleet to decide'],
  ['logger.on_disk', 'writes files that nobody rotates'],
  ['logger', 'is more than the form of the log'],
  ['audit', 'writes files to the data volume'],
  ['inference', 'sends what is stored to an address, with a token'],
  ['debugger', 'sends profiles to an address, with a password'],
  ['gpu', 'needs machines and images with a GPU, which the fleet does not make'],
  ['feature_flags', 'changes how data lies on disk, which backups depend on'],
];

/**
 * Why a setting cannot be set to `value`, or `undefined` when it can.
 *
 * @param version image tag that the cluster runs or is to run. Absent, or no version (`latest`): every setting is taken
 */
export function settingProblem(name: string, value: unknown, version?: string): Problem | undefined {
  const setting = QDRANT_SETTINGS[name];
  if (setting === undefined) return unknownProblem(name);
  return valueProblem(setting, value) ?? versionProblem(setting, version);
}

function unknownProblem(name: string): string {
  const kept = KEPT_OUT.find(([prefix]) => name === prefix || name.startsWith(`${prefix}.`));
  if (kept !== undefined) return `cannot be set: it ${kept[1]}`;
  // `a.b` beside `a.b.c`: a group has no value of its own.
  const group = Object.keys(QDRANT_SETTINGS).find((known) => known.startsWith(`${name}.`));
  if (group !== undefined) return `is a group of settings; name one of them, such as "${group}"`;
  const parent = Object.keys(QDRANT_SETTINGS).find((known) => name.startsWith(`${known}.`));
  if (parent !== undefined) return `has nothing below "${parent}", which is one setting`;
  return 'is not a setting that is known here; docs/qdrant-settings.md lists them';
}

function valueProblem(setting: SettingType, value: unknown): string | undefined {
  switch (setting.kind) {
    case 'boolean':
      return typeof value === 'boolean' ? undefined : `must be true or false, is ${typeOf(value)}`;
    case 'enum':
      return setting.values.some((known) => known === value)
        ? undefined
        : `must be one of ${setting.values.join(', ')}, is ${typeOf(value)}`;
    default: {
      const what = setting.kind === 'integer' ? 'a whole number' : 'a number';
      const right = setting.kind === 'integer' ? Number.isInteger(value) : typeof value === 'number';
      const inside = typeof value === 'number' && value >= setting.min && value <= setting.max;
      return right && inside ? undefined : `must be ${what} from ${setting.min} to ${setting.max}, is ${typeOf(value)}`;
    }
  }
}

function versionProblem({ since }: Setting, version: string | undefined): Problem | undefined {
  const [first, asked] = [parseVersion(since ?? ''), parseVersion(version ?? '')];
  if (first === undefined || asked === undefined || compareVersions(asked, first) >= 0) return undefined;
  return { conflict: `is known from ${since} on, and the version is ${version}` };
}

function within(group: string, settings: Readonly<Record<string, Setting>>): [string, Setting][] {
  return Object.entries(settings).map(([name, setting]) => [`${group}.${name}`, setting]);
}
