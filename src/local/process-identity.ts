import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

/**
 * A process, named so that it cannot be mistaken for a later one with the same number: process ids are used again,
 * a pair of id and start time is not.
 */
export interface ProcessIdentity {
  readonly pid: number;
  readonly startTime: string;
}

/** Who `pid` is, or undefined when no such process runs. A zombie does not run. */
export function identify(pid: number): ProcessIdentity | undefined {
  const startTime = process.platform === 'linux' ? startTimeFromProc(pid) : startTimeFromPs(pid);
  return startTime === undefined ? undefined : { pid, startTime };
}

export function isRunning(identity: ProcessIdentity): boolean {
  return identify(identity.pid)?.startTime === identity.startTime;
}

/**
 * Every process, other than this one, that carries `variable=value` in the environment it was started with.
 * It finds grandchildren that left their process group. Linux only; elsewhere the list is empty.
 */
export function processesWithEnvironment(variable: string, value: string): ProcessIdentity[] {
  if (process.platform !== 'linux') return [];
  const wanted = `${variable}=${value}`;
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry) && Number(entry) !== process.pid)
    .filter((entry) => read(`/proc/${entry}/environ`)?.split('\0').includes(wanted))
    .map((entry) => identify(Number(entry)))
    .filter((identity) => identity !== undefined);
}

function startTimeFromProc(pid: number): string | undefined {
  const stat = read(`/proc/${pid}/stat`);
  if (stat === undefined) return undefined;
  // The second field is the program's name in brackets and may itself hold spaces and brackets: count from its end.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [state, startTime] = [fields[0], fields[19]];
  return state === 'Z' || state === 'X' ? undefined : startTime;
}

function startTimeFromPs(pid: number): string | undefined {
  try {
    const output = execFileSync('ps', ['-o', 'stat=,lstart=', '-p', String(pid)], { encoding: 'utf8' }).trim();
    const [state = '', ...startTime] = output.split(/\s+/);
    return state === '' || state.startsWith('Z') ? undefined : startTime.join(' ');
  } catch {
    return undefined; // ps exits with 1 when there is no such process
  }
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined; // the process ended, or belongs to somebody else
  }
}
