import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { identify, isRunning, type ProcessIdentity } from './process-identity.ts';
import { writeSecret } from './secrets.ts';
import type { Infrastructure, Links } from './stack.ts';
import type { Tools } from './toolchain/toolchain.ts';

/** What another program needs to use a stack that runs: how the worker and API are configured, and where things are. */
export interface RunningStack {
  readonly env: Record<string, string>;
  readonly links: Links;
  readonly tools: Tools;
}

/** Describes the stack of this process in its data directory, for as long as it runs. */
export function announce(dataDir: string, { env, links, tools }: Infrastructure): void {
  const description = { ...identify(process.pid), env, links, tools };
  writeSecret(file(dataDir), `${JSON.stringify(description, null, 2)}\n`);
}

export function withdraw(dataDir: string): void {
  rmSync(file(dataDir), { force: true });
}

/** The stack that runs in the data directory, if one does. */
export function findRunning(dataDir: string): RunningStack | undefined {
  if (!existsSync(file(dataDir))) return undefined;
  const described = JSON.parse(readFileSync(file(dataDir), 'utf8')) as RunningStack & ProcessIdentity;
  const { env, links, tools } = described;
  return isRunning(described) ? { env, links, tools } : undefined;
}

function file(dataDir: string): string {
  return join(dataDir, 'stack.json');
}
