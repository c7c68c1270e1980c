/** A fleet of one worker process on the shared local stack, with names of its own. */
import { spawn, type ChildProcess } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { createServer } from 'node:net';
import { gunzipSync } from 'node:zlib';
import { dirname, join, resolve } from 'node:path';
import { CoreV1Api, KubeConfig, type ApiConstructor, type ApiType } from '@kubernetes/client-node';
import { Client, Connection, type WorkflowHandle } from '@temporalio/client';
import { execa } from 'execa';
import { inject } from 'vitest';
import { BackupMac } from '../../src/clients/backup-mac.ts';
import type { BackupStore } from '../../src/clients/s3.ts';
import { BackupStores } from '../../src/clients/stores.ts';
import { Catalog } from '../../src/clients/catalog.ts';
import { ClusterAccess } from '../../src/local/demo/cluster-access.ts';
import type { Progress } from '../../src/domain/operation.ts';
import { bundleFile } from './bundle.ts';

const ROOT = resolve(import.meta.dirname, '../..');

/** Wait until `check` answers something, by asking again. Every wait in the tests is a condition with an end. */
export async function until<T>(
  what: string,
  check: () => Promise<T | undefined | false | null>,
  seconds = 60,
): Promise<T> {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const found = await check();
    if (found !== undefined && found !== false && found !== null) return found;
    if (Date.now() > end) throw new Error(`Waited ${seconds} s in vain: ${what}.`);
    await new Promise((wake) => setTimeout(wake, 50));
  }
}

export interface WorkerOptions {
  /** Where to die or to wait: `<activity>:<before|after|hold>` or `uploadPart:<n>`, see failpoint.ts. */
  readonly failpoint?: string;
  readonly env?: Record<string, string>;
}

/** Operations of small clusters take seconds. */
const SLOW_MS = 80_000;

export class Fleet {
  readonly env: Record<string, string>;
  readonly tenant = `t${randomBytes(4).toString('hex')}`;
  readonly taskQueue = `fleet-${this.tenant}`;
  readonly client: Client;
  readonly store: BackupStore;
  readonly catalog: Catalog;
  readonly #connection: Connection;
  readonly #workers: ChildProcess[] = [];
  #port: string | undefined;
  /** All output of all workers. */
  log = '';

  private constructor(env: Record<string, string>, connection: Connection) {
    this.env = { ...env, FLEET_TASK_QUEUE: this.taskQueue };
    this.#connection = connection;
    this.client = new Client({ connection });
    this.store = openStore(this.env);
    this.catalog = new Catalog(this.env['DATABASE_URL'] ?? '');
  }

