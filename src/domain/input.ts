/**
 * Guards for workflow inputs. People type these as JSON at the `temporal` CLI, so a workflow checks its own input and
 * names every bad field at once. Hand-written and free of libraries: a schema library would add a megabyte to the
 * workflow bundle.
 */
import { awsFields, awsRequest } from './aws-input.ts';
import { AWS_REGIONS } from './aws.ts';
import { BACKUP_FORMATS, type BackupFormat } from './backup.ts';
import {
  DISTANCES,
  PROVIDERS,
  type ClusterRequest,
  type CollectionRequest,
  type NetworkAccess,
  type Placement,
  type ProviderName,
} from './cluster.ts';
import { FleetError, type FieldError } from './errors.ts';
import { parseNetwork } from './ip-network.ts';
import { isBackupId, MAX_CLUSTER_LENGTH, MAX_TENANT_LENGTH, nameProblem, type ClusterRef } from './naming.ts';
import { RESTORE_VIA, type RestoreVia } from './restore-via.ts';
import type { RetentionPolicy } from './retention.ts';
import type { UpdateRequest } from './update-plan.ts';

export interface ProvisionInput extends ClusterRef, ClusterRequest {
  /** Seconds to wait for all peers to join; default 900. */
  readonly readyTimeoutSeconds?: number;
}

export interface UpdateInput extends ClusterRef, UpdateRequest {
  /** Tell what would be done, and do nothing. */
  readonly dryRun?: boolean;
  /** Seconds to wait for a pod, or for volumes to grow; default 900. */
  readonly readyTimeoutSeconds?: number;
  /** Seconds to wait for one shard to move; default 6 hours. */
  readonly moveTimeoutSeconds?: number;
}

export interface DeleteInput extends ClusterRef {
  /** Back the cluster up before anything goes; default no. */
  readonly finalBackup?: boolean;
  /** Hours in which the deletion can be taken back; the cluster is suspended meanwhile. Default 0: gone at once. */
  readonly undoHours?: number;
}

export interface ResumeInput extends ClusterRef {
  /** Seconds to wait for all peers and replicas; default 900. */
  readonly readyTimeoutSeconds?: number;
}

export interface RotateInput extends ResumeInput {
  /** Restart pods although collections without a second replica cannot be reached meanwhile. */
  readonly allowDowntime?: boolean;
  /** Seconds in which users of the old key are to take up the new one; default 300. */
  readonly graceSeconds?: number;
}

export interface SweepInput {
  readonly tenant: string;
  /** AWS region to look at. */
  readonly region: string;
  /** Only what names this cluster. */
  readonly cluster?: string;
  /** Only list; default true. */
  readonly dryRun?: boolean;
}

export interface BackupInput extends ClusterRef {
  /** Only these collections; default all. */
  readonly collections?: readonly string[];
  /** Default `full`: each shard is one object. `incremental`: blocks that earlier backups hold are not written again. */
  readonly format?: BackupFormat;
  /** Run a `RetentionSweep` with this policy after the backup. */
  readonly retention?: RetentionPolicy;
}

export interface RestoreInput {
  readonly tenant: string;
  /** Id of the backup, such as `20261121T030000Z-1a2b3c4d`. */
  readonly backup: string;
  /** The cluster that was backed up. */
  readonly source: string;
  /** The cluster to restore into; made first when it does not exist. */
  readonly cluster: string;
  /** Number of nodes of a cluster that has to be made; default: as backed up. */
  readonly nodes?: number;
  /** Replicas of each shard; default: as backed up, at most the number of nodes. */
  readonly replicationFactor?: number;
  /** Only these collections; default all. */
  readonly collections?: readonly string[];
  /** New names by the names in the backup; the others keep theirs. */
  readonly rename?: Readonly<Record<string, string>>;
  /**
   * Replace the collections of the same names, after a fresh backup of them. The cluster has to exist. What is written
   * to them after that backup is lost.
   */
  readonly inPlace?: boolean;
  /** `false` leaves the aliases out; default: they come back, last of all. */
  readonly aliases?: boolean;
  /** How the bytes get to the nodes; default: the configuration's, which is `bucket`. */
  readonly via?: RestoreVia;
  /** Restore from a backup that a verification found damaged, too: what cannot be read or proven fails all the same. */
  readonly acceptDamaged?: boolean;
  /** Report what would happen, and write nothing. */
  readonly dryRun?: boolean;
}

