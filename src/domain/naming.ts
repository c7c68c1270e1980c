/**
 * Names and keys. One cluster is known by `tenant` and `cluster`; every other name derives from the two, so that a
 * repeated attempt finds what an earlier one made. Neither part may contain `--`, which separates them.
 */
import { TEXTS } from './input/limits.ts';

/** What identifies a cluster. */
export interface ClusterRef {
  readonly tenant: string;
  readonly cluster: string;
}

/** How a tenant, a cluster and a schedule are written. */
export const NAME = /^[a-z](?:-?[a-z0-9])*$/;

export const MAX_TENANT_LENGTH = TEXTS.tenant;
export const MAX_CLUSTER_LENGTH = TEXTS.cluster;

/** Why `text` is no tenant or cluster name, or `undefined` when it is one. */
export function nameProblem(text: string, maxLength: number): string | undefined {
  if (text.length === 0) return 'must not be empty';
  if (text.length > maxLength) return `must have at most ${maxLength} characters, has ${text.length}`;
  if (!NAME.test(text)) {
    return 'must be lower-case letters, digits and single hyphens, starting with a letter and not ending with a hyphen';
  }
  return undefined;
}

/** `acme--docs`: the two names in one, reversible because neither holds `--`. */
export function clusterKey({ tenant, cluster }: ClusterRef): string {
  return `${tenant}--${cluster}`;
}

/** The Kubernetes namespace of a cluster. */
export function namespaceOf(ref: ClusterRef): string {
  return `fleet-${clusterKey(ref)}`;
}

/** StorageClass of a cluster's volumes, where its provider makes one; its name has no namespace to live in. */
export function storageClassOf(ref: ClusterRef): string {
  return namespaceOf(ref);
}

/** The Helm release, StatefulSet and Service of a cluster, inside its own namespace. */
export const RELEASE_NAME = 'qdrant';

/** The Kubernetes Secret that holds a cluster's API key, the key in it, and a second one while it is rotated. */
export const API_KEY_SECRET = { name: 'qdrant-api-key', key: 'api-key', alternate: 'alt-api-key' } as const;

/** Labels by which we know our own objects. */
export const LABELS = {
  managedBy: 'app.kubernetes.io/managed-by',
  tenant: 'qdrant-fleet/tenant',
  cluster: 'qdrant-fleet/cluster',
  operation: 'qdrant-fleet/created-by-operation',
} as const;

export const MANAGED_BY = 'qdrant-fleet';

/** The labels of what was made for a cluster. */
export function clusterLabels({ tenant, cluster }: ClusterRef): Record<string, string> {
  return { [LABELS.managedBy]: MANAGED_BY, [LABELS.tenant]: tenant, [LABELS.cluster]: cluster };
}

/** `20261121T030000Z`: UTC, to the second, sorts by time. */
function compactTime(time: Date): string {
  return time
    .toISOString()
    .replace(/\.\d{3}Z$/, 'Z')
    .replaceAll(/[-:]/g, '');
}

/** A backup's id: its nominal time and 8 hex digits that tell apart backups of one second. */
export function backupIdOf(nominalTime: Date, hash: string): string {
  return `${compactTime(nominalTime)}-${hash.slice(0, 8)}`;
}

const BACKUP_ID = /^\d{8}T\d{6}Z-[0-9a-f]{8}$/;

export function isBackupId(text: string): boolean {
  return BACKUP_ID.test(text);
}

/** The nominal time within a backup id; throws `RangeError` when it is none. */
export function backupTimeOf(id: string): Date {
  const match = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z-/.exec(id);
  if (!match) throw new RangeError(`"${id}" is not a backup id`);
  const [, y, mo, d, h, mi, s] = match;
  return new Date(`${y}-${mo}-${d}T${h}:${mi}:${s}Z`);
}

/**
 * A collection name as one S3 key segment. Qdrant allows any name without `< > : " / \ | ? *`, NUL and 0x1F (and older
 * versions anything without `/` and NUL), so `..`, spaces, `%2f` and emoji all occur.
 * Everything outside `A-Z a-z 0-9 _ -` is percent-encoded as UTF-8; reversible by `decodeURIComponent`.
 */
export function encodeCollection(name: string): string {
  return [...new TextEncoder().encode(name)]
    .map((byte) => {
      const char = String.fromCodePoint(byte);
      return /[A-Za-z0-9_-]/.test(char) ? char : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
    })
    .join('');
}

/** A bucket that a cluster has of its own. */
export interface BucketRef {
  readonly name: string;
  /** AWS region. */
  readonly region: string;
}

/** Which bucket something is in. */
export interface InBucket {
  /** Absent: the fleet's. */
  readonly bucket?: BucketRef;
}

/** The bucket alone, of whatever is in one. */
export function inBucket({ bucket }: InBucket): InBucket {
  return bucket === undefined ? {} : { bucket };
}

/** Where a backup's objects live. */
export interface BackupLocation extends ClusterRef, InBucket {
  readonly prefix: string;
  readonly backup: string;
  /** Whoever asks takes the backup although its MAC is missing or wrong. */
  readonly acceptUnsigned?: true;
}

