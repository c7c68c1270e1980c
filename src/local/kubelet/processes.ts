import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { identify, isRunning, type ProcessIdentity } from '../process-identity.ts';
import { pause } from '../wait.ts';
import type { Log } from './api.ts';

export interface Command {
  file: string;
  args: string[];
  cwd: string;
  env: Record<string, string>;
  /** Group to run as; that of this process when left out. */
  gid?: number;
}

export interface Exit {
  /** 128 + signal number when a signal ended it, as a container runtime reports it. */
  exitCode: number;
  signal?: number;
  startedAt: Date;
  finishedAt: Date;
}

const ROTATE_BYTES = 10 * 1024 * 1024;
const LEFTOVER_GRACE_MS = 3_000;

/** One running Qdrant process. It leads a process group of its own, so that helpers it starts end with it. */
export class LocalProcess {
  readonly pid: number;
  readonly startedAt = new Date();
  readonly exited: Promise<Exit>;
  readonly #record: string;

  private constructor(child: ChildProcess & { pid: number }, record: string) {
    this.pid = child.pid;
    this.#record = record;
    this.exited = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        rmSync(this.#record, { force: true });
        const number = signal ? constants.signals[signal] : undefined;
        const finishedAt = new Date();
        const { startedAt } = this;
        resolve(
          number === undefined
            ? { exitCode: code ?? 255, startedAt, finishedAt }
            : { exitCode: 128 + number, signal: number, startedAt, finishedAt },
        );
      });
    });
  }

  /**
   * Starts the command with both outputs appended to `logFile` and its identity written to `record`.
   * @throws Error when the file can't be executed.
   */
  static async start(command: Command, logFile: string, record: string): Promise<LocalProcess> {
    rotate(logFile);
    const output = openSync(logFile, 'a', 0o600);
    try {
      const child = spawn(command.file, command.args, {
        cwd: command.cwd,
        env: command.env,
        ...(command.gid !== undefined && { gid: command.gid }),
        detached: true,
        stdio: ['ignore', output, output],
      });
      const { pid } = child;
      if (pid === undefined) {
        throw await new Promise<Error>((resolve) => child.once('error', resolve));
      }
      child.on('error', () => undefined); // a failed kill also lands here; `exited` tells the rest
      const process = new LocalProcess(Object.assign(child, { pid }), record);
      // Synchronous: were we killed in between, nobody would know of this process any more.
      const identity = identify(pid);
      if (identity) writeFileSync(record, JSON.stringify(identity));
      return process;
    } finally {
      closeSync(output);
    }
  }

  /** Ends the whole group; harmless when it is gone already. */
  kill(signal: NodeJS.Signals): void {
    killGroup(this.pid, signal);
  }

  /** SIGTERM, and SIGKILL when the grace is over. */
  async stop(graceMs: number): Promise<Exit> {
    this.kill(graceMs > 0 ? 'SIGTERM' : 'SIGKILL');
    const timer = setTimeout(() => this.kill('SIGKILL'), graceMs);
    const exit = await this.exited;
    clearTimeout(timer);
    return exit;
  }
}

/** Ends what an earlier kubelet on this folder left running; a pid that was given to somebody else since is left alone. */
export async function killLeftovers(folder: string, log: Log): Promise<void> {
  await Promise.all(
    readdirSync(folder).map(async (name) => {
      const record = join(folder, name);
      const identity = readRecord(record);
      if (identity && isRunning(identity)) {
        log(`ending process ${identity.pid} that an earlier kubelet left (${name})`);
        killGroup(identity.pid, 'SIGTERM');
        const deadline = Date.now() + LEFTOVER_GRACE_MS;
        while (isRunning(identity)) {
          if (Date.now() > deadline) killGroup(identity.pid, 'SIGKILL');
          await pause(25);
        }
      }
      rmSync(record, { force: true });
    }),
  );
}

function readRecord(file: string): ProcessIdentity | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as ProcessIdentity;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined; // the writer was killed while writing
    throw error;
  }
}

function killGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

function rotate(logFile: string): void {
  const size = statSync(logFile, { throwIfNoEntry: false })?.size ?? 0;
  if (size > ROTATE_BYTES) renameSync(logFile, `${logFile}.1`);
}
