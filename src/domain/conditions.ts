/**
 * What is the case with a cluster, beside its phase: statements that are true, false or unknown, as Kubernetes words
 * them. `Ready` and `Degraded` are what the last look at the cluster says, the others what its operations say.
 */
import type { ClusterPhase } from './cluster.ts';

export const CONDITION_TYPES = ['Ready', 'Progressing', 'Degraded', 'Failed', 'PoliciesEnforced'] as const;
export const CONDITION_STATUSES = ['True', 'False', 'Unknown'] as const;
export type ConditionStatus = (typeof CONDITION_STATUSES)[number];

export interface Condition {
  /**
   * `Ready`: every shard can be reached. `Progressing`: a change is under way. `Degraded`: a peer or a replica is
   * missing. `Failed`: the last change did not come to its end. `PoliciesEnforced`: something in the Kubernetes cluster
   * enforces network policies; only where that was looked at.
   */
  readonly type: (typeof CONDITION_TYPES)[number];
  readonly status: ConditionStatus;
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
  /** What is as good as it can be here, and yet not what was asked for. */
  readonly note?: string;
  /** Why nobody could see how the cluster is. */
  readonly unseen?: string;
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
 * A phase that moves is entered without a look at the cluster: what the last look has said stands.
 *
 * @param before the conditions until now, which keep their time when they do not change
 * @param now ISO 8601 UTC
 */
export function conditionsOf(state: ClusterState, before: readonly Condition[], now: string): Condition[] {
  const { phase, degraded, failure, note = '', unseen } = state;
  const word = phase.toLowerCase().replaceAll(/(?:^|_)(.)/g, (_, letter: string) => letter.toUpperCase());
  return [
    ...(unseen === undefined ? looked() : unknown(unseen)),
    condition('Progressing', MOVING.includes(phase), word, MEANING[phase] ?? ''),
    condition('Failed', failure !== undefined, failure?.code ?? 'NoFailure', failure?.message ?? ''),
    // What was seen once stays: it is not about the phase.
    ...before.filter(({ type }) => type === 'PoliciesEnforced'),
  ].sort((a, b) => CONDITION_TYPES.indexOf(a.type) - CONDITION_TYPES.indexOf(b.type));

  function looked(): Condition[] {
    const ready = state.serving ?? SERVING.includes(phase);
    const [wasReady, wasDegraded] = [known('Ready'), known('Degraded')];
    // Of a cluster that does not run nobody can say that it is whole.
    const whole = ready ? 'Whole' : word;
    const moves = MOVING.includes(phase) && SERVING.includes(phase);
    const blind = moves && state.serving === undefined && degraded === undefined;
    if (blind && wasReady !== undefined && wasDegraded !== undefined) return [wasReady, wasDegraded];
    return [
      condition('Ready', ready, ready ? 'Serving' : word, ready ? '' : (degraded ?? '')),
      condition('Degraded', degraded !== undefined, degraded === undefined ? whole : 'Incomplete', degraded ?? note),
    ];
  }

  function unknown(why: string): Condition[] {
    return (['Ready', 'Degraded'] as const).map((type) => condition(type, undefined, 'NotSeen', why));
  }

  function known(type: Condition['type']): Condition | undefined {
    return before.find((candidate) => candidate.type === type && candidate.status !== 'Unknown');
  }

  function condition(type: Condition['type'], holds: boolean | undefined, reason: string, message: string): Condition {
    const status = holds === undefined ? 'Unknown' : holds ? 'True' : 'False';
    const old = before.find((candidate) => candidate.type === type);
    const lastTransitionTime = old?.status === status ? old.lastTransitionTime : now;
    return { type, status, reason, message: message.slice(0, 2000), lastTransitionTime };
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

/** Looks that may fail or come late before the last one no longer counts. */
const MISSED_LOOKS = 3;

/**
 * The conditions as they are to be shown: those that somebody saw too long ago are unknown. While an operation changes
 * the cluster nobody else looks at it.
 *
 * @param observedAt when somebody last saw how the cluster is
 * @param seconds between two looks; 0 where nobody looks
 */
export function asSeen(
  { phase, conditions, observedAt }: { phase: ClusterPhase; conditions: readonly Condition[]; observedAt: Date | null },
  now: Date,
  seconds: number,
): readonly Condition[] {
  const late = observedAt === null || now.getTime() - observedAt.getTime() > MISSED_LOOKS * seconds * 1000;
  if (seconds === 0 || !late || !WATCHED.includes(phase)) return conditions;
  const since = observedAt === null ? 'Nobody has looked at it yet' : `Last seen at ${observedAt.toISOString()}`;
  return conditions.map((condition) =>
    condition.type === 'Ready' || condition.type === 'Degraded'
      ? { ...condition, status: 'Unknown', reason: 'NotSeen', message: `${since}. ${condition.message}`.trim() }
      : condition,
  );
}

/** Phases in which the cluster is looked at, because no operation changes it. */
export const WATCHED: readonly ClusterPhase[] = ['HEALTHY', 'NOT_READY', 'SUSPENDED'];

/** What the last change of a cluster failed with, as its conditions tell. */
export function failureIn(conditions: readonly Condition[]): ClusterState['failure'] {
  const failed = conditions.find(({ type, status }) => type === 'Failed' && status === 'True');
  return failed && { code: failed.reason, message: failed.message };
}
