/** Two small clusters with a fleet in front of them, and fault proxies on every way that bytes take. */
import type { ChildProcess } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import type { WorkflowHandle } from '@temporalio/client';
import { WorkflowFailedError } from '@temporalio/client';
import { ApplicationFailure, CancelledFailure } from '@temporalio/common';
import type { ClusterAccess, Digest } from '../../src/local/demo/cluster-access.ts';
import { FaultProxy } from './fault-proxy.ts';
import { exited, Fleet, largePoints, smallPoints, until } from './fleet.ts';
import { hangs } from './hanging.ts';
import { scan, type ScanResult } from './scanner.ts';

/** The proxies listen beside the peers, on the pods' own addresses. */
const PROXY_PORT = 16_333;
const SMALL_PARTS = {
  FLEET_TRANSFER_PART_BYTES: String(5 * 1024 * 1024),
  FLEET_TRANSFER_LANES: '2',
  // The shards of `conversations` are copied in packs, the one of `documents` by itself.
  FLEET_SMALL_SHARD_BYTES: String(4 * 1024 * 1024),
};
export const COLLECTIONS = ['conversations', 'documents'];

/** The code of an operation that did not end. */
export const HANGS = 'hangs';

/** How an operation ended. */
export interface Outcome {
  /** `done`, or the code that it failed with. */
  readonly code: string;
  readonly message: string;
  readonly result: Record<string, unknown>;
}

export class Arena {
  readonly fleet: Fleet;
  readonly source: ClusterAccess;
  readonly target: ClusterAccess;
  /** Between the worker and the store. */
  readonly s3: FaultProxy;
  /** Between the nodes and the store. */
  readonly pull: FaultProxy;
  /** Between the worker and each node. */
  readonly nodes: readonly FaultProxy[];
  readonly digests: Record<string, Digest>;
  /** Backups whose operation said what it left behind. */
  readonly excused = new Set<string>();
  readonly #reported = new Set<string>();

  private constructor(parts: Pick<Arena, 'fleet' | 'source' | 'target' | 's3' | 'pull' | 'nodes' | 'digests'>) {
    this.fleet = parts.fleet;
    this.source = parts.source;
    this.target = parts.target;
    this.s3 = parts.s3;
    this.pull = parts.pull;
    this.nodes = parts.nodes;
    this.digests = parts.digests;
  }

  /** `docs` holds six shards, one of them of three parts; `target` is empty. */
  static async open(): Promise<Arena> {
    const fleet = await Fleet.open(SMALL_PARTS);
    const { tenant } = fleet;
    const plain = await fleet.worker();
    const collections = [
      { preset: 'documents', vectorSize: 4, shardNumber: 1, replicationFactor: 1 },
      { preset: 'conversations', vectorSize: 4, shardNumber: 5, replicationFactor: 1 },
    ];
    await Promise.all([
      fleet.run('ProvisionCluster', { tenant, cluster: 'docs', nodes: 2, collections }),
      fleet.run('ProvisionCluster', { tenant, cluster: 'target', nodes: 2, collections: [] }),
    ]);
    plain.kill('SIGTERM');
    await exited(plain);
    const [source, target] = await Promise.all([fleet.access('docs'), fleet.access('target')]);
    await source.load('documents', largePoints(1600));
    await source.load('conversations', smallPoints(200));
    await source.call('POST', '/collections/aliases', {
      actions: [{ create_alias: { collection_name: 'documents', alias_name: 'live' } }],
    });
    const digests = Object.fromEntries(
      await Promise.all(COLLECTIONS.map(async (name) => [name, await source.digest(name)] as const)),
    );
    const store = fleet.env['FLEET_S3_ENDPOINT'] ?? '';
    return new Arena({
      fleet,
      source,
      target,
      digests,
      s3: await FaultProxy.listen(store),
      pull: await FaultProxy.listen(store),
      nodes: await Promise.all(
        [...source.peers, ...target.peers].map((peer) => FaultProxy.listen(peer, new URL(peer).hostname, PROXY_PORT)),
      ),
    });
  }

