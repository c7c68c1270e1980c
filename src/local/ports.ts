import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { createServer } from 'node:net';

/** The ports that people and programs outside the stack use: what listens there, its usual port, what changes it. */
const PORTS = {
  temporal: { part: 'Temporal', usual: 7233, variable: 'FLEET_LOCAL_TEMPORAL_PORT' },
  temporalUi: { part: 'the Temporal UI', usual: 8233, variable: 'FLEET_LOCAL_TEMPORAL_UI_PORT' },
  kubernetes: { part: 'kube-apiserver', usual: 16443, variable: 'FLEET_LOCAL_KUBERNETES_PORT' },
  s3: { part: 'S3', usual: 7070, variable: 'FLEET_LOCAL_S3_PORT' },
  postgres: { part: 'Postgres', usual: 15432, variable: 'FLEET_LOCAL_POSTGRES_PORT' },
  api: { part: 'the API', usual: 8080, variable: 'FLEET_API_PORT' },
  relay: { part: "the worker's relay of shards", usual: 8090, variable: 'FLEET_RELAY_PORT' },
  workerHealth: { part: "the worker's health check", usual: 8081, variable: 'FLEET_WORKER_HEALTH_PORT' },
} as const;

/** Ports that only the stack itself uses: always whatever is free, so that they can never be in anybody's way. */
const INTERNAL_PORTS = [
  'controllerManager',
  'scheduler',
  'temporalMetrics',
  'temporalHttp',
  'tokenWebhook',
  'moto',
  'ministack',
  'aws',
] as const;

export type Ports = Record<keyof typeof PORTS | (typeof INTERNAL_PORTS)[number], number>;

/** Thrown when a port that the stack needs is in use. Names the port, its holder and the variable that changes it. */
export class PortTakenError extends Error {
  override name = 'PortTakenError';
}

/**
 * The ports of a stack. `default` takes the usual ones, or those the environment names, and checks that each is
 * free; `free` takes any that are.
 */
export async function choosePorts(
  choice: 'default' | 'free',
  environment: NodeJS.ProcessEnv = process.env,
): Promise<Ports> {
  const chosen: Partial<Ports> = {};
  const used = new Set<number>();
  const problems: string[] = [];
  for (const [key, { part, usual, variable }] of Object.entries(PORTS)) {
    const port = choice === 'free' ? await freePort(used) : readPort(variable, environment[variable], usual);
    if (choice === 'default') {
      if (used.has(port)) problems.push(`Port ${port} is wanted twice; ${part} can be moved by ${variable}.`);
      else if (!(await isFree(port))) problems.push(taken(part, port, variable));
    }
    used.add(port);
    chosen[key as keyof typeof PORTS] = port;
  }
  if (problems.length > 0) throw new PortTakenError(problems.join('\n'));
  for (const key of INTERNAL_PORTS) chosen[key] = await freePort(used);
  return chosen as Ports;
}

function readPort(variable: string, value: string | undefined, usual: number): number {
  if (value === undefined || value === '') return usual;
  const port = Number(value);
  if (!Number.isInteger(port) || port < 1 || port > 65_535) {
    throw new Error(`${variable}=${value} is not a port: give a number from 1 to 65535.`);
  }
  return port;
}

function taken(part: string, port: number, variable: string): string {
  const holder = portHolder(port);
  const by = holder === undefined ? '' : ` by ${holder.program} (process ${holder.pid})`;
  return `Port ${port} for ${part} is taken${by}. Stop that, or choose another port: ${variable}=${port + 1000}`;
}

/** A free port below the range from which the kernel serves outgoing connections, which could take it meanwhile. */
export async function freePort(used: Set<number>): Promise<number> {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    if (used.has(port) || !(await isFree(port))) continue;
    used.add(port);
    return port;
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/** Who listens on a TCP port, as far as /proc tells this user. */
function portHolder(port: number): { pid: number; program: string } | undefined {
  const hex = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  const sockets = ['/proc/net/tcp', '/proc/net/tcp6']
    .flatMap((path) => quietly(() => readFileSync(path, 'utf8').split('\n'), []))
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[1]?.endsWith(hex) && fields[3] === '0A') // 0A: listening
    .map((fields) => `socket:[${fields[9]}]`);
  if (sockets.length === 0) return undefined;
  for (const pid of quietly(() => readdirSync('/proc'), []).filter((entry) => /^\d+$/.test(entry))) {
    const files = quietly(() => readdirSync(`/proc/${pid}/fd`), []);
    if (files.some((file) => sockets.includes(quietly(() => readlinkSync(`/proc/${pid}/fd/${file}`), '')))) {
      return { pid: Number(pid), program: quietly(() => readFileSync(`/proc/${pid}/comm`, 'utf8').trim(), 'unknown') };
    }
  }
  return undefined;
}

/** Processes come and go, and those of others can't be read: neither is an error when looking for a port's holder. */
function quietly<T>(read: () => T, otherwise: T): T {
  try {
    return read();
  } catch {
    return otherwise;
  }
}