  static async open(change: Record<string, string> = {}): Promise<Fleet> {
    const env = { ...inject('localEnv'), ...change };
    // The clients in this process find their credentials where the SDK looks for them.
    for (const name of ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_REGION']) process.env[name] = env[name];
    const connection = await Connection.connect({ address: env['TEMPORAL_ADDRESS'] ?? '' });
    return new Fleet(env, connection);
  }

  /** Start a worker process and wait until it polls. */
  async worker({ failpoint, env = {} }: WorkerOptions = {}): Promise<ChildProcess> {
    const port = String(await freePort());
    const bundle = await bundleFile(this.env['KUBECONFIG'] ?? '');
    const preload = failpoint === undefined ? [] : ['--import', join(ROOT, 'test/support/failpoint.ts')];
    const worker = spawn(process.execPath, [...preload, join(ROOT, 'src/worker.ts')], {
      env: {
        PATH: process.env['PATH'],
        HOME: process.env['HOME'],
        // A worker starts dozens of times in a run: what the first one compiled, the others read.
        NODE_COMPILE_CACHE: join(dirname(bundle), 'compiled'),
        ...this.env,
        // With the rights of deploy/rbac; what the tests do themselves, they do as the administrator.
        KUBECONFIG: this.env['FLEET_LOCAL_WORKER_KUBECONFIG'] ?? '',
        FLEET_WORKER_HEALTH_PORT: port,
        FLEET_RELAY_PORT: await this.#relayPort(),
        // All fleets of a run share one catalogue: a look at the clusters of others would be in their way.
        FLEET_OBSERVE_SECONDS: '0',
        FLEET_RENEW_HOURS: '0',
        FLEET_WORKFLOW_BUNDLE: bundle,
        ...(failpoint !== undefined && { FLEET_TEST_FAILPOINT: failpoint }),
        ...env,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#workers.push(worker);
    for (const stream of [worker.stdout, worker.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        this.log += chunk.toString();
      });
    }
    const polls = async () => {
      if (worker.exitCode !== null) throw new Error(`The worker ended: ${this.log.slice(-2000)}`);
      const answer = fetch(`http://127.0.0.1:${port}/readyz`, { signal: AbortSignal.timeout(2000) });
      return (await answer.catch(() => undefined))?.ok;
    };
    await until('the worker polls', polls, 90).catch((error: unknown) => {
      worker.kill('SIGKILL');
      throw error;
    });
    return worker;
  }

  /** The network policies name one port for all workers. Two at a time on one machine cannot share it. */
  async #relayPort(): Promise<string> {
    const others = this.#workers.some(({ exitCode, signalCode }) => exitCode === null && signalCode === null);
    const port = String(await freePort());
    if (others) return port;
    this.#port ??= port;
    return this.#port;
  }

  async start(type: string, input: unknown, workflowId = `${type}-${randomBytes(4).toString('hex')}`) {
    return this.client.workflow.start(type, { taskQueue: this.taskQueue, workflowId, args: [input] });
  }

  async run<T = Record<string, unknown>>(type: string, input: unknown): Promise<T> {
    const handle = await this.start(type, input);
    const slow = setTimeout(() => void this.#tell(handle), SLOW_MS);
    try {
      return (await handle.result()) as T;
    } finally {
      clearTimeout(slow);
    }
  }

  /** What an operation waits for: a test that is ended by its time would not say. */
  async #tell({ workflowId }: WorkflowHandle): Promise<void> {
    const { raw } = await this.client.workflow.getHandle(workflowId).describe();
    const waiting = (raw.pendingActivities ?? []).map(
      ({ activityType, attempt, lastFailure }) =>
        `  ${activityType?.name}, attempt ${attempt}: ${lastFailure?.message ?? 'no failure'}`,
    );
    console.warn(
      [`${workflowId} has not ended after ${SLOW_MS / 1000} s:`, ...waiting, this.log.slice(-1500)].join('\n'),
    );
  }

  progress(handle: WorkflowHandle): Promise<Progress> {
    return handle.query<Progress>('progress');
  }

  access(cluster: string): Promise<ClusterAccess> {
    return ClusterAccess.open(this.env['KUBECONFIG'] ?? '', { tenant: this.tenant, cluster });
  }

  /** The `temporal` CLI, as a user would call it. @returns what it printed */
  async temporal(...args: string[]): Promise<string> {
    const { stdout } = await execa(await temporalBinary(), args, {
      env: { TEMPORAL_ADDRESS: this.env['TEMPORAL_ADDRESS'] ?? '' },
    });
    return stdout;
  }

  /** Kubernetes by its own client, for what the fleet's client has no business with. */
  kubernetes<T extends ApiType>(api: ApiConstructor<T>): T {
    const config = new KubeConfig();
    config.loadFromFile(this.env['KUBECONFIG'] ?? '');
    return config.makeApiClient(api);
  }

  async kubectlNamespaces(): Promise<string[]> {
    const { items } = await this.kubernetes(CoreV1Api).listNamespace();
    return items.map(({ metadata }) => metadata?.name ?? '');
  }

  /** Names of the values in all Secrets of a type. */
  async secretKeys(namespace: string, type: string): Promise<string[]> {
    const { items } = await this.kubernetes(CoreV1Api).listNamespacedSecret({ namespace });
    return items.filter((item) => item.type === type).flatMap(({ data }) => Object.keys(data ?? {}));
  }

  /** Contents of all Secrets of a type, as text; Helm's own are unpacked. */
  async secretTexts(namespace: string, type: string): Promise<string[]> {
    const { items } = await this.kubernetes(CoreV1Api).listNamespacedSecret({ namespace });
    return items
      .filter((item) => item.type === type)
      .flatMap(({ data }) => Object.values(data ?? {}))
      .map((value) => {
        const once = Buffer.from(value, 'base64').toString();
        const twice = Buffer.from(once, 'base64');
        return twice[0] === 0x1f && twice[1] === 0x8b ? gunzipSync(twice).toString() : once;
      });
  }

  async close(): Promise<void> {
    await Promise.all(
      this.#workers.map(async (worker) => {
        if (worker.exitCode !== null || worker.signalCode !== null) return;
        const ended = new Promise((resolve) => worker.once('exit', resolve));
        worker.kill('SIGKILL');
        await ended;
      }),
    );
    this.store.close();
    await this.catalog.close();
    await this.#connection.close();
  }
}

/** Resolves when the process is gone. */
export async function exited(worker: ChildProcess): Promise<NodeJS.Signals | null> {
  if (worker.exitCode === null && worker.signalCode === null) {
    await new Promise((resolve) => worker.once('exit', resolve));
  }
  return worker.signalCode;
}

export function openStore(env: Record<string, string>): BackupStore {
  return openStores(env).fleet;
}

export function openStores(env: Record<string, string>): BackupStores {
  return new BackupStores({
    bucket: env['FLEET_BACKUP_BUCKET'] ?? '',
    region: env['AWS_REGION'] ?? 'us-east-1',
    endpoint: env['FLEET_S3_ENDPOINT'] ?? '',
    forcePathStyle: true,
    mac: macOf(env),
  });
}

/** Signs as the worker does, so that what a test writes by hand is the fleet's. */
function macOf(env: Record<string, string>): BackupMac {
  const [, id = '', key = ''] = /^([^:]+):([^,]+)/.exec(env['FLEET_BACKUP_MAC_KEY'] ?? '') ?? [];
  return new BackupMac(id === '' ? [] : [{ id, key: Buffer.from(key, 'base64') }]);
}

/** Points of a few dimensions whose content depends on their id alone. */
export function smallPoints(count: number, dimensions = 4) {
  return Array.from({ length: count }, (_, id) => ({
    id,
    vector: Array.from({ length: dimensions }, (_ignored, axis) => Math.sin(id * 7 + axis * 3) + 1.5),
    payload: { document_id: `d${id}`, tags: [id % 2 === 0 ? 'even' : 'odd'], nested: { b: id, a: [id, null] } },
  }));
}

/**
 * Points of 9 kB each, for shards of several megabytes: texts that do not compress, which everything on their way handles
 * in a fraction of the time that as many bytes of vectors take.
 */
export function largePoints(count: number) {
  return smallPoints(count).map((point) => {
    let block = createHash('sha512').update(`${point.id}`).digest();
    const blocks = Array.from({ length: 105 }, () => (block = createHash('sha512').update(block).digest()));
    return { ...point, payload: { ...point.payload, text: Buffer.concat(blocks).toString('base64') } };
  });
}

async function temporalBinary(): Promise<string> {
  const { ensureTools } = await import('../../src/local/toolchain/toolchain.ts');
  return (await ensureTools({ log: () => undefined })).temporal;
}

/** A port that nobody listens on right now. */
export async function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}
