/**
 * Guards for workflow inputs. People type these as JSON at the `temporal` CLI, so a workflow checks its own input. How
 * it is read is in `input/reader.ts`, all bounds in `input/limits.ts`, and how texts are written in `input/formats.ts`.
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
import { FORMATS, type Format } from './input/formats.ts';
import { NUMBERS, SIZES, TEXTS } from './input/limits.ts';
import { shown } from './input/echo.ts';
import { readInput, type Reader } from './input/reader.ts';
import type { ClusterRef } from './naming.ts';
import { QDRANT_SETTINGS, settingProblem } from './qdrant-settings.ts';
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

export interface RotateCertificatesInput extends RotateInput {
  /** A new authority as well, and with it a restart of all pods three times. */
  readonly authority?: boolean;
  /** A new private key as well. */
  readonly newKey?: boolean;
  /** Do nothing while the certificate has more than a third of its life left; for schedules. */
  readonly onlyIfDue?: boolean;
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

export interface ObserveInput {
  /** Only the clusters of this tenant; default all. */
  readonly tenant?: string;
  /** Set by the workflow itself when it goes on as a new run: what it looked at last. */
  readonly after?: ClusterRef;
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
  /** Restore from a backup whose record or manifest the fleet has not signed, too. */
  readonly acceptUnsigned?: boolean;
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
    ...r.integer('readyTimeoutSeconds', NUMBERS.readyTimeoutSeconds),
  }));
}

export function parseUpdateInput(input: unknown): UpdateInput {
  return readInput(input, (r) => {
    const given = sizes(r);
    return {
      ...clusterRef(r),
      ...r.oneOf('provider', PROVIDERS satisfies readonly ProviderName[]),
      ...r.object('aws', awsFields),
      ...given,
      ...r.object('placement', placement),
      ...r.object('network', networkAccess),
      ...settings(r, given.version),
      ...r.boolean('allowDowntime'),
      ...r.boolean('repair'),
      ...r.boolean('dryRun'),
      ...r.integer('readyTimeoutSeconds', NUMBERS.readyTimeoutSeconds),
      ...r.integer('moveTimeoutSeconds', NUMBERS.moveTimeoutSeconds),
    };
  });
}

export function parseSweepInput(input: unknown): SweepInput {
  return readInput(input, (r) => ({
    tenant: r.required('tenant', TENANT),
    region: r.required('region', (text) =>
      AWS_REGIONS.includes(text) ? undefined : `must be one of ${AWS_REGIONS.join(', ')}`,
    ),
    ...r.text('cluster', FORMATS.cluster),
    ...r.boolean('dryRun'),
  }));
}

export function parseObserveInput(input: unknown): ObserveInput {
  return readInput(input, (r) => ({
    ...r.text('tenant', TENANT),
    ...r.object('after', clusterRef),
  }));
}

export function parseDeleteInput(input: unknown): DeleteInput {
  return readInput(input, (r) => ({
    ...clusterRef(r),
    ...r.boolean('finalBackup'),
    ...r.number('undoHours', NUMBERS.undoHours),
  }));
}

export function parseSuspendInput(input: unknown): ClusterRef {
  return readInput(input, clusterRef);
}

export function parseResumeInput(input: unknown): ResumeInput {
  return readInput(input, (r) => ({
    ...clusterRef(r),
    ...r.integer('readyTimeoutSeconds', NUMBERS.readyTimeoutSeconds),
  }));
}

export function parseRotateInput(input: unknown): RotateInput {
  return readInput(input, rotateInput);
}

export function parseRotateCertificatesInput(input: unknown): RotateCertificatesInput {
  return readInput(input, (r) => ({
    ...rotateInput(r),
    ...r.boolean('authority'),
    ...r.boolean('newKey'),
    ...r.boolean('onlyIfDue'),
  }));
}

function rotateInput(r: Reader): RotateInput {
  return {
    ...clusterRef(r),
    ...r.integer('readyTimeoutSeconds', NUMBERS.readyTimeoutSeconds),
    ...r.boolean('allowDowntime'),
    ...r.integer('graceSeconds', NUMBERS.graceSeconds),
  };
}

