import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { killGroup, stopLeftovers, STACK_MARK, sweep } from './leftovers.ts';
import { identify } from './process-identity.ts';
import { until } from './wait.ts';

/** A program of the stack: how it is started, how one knows that it is ready, and how it is stopped. */
export interface Part {
  readonly name: string;
  /** Where it is reached, for people. */
  readonly address: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: Record<string, string>;
  readonly cwd?: string;
  readonly user?: { readonly uid: number; readonly gid: number };
  /** The parts that must be ready before this one starts, and that stop only after it has. */
  readonly needs?: readonly string[];
  readonly stopSignal?: NodeJS.Signals;
  /** How long it may take to stop by itself, in milliseconds. */
  readonly stopWithinMs?: number;
  readonly readyWithinMs?: number;
  /** Runs before the process starts: folders, files, keys. */
  prepare?(signal: AbortSignal): Promise<void>;
  /** Whether the part can be used now; asked again and again. `log` holds what it has printed so far. */
  isReady(log: () => string): Promise<boolean> | boolean;
  /** Runs once when it is ready, before anything that needs it starts. */
  afterReady?(signal: AbortSignal): Promise<void>;
}

/** Thrown, and told to crash listeners, when a part ends although nobody stopped it. Shows the end of its log. */
export class PartCrashedError extends Error {
  override name = 'PartCrashedError';
  readonly part: string;

  constructor(part: string, how: string, logFile: string) {
    super(`${part} ended unexpectedly (${how}). The end of ${logFile}:\n${lastLines(logFile, 20)}`);
    this.part = part;
  }
}

/** Thrown when a part runs but does not become ready in time. Shows the end of its log. */
export class PartNotReadyError extends Error {
  override name = 'PartNotReadyError';

  constructor(part: string, logFile: string, cause: unknown) {
    super(`${part} did not become ready in time. The end of ${logFile}:\n${lastLines(logFile, 20)}`, { cause });
  }
}

interface RunningPart {
  readonly part: Part;
  readonly child: ChildProcess;
  readonly pid: number;
  readonly exited: Promise<string>;
}

export interface ReadyPart {
  readonly name: string;
  readonly address: string;
  readonly pid: number;
  readonly readyAfterMs: number;
}

/**
 * Starts the parts of a stack, watches them, and stops them.
 *
 * 1. Every process leads a group of its own, so that Ctrl-C in the terminal reaches the supervisor alone.
 * 2. Every process is written down in `<dataDir>/run` before anything else happens, so that the next supervisor can
 *    end what this one leaves when it is killed.
 * 3. A part starts when those it needs are ready, and stops when those that need it have stopped.
 */
export class Supervisor {
  readonly #dataDir: string;
  readonly #running = new Map<string, RunningPart>();
  readonly #starting = new Map<string, Promise<ReadyPart>>();
  readonly #abort = new AbortController();
  readonly #crashListeners: ((error: PartCrashedError) => void)[] = [];
  readonly #onExit = () => this.#killAll();
  #crash: PartCrashedError | undefined;
  #stopped: Promise<void> | undefined;

