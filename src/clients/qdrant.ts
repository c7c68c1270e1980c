/** Qdrant's REST API, as far as the fleet uses it. One client speaks to one peer; nothing here goes through a Service. */
import { Agent, errors, request } from 'undici';
import { FleetError, messageOf } from '../domain/errors.ts';
import { jsonProblem } from '../domain/json-bounds.ts';
import { agentFor, whyUntrusted, type ServerTrust } from './server-trust.ts';

/** `GET /cluster`. Peer ids are strings here: old clusters have ids beyond 2^53. */
export interface ClusterInfo {
  readonly peerId: string;
  readonly peers: Readonly<Record<string, { readonly uri: string }>>;
  /** Peers that this one could not reach lately. */
  readonly sendFailures: readonly string[];
  /** Whether this peer takes part in consensus at the moment. */
  readonly working: boolean;
}

export interface CollectionInfo {
  readonly status: string;
  readonly points_count?: number;
  readonly config: { readonly params: Record<string, unknown> } & Record<string, unknown>;
  readonly payload_schema: Record<string, { data_type: string; params?: Record<string, unknown> }>;
}

interface ShardState {
  readonly shard_id: number;
  readonly shard_key?: string | number;
  readonly state: string;
}

/** `GET /collections/{c}/cluster`, seen from one peer. */
export interface CollectionCluster {
  readonly peerId: string;
  readonly shardCount: number;
  readonly local: readonly (ShardState & { readonly points_count: number })[];
  readonly remote: readonly (ShardState & { readonly peerId: string })[];
  readonly transfers: number;
  /** The transfers, one by one. */
  readonly moving: readonly ShardTransfer[];
  readonly resharding: number;
}

/** A shard on its way from one peer to another. */
export interface ShardTransfer {
  readonly shard: number;
  readonly from: string;
  readonly to: string;
}

/** A stored snapshot. `checksum` is the SHA-256 in hex; absent only on servers with remote snapshot storage. */
export interface SnapshotDescription {
  readonly name: string;
  readonly creation_time?: string;
  readonly size: number;
  readonly checksum?: string;
}

export interface Alias {
  readonly alias_name: string;
  readonly collection_name: string;
}

export interface QdrantClientOptions {
  /** Such as `https://10.0.1.7:6333`. */
  readonly url: string;
  readonly apiKey?: string;
  /** Needed for `https`: whom to trust, and by which name the peer has to show itself. */
  readonly trust?: ServerTrust;
  readonly signal?: AbortSignal;
  /** Milliseconds that no call may exceed. */
  readonly patience?: number;
}

type Json = Record<string, unknown>;

interface Telemetry {
  readonly collections: {
    readonly collections?: readonly {
      readonly id?: string;
      readonly config?: { readonly uuid?: string | null };
      readonly shards?: readonly {
        readonly local?: {
          readonly segments?: readonly {
            readonly info: { readonly vectors_size_bytes: number; readonly payloads_size_bytes: number };
          }[];
        } | null;
      }[];
    }[];
  };
}

/**
 * Snapshot creation and recovery answer only when they are done, which may take hours. Their callers watch the node
 * meanwhile, see watched-call.ts; the HTTP client does not bound them.
 */
const TIMEOUTS = { headersTimeout: 0, bodyTimeout: 0, keepAliveTimeout: 4000 } as const;
/**
 * Bytes and values of an answer: whoever holds a pod may answer without end. Telemetry is the largest, some kilobytes a
 * segment. Snapshots come by raw-http.ts.
 */
const MAX_ANSWER = 64 * 1024 * 1024;
const MAX_VALUES = 2_000_000;
/** A point has up to a million numbers (Qdrant's bound of a multivector), so few are asked for at a time. */
const POINTS_AT_ONCE = 4;
const MAX_POINT_VALUES = 5_000_000;
/** Characters of an answer with an error that are looked at as JSON. */
const MAX_ERROR = 64 * 1024;
const OPTIONS = { ...TIMEOUTS, maxResponseSize: MAX_ANSWER } as const;
const CONNECT = { timeout: 5000 } as const;
const plain = new Agent({ ...OPTIONS, connect: CONNECT });

/** Milliseconds that an ordinary call may take. */
const CALL_TIMEOUT = 30_000;

