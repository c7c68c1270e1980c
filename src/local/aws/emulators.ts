import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ministackPart } from '../parts/ministack.ts';
import { motoPart } from '../parts/moto.ts';
import { freePort } from '../ports.ts';
import { Supervisor, type Part, type ReadyPart } from '../supervisor.ts';
import { RECIPES } from '../toolchain/recipes.ts';
import { ensure } from '../toolchain/toolchain.ts';

export const EMULATORS = ['moto', 'ministack'] as const;
export type EmulatorName = (typeof EMULATORS)[number];

/** How the state of each is thrown away. */
const RESETS: Record<EmulatorName, string> = { moto: '/moto-api/reset', ministack: '/_ministack/reset' };

interface Options {
  /** Which ones; default both. */
  readonly which?: readonly EmulatorName[];
  /** Ports to listen on; default free ones. */
  readonly ports?: Partial<Record<EmulatorName, number>>;
  /** Whether moto knows AWS' own policies (AmazonEKSClusterPolicy and so on); default true. A reset is quicker without. */
  readonly managedPolicies?: boolean;
  /** The access key whose owner EKS takes for the creator of a cluster and lets into it; default `test`. */
  readonly accessKeyId?: string;
  readonly log?: (line: string) => void;
  readonly signal?: AbortSignal;
}

export interface AwsEmulators {
  /** Where each of them listens; those that were not asked for are missing. */
  readonly urls: Partial<Record<EmulatorName, string>>;
  readonly parts: readonly ReadyPart[];
  /** Back to an account that holds nothing, in all of them or in one. */
  reset(name?: EmulatorName): Promise<void>;
  stop(): Promise<void>;
}

/**
 * Starts moto and ministack on loopback, in about a second once their Python environment is installed. They forget
 * everything when they stop. Any credentials are accepted; the account is 123456789012 in both.
 */
export async function startAwsEmulators(options: Options = {}): Promise<AwsEmulators> {
  const python = await findEmulators(options);
  const dataDir = await mkdtemp(join(tmpdir(), 'qdrant-fleet-aws-'));
  const supervisor = new Supervisor(dataDir);
  const stop = async () => {
    await supervisor.stop();
    await rm(dataDir, { recursive: true, force: true });
  };
  try {
    const ports = { ...(await freePorts()), ...options.ports };
    const which = options.which ?? EMULATORS;
    const parts = await supervisor.startAll(
      which.map((name) => emulatorPart(name, { ...options, python, dataDir, ports })),
    );
    const urls = Object.fromEntries(which.map((name) => [name, urlOf(ports[name])]));
    const reset = async (name?: EmulatorName) => {
      const chosen = name === undefined ? which : [name];
      await Promise.all(chosen.map((name) => resetEmulator(name, urlOf(ports[name]))));
    };
    return { urls, parts, reset, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** The Python that has both emulators; installs them at the first call. */
export async function findEmulators(options: Pick<Options, 'log' | 'signal'> = {}): Promise<string> {
  const [python = ''] = (await ensure([RECIPES.awsEmulators], options)).get(RECIPES.awsEmulators) ?? [];
  return python;
}

interface PartOptions {
  readonly python: string;
  readonly dataDir: string;
  readonly ports: Readonly<Record<EmulatorName, number>>;
  readonly managedPolicies?: boolean;
  readonly accessKeyId?: string;
}

/** One emulator as a part of a stack. */
export function emulatorPart(name: EmulatorName, options: PartOptions): Part {
  const { python, dataDir, managedPolicies = true, accessKeyId = 'test' } = options;
  const port = options.ports[name];
  return name === 'moto'
    ? motoPart({ python, dataDir, port, managedPolicies })
    : ministackPart({ python, dataDir, port, accessKeyId });
}

async function resetEmulator(name: EmulatorName, url: string): Promise<void> {
  const answer = await fetch(`${url}${RESETS[name]}`, { method: 'POST' });
  if (!answer.ok) throw new Error(`${name} could not be reset: POST ${RESETS[name]} answered ${answer.status}.`);
}

async function freePorts(): Promise<Record<EmulatorName, number>> {
  const used = new Set<number>();
  return { moto: await freePort(used), ministack: await freePort(used) };
}

function urlOf(port: number): string {
  return `http://127.0.0.1:${port}`;
}