  constructor(dataDir: string) {
    this.#dataDir = dataDir;
    mkdirSync(join(dataDir, 'logs'), { recursive: true, mode: 0o700 });
    mkdirSync(join(dataDir, 'run'), { recursive: true, mode: 0o700 });
    process.once('exit', this.#onExit);
  }

  /** Ends what an earlier supervisor of the same data directory has left running. The caller holds its lock. */
  async cleanUp(log: (line: string) => void = () => undefined): Promise<void> {
    await stopLeftovers(this.#dataDir, log);
  }

  /** Starts all parts, each as soon as those it needs are ready. When one fails the first failure is thrown. */
  async startAll(parts: readonly Part[]): Promise<ReadyPart[]> {
    for (const part of parts) {
      const needed = (part.needs ?? []).map((name) => {
        const other = this.#starting.get(name);
        if (other === undefined) throw new Error(`${part.name} needs ${name}, which is not started before it.`);
        return other;
      });
      const ready = Promise.all(needed).then(() => this.#start(part));
      ready.catch(() => undefined); // reported by Promise.all below
      this.#starting.set(part.name, ready);
    }
    return Promise.all(parts.map((part) => this.#starting.get(part.name) as Promise<ReadyPart>));
  }

  /** Calls `listener` when a part ends although nobody stopped it; once, for the first that does. */
  onCrash(listener: (error: PartCrashedError) => void): void {
    this.#crashListeners.push(listener);
    if (this.#crash !== undefined) listener(this.#crash);
  }

  /** Stops everything, in the reverse order of the start, and leaves no process behind. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stopAll();
    return this.#stopped;
  }

  /** When this process ends without having stopped them, its parts end with it. */
  #killAll(): void {
    for (const { pid } of this.#running.values()) killGroup(pid, 'SIGKILL');
    sweep(this.#dataDir);
  }

  async #start(part: Part): Promise<ReadyPart> {
    const signal = this.#abort.signal;
    signal.throwIfAborted();
    const began = performance.now();
    await part.prepare?.(signal);
    signal.throwIfAborted();
    const running = this.#spawn(part);
    const crashed = running.exited.then((how) => {
      throw this.#crashed(part, how);
    });
    crashed.catch(() => undefined); // after a start that succeeded, the crash listeners are told
    const logFile = this.#logFile(part);
    const becameReady = until(`${part.name} becoming ready`, () => part.isReady(() => readFileSync(logFile, 'utf8')), {
      withinMs: part.readyWithinMs ?? 30_000,
      signal,
    }).catch((error: unknown) => {
      signal.throwIfAborted();
      throw new PartNotReadyError(part.name, logFile, error);
    });
    await Promise.race([becameReady, crashed]);
    await part.afterReady?.(signal);
    return { name: part.name, address: part.address, pid: running.pid, readyAfterMs: performance.now() - began };
  }

  #spawn(part: Part): RunningPart {
    const logFile = this.#logFile(part);
    if (existsSync(logFile)) renameSync(logFile, `${logFile}.previous`);
    const log = openSync(logFile, 'a', 0o600);
    const child = spawn(part.command, part.args, {
      detached: true,
      stdio: ['ignore', log, log],
      env: { ...inheritedEnvironment(), ...part.env, [STACK_MARK]: this.#dataDir },
      cwd: part.cwd ?? this.#dataDir,
      ...part.user,
    });
    closeSync(log);
    const exited = new Promise<string>((resolve) => {
      child.once('error', (error) => resolve(`it could not be started: ${error.message}`));
      child.once('exit', (code, signal) => resolve(signal === null ? `exit code ${code}` : `signal ${signal}`));
    });
    const pid = child.pid;
    if (pid === undefined) return { part, child, pid: 0, exited };
    const record = { ...identify(pid), part: part.name, stopSignal: part.stopSignal ?? 'SIGTERM' };
    writeFileSync(this.#pidFile(part), JSON.stringify(record), { mode: 0o600 });
    const running = { part, child, pid, exited };
    this.#running.set(part.name, running);
    return running;
  }

  #crashed(part: Part, how: string): Error {
    if (this.#abort.signal.aborted) return new Error(`${part.name} was stopped.`);
    const error = new PartCrashedError(part.name, how, this.#logFile(part));
    if (this.#crash === undefined) {
      this.#crash = error;
      for (const listener of this.#crashListeners) listener(error);
    }
    return error;
  }

  async #stopAll(): Promise<void> {
    this.#abort.abort(new Error('The stack is being stopped.'));
    await Promise.allSettled(this.#starting.values());
    const stopped = new Map<string, Promise<void>>();
    // Parts are registered after those they need: going backwards, all that need a part are known before it.
    for (const running of [...this.#running.values()].sort(this.#byStart).reverse()) {
      const dependents = [...this.#running.values()]
        .filter((other) => other.part.needs?.includes(running.part.name))
        .map((other) => stopped.get(other.part.name) ?? Promise.resolve());
      const first = Promise.all(dependents);
      stopped.set(
        running.part.name,
        first.then(() => this.#stopOne(running)),
      );
    }
    await Promise.all(stopped.values());
    sweep(this.#dataDir);
    process.removeListener('exit', this.#onExit);
  }

  async #stopOne({ part, child, pid, exited }: RunningPart): Promise<void> {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill(part.stopSignal ?? 'SIGTERM');
      const timer = setTimeout(() => killGroup(pid, 'SIGKILL'), part.stopWithinMs ?? 5000);
      await exited;
      clearTimeout(timer);
    }
    killGroup(pid, 'SIGKILL'); // children that it did not take along
    rmSync(this.#pidFile(part), { force: true });
    this.#running.delete(part.name); // its number may be another process's from now on
  }

  readonly #byStart = (a: RunningPart, b: RunningPart) => {
    const order = [...this.#starting.keys()];
    return order.indexOf(a.part.name) - order.indexOf(b.part.name);
  };

  #logFile(part: Part): string {
    return join(this.#dataDir, 'logs', `${part.name}.log`);
  }

  #pidFile(part: Part): string {
    return join(this.#dataDir, 'run', `${part.name}.json`);
  }
}

/**
 * The environment that parts inherit: this one without what would point them, or the AWS, Temporal, Kubernetes or
 * Postgres libraries in them, at something outside the stack.
 */
export function inheritedEnvironment(environment: NodeJS.ProcessEnv = process.env): NodeJS.ProcessEnv {
  const foreign = /^(AWS_|TEMPORAL_|KUBE|HELM_|KINE_|VGW_|ROOT_(ACCESS|SECRET)_|PG)/;
  return Object.fromEntries(Object.entries(environment).filter(([name]) => !foreign.test(name)));
}

function lastLines(path: string, count: number): string {
  if (!existsSync(path)) return '  (it has no log)';
  const lines = readFileSync(path, 'utf8').trimEnd().split('\n').slice(-count);
  return lines.join('') === '' ? '  (it is empty)' : lines.map((line) => `  ${line}`).join('\n');
}
