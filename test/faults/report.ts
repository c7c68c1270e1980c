/** What a campaign prints: a line for each seed, and a summary at the end. */
import type { Injected } from '../support/fault-proxy.ts';
import type { Run } from './plan.ts';

/** How one seed ended. */
export interface Verdict {
  readonly run: Run;
  /** Faults that were met, by name. */
  readonly faults: Readonly<Record<string, number>>;
  /** Each operation of the run, in the order in which they began, with the code that it ended with. */
  readonly operations: readonly { readonly name: string; readonly code: string; readonly message: string }[];
  /** Seconds from the end of the last fault to the end of the operation. */
  readonly recovery: number | undefined;
  readonly seconds: number;
  readonly violations: readonly string[];
}

export interface Scanned {
  objects: number;
  bytes: number;
}

/** A fault's name with the side that it befell. */
export function nameOf({ name, path }: Injected): string {
  return `${name} (${path.startsWith('/fleet-backups') ? 'S3' : 'Qdrant'})`;
}

export function lineOf({ run, faults, operations, recovery, seconds, violations }: Verdict): string {
  const met = Object.entries(faults).map(([name, times]) => (times === 1 ? name : `${times} ${name}`));
  return [
    `seed ${String(run.seed).padStart(3)}`,
    violations.length === 0 ? 'ok       ' : 'VIOLATION',
    `${seconds.toFixed(1)} s`.padStart(7),
    `recovered in ${recovery === undefined ? '-' : `${recovery.toFixed(1)} s`}`.padEnd(20),
    operations.map(({ name, code }) => `${name}: ${code}`).join(', '),
    `| ${met.join(', ') || 'no fault was met'}`,
    ...violations.map((what) => `\n         ${what}`),
  ].join('  ');
}

export function summaryOf(verdicts: readonly Verdict[], scanned: Scanned): string {
  const faults = new Map<string, number>();
  const outcomes = new Map<string, number>();
  for (const { faults: met, operations } of verdicts) {
    for (const [name, times] of Object.entries(met)) faults.set(name, (faults.get(name) ?? 0) + times);
    for (const { name, code } of operations) count(outcomes, `${name}: ${code}`);
  }
  const times = verdicts
    .flatMap(({ recovery }) => (recovery === undefined ? [] : [recovery]))
    .toSorted((a, b) => a - b);
  const rows = (map: Map<string, number>) =>
    [...map].sort(([a], [b]) => a.localeCompare(b)).map(([name, number]) => `  ${name.padEnd(48)} ${number}`);
  const violated = verdicts.filter(({ violations }) => violations.length > 0);
  const seeds = verdicts.map(({ run }) => run.seed);
  return [
    '',
    `Faults injected: ${[...faults.values()].reduce((sum, number) => sum + number, 0)} of ${faults.size} kinds`,
    ...rows(faults),
    `Seeds: ${verdicts.length}, ${Math.min(...seeds)} to ${Math.max(...seeds)}. How their operations ended:`,
    ...rows(outcomes),
    `Objects hashed again: ${scanned.objects}, ${(scanned.bytes / 1e6).toFixed(0)} MB`,
    `Time to recover: median ${seconds(times[Math.floor(times.length / 2)])}, maximum ${seconds(times.at(-1))}`,
    `Violations: ${violated.length}${violated.length === 0 ? '' : `, of seeds ${violated.map(({ run }) => run.seed).join(', ')}`}`,
    ...violated.map(lineOf),
  ].join('\n');
}

function seconds(value: number | undefined): string {
  return value === undefined ? '-' : `${value.toFixed(1)} s`;
}

function count(into: Map<string, number>, name: string): void {
  into.set(name, (into.get(name) ?? 0) + 1);
}
