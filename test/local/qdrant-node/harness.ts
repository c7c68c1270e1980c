import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomInt } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { Agent, request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { qdrantCommand } from '../../../src/local/qdrant-node/launch.ts';
import { until } from '../../../src/local/wait.ts';

export const ADMIN_KEY = 'admin-key';
export const READ_ONLY_KEY = 'ro-key';

export interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  bytes: Buffer;
  text: string;
  /** The `result` of Qdrant's envelope. */
  result: unknown;
}

export interface CallOptions {
  body?: unknown;
  key?: string | null;
  headers?: Record<string, string>;
}

export interface ShardOnPeer {
  shard_id: number;
  shard_key?: string;
  peer_id?: number;
  points_count?: number;
  state: string;
}

export interface CollectionCluster {
  peer_id: number;
  shard_count: number;
  local_shards: ShardOnPeer[];
  remote_shards: ShardOnPeer[];
  shard_transfers: unknown[];
}

/** Qdrant nodes of the test's own, each on a loopback address of its own. */
export class TestCluster {
  readonly hosts: string[];
  readonly dir = mkdtempSync(join(tmpdir(), 'fleet-qdrant-'));
  readonly #processes: (ChildProcess | undefined)[] = [];
  readonly #agent = new Agent({ keepAlive: true });

  private constructor(size: number) {
    const net = `127.77.${randomInt(1, 255)}`;
    const first = randomInt(1, 250 - size);
    this.hosts = Array.from({ length: size }, (_, index) => `${net}.${first + index}`);
  }

  static async start(size: number, env: Record<string, string> = {}): Promise<TestCluster> {
    const cluster = new TestCluster(size);
    try {
      // One after another, so that the first peer is there for the others and ids of shards land the same way each time.
      for (const index of cluster.hosts.keys()) await cluster.startNode(index, env);
      return cluster;
    } catch (error) {
      await cluster.stop();
      throw error;
    }
  }

  async startNode(index: number, env: Record<string, string> = {}): Promise<void> {
    const host = this.host(index);
    const first = `http://${this.host(0)}:6335`;
    const command = qdrantCommand({ uri: `http://${host}:6335`, ...(index > 0 && { bootstrap: first }) });
    const log = openSync(join(this.dir, `n${index}.log`), 'a');
    const child = spawn(command.file, command.args, {
      cwd: this.dir,
      stdio: ['ignore', log, log],
      env: {
        PATH: process.env['PATH'],
        HOME: process.env['HOME'],
        QDRANT__SERVICE__HOST: host,
        QDRANT__CLUSTER__ENABLED: 'true',
        QDRANT__STORAGE__STORAGE_PATH: join(this.dir, `n${index}/storage`),
        QDRANT__STORAGE__SNAPSHOTS_PATH: this.snapshotsFolder(index),
        QDRANT__SERVICE__API_KEY: ADMIN_KEY,
        QDRANT__SERVICE__READ_ONLY_API_KEY: READ_ONLY_KEY,
        ...env,
      },
    });
    closeSync(log);
    this.#processes[index] = child;
    await until(
      `node ${index} is ready`,
      async () => {
        if (child.exitCode !== null) throw new Error(this.log(index));
        return (await this.call(index, 'GET', '/readyz')).status === 200;
      },
      { withinMs: 20_000, everyMs: 20 },
    );
  }

  /** Ends a node's process and returns its exit code, null after a kill. */
  async end(index: number, signal: 'SIGTERM' | 'SIGKILL'): Promise<number | null> {
    const child = this.#processes[index];
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return child?.exitCode ?? null;
    const exit = once(child, 'exit');
    child.kill(signal);
    await exit;
    return child.exitCode;
  }

