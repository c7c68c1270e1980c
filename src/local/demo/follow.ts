/** What the demos print while operations run. */
import { writeSync } from 'node:fs';
import type { FleetApi, OperationView } from './fleet-api.ts';

/** Print an operation's steps as they end, and fail when it fails. */
export async function follow(api: FleetApi, id: string, temporalUi: string): Promise<OperationView> {
  say(`  operation ${id}`);
  const printed = new Set<string>();
  for await (const operation of api.watch(id)) {
    for (const { name, phase, startedAt, finishedAt, message } of operation.steps) {
      if (printed.has(name) || (phase !== 'done' && phase !== 'failed' && phase !== 'skipped')) continue;
      printed.add(name);
      const mark = { done: '✔', failed: '✘', skipped: '–' }[phase];
      const took =
        startedAt !== undefined && finishedAt !== undefined ? Date.parse(finishedAt) - Date.parse(startedAt) : 0;
      say(`  ${mark} ${name.padEnd(36)} ${(took / 1000).toFixed(1).padStart(5)} s  ${message ?? ''}`.trimEnd());
    }
    if (!operation.done) continue;
    if (operation.error === undefined) return operation;
    const where = `${temporalUi}/namespaces/default/workflows/${encodeURIComponent(id)}`;
    throw new DemoFailedError(`${id} failed: ${operation.error.code}: ${operation.error.detail}\nSee ${where}`);
  }
  throw new DemoFailedError(`${id} came to no end.`);
}

/** A step of the demo failed; the message says which and why. */
export class DemoFailedError extends Error {
  override readonly name = 'DemoFailedError';
}

export async function timed<T>(what: string, run: () => Promise<T>): Promise<T> {
  const begun = Date.now();
  const result = await run();
  say(`  ✔ ${what.padEnd(36)} ${((Date.now() - begun) / 1000).toFixed(1).padStart(5)} s`);
  return result;
}

/** At once and in order, also into a pipe that is closed right after. */
export function say(line: string): void {
  writeSync(1, `${line}\n`);
}