export class QdrantClient {
  readonly url: string;
  readonly #apiKey: string | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #patience: number | undefined;
  readonly #trust: ServerTrust | undefined;

  constructor({ url, apiKey, signal, patience, trust }: QdrantClientOptions) {
    this.url = url.replace(/\/$/, '');
    this.#apiKey = apiKey;
    this.#signal = signal;
    this.#patience = patience;
    this.#trust = trust;
  }

  /** For callers who stream by themselves: what their connections have to check. */
  get trust(): ServerTrust | undefined {
    return this.#trust;
  }

  /** The same peer, with calls that end when the signal says so. */
  until(signal: AbortSignal): QdrantClient {
    const signals = this.#signal === undefined ? [signal] : [this.#signal, signal];
    return new QdrantClient({
      url: this.url,
      signal: AbortSignal.any(signals),
      ...(this.#apiKey !== undefined && { apiKey: this.#apiKey }),
      ...(this.#patience !== undefined && { patience: this.#patience }),
      ...(this.#trust !== undefined && { trust: this.#trust }),
    });
  }

  /** Server version, such as `1.18.3`. Open without a key. */
  async version(): Promise<string> {
    const { version } = parse(await this.#text('GET', '/'), `GET ${this.url}/`) as { version?: string };
    if (version === undefined)
      throw new FleetError('QdrantUnavailable', `GET ${this.url}/ answered without a version.`);
    return version;
  }

  async cluster(): Promise<ClusterInfo> {
    // Ids may exceed what a JavaScript number holds, so they are quoted before parsing.
    const text = (await this.#text('GET', '/cluster')).replaceAll(/"peer_id":\s*(\d+)/g, '"peer_id":"$1"');
    const result = resultOf<{
      status: string;
      peer_id?: string;
      peers?: ClusterInfo['peers'];
      message_send_failures?: Record<string, unknown>;
      consensus_thread_status?: { consensus_thread_status?: string };
    }>(text, `GET ${this.url}/cluster`);
    if (result.status !== 'enabled' || result.peer_id === undefined) {
      throw new FleetError('QdrantRejected', `${this.url} runs without cluster mode; set config.cluster.enabled.`);
    }
    return {
      peerId: result.peer_id,
      peers: result.peers ?? {},
      sendFailures: Object.keys(result.message_send_failures ?? {}),
      working: result.consensus_thread_status?.consensus_thread_status === 'working',
    };
  }

  async collections(): Promise<string[]> {
    const { collections } = await this.#result<{ collections: { name: string }[] }>('GET', '/collections');
    return collections.map(({ name }) => name).sort();
  }

  async collection(name: string): Promise<CollectionInfo> {
    return this.#result('GET', this.#path(name));
  }

  async collectionCluster(name: string): Promise<CollectionCluster> {
    const text = (await this.#text('GET', this.#path(name, '/cluster'))).replaceAll(
      /"(peer_id|from|to)":\s*(\d+)/g,
      '"$1":"$2"',
    );
    const result = resultOf<{
      peer_id: string;
      shard_count: number;
      local_shards: CollectionCluster['local'];
      remote_shards: (ShardState & { peer_id: string })[];
      shard_transfers?: { shard_id: number; from: string; to: string }[];
      resharding_operations?: unknown[];
    }>(text, `GET ${this.url}${this.#path(name, '/cluster')}`);
    return {
      peerId: result.peer_id,
      shardCount: result.shard_count,
      local: result.local_shards,
      remote: result.remote_shards.map(({ peer_id, ...shard }) => ({ ...shard, peerId: peer_id })),
      transfers: result.shard_transfers?.length ?? 0,
      moving: (result.shard_transfers ?? []).map(({ shard_id: shard, from, to }) => ({ shard, from, to })),
      resharding: result.resharding_operations?.length ?? 0,
    };
  }

  async aliases(): Promise<Alias[]> {
    return (await this.#result<{ aliases: Alias[] }>('GET', '/aliases')).aliases;
  }

  /** Returns false when the collection exists already. */
  async createCollection(name: string, config: Json): Promise<boolean> {
    const { status, text } = await this.#send('PUT', this.#path(name, '?timeout=30'), config, 60_000);
    if (status === 409 || (status === 400 && text.includes('already exists'))) return false;
    this.#check('PUT', this.#path(name), status, text);
    parse(text, `PUT ${this.url}${this.#path(name)}`);
    return true;
  }

  async updateCollection(name: string, change: Json): Promise<void> {
    await this.#result('PATCH', this.#path(name, '?timeout=30'), change, 60_000);
  }

  async deleteCollection(name: string): Promise<void> {
    await this.#result('DELETE', this.#path(name, '?timeout=30'), undefined, 60_000);
  }

  async createShardKey(collection: string, key: Json): Promise<void> {
    await this.#result('PUT', this.#path(collection, '/shards?timeout=30'), key, 60_000);
  }

  /** Its shards go with it. */
  async deleteShardKey(collection: string, key: string | number): Promise<void> {
    await this.#result('POST', this.#path(collection, '/shards/delete?timeout=30'), { shard_key: key }, 60_000);
  }

  async createPayloadIndex(collection: string, field: string, schema: unknown): Promise<void> {
    const body = { field_name: field, field_schema: schema };
    await this.#result('PUT', this.#path(collection, '/index?wait=true&timeout=60'), body, 120_000);
  }

  /** All actions happen together or not at all. */
  async createAliases(aliases: readonly Alias[]): Promise<void> {
    const actions = aliases.map((alias) => ({ create_alias: alias }));
    await this.#result('POST', '/collections/aliases?timeout=30', { actions }, 60_000);
  }

  /** Exact number of points that match, over the whole collection. */
  async count(collection: string): Promise<number> {
    const body = { exact: true };
    return (await this.#result<{ count: number }>('POST', this.#path(collection, '/points/count'), body)).count;
  }

  /** Answers once the transfer has been entered; the copy itself runs on. */
  async moveShard(collection: string, transfer: ShardTransfer): Promise<void> {
    await this.#clusterOperation(collection, 'move_shard', transfer);
  }

  /** As {@link moveShard}, and the replica that it begins at stays. */
  async replicateShard(collection: string, transfer: ShardTransfer): Promise<void> {
    await this.#clusterOperation(collection, 'replicate_shard', transfer);
  }

  /** Returns false when there is no such transfer. */
  async abortTransfer(collection: string, transfer: ShardTransfer): Promise<boolean> {
    return this.#clusterOperation(collection, 'abort_transfer', transfer, [404]);
  }

  /**
   * Forget a peer that holds no shards, or with `force` whatever it holds. Returns false when consensus does not know it.
   */
  async removePeer(id: string, force = false): Promise<boolean> {
    const path = `/cluster/peer/${id}?timeout=30${force ? '&force=true' : ''}`;
    const { status, text } = await this.#send('DELETE', path, undefined, 60_000);
    if (status === 404 || (status === 400 && text.includes('does not exist'))) return false;
    this.#check('DELETE', path, status, text);
    return true;
  }

  /** Bytes of vectors and payload that the peer holds, by its telemetry; `undefined` when it does not tell. */
  async dataBytes(): Promise<number | undefined> {
    const { collections } = await this.#telemetry();
    if (collections.collections?.some(({ shards }) => shards === undefined) === true) return undefined;
    const segments = collections.collections?.flatMap(({ shards }) => shards ?? []);
    const sizes = segments?.flatMap(({ local }) => local?.segments ?? []).map(({ info }) => info);
    return sizes?.reduce((sum, info) => sum + info.vectors_size_bytes + info.payloads_size_bytes, 0);
  }

  /**
   * What tells a collection from one of the same name that was made after it was dropped: Qdrant gives each an id of its
   * own, which only its telemetry tells, and older versions do not.
   */
  async collectionIds(): Promise<ReadonlyMap<string, string>> {
    const { collections } = await this.#telemetry();
    return new Map(
      collections.collections?.flatMap(({ id, config }) =>
        typeof id === 'string' && typeof config?.uuid === 'string' ? [[id, config.uuid] as const] : [],
      ),
    );
  }

  #telemetry(): Promise<Telemetry> {
    return this.#result<Telemetry>('GET', '/telemetry?details_level=4');
  }

  async #clusterOperation(
    collection: string,
    kind: 'move_shard' | 'replicate_shard' | 'abort_transfer',
    { shard, from, to }: ShardTransfer,
    ignored: readonly number[] = [],
  ): Promise<boolean> {
    // By hand, because peer ids may exceed what a JavaScript number holds.
    const body = `{"${kind}":{"shard_id":${shard},"from_peer_id":${from},"to_peer_id":${to}}}`;
    const path = this.#path(collection, '/cluster?timeout=30');
    const { status, text } = await this.#send('POST', path, body, 60_000);
    if (ignored.includes(status)) return false;
    this.#check('POST', path, status, text);
    return true;
  }

  /** Points by id with payload and all vectors; those that do not exist are left out. */
  async points(
    collection: string,
    ids: readonly (number | string)[],
    shardKey?: string | number,
  ): Promise<{ id: number | string; payload?: unknown; vector?: unknown }[]> {
    const found: { id: number | string; payload?: unknown; vector?: unknown }[] = [];
    const path = this.#path(collection, '/points');
    for (let at = 0; at < ids.length; at += POINTS_AT_ONCE) {
      const text = await this.#text('POST', path, {
        ...{ ids: ids.slice(at, at + POINTS_AT_ONCE), with_payload: true, with_vector: true },
        ...(shardKey !== undefined && { shard_key: shardKey }),
      });
      found.push(...resultOf<typeof found>(text, `POST ${this.url}${path}`, MAX_POINT_VALUES));
    }
    return found;
  }

  async shardSnapshots(collection: string, shard: number): Promise<SnapshotDescription[]> {
    return this.#result('GET', this.#path(collection, `/shards/${shard}/snapshots`));
  }

  /** Waits until the snapshot is written. It goes on in the server when the connection drops. */
  async createShardSnapshot(collection: string, shard: number): Promise<SnapshotDescription> {
    return this.#result('POST', this.#path(collection, `/shards/${shard}/snapshots?wait=true`), undefined, 0);
  }

  /** Succeeds when the snapshot is gone already. */
  async deleteShardSnapshot(collection: string, shard: number, name: string): Promise<void> {
    const path = this.#path(collection, `/shards/${shard}/snapshots/${encodeURIComponent(name)}?wait=true`);
    const { status, text } = await this.#send('DELETE', path, undefined, CALL_TIMEOUT);
    if (status !== 404) this.#check('DELETE', path, status, text);
    // What was not said by Qdrant does not count: a snapshot that is believed gone is never looked for again.
    parse(text, `DELETE ${this.url}${path.split('?')[0]}`);
  }

  /** URL of a stored shard snapshot's bytes. */
  shardSnapshotUrl(collection: string, shard: number, name: string): string {
    return `${this.url}${this.#path(collection, `/shards/${shard}/snapshots/${encodeURIComponent(name)}`)}`;
  }

  /**
   * Let the peer pull a shard from a URL. Always names the priority, because code and documentation of Qdrant disagree
   * about the default. Never cancel-safe: the recovery goes on when the connection drops, see {@link gauge}.
   */
  async recoverShard(collection: string, shard: number, location: string, checksum: string): Promise<void> {
    const path = this.#path(collection, `/shards/${shard}/snapshots/recover?wait=true`);
    await this.#result('PUT', path, { location, checksum, priority: 'no_sync' }, 0);
  }

  /** Sum of a gauge of `/metrics` over its labels, optionally of one collection (label `id`). */
  async gauge(name: 'snapshot_creation_running' | 'snapshot_recovery_running', collection?: string): Promise<number> {
    let sum = 0;
    for (const line of (await this.#text('GET', '/metrics')).split('\n')) {
      if (!line.startsWith(name)) continue;
      if (collection !== undefined && !line.includes(`id=${JSON.stringify(collection)}`)) continue;
      sum += Number(line.slice(line.lastIndexOf(' ') + 1));
    }
    return sum;
  }

  /** Headers that every request needs, for callers who stream by themselves. Holds the API key: never log it. */
  authHeaders(): Record<string, string> {
    return this.#apiKey === undefined ? {} : { 'api-key': this.#apiKey };
  }

  #path(collection: string, rest = ''): string {
    // encodeURIComponent keeps dots, and URL parsers fold `.` and `..` segments away.
    const segment = encodeURIComponent(collection).replace(/^\.{1,2}$/, (dots) => dots.replaceAll('.', '%2E'));
    return `/collections/${segment}${rest}`;
  }

  async #result<T>(method: Method, path: string, body?: Json, timeout = CALL_TIMEOUT): Promise<T> {
    const text = await this.#text(method, path, body, timeout);
    return resultOf<T>(text, `${method} ${this.url}${path.split('?')[0]}`);
  }

  async #text(method: Method, path: string, body?: Json, timeout = CALL_TIMEOUT): Promise<string> {
    const { status, text } = await this.#send(method, path, body, timeout);
    this.#check(method, path, status, text);
    return text;
  }

  #check(method: Method, path: string, status: number, text: string): void {
    if (status < 300) return;
    const place = `${method} ${this.url}${path.split('?')[0]}`;
    const reason = errorOf(text);
    if (status >= 500 || status === 429) {
      throw new FleetError('QdrantUnavailable', `${place} answered ${status}: ${reason}`);
    }
    throw new FleetError('QdrantRejected', `${place} answered ${status}: ${reason}`);
  }

