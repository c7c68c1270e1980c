import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { identify, isRunning, type ProcessIdentity } from './process-identity.ts';
import { pause } from './wait.ts';

/**
 * Takes the lock file at `path` for this process. Returns what releases it, or the process that holds it.
 *
 * 1. The file appears complete or not at all: it is written elsewhere and hard-linked into place.
 * 2. A lock whose holder no longer runs is taken over.
 * 3. Two takers of the same dead lock cannot both win: each renames it away and looks at what it got.
 */
export function tryLock(path: string): { release: () => void } | { holder: ProcessIdentity } {
  mkdirSync(dirname(path), { recursive: true });
  const self = identify(process.pid);
  if (self === undefined) throw new Error('This process cannot find its own start time.');
  const own = `${path}.${process.pid}.${unique++}`;
  writeFileSync(own, JSON.stringify(self), { mode: 0o600 });
  try {
    for (;;) {
      if (link(own, path)) return { release: () => rmSync(path, { force: true }) };
      const holder = readHolder(path);
      if (holder === undefined) continue; // released in between
      if (isRunning(holder)) return { holder };
      discardDead(path, holder);
    }
  } finally {
    rmSync(own, { force: true });
  }
}

/** Takes the lock at `path`, waiting for as long as a running process holds it. */
export async function lock(
  path: string,
  options: { onWait?: (holder: ProcessIdentity) => void; signal?: AbortSignal | undefined } = {},
): Promise<() => void> {
  let told = false;
  for (;;) {
    options.signal?.throwIfAborted();
    const taken = tryLock(path);
    if ('release' in taken) return taken.release;
    if (!told) options.onWait?.(taken.holder);
    told = true;
    await pause(200, options.signal);
  }
}

let unique = 0;

function discardDead(path: string, dead: ProcessIdentity): void {
  const aside = `${path}.dead.${process.pid}.${unique++}`;
  try {
    renameSync(path, aside);
  } catch (error) {
    if (isCode(error, 'ENOENT')) return; // somebody else was faster
    throw error;
  }
  const got = readHolder(aside);
  if (got?.pid !== dead.pid || got.startTime !== dead.startTime) link(aside, path); // a new holder's: give it back
  rmSync(aside, { force: true });
}

function link(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if (isCode(error, 'EEXIST')) return false;
    throw error;
  }
}

function readHolder(path: string): ProcessIdentity | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as ProcessIdentity;
  } catch (error) {
    if (isCode(error, 'ENOENT')) return undefined;
    throw error;
  }
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
