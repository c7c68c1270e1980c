/** Qdrant's own storage engine, as the Python package `qdrant-edge-py`, in a process of its own. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa, ExecaError } from 'execa';
import { FleetError } from '../domain/errors.ts';
import { bareEnv } from './child-env.ts';

/** What the engine finds in a shard snapshot. */
export interface OpenedShard {
  /** Exact. */
  readonly points: number;
  /** Fields with a payload index, sorted. */
  readonly indexes: readonly string[];
  /** Where one was asked for. */
  readonly sample?: readonly SampledPoint[];
}

export interface SampledPoint {
  /** A decimal number or a UUID. */
  readonly id: string;
  /** Hex, see point-digest.ts. */
  readonly sha256: string;
}

const SCRIPT = fileURLToPath(new URL('../verify/open_shard.py', import.meta.url));

/** A folder that is removed when `use` has ended, however it ends. */
export async function withScratch<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'qdrant-fleet-verify-'));
  try {
    return await use(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * Open one stored shard snapshot.
 *
 * @param scratch a folder for its unpacked form
 * @param sample chooses up to `points` points by their ids and a seed
 * @throws FleetError `IntegrityMismatch` when the engine cannot open it
 */
export async function openShard(
  python: string,
  snapshot: string,
  scratch: string,
  signal: AbortSignal,
  sample?: { readonly seed: string; readonly points: number },
): Promise<OpenedShard> {
  const folder = join(scratch, 'unpacked');
  await mkdir(folder);
  const chosen = sample === undefined ? [] : [sample.seed, String(sample.points)];
  try {
    const { stdout } = await execa(python, [SCRIPT, snapshot, folder, ...chosen], {
      // No compiled modules beside the script, where nothing may be written.
      env: { ...bareEnv(), PYTHONDONTWRITEBYTECODE: '1' },
      // It opens what came from a bucket: none of the worker's secrets are within its reach.
      extendEnv: false,
      cancelSignal: signal,
      forceKillAfterDelay: 2000,
      maxBuffer: 1024 * 1024,
    });
    return JSON.parse(stdout) as OpenedShard;
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    if (!(error instanceof ExecaError)) throw error;
    if (error.code === 'ENOENT') {
      throw new FleetError('Internal', `FLEET_ENGINE_PYTHON names no program: ${python}.`, { cause: error });
    }
    // Of a traceback the last line, and no path of this machine.
    const stderr: unknown = error.stderr;
    const lines = typeof stderr === 'string' ? stderr.trim().split('\n') : [];
    const reason = lines.at(-1)?.replaceAll(scratch, '') ?? '';
    const how = error.signal === undefined ? `status ${error.exitCode ?? '?'}` : error.signal;
    throw new FleetError('IntegrityMismatch', `Qdrant's engine cannot open it (${how}): ${reason.slice(0, 300)}`, {
      cause: error,
    });
  }
}
