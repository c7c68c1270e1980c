/** Calls to Temporal with a deadline, and their failures in the domain's words. */
import { isGrpcCancelledError, isGrpcDeadlineError, isGrpcServiceError, type Client } from '@temporalio/client';
import { NamespaceNotFoundError } from '@temporalio/common';
import { FleetError } from '../src/domain/errors.ts';

/** Longer than a busy server needs, shorter than clients and load balancers wait. */
const DEADLINE_MS = 15_000;

// https://grpc.io/docs/guides/status-codes/; the client itself offers these only as a const enum of another package.
const INVALID_ARGUMENT = 3;
const OUTAGES = new Set([2, 4, 7, 8, 10, 13, 14, 16]);

/**
 * Run one call; without a deadline the client may wait for an absent server for ever. What Temporal says about the
 * thing asked for (not found, exists already) is thrown as it is.
 *
 * @throws FleetError `TemporalUnavailable`
 */
export async function callTemporal<T>(client: Client, call: () => Promise<T>, deadlineMs = DEADLINE_MS): Promise<T> {
  try {
    return await client.withDeadline(Date.now() + deadlineMs, call);
  } catch (error) {
    if (isOutage(error)) {
      throw new FleetError('TemporalUnavailable', 'Temporal did not answer.', { cause: error });
    }
    throw error;
  }
}

function isOutage(error: unknown): boolean {
  if (error instanceof NamespaceNotFoundError || isGrpcDeadlineError(error) || isGrpcCancelledError(error)) return true;
  const status = grpcError(error);
  return status !== undefined && OUTAGES.has(status.code);
}

/** What Temporal found wrong with the call's arguments, if that is what failed. */
export function argumentProblem(error: unknown): string | undefined {
  const status = grpcError(error);
  return status?.code === INVALID_ARGUMENT ? status.details : undefined;
}

function grpcError(error: unknown): { code: number; details: string } | undefined {
  if (isGrpcServiceError(error)) return error;
  return error instanceof Error && isGrpcServiceError(error.cause) ? error.cause : undefined;
}
