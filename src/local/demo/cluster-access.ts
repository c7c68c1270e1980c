/** A Qdrant cluster as its user meets it: peers with an API key, points in and out. For the demo and the tests. */
import { createHash } from 'node:crypto';
import { Agent, request } from 'undici';
import { Kubernetes } from '../../clients/kubernetes.ts';
import { agentFor, type ServerTrust } from '../../clients/server-trust.ts';
import { canonicalJson } from '../../domain/canonical-json.ts';
import { API_KEY_SECRET, namespaceOf, type ClusterRef } from '../../domain/naming.ts';
import { serverNameOf, TRUST_SECRET } from '../../domain/tls.ts';
import type { Point } from './digits.ts';

const TIMEOUTS = { headersTimeout: 60_000, bodyTimeout: 60_000 } as const;
const plain = new Agent(TIMEOUTS);

/** What a collection holds, point by point, as one number to compare. */
export interface Digest {
  readonly points: number;
  /** SHA-256 in hex over id, vector (bit by bit) and payload (keys sorted) of every point in id order. */
  readonly sha256: string;
}

export class ClusterAccess {
  readonly #peers: readonly string[];
  readonly #key: string;
  /** For each peer; none without TLS. */
  readonly #trust: readonly ServerTrust[];

  private constructor(peers: readonly string[], key: string, trust: readonly ServerTrust[]) {
    this.#peers = peers;
    this.#key = key;
    this.#trust = trust;
  }

  /** Read key and authorities from the cluster's Secrets and find its pods, as a user with kubectl would. */
  static async open(kubeconfig: string, ref: ClusterRef): Promise<ClusterAccess> {
    const kubernetes = new Kubernetes(kubeconfig);
    const namespace = namespaceOf(ref);
    const key = await kubernetes.secretValue(namespace, API_KEY_SECRET.name, API_KEY_SECRET.key);
    const pods = await kubernetes.pods(namespace, 'app.kubernetes.io/name=qdrant');
    const ca = await kubernetes.secretValue(namespace, TRUST_SECRET.name, TRUST_SECRET.ca);
    const scheme = ca === undefined ? 'http' : 'https';
    const up = pods.flatMap(({ name, ip }) => (ip === undefined ? [] : [{ name, url: `${scheme}://${ip}:6333` }]));
    if (key === undefined || up.length === 0) throw new Error(`No cluster to talk to in namespace ${namespace}.`);
    const source = `Secret ${namespace}/${TRUST_SECRET.name}`;
    return new ClusterAccess(
      up.map(({ url }) => url),
      key,
      ca === undefined ? [] : up.map(({ name }) => ({ ca, source, servername: serverNameOf(ref, name) })),
    );
  }

  get peers(): readonly string[] {
    return this.#peers;
  }

  /** The API key, for tests that look for it where it must not be. */
  get apiKey(): string {
    return this.#key;
  }

  /** Call one peer. @returns the `result` of Qdrant's answer */
  async call<T>(method: 'GET' | 'PUT' | 'POST' | 'DELETE', path: string, body?: unknown, peer = 0): Promise<T> {
    const trust = this.#trust[peer];
    const { statusCode, body: answer } = await request(`${this.#peers[peer]}${path}`, {
      method,
      dispatcher: trust === undefined ? plain : agentFor(trust, TIMEOUTS, {}),
      headers: { 'api-key': this.#key, 'content-type': 'application/json' },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    if (statusCode >= 300) throw new Error(`${method} ${path} answered ${statusCode}: ${text.slice(0, 300)}`);
    return (JSON.parse(text) as { result: T }).result;
  }

  /** Upsert points in batches, over all peers. */
  async load(collection: string, points: readonly Point[], onProgress?: (loaded: number) => void): Promise<void> {
    const batches: Point[][] = [];
    for (let start = 0; start < points.length; start += 500) batches.push(points.slice(start, start + 500));
    let loaded = 0;
    const lane = async (peer: number): Promise<void> => {
      for (let batch = batches.shift(); batch !== undefined; batch = batches.shift()) {
        await this.call(
          'PUT',
          `/collections/${encodeURIComponent(collection)}/points?wait=true`,
          { points: batch },
          peer,
        );
        loaded += batch.length;
        onProgress?.(loaded);
      }
    };
    await Promise.all(this.#peers.map((_, peer) => lane(peer)));
  }

  /** Read every point back through one peer. */
  async digest(collection: string, peer = 0): Promise<Digest> {
    const hash = createHash('sha256');
    let points = 0;
    let offset: number | string | null = null;
    do {
      const page: { points: StoredPoint[]; next_page_offset: number | string | null } = await this.call(
        'POST',
        `/collections/${encodeURIComponent(collection)}/points/scroll`,
        { limit: 500, with_payload: true, with_vector: true, ...(offset !== null && { offset }) },
        peer,
      );
      for (const { id, vector, payload } of page.points) {
        hash.update(`${id}\n${canonicalJson(payload)}\n`);
        hash.update(Array.isArray(vector) ? new Float32Array(vector as number[]) : (canonicalJson(vector) ?? ''));
        points += 1;
      }
      offset = page.next_page_offset;
    } while (offset !== null && offset !== undefined);
    return { points, sha256: hash.digest('hex') };
  }

  /** Payload indexes of a collection by field, with their type. */
  async indexes(collection: string): Promise<Record<string, string>> {
    const { payload_schema: schema } = await this.call<{ payload_schema: Record<string, { data_type: string }> }>(
      'GET',
      `/collections/${encodeURIComponent(collection)}`,
    );
    const pairs = Object.entries(schema).map(([field, { data_type: type }]) => [field, type] as const);
    return Object.fromEntries(pairs.sort(([a], [b]) => a.localeCompare(b)));
  }

  /** Collection by alias. */
  async aliases(): Promise<Record<string, string>> {
    const { aliases } = await this.call<{ aliases: { alias_name: string; collection_name: string }[] }>(
      'GET',
      '/aliases',
    );
    return Object.fromEntries(
      aliases
        .map(({ alias_name, collection_name }) => [alias_name, collection_name] as const)
        .sort(([a], [b]) => a.localeCompare(b)),
    );
  }

  /** Names of all stored shard snapshots on all peers. */
  async nodeSnapshots(collection: string): Promise<string[]> {
    const found: string[] = [];
    for (const peer of this.#peers.keys()) {
      const path = `/collections/${encodeURIComponent(collection)}`;
      const { local_shards: shards } = await this.call<{ local_shards: { shard_id: number }[] }>(
        'GET',
        `${path}/cluster`,
        undefined,
        peer,
      );
      for (const { shard_id: shard } of shards) {
        const snapshots = await this.call<{ name: string }[]>(
          'GET',
          `${path}/shards/${shard}/snapshots`,
          undefined,
          peer,
        );
        for (const { name } of snapshots) found.push(`${this.#peers[peer]} ${name}`);
      }
    }
    return found;
  }
}

interface StoredPoint {
  readonly id: number | string;
  readonly vector: unknown;
  readonly payload: unknown;
}
