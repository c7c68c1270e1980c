import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { isRunning, processesWithEnvironment, type ProcessIdentity } from './process-identity.ts';
import { DeadlineError, until } from './wait.ts';

/** Every process of a stack carries this in its environment, with the stack's data directory as its value. */
export const STACK_MARK = 'FLEET_LOCAL_STACK';

interface Recorded extends ProcessIdentity {
  readonly part: string;
  readonly stopSignal: NodeJS.Signals;
}

/** Ends the parts of a stack whose supervisor was killed: politely at first, for five seconds. */
export async function stopLeftovers(dataDir: string, log: (line: string) => void): Promise<void> {
  const leftovers = recorded(dataDir).filter(({ process }) => isRunning(process));
  if (leftovers.length > 0) {
    log(`Ending what an interrupted stack has left: ${leftovers.map(({ process }) => process.part).join(', ')}.`);
  }
  for (const { process } of leftovers) signalProcess(process.pid, process.stopSignal);
  await Promise.all(
    leftovers.map(async ({ process }) => {
      try {
        await until(`${process.part} ending`, () => !isRunning(process), { withinMs: 5000 });
      } catch (error) {
        if (!(error instanceof DeadlineError)) throw error;
      }
      killGroup(process.pid, 'SIGKILL');
    }),
  );
  sweep(dataDir);
  for (const { file } of recorded(dataDir)) rmSync(file, { force: true });
}

/** Kills whatever else carries the mark of this stack: children that left their group or outlived their parent. */
export function sweep(dataDir: string): void {
  for (const { pid } of processesWithEnvironment(STACK_MARK, dataDir)) signalProcess(pid, 'SIGKILL');
}

/** Sends a signal to a process and everything in the group it leads. */
export function killGroup(pid: number, signal: NodeJS.Signals): void {
  if (pid > 1) signalProcess(-pid, signal);
}

function signalProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    const gone = error instanceof Error && 'code' in error && error.code === 'ESRCH';
    if (!gone) throw error;
  }
}

function recorded(dataDir: string): { file: string; process: Recorded }[] {
  const folder = join(dataDir, 'run');
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => name.endsWith('.json'))
    .map((name) => join(folder, name))
    .map((file) => ({ file, process: JSON.parse(readFileSync(file, 'utf8')) as Recorded }));
}