  async stop(): Promise<void> {
    this.#agent.destroy();
    await Promise.all(this.#processes.map((_, index) => this.end(index, 'SIGKILL')));
    rmSync(this.dir, { recursive: true, force: true });
  }

  host(index: number): string {
    const host = this.hosts[index];
    if (host === undefined) throw new Error(`there is no node ${index}`);
    return host;
  }

  snapshotsFolder(index: number): string {
    return join(this.dir, `n${index}/snapshots`);
  }

  url(index: number, path: string): string {
    return `http://${this.host(index)}:6333${path}`;
  }

  log(index: number): string {
    return readFileSync(join(this.dir, `n${index}.log`), 'utf8');
  }

  /** Any answer is returned, whatever its status; only a broken connection rejects. */
  call(index: number, method: string, path: string, options: CallOptions = {}): Promise<Answer> {
    const key = options.key === undefined ? ADMIN_KEY : options.key;
    const raw = options.body instanceof Uint8Array;
    const body = raw || options.body === undefined ? options.body : JSON.stringify(options.body);
    return new Promise((resolve, reject) => {
      const outgoing = httpRequest(
        this.url(index, path),
        {
          method,
          agent: this.#agent,
          headers: {
            'accept-encoding': 'identity',
            ...(key !== null && { 'api-key': key }),
            ...(body !== undefined && !raw && { 'content-type': 'application/json' }),
            ...options.headers,
          },
        },
        (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.on('error', reject);
          response.on('end', () => {
            const bytes = Buffer.concat(chunks);
            const text = bytes.toString('utf8');
            const json = response.headers['content-type'] === 'application/json';
            const result = json ? (JSON.parse(text) as { result?: unknown }).result : undefined;
            resolve({ status: response.statusCode ?? 0, headers: response.headers, bytes, text, result });
          });
        },
      );
      outgoing.on('error', reject);
      outgoing.end(body);
    });
  }

  /** As {@link call}, but anything other than a 2xx status throws; returns the `result`. */
  async ok<T = unknown>(index: number, method: string, path: string, body?: unknown): Promise<T> {
    const answer = await this.call(index, method, path, { body });
    if (answer.status < 200 || answer.status > 299) {
      throw new Error(`${method} ${path} on node ${index}: ${answer.status} ${answer.text}`);
    }
    return answer.result as T;
  }

  layout(index: number, collection: string): Promise<CollectionCluster> {
    return this.ok(index, 'GET', `/collections/${collection}/cluster`);
  }

  async count(index: number, collection: string): Promise<number> {
    return (await this.ok<{ count: number }>(index, 'POST', `/collections/${collection}/points/count`, { exact: true }))
      .count;
  }

  /** Waits until every replica of the collection is Active in the eyes of every node. */
  async healed(collection: string): Promise<void> {
    await until(
      `all replicas of ${collection} are Active`,
      async () => {
        const views = await Promise.all(this.hosts.map((_, index) => this.layout(index, collection)));
        return views.every(
          (view) =>
            view.shard_transfers.length === 0 &&
            [...view.local_shards, ...view.remote_shards].every((shard) => shard.state === 'Active'),
        );
      },
      { withinMs: 15_000 },
    );
  }

  /** Upserts points `from` to `to` (exclusive) with vectors of `size` and payload `{n, tag}`. */
  async fill(index: number, collection: string, from: number, to: number, size: number, more: object = {}) {
    const points = Array.from({ length: to - from }, (_, offset) => testPoint(from + offset, size));
    await this.ok(index, 'PUT', `/collections/${collection}/points?wait=true`, { points, ...more });
  }
}

export function testPoint(id: number, size: number) {
  const vector = Array.from({ length: size }, (_, position) => Math.sin(id * 31 + position) + 0.01);
  return { id, vector, payload: { n: id, tag: `t${id % 7}` } };
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** One file as a multipart upload, as Qdrant's upload routes take it. */
export function multipart(bytes: Uint8Array): { body: Uint8Array; headers: Record<string, string> } {
  const head = '------qb\r\ncontent-disposition: form-data; name="snapshot"; filename="s"\r\n\r\n';
  return {
    body: Buffer.concat([Buffer.from(head), bytes, Buffer.from('\r\n------qb--\r\n')]),
    headers: { 'content-type': 'multipart/form-data; boundary=----qb' },
  };
}