/** A backup for people: its id and, where it is not in the fleet's bucket, in which it is. */
export function placeOf({ backup, bucket }: BackupLocation): string {
  return bucket === undefined ? backup : `${backup} in bucket ${bucket.name}`;
}

/** `<prefix>/<tenant>/<cluster>/`: where all backups of a cluster live. */
export function clusterPrefix(location: ClusterRef & { prefix: string }): string {
  const { prefix, tenant, cluster } = location;
  const head = prefix.replace(/^\/+|\/+$/g, '');
  return `${head === '' ? '' : `${head}/`}${tenant}/${cluster}/`;
}

/** In the fleet's bucket: the buckets of its own that a cluster has had. */
export function bucketsKey(location: ClusterRef & { prefix: string }): string {
  return `${clusterPrefix(location)}buckets.json`;
}

/** The keys of one backup. */
export function backupKeys(location: BackupLocation) {
  const root = `${clusterPrefix(location)}${location.backup}/`;
  return {
    root,
    intent: `${root}intent.json`,
    manifest: `${root}manifest.json`,
    commit: `${root}commit.json`,
    leases: `${root}leases/`,
    /** Of a backup that refers to this one while it is made. */
    holder: (backup: string, attempt: string) => `${root}leases/${encodeCollection(`${backup}/${attempt}`)}.json`,
    lease: (restore: string) => `${root}leases/${encodeCollection(restore)}.json`,
    data: `${root}data/`,
    /** What was seen before the first snapshot, for the manifest. */
    plan: (attempt: string) => `${root}data/${attempt}/plan.json`,
    /** What a peer is to give. */
    lane: (attempt: string, peer: string, round = 1) => `${root}data/${attempt}/lanes/${peer}${ofRound(round)}.json`,
    /** What was copied from a peer, from a place of its lane on. */
    copied: (attempt: string, peer: string, from: number, round = 1) =>
      `${root}data/${attempt}/copied/${peer}-${from}${ofRound(round)}.json`,
    /** Named by the bytes too: an attempt that is made anew after a crash copies another snapshot of the shard. */
    shard: (attempt: string, collection: string, shard: number, sha256: string) =>
      `${root}data/${attempt}/${shardSegment(collection)}/shard-${shard}.${sha256.slice(0, 16)}.snapshot`,
    /** Packs and recipes of an incremental shard. */
    blocks: (attempt: string, collection: string, shard: number) =>
      `${root}data/${attempt}/${shardSegment(collection)}/shard-${shard}/`,
    bases: (attempt: string) => `${root}data/${attempt}/bases.json`,
  };
}

/** Later rounds have lists of their own: a peer may be asked again. */
function ofRound(round: number): string {
  return round === 1 ? '' : `.round-${round}`;
}

/** The backup that an object of a cluster belongs to, by its key; `undefined` for another cluster's. */
export function backupOfKey(location: ClusterRef & { prefix: string }, key: string): string | undefined {
  const root = clusterPrefix(location);
  const backup = key.startsWith(root) ? (key.slice(root.length).split('/')[0] ?? '') : '';
  return isBackupId(backup) ? backup : undefined;
}

/**
 * Whether a key is that of a lease: `<tenant>/<cluster>/<backup>/leases/<one segment>.json`, below any prefix. Clusters,
 * tenants and collections may be named `leases`, too; none of their names can look like the id of a backup and stand
 * right before that segment.
 */
export function isLeaseKey(key: string): boolean {
  const [file = '', folder, backup = '', cluster = '', tenant = ''] = key.split('/').reverse();
  const named = NAME.test(tenant) && NAME.test(cluster) && isBackupId(backup);
  return named && folder === 'leases' && /^[\w%-]+\.json$/.test(file);
}

/** Whether a key of an attempt is a copy of a whole shard, or what was sampled of one. */
export function isShardCopy(key: string): boolean {
  return /\/shard-\d+\.[0-9a-f]{16}\.(?:snapshot|sample\.json)$/.test(key);
}

/** At most 200 bytes, so that a store on a file system can keep the segment. */
function shardSegment(collection: string): string {
  const encoded = encodeCollection(collection);
  if (encoded.length <= 200) return encoded;
  // The hash keeps long names with one head apart; the manifest holds the true name.
  return `${encoded.slice(0, 180).replace(/%.?$/, '')}~${fnv1a(encoded)}`;
}

/** FNV-1a, 64 bits, as 16 hex digits: tells names apart that had to be cut, and guards against nothing. */
export function fnv1a(text: string): string {
  let hash = 0xcbf29ce484222325n;
  for (const char of text) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(char.codePointAt(0) ?? 0)) * 0x100000001b3n);
  }
  return hash.toString(16).padStart(16, '0');
}

/** Where a statement about a backup goes. */
export function attestationKey(location: BackupLocation, at: Date, kind: string): string {
  return `${backupKeys(location).root}attest/${compactTime(at)}-${kind}.json`;
}
