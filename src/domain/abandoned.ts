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

interface LastOperation {
  readonly id: string;
  readonly kind: string;
  readonly state: string;
  readonly error_code: string | null;
}

/** What the condition `Failed` of a cluster says whose operation is gone. */
export function abandonedWords(last: LastOperation | undefined): { code: string; message: string } {
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
