/** Operations that ended without saying so, and what that means for their cluster. Pure. */

import type { ClusterPhase } from './cluster.ts';
import { FleetError } from './errors.ts';

/** How a workflow ended, as Temporal tells. */
export interface Ending {
  readonly state: 'done' | 'failed' | 'cancelled';
  readonly error?: { readonly code: string; readonly message: string };
  readonly at?: Date;
}

/** Codes of operations that were ended from outside, without a chance to clean up. */
export const ENDED_OUTSIDE = { TERMINATED: 'Terminated', TIMED_OUT: 'TimedOut' } as const;

interface PastOperation {
  readonly id: string;
  readonly kind: string;
  readonly state: string;
  readonly error_code: string | null;
}

/**
 * What the condition `Failed` of a cluster says whose operation is gone.
 *
 * @param operations of the cluster, the newest first
 */
export function abandonedWords(operations: readonly PastOperation[]): { code: string; message: string } {
  const last = operations.find(endedOutside) ?? operations[0];
  if (last === undefined) {
    return {
      code: 'Terminated',
      message: 'The operation that changed it is not known any more. Repeat it, or delete the cluster.',
    };
  }
  const { id, kind, error_code: code } = last;
  const again = kind === 'provision' ? 'Delete the cluster, then make it again' : 'Repeat it to go on';
  return { code: code ?? 'Terminated', message: `Operation "${id}" (${kind}) ended before its end. ${again}.` };
}

/** Kinds of operations that leave the cluster alone. */
const READING: readonly string[] = ['backup', 'retention', 'verify', 'undelete', 'sweep'];

/** The last operation that changed the cluster was done; only the phase that it left could not be recorded. */
export function doneWithoutPhase(operations: readonly PastOperation[]): boolean {
  return operations.find(({ kind }) => !READING.includes(kind))?.state === 'done';
}

/** A deletion that fails leaves the cluster in phase DELETING, so that the next one goes on; that is no abandoned one. */
export function failedByItself(operations: readonly PastOperation[]): boolean {
  const deletion = operations.find(({ kind }) => kind === 'delete');
  return deletion?.state === 'failed' && !endedOutside(deletion);
}

function endedOutside({ error_code: code }: PastOperation): boolean {
  return Object.values<string | null>(ENDED_OUTSIDE).includes(code);
}

/** A name that is taken, and what to do about it. */
export function clusterExists({ tenant, cluster, phase, created_by: by }: NamedCluster): FleetError {
  const taken = `Tenant "${tenant}" already has a cluster "${cluster}" (${phase}).`;
  const remedy: Partial<Record<ClusterPhase, string>> = {
    FAILED_TO_CREATE: 'It was not made to its end, and parts of it may be left. Delete it first, then make it again.',
    CREATING: `Operation "${by}" makes it. Wait for that, or choose another name; if the operation no longer runs, delete the cluster first.`,
  };
  return new FleetError('ClusterExists', `${taken} ${remedy[phase] ?? 'Choose another name, or delete it first.'}`);
}

interface NamedCluster {
  readonly tenant: string;
  readonly cluster: string;
  readonly phase: ClusterPhase;
  readonly created_by: string;
}