export interface VerifyInput extends ClusterRef {
  /** Id of the backup. */
  readonly backup: string;
}

export interface UndeleteBackupInput extends ClusterRef {
  /** Id of the backup. */
  readonly backup: string;
}

export interface RetentionInput extends ClusterRef {
  readonly policy: RetentionPolicy;
  /** Report what would go, and remove nothing. */
  readonly dryRun?: boolean;
}

export function parseProvisionInput(input: unknown): ProvisionInput {
  return readInput(input, (r) => ({
    ...clusterRef(r),
    ...clusterRequest(r),
    ...r.integer('readyTimeoutSeconds', { min: 1, max: 86_400 }),
  }));
}

export function parseUpdateInput(input: unknown): UpdateInput {
  return readInput(input, (r) => ({
    ...clusterRef(r),
    ...r.oneOf('provider', PROVIDERS satisfies readonly ProviderName[]),
    ...r.object('aws', awsFields),
    ...sizes(r),
    ...r.settings('config', settingProblem),
    ...r.boolean('allowDowntime'),
    ...r.boolean('repair'),
    ...r.boolean('dryRun'),
    ...r.integer('readyTimeoutSeconds', { min: 1, max: 86_400 }),
    ...r.integer('moveTimeoutSeconds', { min: 1, max: 604_800 }),
  }));
}

export function parseSweepInput(input: unknown): SweepInput {
  return readInput(input, (r) => ({
    tenant: r.name('tenant', MAX_TENANT_LENGTH),
    region: r.required('region', (text) =>
      AWS_REGIONS.includes(text) ? undefined : `must be one of ${AWS_REGIONS.join(', ')}`,
    ),
    ...r.text('cluster', (text) => nameProblem(text, MAX_CLUSTER_LENGTH)),
    ...r.boolean('dryRun'),
  }));
}

export function parseDeleteInput(input: unknown): DeleteInput {
  return readInput(input, (r) => ({
    ...clusterRef(r),
    ...r.boolean('finalBackup'),
    ...r.number('undoHours', { min: 0, max: 8760 }),
  }));
}

export function parseSuspendInput(input: unknown): ClusterRef {
  return readInput(input, clusterRef);
}

export function parseResumeInput(input: unknown): ResumeInput {
  return readInput(input, (r) => ({ ...clusterRef(r), ...r.integer('readyTimeoutSeconds', { min: 1, max: 86_400 }) }));
}

export function parseRotateInput(input: unknown): RotateInput {
  return readInput(input, (r) => ({
    ...clusterRef(r),
    ...r.integer('readyTimeoutSeconds', { min: 1, max: 86_400 }),
    ...r.boolean('allowDowntime'),
    ...r.integer('graceSeconds', { min: 0, max: 86_400 }),
  }));
}

export function parseBackupInput(input: unknown): BackupInput {
  return readInput(input, (r) => ({
    ...clusterRef(r),
    ...r.strings('collections', { min: 1 }),
    ...r.oneOf('format', BACKUP_FORMATS),
    ...r.object('retention', retentionPolicy),
  }));
}

export function parseRestoreInput(input: unknown): RestoreInput {
  return readInput(input, (r) => {
    const parsed = restoreInput(r);
    checkRename(r, parsed);
    if (parsed.inPlace === true) {
      if (parsed.rename !== undefined) r.bad('rename', 'cannot be combined with "inPlace", which keeps all names');
      if (parsed.nodes !== undefined) r.bad('nodes', 'is of a cluster that is made; "inPlace" needs one that exists');
    }
    return parsed;
  });
}