  get proxies(): readonly FaultProxy[] {
    return [this.s3, this.pull, ...this.nodes];
  }

  /** A worker whose every byte goes through the proxies; `direct` for one that needs none. */
  worker(way: 'proxied' | 'direct' = 'proxied'): Promise<ChildProcess> {
    const env = {
      FLEET_S3_ENDPOINT: this.s3.url,
      FLEET_S3_NODE_ENDPOINT: this.pull.url,
      FLEET_QDRANT_HTTP_PORT: String(PROXY_PORT),
    };
    return this.fleet.worker(way === 'proxied' ? { env } : {});
  }

  start(type: string, input: Record<string, unknown>) {
    return this.fleet.start(type, { tenant: this.fleet.tenant, ...input });
  }

  /**
   * How it ends. One that does not within the bound is ended by force: its code is `hangs`, and its message says what it
   * waited for. What an operation says that it left behind is excused.
   */
  async end(handle: WorkflowHandle, seconds: number): Promise<Outcome> {
    const late = new AbortController();
    const bound = sleep(seconds * 1000, 'late' as const, { signal: late.signal }).catch(() => 'late' as const);
    try {
      const result = (await Promise.race([handle.result(), bound])) as Record<string, unknown> | 'late';
      if (result !== 'late') return { code: 'done', message: '', result };
      const message = `no end within ${seconds} s: ${await hangs(handle)}`;
      await handle.terminate('it hangs');
      return { code: HANGS, message, result: {} };
    } catch (error) {
      const cause = error instanceof WorkflowFailedError ? error.cause : undefined;
      if (!(cause instanceof ApplicationFailure || cause instanceof CancelledFailure)) throw error;
      const code = cause instanceof ApplicationFailure ? (cause.type ?? 'without a code') : 'Cancelled';
      const [, left = ''] = cause.message.split(' Left behind: ');
      for (const [id] of left.matchAll(/\d{8}T\d{6}Z-[0-9a-f]{8}/g)) this.excused.add(id);
      return { code, message: cause.message, result: {} };
    } finally {
      late.abort();
    }
  }

  async run(type: string, input: Record<string, unknown>, seconds = 120): Promise<Outcome> {
    return this.end(await this.start(type, input), seconds);
  }

  lift(): void {
    for (const proxy of this.proxies) proxy.lift();
  }

  /** Nothing is on its way any more: a late request of an attempt that was given up would be one. */
  async settled(): Promise<void> {
    await until('no request is open', () => Promise.resolve(this.proxies.every(({ open }) => open === 0)));
  }

  /** What is wrong and was not before: what one run leaves is not held against the next. @param worker that is idle now */
  async scan(worker?: ChildProcess): Promise<ScanResult> {
    const { fleet, source, target, excused } = this;
    const workers = worker?.pid === undefined ? [] : [worker.pid];
    const found = await scan({ env: fleet.env, tenant: fleet.tenant, clusters: [source, target], excused, workers });
    const violations = found.violations.filter((what) => !this.#reported.has(what));
    for (const what of violations) this.#reported.add(what);
    return { ...found, violations };
  }

  /** What a restore should have brought, against what there is. @returns what differs */
  async compareTarget(): Promise<string[]> {
    const wrong: string[] = [];
    for (const name of COLLECTIONS) {
      const found = await this.target.digest(name);
      if (found.sha256 !== this.digests[name]?.sha256)
        wrong.push(`the restored "${name}" has ${found.points} points, another digest`);
    }
    if ((await this.target.aliases())['live'] !== 'documents') wrong.push('the alias did not come back');
    return wrong;
  }

  /** @returns names of the collections that were there */
  async emptyTarget(): Promise<string[]> {
    const { collections } = await this.target.call<{ collections: { name: string }[] }>('GET', '/collections');
    for (const { name } of collections) await this.target.call('DELETE', `/collections/${name}`);
    return collections.map(({ name }) => name);
  }

  async close(): Promise<void> {
    await this.fleet.close();
    for (const proxy of this.proxies) await proxy.close();
  }
}
