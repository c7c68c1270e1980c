/**
 * Every bound of what comes in, once. The guards of `src/domain` refuse what is beyond them, the configuration reads the
 * same ones, and the OpenAPI document is made of them.
 */

export interface Range {
  readonly min: number;
  readonly max: number;
}

/** Numbers, both ends included. */
export const NUMBERS = {
  /** Qdrant nodes of a cluster, and replicas of a shard. */
  nodes: { min: 1, max: 64 },
  /** Qdrant's own limit of a dense vector. */
  vectorSize: { min: 1, max: 65_536 },
  shardNumber: { min: 1, max: 1024 },
  /** Seconds to wait for pods and volumes: up to a day. */
  readyTimeoutSeconds: { min: 1, max: 86_400 },
  /** Seconds to wait for one shard to move: up to a week. */
  moveTimeoutSeconds: { min: 1, max: 604_800 },
  graceSeconds: { min: 0, max: 86_400 },
  jitterSeconds: { min: 0, max: 86_400 },
  /** Hours in which something can be taken back: up to a year. */
  undoHours: { min: 0, max: 8760 },
  keepWithinDays: { min: 0, max: 36_500 },
  backupsKept: { min: 1, max: 100_000 },
  /** Machines of an EKS node group (AWS' own limit). */
  machines: { min: 1, max: 450 },
  machineVolumeGiB: { min: 20, max: 16_384 },
  volumeIops: { min: 3000, max: 80_000 },
  /** MiB/s of a gp3 volume. */
  volumeThroughput: { min: 125, max: 2000 },
  /** Items on one page of a list. */
  pageSize: { min: 1, max: 250 },
  /** Seconds of a long poll. */
  waitSeconds: { min: 0, max: 60 },
} as const satisfies Record<string, Range>;

/** Characters (code points) of a text. */
export const TEXTS = {
  /** The namespace `fleet-<tenant>--<cluster>` has to fit 63 characters (RFC 1123 label). */
  tenant: 20,
  cluster: 32,
  schedule: 32,
  /** Qdrant's own limit. */
  collection: 255,
  preset: 100,
  cron: 100,
  timeZone: 64,
  /** Temporal's own limit of a workflow id is 1,000 bytes; ours are shorter. */
  operation: 255,
  idempotencyKey: 255,
  pageToken: 100,
} as const;

/** Items of a list, or entries of a map. */
export const SIZES = {
  collectionsMade: 100,
  /** Collections that a backup or a restore names, and names that a restore changes; a body has room for so many. */
  collectionsNamed: 200,
  nodeSelector: 20,
  tolerations: 20,
  allowNamespaces: 50,
  allowCidrs: 50,
  subnetIds: 16,
  availabilityZones: 6,
  publicCidrs: 40,
  labels: 40,
  taints: 40,
  adminPrincipalArns: 20,
} as const;

/** The shape of any JSON, whatever it is for. */
export const STRUCTURE = {
  /** Objects and lists within each other; no input of ours has more than 4. */
  depth: 8,
  /** Values and keys altogether. */
  values: 10_000,
} as const;

/** What an answer to a bad input holds at most. */
export const ANSWERS = {
  errors: 50,
  /** Characters of a field's path, and of a value, that are repeated to the caller. */
  pathLength: 100,
  echoLength: 40,
  /** Characters of all errors in one line. */
  messageLength: 4000,
} as const;

/** Bytes of a request's body. */
export const MAX_BODY_BYTES = 64 * 1024;
