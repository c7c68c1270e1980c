/** What is the case with a cluster, beside its phase: statements that are true, false or unknown, as Kubernetes words them. */
import type { ClusterPhase } from './cluster.ts';

export const CONDITION_TYPES = ['Ready', 'Progressing', 'Degraded', 'Failed', 'PoliciesEnforced'] as const;
export const CONDITION_STATUSES = ['True', 'False', 'Unknown'] as const;

export interface Condition {
  /**
   * `Ready`: every shard can be reached. `Progressing`: a change is under way. `Degraded`: a peer or a replica is
   * missing. `Failed`: the last change did not come to its end. `PoliciesEnforced`: something in the Kubernetes cluster
   * enforces network policies; only where that was looked at.
   */
  readonly type: (typeof CONDITION_TYPES)[number];
  readonly status: (typeof CONDITION_STATUSES)[number];
  /** One word for programs. */
  readonly reason: string;
  readonly message: string;
  /** When the status last changed, ISO 8601 UTC. */
  readonly lastTransitionTime: string;
}

export interface ClusterState {
  readonly phase: ClusterPhase;
  /** What is missing, when something is. */
  readonly degraded?: string;
  /** Whether every shard can be reached all the same. */
  readonly serving?: boolean;
  readonly failure?: { readonly code: string; readonly message: string };
}

const MOVING: readonly ClusterPhase[] = [
  'CREATING',
  'UPDATING',
  'SCALING',
  'UPGRADING',
  'SUSPENDING',
  'RESUMING',
  'RESTORING',
  'DELETING',
];
const SERVING: readonly ClusterPhase[] = ['HEALTHY', 'UPDATING', 'SCALING', 'UPGRADING', 'RESTORING'];
/** What a phase that moves means for users, where its name does not say it. */
const MEANING: Partial<Record<ClusterPhase, string>> = {
  RESTORING: 'A backup is being restored into the cluster. Collections of that backup may be missing or incomplete.',
};

/**
 * @param before the conditions until now, which keep their time when they do not change
 * @param now ISO 8601 UTC
 */
export function conditionsOf(state: ClusterState, before: readonly Condition[], now: string): Condition[] {
  const { phase, degraded, failure } = state;
  const ready = state.serving ?? SERVING.includes(phase);
  const word = phase.toLowerCase().replaceAll(/(?:^|_)(.)/g, (_, letter: string) => letter.toUpperCase());
  return [
    condition('Ready', ready, ready ? 'Serving' : word, ready ? '' : (degraded ?? '')),
    condition('Progressing', MOVING.includes(phase), word, MEANING[phase] ?? ''),
    condition('Degraded', degraded !== undefined, degraded === undefined ? 'Whole' : 'Incomplete', degraded ?? ''),
    condition('Failed', failure !== undefined, failure?.code ?? 'NoFailure', failure?.message ?? ''),
    // What was seen once stays: it is not about the phase.
    ...before.filter(({ type }) => type === 'PoliciesEnforced'),
  ];

  function condition(type: Condition['type'], holds: boolean, reason: string, message: string): Condition {
    const status = holds ? 'True' : 'False';
    const old = before.find((candidate) => candidate.type === type);
    const lastTransitionTime = old?.status === status ? old.lastTransitionTime : now;
    return { type, status, reason, message: message.slice(0, 1000), lastTransitionTime };
  }
}

/** Whether network policies are enforced, and why that is thought. */
export interface Enforcement {
  readonly status: Condition['status'];
  readonly reason: string;
  readonly message: string;
}

/** The conditions with what was seen about network policies. @param now ISO 8601 UTC */
export function withEnforcement(conditions: readonly Condition[], seen: Enforcement, now: string): Condition[] {
  const old = conditions.find(({ type }) => type === 'PoliciesEnforced');
  const lastTransitionTime = old?.status === seen.status ? old.lastTransitionTime : now;
  const others = conditions.filter((condition) => condition !== old);
  return [...others, { type: 'PoliciesEnforced', ...seen, message: seen.message.slice(0, 1000), lastTransitionTime }];
}
