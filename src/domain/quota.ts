/**
 * What a tenant may have. The catalogue holds what an operator set for one tenant; the configuration holds what applies
 * to all others (`FLEET_QUOTAS`). Pure.
 */
import type { ClusterSpec } from './cluster.ts';
import { FleetError } from './errors.ts';
import { bytesOf } from './quantities.ts';

interface QuotaKind {
  readonly default: number;
  /** What is counted, in words that fit behind a number. */
  readonly what: string;
}

/** Every quota that is a number. Each is an upper bound, but `scheduleMinutes`, which is a lower one. */
export const QUOTAS = {
  clusters: { default: 20, what: 'clusters' },
  nodes: { default: 100, what: 'Qdrant nodes over all clusters' },
  storageGiB: { default: 20_000, what: 'GiB of volumes over all clusters, data and snapshot volumes counted' },
  machines: { default: 100, what: 'machines on AWS over all clusters' },
  collectionsPerCluster: { default: 1000, what: 'collections in one cluster' },
  backupsRunning: { default: 10, what: 'backups that copy at the same time' },
  operationsRunning: { default: 50, what: 'operations that run at the same time' },
  schedules: { default: 100, what: 'backup schedules over all clusters' },
  scheduleMinutes: { default: 15, what: 'minutes at least between two runs of a schedule' },
  longPolls: { default: 50, what: 'requests with "wait" open at the same time, in each API process' },
} as const satisfies Record<string, QuotaKind>;

export type QuotaName = keyof typeof QUOTAS;

/** The quotas of one tenant. */
export type Quotas = Readonly<Record<QuotaName, number>> & {
  /** EC2 types that machines may have, such as `m6i.large`; `*` stands for any characters. */
  readonly machineTypes: readonly string[];
};

/** Burstable, general-purpose, compute and memory families up to 16 virtual CPUs; an operator allows what costs more. */
const MACHINE_TYPES = [
  't3*.*',
  't4*.*',
  ...['m', 'c', 'r'].flatMap((family) => ['large', 'xlarge', '2xlarge', '4xlarge'].map((size) => `${family}*.${size}`)),
];

export const DEFAULT_QUOTAS: Quotas = {
  ...(Object.fromEntries(Object.entries(QUOTAS).map(([name, kind]) => [name, kind.default])) as Record<
    QuotaName,
    number
  >),
  machineTypes: MACHINE_TYPES,
};

export function isQuotaName(text: string): text is QuotaName {
  return Object.hasOwn(QUOTAS, text);
}

/** What clusters take, or one of them. */
export interface QuotaUse {
  readonly clusters: number;
  readonly nodes: number;
  readonly storageBytes: number;
  readonly machines: number;
}

/** The fields of a specification that a quota counts. */
export type CountedSpec = Pick<ClusterSpec, 'nodes' | 'storage'> & {
  readonly aws?: { readonly nodeCount: number; readonly create?: { readonly nodeGroups: boolean } };
};

const GiB = 2 ** 30;

/** A suspended cluster counts in full: it keeps its volumes, and its nodes come back without a question. */
export function useOf({ nodes, storage, aws }: CountedSpec): QuotaUse {
  return {
    clusters: 1,
    nodes,
    // Each node has a volume for data and one of the same size for snapshots.
    storageBytes: nodes * 2 * bytesOf(storage),
    machines: aws === undefined || aws.create?.nodeGroups === false ? 0 : aws.nodeCount,
  };
}

export function sumOfUse(uses: readonly QuotaUse[]): QuotaUse {
  const sum = (pick: (use: QuotaUse) => number) => uses.reduce((total, use) => total + pick(use), 0);
  return {
    clusters: sum(({ clusters }) => clusters),
    nodes: sum(({ nodes }) => nodes),
    storageBytes: sum(({ storageBytes }) => storageBytes),
    machines: sum(({ machines }) => machines),
  };
}

/** The larger of two uses in every respect: of a cluster that is being changed, what it has and what it will have. */
export function largerUse(a: QuotaUse, b: QuotaUse): QuotaUse {
  return {
    clusters: Math.max(a.clusters, b.clusters),
    nodes: Math.max(a.nodes, b.nodes),
    storageBytes: Math.max(a.storageBytes, b.storageBytes),
    machines: Math.max(a.machines, b.machines),
  };
}

/**
 * Whether a cluster of this size fits beside the tenant's others.
 *
 * @param before what the same cluster takes already: a change that asks for no more of something is never refused for it
 * @throws FleetError `QuotaReached` naming the first quota that does not hold it
 */
export function requireRoom(
  tenant: string,
  quotas: Quotas,
  others: QuotaUse,
  wanted: QuotaUse,
  before?: QuotaUse,
): void {
  const checks: readonly [QuotaName, (use: QuotaUse) => number][] = [
    ['clusters', (use) => use.clusters],
    ['nodes', (use) => use.nodes],
    ['storageGiB', (use) => use.storageBytes / GiB],
    ['machines', (use) => use.machines],
  ];
  for (const [name, amount] of checks) {
    const [used, more] = [amount(others), amount(wanted)];
    if (before !== undefined && more <= amount(before)) continue;
    if (used + more > quotas[name]) throw quotaReached(tenant, name, quotas[name], used, more);
  }
}

/** @throws FleetError `QuotaReached` when the tenant may not have machines of this EC2 type */
export function requireMachineType(tenant: string, { machineTypes }: Quotas, type: string): void {
  if (machineTypes.some((pattern) => fits(pattern, type))) return;
  throw new FleetError(
    'QuotaReached',
    `Tenant "${tenant}" may not have machines of type "${type}"; allowed are ${machineTypes.join(', ')}. ${raise('machineTypes')}`,
  );
}

/** @throws FleetError `QuotaReached` when `used` of a quota leave no room for `more` */
export function requireBelow(tenant: string, quotas: Quotas, name: QuotaName, used: number, more = 1): void {
  if (used + more > quotas[name]) throw quotaReached(tenant, name, quotas[name], used, more);
}

/** @param minutes the shortest time between two runs of a schedule. @throws FleetError `QuotaReached` */
export function requireInterval(tenant: string, { scheduleMinutes }: Quotas, minutes: number): void {
  if (minutes >= scheduleMinutes) return;
  throw new FleetError(
    'QuotaReached',
    `The schedule runs every ${rounded(minutes)} minutes at times; tenant "${tenant}" may have one every ${scheduleMinutes} minutes. ${raise('scheduleMinutes')}`,
  );
}

function quotaReached(tenant: string, name: QuotaName, limit: number, used: number, more: number): FleetError {
  return new FleetError(
    'QuotaReached',
    `Tenant "${tenant}" uses ${rounded(used)} of ${limit} ${QUOTAS[name].what}, and this asks for ${rounded(more)} more. ${raise(name)}`,
  );
}

function raise(name: QuotaName | 'machineTypes'): string {
  return `An operator of the fleet can change the quota "${name}".`;
}

function rounded(value: number): number {
  return Math.round(value * 10) / 10;
}

/** `*` stands for any characters. Never goes further back than to the last star, so that no pattern takes long. */
function fits(pattern: string, text: string): boolean {
  let [at, from, star, mark] = [0, 0, -1, 0];
  while (at < text.length) {
    if (pattern[from] === '*') {
      star = from;
      mark = at;
      from += 1;
    } else if (pattern[from] === text[at]) {
      at += 1;
      from += 1;
    } else if (star >= 0) {
      mark += 1;
      at = mark;
      from = star + 1;
    } else return false;
  }
  while (pattern[from] === '*') from += 1;
  return from === pattern.length;
}
