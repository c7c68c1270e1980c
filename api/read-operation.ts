/** An operation as the API shows it: a workflow, seen through Temporal, its own progress and the catalogue. */
import type { WorkflowExecutionDescription, WorkflowExecutionStatusName } from '@temporalio/client';
import { WorkflowNotFoundError } from '@temporalio/common';
import type { OperationRow } from '../src/clients/catalog.ts';
import { ENDED_OUTSIDE } from '../src/domain/abandoned.ts';
import { FleetError, messageOf } from '../src/domain/errors.ts';
import { shown } from '../src/domain/input/echo.ts';
import { ANSWERS } from '../src/domain/input/limits.ts';
import { OPERATION_KINDS, type OperationKind, type Progress, type Step } from '../src/domain/operation.ts';
import { withoutAddresses } from '../src/domain/public-failure.ts';
import { FLEET_CLUSTER, FLEET_OPERATION, FLEET_PHASE, FLEET_TENANT } from '../src/temporal-search-attributes.ts';
import type { ApiDeps } from './context.ts';
import { endError, failureOf, fleetFailure, type OperationError } from './operation-error.ts';
import { callTemporal } from './temporal.ts';

export interface OperationView {
  readonly id: string;
  readonly kind: OperationKind;
  readonly cluster: string;
  readonly done: boolean;
  /** The running step's name; once done `done`, `failed`, `cancelled`, `terminated` or `timed out`. */
  readonly phase: string;
  readonly percent: number;
  readonly steps: readonly Step[];
  readonly startedAt: string;
  readonly finishedAt?: string;
  readonly error?: OperationError;
  readonly result?: unknown;
  readonly links: { readonly temporal: { namespace: string; workflowId: string; runId: string } };
}

const PROGRESS_DEADLINE_MS = 3000;

const END_PHASES: Partial<Record<WorkflowExecutionStatusName, string>> = {
  COMPLETED: 'done',
  FAILED: 'failed',
  CANCELLED: 'cancelled',
  TERMINATED: 'terminated',
  TIMED_OUT: 'timed out',
};

/**
 * @param options.progress false: without asking the workflow for its steps, which needs a worker
 * @throws FleetError `OperationNotFound`, also for operations of other tenants
 */
export async function readOperation(
  deps: ApiDeps,
  tenant: string,
  id: string,
  options: { progress: boolean } = { progress: true },
): Promise<OperationView> {
  const described = await describe(deps, id);
  if (described === undefined || FleetError.is(described)) {
    const row = await deps.catalog.operation(tenant, id);
    // With Temporal away, only what has ended is known for certain.
    if (row !== undefined && (described === undefined || row.state !== 'running')) return viewOfRow(row, deps);
    throw described ?? operationNotFound(id);
  }
  const known = await identify(described, deps, tenant);
  const endPhase = END_PHASES[described.status.name];
  const [progress, end] = await Promise.all([
    options.progress ? askProgress(deps, described) : undefined,
    endPhase === undefined ? undefined : readEnd(deps, described),
  ]);
  return {
    id,
    ...known,
    done: endPhase !== undefined,
    phase: endPhase ?? progress?.phase ?? described.typedSearchAttributes.get(FLEET_PHASE) ?? 'running',
    percent: endPhase === 'done' ? 100 : (progress?.percent ?? 0),
    steps: (progress?.steps ?? []).map(visibleStep),
    startedAt: described.startTime.toISOString(),
    ...(described.closeTime !== undefined && { finishedAt: described.closeTime.toISOString() }),
    ...end,
    links: linksTo(deps, id, described.runId),
  };
}

/**
 * Check that the operation is the tenant's, and what it is.
 *
 * @throws FleetError `OperationNotFound`
 */
export async function identifyOperation(deps: ApiDeps, tenant: string, id: string): Promise<{ running: boolean }> {
  const described = await describe(deps, id);
  if (FleetError.is(described)) throw described;
  if (described === undefined) {
    if ((await deps.catalog.operation(tenant, id)) === undefined) throw operationNotFound(id);
    return { running: false };
  }
  await identify(described, deps, tenant);
  return { running: END_PHASES[described.status.name] === undefined };
}

