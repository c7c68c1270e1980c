/** Faults at the border of processes: workers, nodes, pods, files and disks of an arena. */
import type { ChildProcess } from 'node:child_process';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { join } from 'node:path';
import { CoreV1Api } from '@kubernetes/client-node';
import { execa } from 'execa';
import { processesWithEnvironment } from '../../src/local/process-identity.ts';
import type { Arena } from './arena.ts';
import { exited, until } from './fleet.ts';

export type ProcessFault =
  'worker killed' | 'worker asleep' | 'node killed' | 'pod deleted' | 'snapshot vanished' | 'disk full';

/** Milliseconds that a worker sleeps: longer than any heartbeat timeout, so that it is taken for dead. */
const SLEEP = 25_000;
/** Milliseconds that a disk stays full. */
const FULL = 8000;
/** Seconds that a worker may take to let go of what it held. */
const DRAIN = 120;

export class ProcessFaults {
  readonly #arena: Arena;
  #workers: ChildProcess[] = [];
  #running: Promise<Date>[] = [];

  constructor(arena: Arena) {
    this.#arena = arena;
  }

  async startWorker(): Promise<void> {
    this.#workers.push(await this.#arena.worker());
  }

  /** The one that works now. */
  get worker(): ChildProcess | undefined {
    return this.#workers.at(-1);
  }

  /** Let it happen. Resolves as soon as the damage is done; `over` waits for its end. @param node for those of a node */
  async happen(kind: ProcessFault, node: number, path: string): Promise<void> {
    switch (kind) {
      case 'worker killed': {
        const victims = this.#workers.splice(0);
        for (const victim of victims) victim.kill('SIGKILL');
        await Promise.all(victims.map(exited));
        return this.#lasts(() => this.startWorker());
      }
      case 'worker asleep': {
        const sleeper = this.#workers.at(-1);
        sleeper?.kill('SIGSTOP');
        return this.#lasts(async () => {
          await Promise.all([this.startWorker(), sleep(SLEEP)]);
          sleeper?.kill('SIGCONT');
        });
      }
      case 'node killed': {
        kill9(this.#peer(node));
        return this.#lasts(() => this.#answers(node));
      }
      case 'pod deleted': {
        const { namespace, name, uid } = await this.#pod(node);
        const core = this.#arena.fleet.kubernetes(CoreV1Api);
        await core.deleteNamespacedPod({ namespace, name, gracePeriodSeconds: 0 });
        return this.#lasts(async () => {
          await until('the pod is replaced', async () => {
            const found = await this.#pod(node).catch(() => undefined);
            return found !== undefined && found.uid !== uid && found.ready;
          });
          await this.#answers(node);
        });
      }
      case 'snapshot vanished': {
        const access = node < this.#arena.source.peers.length ? this.#arena.source : this.#arena.target;
        const peer = access.peers.indexOf(this.#peer(node));
        await access.call('DELETE', `${path.split('?')[0]}?wait=true`, undefined, peer).catch((error: unknown) => {
          // Another reader of the same file may have had it removed.
          if (!String(error).includes('404')) throw error;
        });
        return this.#lasts(() => Promise.resolve());
      }
      default: {
        const free = await fillDisk(this.#peer(node));
        return this.#lasts(async () => {
          await sleep(FULL);
          await free();
        });
      }
    }
  }

  /** When the last of them ended; all have then. */
  async over(): Promise<Date | undefined> {
    const ends = await Promise.all(this.#running.splice(0));
    return ends.toSorted((a, b) => a.getTime() - b.getTime()).at(-1);
  }

  /** All workers but the newest end by themselves, when the attempts that they hold have ended. */
  async oneWorker(): Promise<void> {
    for (const worker of this.#workers.splice(0, this.#workers.length - 1)) await drained(worker);
    const [left] = this.#workers;
    if (left === undefined || left.exitCode !== null || left.signalCode !== null) {
      this.#workers = [];
      await this.startWorker();
    }
  }

  #lasts(rest: () => Promise<void>): void {
    const ended = rest().then(() => new Date());
    ended.catch(() => undefined);
    this.#running.push(ended);
  }

  #peer(node: number): string {
    return [...this.#arena.source.peers, ...this.#arena.target.peers][node] ?? '';
  }

  async #answers(node: number): Promise<void> {
    await until('the node answers', async () => (await fetch(`${this.#peer(node)}/readyz`).catch(() => undefined))?.ok);
  }

  async #pod(node: number): Promise<{ namespace: string; name: string; uid: string; ready: boolean }> {
    const { fleet, source } = this.#arena;
    const namespace = `fleet-${fleet.tenant}--${node < source.peers.length ? 'docs' : 'target'}`;
    const { items } = await fleet.kubernetes(CoreV1Api).listNamespacedPod({ namespace });
    const ip = new URL(this.#peer(node)).hostname;
    const found = items.find(({ status }) => status?.podIP === ip);
    if (found === undefined) throw new Error(`No pod of ${namespace} has the address ${ip}.`);
    const conditions = found.status?.conditions ?? [];
    const ready = conditions.some(({ type, status }) => type === 'Ready' && status === 'True');
    return { namespace, name: found.metadata?.name ?? '', uid: found.metadata?.uid ?? '', ready };
  }
}

async function drained(worker: ChildProcess): Promise<void> {
  worker.kill('SIGTERM');
  const late = sleep(DRAIN * 1000, 'late' as const, { ref: false });
  if ((await Promise.race([exited(worker), late])) !== 'late') return;
  worker.kill('SIGKILL');
  await exited(worker);
  throw new Error(`a worker that was told to end still held something after ${DRAIN} s`);
}

/** kill -9 of the Qdrant process behind an address. */
export function kill9(peer: string): void {
  const found = processesWithEnvironment('QDRANT__SERVICE__HOST', new URL(peer).hostname);
  if (found.length === 0) throw new Error(`No process listens for ${peer}.`);
  for (const { pid } of found) process.kill(pid, 'SIGKILL');
}

/** Whether a disk can be made full here: by mounting a small file system over the folder of a node's snapshots. */
export async function mayMount(): Promise<boolean> {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return false;
  return (
    (await execa('unshare', ['--mount', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt'], { reject: false })).exitCode === 0
  );
}

/**
 * Put a file system of 16 KiB in the place of a running node's snapshot folder: writing there fails with ENOSPC.
 *
 * @returns gives the folder back as it was
 */
async function fillDisk(peer: string): Promise<() => Promise<void>> {
  const [node] = processesWithEnvironment('QDRANT__SERVICE__HOST', new URL(peer).hostname);
  const environment = node === undefined ? '' : await readFile(`/proc/${node.pid}/environ`, 'utf8');
  const folder = /(?:^|\0)QDRANT__STORAGE__SNAPSHOTS_PATH=([^\0]+)/.exec(environment)?.[1];
  if (folder === undefined) throw new Error(`The node at ${peer} does not say where its snapshots are.`);
  await execa('mount', ['-t', 'tmpfs', '-o', 'size=16k', 'tmpfs', folder]);
  await mkdir(join(folder, 'tmp'), { recursive: true });
  const probe = join(folder, 'probe');
  const failed = await writeFile(probe, Buffer.alloc(65_536)).catch((error: NodeJS.ErrnoException) => error.code);
  if (failed !== 'ENOSPC') throw new Error(`Writing to a full disk did not fail with ENOSPC, but ${String(failed)}.`);
  await rm(probe, { force: true });
  return async () => {
    // Lazily: the node may still hold a file there.
    await execa('umount', ['--lazy', folder]);
  };
}
