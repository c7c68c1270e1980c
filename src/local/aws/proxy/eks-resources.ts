/** Clusters, node groups and add-ons of EKS: their names, their states, what is ahead of them. */
import type { AwsCall } from './call.ts';
import type { Course, Phase, ResourceKind } from './pace.ts';

export type Members = Readonly<Record<string, unknown>>;

/** The three that take time: how their operations and members are called. */
export const KINDS = {
  cluster: {
    noun: 'Cluster',
    plural: 'clusters',
    path: '',
    name: 'name',
    failed: { create: 'FAILED', delete: 'FAILED' },
  },
  nodegroup: {
    noun: 'Nodegroup',
    plural: 'nodegroups',
    path: 'node-groups',
    name: 'nodegroupName',
    failed: { create: 'CREATE_FAILED', delete: 'DELETE_FAILED' },
  },
  addon: {
    noun: 'Addon',
    plural: 'addons',
    path: 'addons',
    name: 'addonName',
    failed: { create: 'CREATE_FAILED', delete: 'DELETE_FAILED' },
  },
} as const;

export type EksKind = keyof typeof KINDS & ResourceKind;

export const ON_ITS_WAY: Record<Phase, string> = { create: 'CREATING', delete: 'DELETING', update: 'UPDATING' };

/** A resource that is on its way, or that failed on it. */
export interface Tracked extends Course {
  readonly phase: Phase;
  left: number;
  /** As it was when it was deleted; the emulator does not have it any more. */
  readonly last?: Members;
  /** Called once when it has arrived. */
  readonly settle?: () => void;
}

/** `cluster:name`, `nodegroup:cluster/name`. */
export function keyOf({ params }: Pick<AwsCall, 'params'>, kind: EksKind): string {
  const names = kind === 'cluster' ? [params['name']] : [params['name'], params[KINDS[kind].name]];
  return `${kind}:${names.map(String).join('/')}`;
}

export function nameOf(key: string): string {
  return key.slice(key.indexOf(':') + 1);
}

/** Objects are merged, everything else is replaced. */
export function mergeMembers(old: Members, changes: Members): Members {
  const merged: Record<string, unknown> = { ...old };
  for (const [name, value] of Object.entries(changes)) {
    merged[name] = isObject(value) && isObject(old[name]) && name !== 'labels' ? { ...old[name], ...value } : value;
  }
  return merged;
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