/** Undefined when Temporal does not know it (any more); an error when Temporal does not answer. */
async function describe(deps: ApiDeps, id: string): Promise<WorkflowExecutionDescription | FleetError | undefined> {
  try {
    return await callTemporal(deps.temporal, () => deps.temporal.workflow.getHandle(id).describe());
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return undefined;
    if (FleetError.is(error, 'TemporalUnavailable')) return error;
    throw error;
  }
}

async function identify(
  { workflowId, type, typedSearchAttributes }: WorkflowExecutionDescription,
  deps: ApiDeps,
  tenant: string,
): Promise<{ kind: OperationKind; cluster: string }> {
  const owner = typedSearchAttributes.get(FLEET_TENANT);
  const cluster = typedSearchAttributes.get(FLEET_CLUSTER);
  const kind = kindOf(typedSearchAttributes.get(FLEET_OPERATION), type);
  if (owner === tenant && cluster !== undefined && kind !== undefined) return { kind, cluster };
  // Started by hand without search attributes: the catalogue knows it once its first activity has run.
  const row = owner === undefined || owner === tenant ? await deps.catalog.operation(tenant, workflowId) : undefined;
  if (row === undefined) throw operationNotFound(workflowId);
  return { kind: row.kind, cluster: row.cluster };
}

function kindOf(attribute: string | undefined, workflowType: string): OperationKind | undefined {
  const kinds = Object.keys(OPERATION_KINDS) as OperationKind[];
  return kinds.find((kind) => kind === attribute) ?? kinds.find((kind) => OPERATION_KINDS[kind] === workflowType);
}

/** A step tells how far it is, or why it failed; addresses of the installation are not for tenants. */
function visibleStep(step: Step): Step {
  return step.message === undefined ? step : { ...step, message: withoutAddresses(step.message) };
}

/** Undefined when no worker answers in time. */
async function askProgress(deps: ApiDeps, { workflowId, runId }: WorkflowExecutionDescription) {
  try {
    const handle = deps.temporal.workflow.getHandle(workflowId, runId);
    return await callTemporal(deps.temporal, () => handle.query<Progress>('progress'), PROGRESS_DEADLINE_MS);
  } catch (error) {
    deps.logger.debug({ operation: workflowId, reason: messageOf(error) }, 'no progress to show');
    return undefined;
  }
}

async function readEnd(deps: ApiDeps, { workflowId, runId, status }: WorkflowExecutionDescription) {
  if (status.name === 'COMPLETED') {
    const handle = deps.temporal.workflow.getHandle(workflowId, runId, { followRuns: false });
    const result: unknown = await callTemporal(deps.temporal, () => handle.result());
    return result == null ? {} : { result };
  }
  return { error: await failureOf(deps, workflowId, runId, status.name) };
}

function viewOfRow(row: OperationRow, deps: ApiDeps): OperationView {
  const done = row.state !== 'running';
  const outside = (['TERMINATED', 'TIMED_OUT'] as const).find((status) => ENDED_OUTSIDE[status] === row.error_code);
  const error =
    row.state === 'cancelled' || outside !== undefined
      ? endError(outside ?? 'CANCELLED')
      : row.error_code === null
        ? undefined
        : fleetFailure(row.error_code, row.error_message ?? '', row.id);
  return {
    id: row.id,
    kind: row.kind,
    cluster: row.cluster,
    done,
    phase: row.state,
    percent: row.state === 'done' ? 100 : 0,
    steps: [],
    startedAt: row.started_at.toISOString(),
    ...(row.finished_at !== null && { finishedAt: row.finished_at.toISOString() }),
    ...(error !== undefined && { error }),
    ...(row.result !== null && { result: row.result }),
    links: linksTo(deps, row.id, row.run_id),
  };
}

function linksTo({ temporal }: ApiDeps, workflowId: string, runId: string): OperationView['links'] {
  return { temporal: { namespace: temporal.options.namespace, workflowId, runId } };
}

export function operationNotFound(id: string): FleetError {
  return new FleetError('OperationNotFound', `There is no operation "${shown(id, ANSWERS.pathLength)}".`);
}