export function parseBackupInput(input: unknown): BackupInput {
  return readInput(input, (r) => ({
    ...clusterRef(r),
    ...r.strings('collections', { min: 1, max: SIZES.collectionsNamed, each: FORMATS.collection }),
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
    tenant: r.required('tenant', TENANT),
    backup: r.required('backup', FORMATS.backup),
    source: r.required('source', FORMATS.cluster),
    cluster: r.required('cluster', FORMATS.cluster),
    ...r.integer('nodes', NUMBERS.nodes),
    ...r.integer('replicationFactor', NUMBERS.nodes),
    ...r.strings('collections', { min: 1, max: SIZES.collectionsNamed, each: FORMATS.collection }),
    ...r.map('rename', { max: SIZES.collectionsNamed, key: FORMATS.collectionKey, value: FORMATS.collection }),
    ...r.boolean('inPlace'),
    ...r.boolean('aliases'),
    ...r.oneOf('via', RESTORE_VIA),
    ...r.boolean('acceptDamaged'),
    ...r.boolean('acceptUnsigned'),
    ...r.boolean('dryRun'),
  };
}

/** Whether the backup holds the collections, and the target the names, is seen later. */
function checkRename(r: Reader, { rename = {}, collections }: RestoreInput): void {
  const selected = collections === undefined ? undefined : new Set(collections);
  const uses = new Map<string, number>();
  const use = (name: string) => void uses.set(name, (uses.get(name) ?? 0) + 1);
  for (const to of Object.values(rename)) use(to);
  for (const name of selected ?? []) if (!Object.hasOwn(rename, name)) use(name);
  for (const [from, to] of Object.entries(rename)) {
    if (selected?.has(from) === false) r.conflict(`rename.${from}`, 'is not among "collections"');
    if ((uses.get(to) ?? 0) > 1)
      r.conflict(`rename.${from}`, `"${shown(to, 40)}" would be the name of two collections`);
  }
}

export function parseVerifyInput(input: unknown): VerifyInput {
  return readInput(input, (r) => ({ ...clusterRef(r), backup: r.required('backup', FORMATS.backup) }));
}

export function parseUndeleteBackupInput(input: unknown): UndeleteBackupInput {
  return readInput(input, (r) => ({ ...clusterRef(r), backup: r.required('backup', FORMATS.backup) }));
}

export function parseRetentionInput(input: unknown): RetentionInput {
  return readInput(input, (r) => {
    const policy = r.object('policy', retentionPolicy).policy;
    if (policy === undefined) r.bad('policy', 'is needed, such as {"keepLast": 7}');
    return { ...clusterRef(r), policy: policy ?? {}, ...r.boolean('dryRun') };
  });
}

const TENANT: Format = { ...FORMATS.cluster, maxLength: TEXTS.tenant };

function clusterRef(r: Reader): ClusterRef {
  return { tenant: r.required('tenant', TENANT), cluster: r.required('cluster', FORMATS.cluster) };
}

function clusterRequest(r: Reader): ClusterRequest {
  const provider = r.oneOf('provider', PROVIDERS satisfies readonly ProviderName[]);
  const aws = r.object('aws', awsRequest);
  const given = sizes(r);
  if (aws.aws !== undefined && provider.provider !== 'aws') r.bad('aws', 'is for clusters with "provider": "aws" only');
  return {
    ...provider,
    ...aws,
    ...given,
    ...r.object('placement', placement),
    ...r.object('network', networkAccess),
    ...r.boolean('tls'),
    ...settings(r, given.version),
    ...r.list('collections', { max: SIZES.collectionsMade }, collectionRequest),
  };
}

/** What a cluster is given, and what may be changed later. */
function sizes(r: Reader) {
  return {
    ...r.integer('nodes', NUMBERS.nodes),
    ...r.text('version', FORMATS.imageTag),
    ...r.text('storage', FORMATS.storage),
    ...r.integer('replicationFactor', NUMBERS.nodes),
    ...r.object('resources', (inner) => ({
      ...inner.text('cpu', FORMATS.cpu),
      ...inner.text('memory', FORMATS.memory),
    })),
  };
}

function placement(r: Reader): Placement {
  return {
    ...r.map('nodeSelector', { max: SIZES.nodeSelector, key: FORMATS.labelKey, value: FORMATS.labelValue }),
    ...r.list('tolerations', { max: SIZES.tolerations }, (inner) => ({
      ...inner.text('key', FORMATS.labelKey),
      ...inner.oneOf('operator', ['Exists', 'Equal'] as const),
      ...inner.text('value', FORMATS.labelValue),
      ...inner.oneOf('effect', ['NoSchedule', 'PreferNoSchedule', 'NoExecute'] as const),
    })),
  };
}

function networkAccess(r: Reader): NetworkAccess {
  return {
    ...r.strings('allowNamespaces', { min: 1, max: SIZES.allowNamespaces, each: FORMATS.namespace }),
    ...r.strings('allowCidrs', { min: 1, max: SIZES.allowCidrs, each: FORMATS.cidr }),
    ...r.boolean('internalLoadBalancer'),
  };
}

/** Settings that the version knows, with values that it takes. */
function settings(r: Reader, version: string | undefined): { config?: Record<string, string | number | boolean> } {
  return r.entries('config', Object.keys(QDRANT_SETTINGS).length, (name, value, at) => {
    const problem = settingProblem(name, value, version);
    return problem === undefined ? (value as string | number | boolean) : r.bad(at, problem);
  });
}

function collectionRequest(r: Reader): CollectionRequest {
  return {
    ...r.text('preset', FORMATS.preset),
    ...r.text('name', FORMATS.collectionKey),
    ...r.integer('vectorSize', NUMBERS.vectorSize),
    ...r.oneOf('distance', DISTANCES),
    ...r.integer('replicationFactor', NUMBERS.nodes),
    ...r.integer('shardNumber', NUMBERS.shardNumber),
  };
}

function retentionPolicy(r: Reader): RetentionPolicy {
  const policy = {
    ...r.integer('keepLast', NUMBERS.backupsKept),
    ...r.number('keepWithinDays', NUMBERS.keepWithinDays),
    ...r.integer('minGood', NUMBERS.backupsKept),
    ...r.integer('maxRemovals', NUMBERS.backupsKept),
    ...r.number('undoHours', NUMBERS.undoHours),
  };
  if (policy.keepLast === undefined && policy.keepWithinDays === undefined) {
    r.bad('keepLast', 'is needed, or "keepWithinDays": a policy has to say what to keep');
  }
  return policy;
}
