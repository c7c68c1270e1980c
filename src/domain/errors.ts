/**
 * The closed set of failure codes. A code's class says what the machinery does with it:
 *
 * - `retry`: the call may succeed when repeated as it is; activities are retried with backoff.
 * - `wait`: nothing is wrong yet, the thing awaited is not there; polled at a steady pace, bounded in time.
 * - `fail`: repeating cannot help; the workflow compensates and fails with this code.
 * - `human`: stop, keep everything, somebody has to look.
 *
 * `status` is the HTTP status of the problem+json that the API answers with.
 */
export const ERROR_CODES = {
  InvalidInput: { class: 'fail', status: 400, title: 'The request is not valid' },
  Unauthorized: { class: 'fail', status: 401, title: 'A valid API token is needed' },
  NotAllowed: { class: 'fail', status: 403, title: 'The operator of the fleet does not allow this' },
  NotFound: { class: 'fail', status: 404, title: 'No such resource' },
  ClusterNotFound: { class: 'fail', status: 404, title: 'No such cluster' },
  BackupNotFound: { class: 'fail', status: 404, title: 'No such backup' },
  ScheduleNotFound: { class: 'fail', status: 404, title: 'No such schedule' },
  OperationNotFound: { class: 'fail', status: 404, title: 'No such operation' },
  ClusterExists: { class: 'fail', status: 409, title: 'The cluster exists already' },
  ClusterSuspended: { class: 'fail', status: 409, title: 'The cluster is suspended' },
  ClusterBusy: { class: 'fail', status: 409, title: 'Another operation holds the cluster' },
  ScheduleExists: { class: 'fail', status: 409, title: 'The schedule exists already' },
  BackupNotCommitted: { class: 'fail', status: 409, title: 'The backup is not complete' },
  BackupDamaged: { class: 'fail', status: 409, title: 'The backup is damaged' },
  CommitConflict: { class: 'fail', status: 409, title: 'The backup record was changed by someone else' },
  ResourceNotOurs: { class: 'fail', status: 409, title: 'A resource at the provider belongs to someone else' },
  InfrastructureBlocked: { class: 'wait', status: 409, title: 'Something keeps the infrastructure from going' },
  NamespaceNotOurs: { class: 'fail', status: 409, title: 'The namespace belongs to someone else' },
  ReplicaNotActive: { class: 'fail', status: 409, title: 'A replica was not whole while it was copied' },
  TopologyUnstable: { class: 'fail', status: 409, title: 'Shards are being moved or lack an active replica' },
  UndeleteRefused: { class: 'fail', status: 409, title: 'There is no deletion to take back' },
  UpdateRefused: { class: 'fail', status: 422, title: 'The cluster cannot be changed like this' },
  RestoreRefused: { class: 'fail', status: 422, title: 'The backup cannot be restored into this target' },
  BackupNotTrusted: { class: 'fail', status: 422, title: 'The backup does not carry the mark of this fleet' },
  IdempotencyKeyReused: { class: 'fail', status: 422, title: 'The idempotency key was used for another request' },
  ProviderNotSupported: { class: 'fail', status: 422, title: 'The provider is not supported' },
  QuotaReached: { class: 'fail', status: 403, title: 'A quota of the tenant is reached' },
  CloudQuotaReached: { class: 'fail', status: 502, title: 'A quota of the cloud account is reached' },
  NotConfigured: { class: 'fail', status: 503, title: 'The fleet lacks a setting for this' },
  CapacityUnavailable: { class: 'fail', status: 502, title: 'The cloud has no capacity of this kind' },
  CloudDenied: { class: 'fail', status: 502, title: 'The cloud account lacks a permission' },
  CloudRejected: { class: 'fail', status: 502, title: 'The cloud refused the request' },
  InfrastructureFailed: { class: 'fail', status: 502, title: 'The cloud could not make the infrastructure' },
  ChartFailed: { class: 'fail', status: 502, title: 'Helm could not apply the chart' },
  PodCannotStart: { class: 'fail', status: 502, title: 'A pod of the cluster cannot start' },
  PlaintextRefused: { class: 'fail', status: 502, title: 'A connection without TLS is not allowed' },
  CertificateFailed: { class: 'fail', status: 502, title: 'A certificate could not be issued' },
  QdrantRejected: { class: 'fail', status: 502, title: 'Qdrant refused the request' },
  StoreDenied: { class: 'fail', status: 502, title: 'The backup store refused the request' },
  KubernetesDenied: { class: 'fail', status: 502, title: 'Kubernetes refused the request' },
  IntegrityMismatch: { class: 'fail', status: 502, title: 'Bytes or counts differ from what was recorded' },
  CloudUnavailable: { class: 'retry', status: 503, title: 'The cloud does not answer' },
  InfrastructureNotReady: { class: 'wait', status: 503, title: 'The infrastructure is not ready yet' },
  ClusterNotReady: { class: 'wait', status: 503, title: 'The cluster is not ready yet' },
  SnapshotVanished: { class: 'retry', status: 503, title: 'A snapshot disappeared from its node' },
  QdrantUnavailable: { class: 'retry', status: 503, title: 'Qdrant does not answer' },
  StoreUnavailable: { class: 'retry', status: 503, title: 'The backup store does not answer' },
  KubernetesUnavailable: { class: 'retry', status: 503, title: 'The Kubernetes API does not answer' },
  CatalogUnavailable: { class: 'retry', status: 503, title: 'The catalogue database does not answer' },
  TemporalUnavailable: { class: 'retry', status: 503, title: 'Temporal does not answer' },
  DiskFull: { class: 'human', status: 507, title: 'A node has too little free disk' },
  ClockSkew: { class: 'human', status: 500, title: 'The clocks of the worker and the store disagree' },
  CleanupIncomplete: { class: 'human', status: 500, title: 'Something was left behind' },
  Internal: { class: 'retry', status: 500, title: 'Unexpected error' },
} as const satisfies Record<string, { class: 'retry' | 'wait' | 'fail' | 'human'; status: number; title: string }>;