function restoreInput(r: Reader): RestoreInput {
  return {
    tenant: r.name('tenant', MAX_TENANT_LENGTH),
    backup: r.required('backup', backupIdProblem),
    source: r.name('source', MAX_CLUSTER_LENGTH),
    cluster: r.name('cluster', MAX_CLUSTER_LENGTH),
    ...r.integer('nodes', { min: 1, max: MAX_NODES }),
    ...r.integer('replicationFactor', { min: 1, max: MAX_NODES }),
    ...r.strings('collections', { min: 1 }),
    ...r.names('rename', collectionNameProblem),
    ...r.boolean('inPlace'),
    ...r.boolean('aliases'),
    ...r.oneOf('via', RESTORE_VIA),
    ...r.boolean('acceptDamaged'),
    ...r.boolean('dryRun'),
  };
}

/** Whether the backup holds the collections, and the target the names, is seen later. */
function checkRename(r: Reader, { rename = {}, collections }: RestoreInput): void {
  const names = Object.values(rename);
  const kept = (collections ?? []).filter((name) => !Object.hasOwn(rename, name));
  for (const [from, to] of Object.entries(rename)) {
    if (collections?.includes(from) === false) r.bad(`rename.${from}`, 'is not among "collections"');
    if (names.filter((name) => name === to).length > 1 || kept.includes(to)) {
      r.bad(`rename.${from}`, `"${to}" would be the name of two collections`);
    }
  }
}

export function parseVerifyInput(input: unknown): VerifyInput {
  return readInput(input, (r) => ({ ...clusterRef(r), backup: r.required('backup', backupIdProblem) }));
}

export function parseUndeleteBackupInput(input: unknown): UndeleteBackupInput {
  return readInput(input, (r) => ({ ...clusterRef(r), backup: r.required('backup', backupIdProblem) }));
}

export function parseRetentionInput(input: unknown): RetentionInput {
  return readInput(input, (r) => {
    const policy = r.object('policy', retentionPolicy).policy;
    if (policy === undefined) r.bad('policy', 'is needed, such as {"keepLast": 7}');
    return { ...clusterRef(r), policy: policy ?? {}, ...r.boolean('dryRun') };
  });
}

const MAX_NODES = 64;
const QUANTITY = /^[1-9]\d{0,8}(?:Ki|Mi|Gi|Ti|K|M|G|T)?$/;
const CPU = /^(?:[1-9]\d{0,5}m?|0?\.\d{1,3})$/;
const DNS_LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const IMAGE_TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;

