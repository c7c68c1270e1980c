/** Start a workflow as an operation: its id, its search attributes, and what an `Idempotency-Key` promises. */
import { createHash, randomBytes } from 'node:crypto';
import { WorkflowExecutionAlreadyStartedError, WorkflowNotFoundError } from '@temporalio/common';
import { FleetError } from '../src/domain/errors.ts';
import { FORMATS, formatProblem } from '../src/domain/input/formats.ts';
import { clusterKey } from '../src/domain/naming.ts';
import { OPERATION_KINDS, type OperationKind } from '../src/domain/operation.ts';
import { startAttributes } from '../src/temporal-search-attributes.ts';
import type { ApiContext, ApiDeps } from './context.ts';
import { invalidRequest } from './problem.ts';
import { requireOperation } from './quota.ts';
import { readOperation, type OperationView } from './read-operation.ts';
import { callTemporal } from './temporal.ts';

export interface StartRequest {
  readonly kind: OperationKind;
  readonly cluster: string;
  /** What the id names, where it is not about one cluster. */
  readonly about?: string;
  /** The workflow's one argument. */
  readonly input: object;
  /** One line for Temporal's lists. */
  readonly summary: string;
  /** Refuses by throwing. Not asked when the request repeats one that was accepted. */
  readonly check?: () => Promise<void>;
}

/** Answer of every request that starts an operation. */
export function accepted(c: ApiContext, operation: OperationView, more: object = {}): Response {
  return c.json({ operation, ...more }, 202, {
    Location: `/v1/operations/${encodeURIComponent(operation.id)}`,
    'Retry-After': '5',
  });
}

/**
 * With an `Idempotency-Key`:
 * 1. The workflow id derives from tenant, key and route, so Temporal itself starts at most one, however many ask at once.
 * 2. The same key with the same body answers the same operation for as long as Temporal keeps it, also after it ended
 *    and even where a new request would now be refused.
 * 3. The same key with another body is refused. Where the body names the cluster, the id differs too, and the earlier
 *    request is found in the catalogue once a worker has taken it up.
 *
 * @throws RequestError, FleetError `IdempotencyKeyReused`, `QuotaReached`, `TemporalUnavailable`, or what `check` throws
 */
export async function startOperation(c: ApiContext, deps: ApiDeps, request: StartRequest): Promise<OperationView> {
  const tenant = c.get('tenant');
  const key = idempotencyKey(c);
  const seed = key === undefined ? randomBytes(4) : sha256(JSON.stringify([tenant, key, c.req.method, c.req.path]));
  const suffix = seed.toString('hex').slice(0, 8);
  const id = `${request.kind}-${clusterKey({ tenant, cluster: request.about ?? request.cluster })}-${suffix}`;
  if (key === undefined) {
    await request.check?.();
    await requireOperation(deps, tenant, request.kind);
    await startWorkflow(deps, tenant, id, request, {});
    return readOperation(deps, tenant, id, { progress: false });
  }

  const requestHash = sha256(JSON.stringify([request.kind, request.input])).toString('hex');
  const earlier = await replay(deps, tenant, id, requestHash);
  if (earlier !== undefined) return earlier;
  try {
    await refuseOtherCluster(deps, tenant, request.kind, id, suffix);
    await request.check?.();
    await requireOperation(deps, tenant, request.kind);
  } catch (error) {
    // The same request may have got through meanwhile, and be the very reason for the refusal.
    const parallel = await replay(deps, tenant, id, requestHash);
    if (parallel !== undefined) return parallel;
    throw error;
  }
  await startWorkflow(deps, tenant, id, request, { requestHash });
  const started = await replay(deps, tenant, id, requestHash);
  if (started === undefined) throw new FleetError('Internal', `Workflow ${id} is gone right after its start.`);
  return started;
}

async function startWorkflow(
  { temporal, taskQueue }: ApiDeps,
  tenant: string,
  workflowId: string,
  { kind, cluster, input, summary }: StartRequest,
  memo: Record<string, unknown>,
): Promise<void> {
  try {
    await callTemporal(temporal, () =>
      temporal.workflow.start(OPERATION_KINDS[kind], {
        workflowId,
        taskQueue,
        args: [input],
        workflowIdConflictPolicy: 'USE_EXISTING',
        workflowIdReusePolicy: 'REJECT_DUPLICATE',
        typedSearchAttributes: startAttributes({ tenant, cluster, kind }),
        staticSummary: summary,
        // Of tenants that wait for the same workers each has its turn; activities and children inherit it.
        priority: { fairnessKey: tenant },
        memo,
      }),
    );
  } catch (error) {
    // Started by the same request and already ended; the caller reads it by its id.
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
  }
}

/** The operation that the same request started before, if it did. */
async function replay(
  deps: ApiDeps,
  tenant: string,
  id: string,
  requestHash: string,
): Promise<OperationView | undefined> {
  try {
    const { memo } = await callTemporal(deps.temporal, () => deps.temporal.workflow.getHandle(id).describe());
    if (memo?.requestHash !== requestHash) throw keyReused(id);
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return undefined;
    throw error;
  }
  return readOperation(deps, tenant, id, { progress: false });
}

async function refuseOtherCluster(deps: ApiDeps, tenant: string, kind: OperationKind, id: string, suffix: string) {
  const other = await deps.catalog.run('look for an earlier request', (db) =>
    db
      .selectFrom('operations')
      .select('id')
      .where('tenant', '=', tenant)
      .where('kind', '=', kind)
      .where('id', 'like', `${kind}-%-${suffix}`)
      .where('id', '!=', id)
      .executeTakeFirst(),
  );
  if (other !== undefined) throw keyReused(other.id);
}

function keyReused(id: string): FleetError {
  return new FleetError(
    'IdempotencyKeyReused',
    `This Idempotency-Key started operation "${id}" with another body. Use a new key for a new request.`,
  );
}

function idempotencyKey(c: ApiContext): string | undefined {
  const key = c.req.header('idempotency-key');
  if (key !== undefined && formatProblem(FORMATS.idempotencyKey, key) !== undefined) {
    throw invalidRequest([{ header: 'Idempotency-Key', detail: FORMATS.idempotencyKey.problem }]);
  }
  return key;
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