  /** The whole answer: a body that breaks off is no answer either. */
  async #send(
    method: Method,
    path: string,
    body: Json | string | undefined,
    timeout: number,
  ): Promise<{ status: number; text: string }> {
    const bounds = [timeout, this.#patience ?? 0].filter((bound) => bound > 0);
    const signals = [
      ...(this.#signal === undefined ? [] : [this.#signal]),
      ...(bounds.length > 0 ? [AbortSignal.timeout(Math.min(...bounds))] : []),
    ];
    try {
      const answer = await request(`${this.url}${path}`, {
        method,
        dispatcher: this.#trust === undefined ? plain : agentFor(this.#trust, OPTIONS, CONNECT),
        headers: {
          ...this.authHeaders(),
          ...(body !== undefined && { 'content-type': 'application/json' }),
        },
        ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
        ...(signals.length > 0 && { signal: AbortSignal.any(signals) }),
      });
      return { status: answer.statusCode, text: await answer.body.text() };
    } catch (error) {
      if (this.#signal?.aborted) throw this.#signal.reason;
      const place = `${method} ${this.url}${path.split('?')[0]}`;
      if (error instanceof errors.ResponseExceededMaxSizeError) {
        const detail = `${place} answered with more than ${MAX_ANSWER} bytes, and was cut off. Look at what answers there`;
        throw new FleetError('QdrantUnavailable', `${detail}: it is not Qdrant, or not as it was installed.`, {
          cause: error,
        });
      }
      const why = whyUntrusted(error, this.#trust) ?? messageOf(error);
      throw new FleetError('QdrantUnavailable', `${place} got no answer: ${why}`, { cause: error });
    }
  }
}

type Method = 'GET' | 'PUT' | 'POST' | 'PATCH' | 'DELETE';

/** The `result` of an answer. JSON without one comes from something else, or from a node that is just starting. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- each caller knows what it asked for, as for `#result`
function resultOf<T>(text: string, place: string, most = MAX_VALUES): T {
  const { result } = (parse(text, place, most) ?? {}) as { result?: T };
  if (result === undefined || result === null) {
    throw new FleetError(
      'QdrantUnavailable',
      `${place} answered without a result: ${JSON.stringify(text.slice(0, 100))}`,
    );
  }
  return result;
}

/** The answer to a request as JSON. Something between us and Qdrant may answer in its place. */
function parse(text: string, place: string, most = MAX_VALUES): unknown {
  const problem = jsonProblem(text, most);
  if (problem !== undefined) throw new FleetError('QdrantUnavailable', `${place} answered JSON that ${problem}.`);
  try {
    return JSON.parse(text);
  } catch (error) {
    const start = JSON.stringify(text.slice(0, 100));
    throw new FleetError('QdrantUnavailable', `${place} answered something that is not JSON: ${start}`, {
      cause: error,
    });
  }
}

/** The reason in Qdrant's error body, without presigned query strings, which Qdrant repeats in its messages. */
function errorOf(text: string): string {
  let reason = text;
  // An error is short; what is long is no answer of Qdrant's.
  if (text.length > MAX_ERROR) return withoutQueries(text.slice(0, 2000));
  try {
    const { status } = JSON.parse(text) as { status?: { error?: string } | string };
    reason = typeof status === 'object' ? (status.error ?? text) : text;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  return withoutQueries(reason);
}

function withoutQueries(text: string): string {
  return text.replaceAll(/(https?:\/\/[^\s"'?]+)\?[^\s"')]*/g, '$1?…').slice(0, 500);
}