/** Why `name` is no legal Qdrant collection name (lib/common/common/src/validation.rs of Qdrant 1.18), if it is none. */
function collectionNameProblem(name: string): string | undefined {
  if (name.length === 0) return 'must not be empty';
  if (name.length > 255) return 'must have at most 255 characters';
  // oxlint-disable-next-line no-control-regex -- these two control characters are what Qdrant refuses
  if (/[<>:"/\\|?*\u0000\u001F]/.test(name)) return 'must not contain any of < > : " / \\ | ? * or NUL';
  return undefined;
}

function backupIdProblem(text: string): string | undefined {
  return isBackupId(text) ? undefined : 'must be a backup id such as "20261121T030000Z-1a2b3c4d"';
}

function clusterRef(r: Reader): ClusterRef {
  return { tenant: r.name('tenant', MAX_TENANT_LENGTH), cluster: r.name('cluster', MAX_CLUSTER_LENGTH) };
}

function clusterRequest(r: Reader): ClusterRequest {
  const provider = r.oneOf('provider', PROVIDERS satisfies readonly ProviderName[]);
  const aws = r.object('aws', awsRequest);
  if (aws.aws !== undefined && provider.provider !== 'aws') r.bad('aws', 'is for clusters with "provider": "aws" only');
  return {
    ...provider,
    ...aws,
    ...sizes(r),
    ...r.object('placement', placement),
    ...r.object('network', networkAccess),
    ...r.settings('config', settingProblem),
    ...r.list('collections', collectionRequest),
  };
}

/** What a cluster is given, and what may be changed later. */
function sizes(r: Reader) {
  return {
    ...r.integer('nodes', { min: 1, max: MAX_NODES }),
    ...r.text('version', (t) => (IMAGE_TAG.test(t) ? undefined : 'must be an image tag such as "v1.18.3"')),
    ...r.text('storage', (t) => (QUANTITY.test(t) ? undefined : 'must be a Kubernetes quantity such as "10Gi"')),
    ...r.integer('replicationFactor', { min: 1, max: MAX_NODES }),
    ...r.object('resources', (inner) => ({
      ...inner.text('cpu', (t) => (CPU.test(t) ? undefined : 'must be a CPU quantity such as "500m" or "2"')),
      ...inner.text('memory', (t) => (QUANTITY.test(t) ? undefined : 'must be a quantity such as "4Gi"')),
    })),
  };
}

function placement(r: Reader): Placement {
  return {
    ...r.stringMap('nodeSelector'),
    ...r.list('tolerations', (inner) => ({
      ...inner.text('key'),
      ...inner.oneOf('operator', ['Exists', 'Equal'] as const),
      ...inner.text('value'),
      ...inner.oneOf('effect', ['NoSchedule', 'PreferNoSchedule', 'NoExecute'] as const),
    })),
  };
}

function networkAccess(r: Reader): NetworkAccess {
  return {
    ...r.strings('allowNamespaces', {
      min: 1,
      check: (t) => (DNS_LABEL.test(t) ? undefined : 'must be the name of a Kubernetes namespace'),
    }),
    ...r.strings('allowCidrs', { min: 1, check: cidrProblem }),
    ...r.boolean('internalLoadBalancer'),
  };
}

/** Why `text` is no IPv4 or IPv6 network in CIDR form. */
function cidrProblem(text: string): string | undefined {
  return parseNetwork(text) === undefined ? 'must be a network such as "10.20.0.0/16"' : undefined;
}

/** Why a setting of Qdrant's configuration file is not for users to set, if it is not. */
function settingProblem(name: string): string | undefined {
  if (!/^[a-z_0-9]+(?:\.[a-z_0-9]+)+$/.test(name)) return 'must be a dotted name such as "storage.wal.wal_capacity_mb"';
  if (/key|token|secret|password|jwt/.test(name))
    return 'would put a secret into the chart; keys are rotated by RotateApiKey';
  if (
    /^cluster\.|^service\.(?:host|http_port|grpc_port|enable_tls)|^storage\.(?:storage|snapshots|temp)_path|^tls\./.test(
      name,
    )
  ) {
    return 'is set by qdrant-fleet and the chart';
  }
  return undefined;
}

function collectionRequest(r: Reader): CollectionRequest {
  return {
    ...r.text('preset'),
    ...r.text('name', collectionNameProblem),
    ...r.integer('vectorSize', { min: 1, max: 65_536 }),
    ...r.oneOf('distance', DISTANCES),
    ...r.integer('replicationFactor', { min: 1, max: MAX_NODES }),
    ...r.integer('shardNumber', { min: 1, max: 1024 }),
  };
}

function retentionPolicy(r: Reader): RetentionPolicy {
  const policy = {
    ...r.integer('keepLast', { min: 1, max: 100_000 }),
    ...r.number('keepWithinDays', { min: 0, max: 36_500 }),
    ...r.integer('minGood', { min: 1, max: 100_000 }),
    ...r.integer('maxRemovals', { min: 1, max: 100_000 }),
    ...r.number('undoHours', { min: 0, max: 8760 }),
  };
  if (policy.keepLast === undefined && policy.keepWithinDays === undefined) {
    r.bad('keepLast', 'is needed, or "keepWithinDays": a policy has to say what to keep');
  }
  return policy;
}

/**
 * Check `input` and return what `read` makes of it.
 *
 * @throws FleetError `InvalidInput` that lists every bad field by its JSON path, unknown fields included
 */
export function readInput<T>(input: unknown, read: (reader: Reader) => T): T {
  const errors: FieldError[] = [];
  const reader = new Reader(input, '', errors);
  const value = read(reader);
  reader.refuseUnknown();
  if (errors.length > 0) throw invalidInput(errors);
  return value;
}

export function invalidInput(fields: readonly FieldError[]): FleetError {
  const text = fields.map(({ field, detail }) => `${field === '' ? 'input' : field}: ${detail}`).join('; ');
  return new FleetError('InvalidInput', text, { fields });
}

type Check = (text: string) => string | undefined;
type Optional<K extends string, V> = { [key in K]?: V };

/** Reads one JSON object; remembers which fields were asked for, so that the others can be refused. */
export class Reader {
  readonly #object: Readonly<Record<string, unknown>>;
  readonly #path: string;
  readonly #errors: FieldError[];
  readonly #asked = new Set<string>();

  constructor(input: unknown, path: string, errors: FieldError[]) {
    this.#path = path;
    this.#errors = errors;
    if (typeof input === 'object' && input !== null && !Array.isArray(input)) {
      this.#object = input as Record<string, unknown>;
    } else {
      this.#object = {};
      errors.push({ field: path, detail: 'must be one JSON object' });
    }
  }

  bad(field: string, detail: string): void {
    this.#errors.push({ field: this.#at(field), detail });
  }

  name(field: string, maxLength: number): string {
    return this.required(field, (text) => nameProblem(text, maxLength));
  }

  required(field: string, check: Check): string {
    const value = this.text(field, check)[field];
    if (value === undefined && this.#object[field] === undefined) this.bad(field, 'is needed');
    return value ?? '';
  }

  text<K extends string>(field: K, check?: Check): Optional<K, string> {
    return this.#optional(field, (value) => {
      if (typeof value !== 'string') return this.bad(field, `must be a string, is ${typeOf(value)}`);
      const problem = check?.(value);
      return problem === undefined ? value : this.bad(field, problem);
    });
  }

  integer<K extends string>(field: K, range: { min: number; max: number }): Optional<K, number> {
    return this.#optional(field, (value) => {
      if (!Number.isInteger(value)) return this.bad(field, `must be a whole number, is ${typeOf(value)}`);
      return this.#inRange(field, value as number, range);
    });
  }

  number<K extends string>(field: K, range: { min: number; max: number }): Optional<K, number> {
    return this.#optional(field, (value) => {
      if (typeof value !== 'number') return this.bad(field, `must be a number, is ${typeOf(value)}`);
      return this.#inRange(field, value, range);
    });
  }

  boolean<K extends string>(field: K): Optional<K, boolean> {
    return this.#optional(field, (value) =>
      typeof value === 'boolean' ? value : this.bad(field, `must be true or false, is ${typeOf(value)}`),
    );
  }

  oneOf<K extends string, V extends string>(field: K, known: readonly V[]): Optional<K, V> {
    return this.#optional(field, (value) => {
      const found = known.find((item) => item === value);
      return found ?? this.bad(field, `must be one of ${known.join(', ')}`);
    });
  }

  object<K extends string, V>(field: K, read: (reader: Reader) => V): Optional<K, V> {
    return this.#optional(field, (value) => this.#nested(value, field, read));
  }

  list<K extends string, V>(field: K, read: (reader: Reader) => V): Optional<K, V[]> {
    return this.#optional(field, (value) => {
      if (!Array.isArray(value)) return this.bad(field, `must be a list, is ${typeOf(value)}`);
      return value.map((item, index) => this.#nested(item, `${field}[${index}]`, read));
    });
  }

  settings<K extends string>(field: K, check: Check): Optional<K, Record<string, string | number | boolean>> {
    return this.#optional(field, (value) => {
      if (typeof value !== 'object' || Array.isArray(value)) {
        return this.bad(field, `must be an object of settings by dotted name, is ${typeOf(value)}`);
      }
      const settings: Record<string, string | number | boolean> = {};
      for (const [name, setting] of Object.entries(value as Record<string, unknown>)) {
        const problem = ['string', 'number', 'boolean'].includes(typeof setting)
          ? check(name)
          : `must be a text, a number, true or false, is ${typeOf(setting)}`;
        if (problem !== undefined) this.bad(`${field}.${name}`, problem);
        else settings[name] = setting as string | number | boolean;
      }
      return settings;
    });
  }

  strings<K extends string>(field: K, { min, check }: { min: number; check?: Check }): Optional<K, string[]> {
    return this.#optional(field, (value) => {
      if (!Array.isArray(value) || value.some((item) => typeof item !== 'string')) {
        return this.bad(field, 'must be a list of strings');
      }
      for (const [index, item] of value.entries()) {
        const problem = check?.(item as string);
        if (problem !== undefined) this.bad(`${field}[${index}]`, problem);
      }
      if (value.length < min) return this.bad(field, `must name at least ${min}; leave the field out for all`);
      return value as string[];
    });
  }

  /** An object of strings. */
  record<K extends string>(field: K, checkKey: Check): Optional<K, Record<string, string>> {
    return this.#optional(field, (value) => {
      if (typeof value !== 'object' || Array.isArray(value)) return this.bad(field, 'must be an object of strings');
      for (const [key, text] of Object.entries(value as object)) {
        const problem = typeof text === 'string' ? checkKey(key) : `must be a string, is ${typeOf(text)}`;
        if (problem !== undefined) return this.bad(`${field}.${key}`, problem);
      }
      return value as Record<string, string>;
    });
  }

  stringMap<K extends string>(field: K): Optional<K, Record<string, string>> {
    return this.#optional(field, (value) => {
      const entries = typeof value === 'object' && value !== null ? Object.entries(value) : [];
      if (typeof value !== 'object' || Array.isArray(value) || entries.some(([, item]) => typeof item !== 'string')) {
        return this.bad(field, 'must be an object of strings, such as {"disk": "nvme"}');
      }
      return Object.fromEntries(entries) as Record<string, string>;
    });
  }

  /** An object of strings: from a name to another. */
  names<K extends string>(field: K, check: Check): Optional<K, Record<string, string>> {
    return this.#optional(field, (value) => {
      if (typeof value !== 'object' || value === null || Array.isArray(value)) {
        return this.bad(field, `must be an object such as {"old": "new"}, is ${typeOf(value)}`);
      }
      for (const [key, name] of Object.entries(value)) {
        const problem = typeof name === 'string' ? check(name) : `must be a string, is ${typeOf(name)}`;
        if (problem !== undefined) this.bad(`${field}.${key}`, problem);
      }
      return value as Record<string, string>;
    });
  }

  refuseUnknown(): void {
    for (const field of Object.keys(this.#object)) {
      if (!this.#asked.has(field)) {
        this.bad(field, `is not known here; known: ${[...this.#asked].join(', ')}`);
      }
    }
  }

  #optional<K extends string, V>(field: K, read: (value: unknown) => V | void): Optional<K, V> {
    this.#asked.add(field);
    const value = this.#object[field];
    if (value === undefined || value === null) return {};
    const result = read(value);
    return result === undefined ? {} : ({ [field]: result } as Optional<K, V>);
  }

  #inRange(field: string, value: number, { min, max }: { min: number; max: number }): number | void {
    return value >= min && value <= max ? value : this.bad(field, `must be from ${min} to ${max}, is ${value}`);
  }

  #nested<V>(value: unknown, field: string, read: (reader: Reader) => V): V {
    const inner = new Reader(value, this.#at(field), this.#errors);
    const result = read(inner);
    inner.refuseUnknown();
    return result;
  }

  #at(field: string): string {
    return this.#path === '' ? field : `${this.#path}.${field}`;
  }
}

function typeOf(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  return typeof value === 'object' ? 'an object' : `${typeof value} ${JSON.stringify(value)}`;
}