export type ErrorCode = keyof typeof ERROR_CODES;

/** Whether `text` is one of the closed set's codes. */
export function isErrorCode(text: unknown): text is ErrorCode {
  return typeof text === 'string' && Object.hasOwn(ERROR_CODES, text);
}

/** Whether an activity that failed with this code is worth repeating. */
export function isRetryable(code: ErrorCode): boolean {
  const { class: kind } = ERROR_CODES[code];
  return kind === 'retry' || kind === 'wait';
}

/**
 * A failure with a code of the closed set. The message says what was tried, on what, what came back and what to do
 * next, and never holds a key, a token or a signed URL.
 */
export class FleetError extends Error {
  override readonly name = 'FleetError';
  readonly code: ErrorCode;
  /** For `InvalidInput`: the bad fields by their JSON path, as many as an answer lists. */
  readonly fields: readonly FieldError[];
  /** Key of the object in the bucket that is damaged, where the failure is about one. */
  readonly object: string | undefined;
  /** How many more bad fields there are. */
  readonly more: number;
  /** Each field by itself is as it should be: they do not go together, or not with the world. */
  readonly wellFormed: boolean;

  constructor(
    code: ErrorCode,
    message: string,
    options?: { cause?: unknown; fields?: readonly FieldError[]; more?: number; wellFormed?: boolean; object?: string },
  ) {
    super(message, options?.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.fields = options?.fields ?? [];
    this.object = options?.object;
    this.more = options?.more ?? 0;
    this.wellFormed = options?.wellFormed ?? false;
  }

  static is(error: unknown, code?: ErrorCode): error is FleetError {
    return error instanceof FleetError && (code === undefined || error.code === code);
  }
}

/** One bad field of an input: where (JSON path) and what is wrong with it and how to mend it. */
export interface FieldError {
  readonly field: string;
  readonly detail: string;
}

/** The message of anything thrown, without its stack. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
