/** What the transfer benchmark runs on: a Qdrant node with one stored snapshot, an S3 store, and a way to run clients. */
import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { BACKUP_BUCKET, s3Part } from '../src/local/parts/s3.ts';
import { choosePorts } from '../src/local/ports.ts';
import { qdrantCommand } from '../src/local/qdrant-node/launch.ts';
import { loadSecrets } from '../src/local/secrets.ts';
import { Supervisor } from '../src/local/supervisor.ts';
import { ensureTools } from '../src/local/toolchain/toolchain.ts';
import { until } from '../src/local/wait.ts';

export interface Stage {
  /** The stored snapshot, as the node serves it. */
  readonly url: string;
  readonly size: number;
  readonly sha256: string;
  readonly endpoint: string;
  readonly bucket: string;
  readonly credentials: { readonly AWS_ACCESS_KEY_ID: string; readonly AWS_SECRET_ACCESS_KEY: string };
  /** Start two more nodes with nothing on them; their addresses. */
  emptyNodes(): Promise<string[]>;
  stop(): Promise<void>;
}

export async function openStage(dataDir: string, megabytes: number): Promise<Stage> {
  const tools = await ensureTools({ log: console.error });
  const ports = await choosePorts('free');
  const secrets = loadSecrets(dataDir);
  const supervisor = new Supervisor(dataDir);
  await supervisor.startAll([s3Part({ program: tools.versitygw, dataDir, ports, secrets })]);
  if ('server' in tools.qdrant) process.env['QDRANT_BIN'] = tools.qdrant.server;
  const nodes: ChildProcess[] = [];
  const base = await startNode(join(dataDir, 'qdrant'), ports.api, nodes);
  const snapshot = await storeSnapshot(base, megabytes);
  return {
    url: `${base}/collections/bench/shards/0/snapshots/${snapshot.name}`,
    size: snapshot.size,
    sha256: snapshot.checksum,
    endpoint: `http://127.0.0.1:${ports.s3}`,
    bucket: BACKUP_BUCKET,
    credentials: { AWS_ACCESS_KEY_ID: secrets.s3AccessKey, AWS_SECRET_ACCESS_KEY: secrets.s3SecretKey },
    emptyNodes: () =>
      Promise.all(
        [ports.workerHealth, ports.moto].map((port) => startNode(join(dataDir, `empty-${port}`), port, nodes)),
      ),
    stop: async () => {
      for (const node of nodes) node.kill('SIGTERM');
      await supervisor.stop();
    },
  };
}

async function startNode(folder: string, port: number, nodes: ChildProcess[]): Promise<string> {
  await mkdir(folder);
  const { file, args } = qdrantCommand();
  const env = { PATH: process.env['PATH'], HOME: process.env['HOME'], QDRANT__SERVICE__HTTP_PORT: String(port) };
  nodes.push(spawn(file, args, { cwd: folder, stdio: 'ignore', env }));
  const base = `http://127.0.0.1:${port}`;
  const ready = async () => (await fetch(`${base}/readyz`).catch(() => undefined))?.ok === true;
  await until('the Qdrant node is ready', ready, { withinMs: 30_000, everyMs: 50 });
  return base;
}

/** Points with a payload of 1 MB of random text each: what cannot be compressed is stored as it is. */
async function storeSnapshot(base: string, megabytes: number) {
  const call = async (method: string, path: string, body?: object) => {
    const init = {
      method,
      headers: { 'content-type': 'application/json' },
      ...(body && { body: JSON.stringify(body) }),
    };
    const answer = await fetch(`${base}/collections/bench${path}`, init);
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
    return ((await answer.json()) as { result: unknown }).result;
  };
  await call('PUT', '', { vectors: { size: 4, distance: 'Dot' }, shard_number: 1, on_disk_payload: true });
  for (let id = 0; id < megabytes; id += 16) {
    const points = Array.from({ length: Math.min(16, megabytes - id) }, (_, index) => ({
      id: id + index,
      vector: [1, 2, 3, 4],
      payload: { blob: randomBytes(750_000).toString('base64') },
    }));
    await call('PUT', '/points?wait=true', { points });
  }
  const made = await call('POST', '/shards/0/snapshots?wait=true');
  return made as { name: string; size: number; checksum: string };
}

export interface Measured {
  /** Seconds. */
  readonly wall: number;
  /** User and system seconds of the process and all it started. */
  readonly cpu: number;
  /** Bytes: the peak of each process, added up. */
  readonly peak: number;
  readonly output: string;
}

/** Run a shell command and account for the whole tree of its processes. */
export async function measure(command: string, env: NodeJS.ProcessEnv): Promise<Measured> {
  const begun = performance.now();
  // `times` prints what the shell's finished descendants used, as getrusage counts it.
  const shell = start(`( set -eo pipefail; ${command} ); status=$?; times >&2; exit $status`, env);
  let output = '';
  let errors = '';
  shell.stdout?.on('data', (chunk: Buffer) => (output += chunk.toString()));
  shell.stderr?.on('data', (chunk: Buffer) => (errors += chunk.toString()));
  const peaks = new Map<number, number>();
  const sampler = setInterval(() => {
    for (const pid of descendants(shell.pid ?? 0)) peaks.set(pid, Math.max(peaks.get(pid) ?? 0, peakOf(pid)));
  }, 50);
  const code = await new Promise((resolve) => shell.on('close', resolve));
  clearInterval(sampler);
  const wall = (performance.now() - begun) / 1000;
  const line = /(\d+)m([\d.]+)s (\d+)m([\d.]+)s\s*$/.exec(errors);
  if (code !== 0 || line === null) throw new Error(`${command}: exit status ${String(code)}\n${errors.slice(-2000)}`);
  const [um, us, sm, ss] = line.slice(1).map(Number) as [number, number, number, number];
  return { wall, cpu: um * 60 + us + sm * 60 + ss, peak: [...peaks.values()].reduce((a, b) => a + b, 0), output };
}

export function start(command: string, env: NodeJS.ProcessEnv): ChildProcess {
  return spawn('bash', ['-c', command], { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
}

function descendants(pid: number): number[] {
  const children = tasks(pid).flatMap((task) => read(`/proc/${pid}/task/${task}/children`).split(' '));
  return children.filter((child) => child !== '').flatMap((child) => [Number(child), ...descendants(Number(child))]);
}

function tasks(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
}

function peakOf(pid: number): number {
  const status = read(`/proc/${pid}/status`);
  // The shell in between is not the client.
  if (/^Name:\s+bash$/m.test(status)) return 0;
  return Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
}

/** Processes end while they are looked at. */
function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
