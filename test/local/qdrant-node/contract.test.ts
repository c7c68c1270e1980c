import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Answer, multipart, sha256, TestCluster } from './harness.ts';

/** What was seen on a real Qdrant 1.18.3 cluster of three nodes, in the order in which it happened. */
interface Exchange {
  name: string;
  request: { method: string; url: string; headers?: Record<string, string>; body?: unknown };
  response: { status?: number; headers?: Record<string, string>; body?: unknown };
}

const FIXTURE = join(import.meta.dirname, '../../fixtures/qdrant/exchanges-1.18.3-three-nodes.jsonl');
const exchanges = readFileSync(FIXTURE, 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as Exchange);

/** The answers whose body is not compared key by key, each with the reason. */
const ALLOWED_DIFFERENCES: Record<string, string> = {
  metrics: 'a subset of the families is served; each one served must be a recorded one of the same type',
  telemetry: 'a subset of the keys is served; each one served must be a recorded one',
  'partial manifest': 'keyed by the names of segments and files, which differ from shard to shard',
};

/** Strings that say what state something is in; all other strings are compared by type only. */
const EXACT_STRINGS = new Set([
  'status',
  'optimizer_status',
  'state',
  'title',
  'distance',
  'data_type',
  'alias_name',
  'collection_name',
  'shard_key',
  'key',
  'consensus_thread_status',
]);

let cluster: TestCluster;
/** Which of our nodes plays the recorded 127.0.0.1, .2 and .3. */
let roles = [0, 1, 2];
/** Recorded snapshot names and checksums, and ours. */
const renamed = new Map<string, string>();
let shardSnapshot: Buffer = Buffer.alloc(0);

beforeAll(async () => {
  cluster = await TestCluster.start(3);
});
afterAll(() => cluster.stop());

/** What the recording leaves out, or what has to be settled before the next recorded exchange. */
const PREPARATIONS: Record<string, () => Promise<void>> = {
  'upsert small': () => cluster.fill(0, 'documents', 0, 2000, 64),
  'count after delete': async () => {
    const points = Array.from({ length: 1000 }, (_, index) => index * 2);
    await cluster.ok(0, 'POST', '/collections/documents/points/delete?wait=true', { points });
  },
  'collection cluster after recover': () => cluster.healed('documents'),
  'collection cluster end': () => cluster.healed('documents'),
};

describe('a node answers as Qdrant 1.18.3 was seen to answer', () => {
  test.each(exchanges)('$name', async (exchange) => {
    await PREPARATIONS[exchange.name]?.();
    const { response: recorded } = exchange;
    const answer = await replay(exchange);
    if (recorded.status === undefined) {
      // The recorded client saw its connection closed before it had sent the body.
      expect(answer === 'closed' || answer.status === 403, 'refused without reading the body').toBe(true);
      return;
    }
    if (answer === 'closed') throw new Error('the connection was closed');
    expect(answer.status, answer.text.slice(0, 300)).toBe(recorded.status);
    compareHeaders(recorded.headers ?? {}, answer);
    compareBody(exchange, answer);
    await remember(exchange, answer);
  });

  test('the counts that the recorded steps lead to', async () => {
    // 2,000 points and the two of `upsert small`; 1,000 deleted; shard 0 came back from its snapshot.
    const layout = await cluster.layout(role(1), 'documents');
    const restored = layout.local_shards.find((shard) => shard.shard_id === 0)?.points_count;
    expect(restored).toBeGreaterThan(500);
    const others = await Promise.all([1, 2].map((shard) => oddPoints(shard)));
    expect(await cluster.count(role(1), 'documents')).toBe((restored ?? 0) + (others[0] ?? 0) + (others[1] ?? 0));
  });
});

async function oddPoints(shardId: number): Promise<number> {
  for (const node of [0, 1, 2]) {
    const shard = (await cluster.layout(node, 'documents')).local_shards.find((one) => one.shard_id === shardId);
    if (shard?.points_count !== undefined) return shard.points_count;
  }
  throw new Error(`no node holds shard ${shardId}`);
}

function role(number: number): number {
  const node = roles[number - 1];
  if (node === undefined) throw new Error(`there is no role ${number}`);
  return node;
}

async function replay(exchange: Exchange): Promise<Answer | 'closed'> {
  const match = /^127\.0\.0\.(\d):6333(.*)$/.exec(exchange.request.url);
  if (match === null) throw new Error(`unexpected URL ${exchange.request.url}`);
  const { 'api-key': key, 'content-type': _type, ...headers } = exchange.request.headers ?? {};
  const path = rename(match[2] ?? '');
  const options = { headers, key: key ?? null, body: undefined as unknown };
  if (exchange.name.startsWith('upload')) {
    const whole = exchange.name === 'upload truncated' ? shardSnapshot.subarray(0, 9_000) : shardSnapshot;
    const upload = multipart(exchange.request.headers === undefined ? Buffer.alloc(2 << 20) : whole);
    options.body = upload.body;
    options.headers = { ...headers, ...upload.headers };
    if (exchange.request.headers === undefined) options.key = 'ro-key';
  } else if (exchange.request.body != null) {
    options.body = JSON.parse(rename(JSON.stringify(exchange.request.body)));
  }
  try {
    return await cluster.call(role(Number(match[1])), exchange.request.method, path, options);
  } catch (error) {
    if (exchange.response.status === undefined) return 'closed';
    throw error;
  }
}

function rename(text: string): string {
  return [...renamed].reduce((changed, [recorded, ours]) => changed.replaceAll(recorded, ours), text);
}

/** Keeps what later exchanges refer to. */
async function remember(exchange: Exchange, answer: Answer): Promise<void> {
  if (exchange.name === 'create collection') {
    // The recorded first node holds shards 0 and 1 of three; ours is the one without shard 2.
    const views = await Promise.all([0, 1, 2].map((node) => cluster.layout(node, 'documents')));
    const first = views.findIndex((view) => view.local_shards.every((shard) => shard.shard_id !== 2));
    roles = [first, ...[0, 1, 2].filter((node) => node !== first)];
  }
  if (exchange.name === 'create collection snapshot n1' || exchange.name === 'create shard snapshot') {
    const recorded = (exchange.response.body as { result: { name: string; checksum: string } }).result;
    const ours = answer.result as { name: string; checksum: string };
    renamed.set(recorded.name, ours.name);
    renamed.set(recorded.checksum, ours.checksum);
  }
  if (exchange.name === 'download shard snapshot') {
    shardSnapshot = answer.bytes;
    const recorded = /sha256=(\w+)/.exec(String(exchange.response.body))?.[1] ?? '';
    expect(sha256(answer.bytes), 'the checksum of the description').toBe(rename(recorded));
  }
}

const COMPARED_HEADERS = [
  'content-length',
  'transfer-encoding',
  'content-type',
  'content-disposition',
  'content-range',
  'content-encoding',
  'accept-ranges',
  'etag',
  'last-modified',
  'vary',
];

function compareHeaders(recorded: Record<string, string>, answer: Answer): void {
  const present = (headers: object) => COMPARED_HEADERS.filter((name) => name in headers);
  expect(present(answer.headers)).toEqual(present(recorded));
  for (const name of ['content-type', 'content-encoding', 'accept-ranges', 'transfer-encoding']) {
    expect(answer.headers[name], name).toBe(recorded[name]);
  }
  if (recorded['etag'] !== undefined) expect(answer.headers.etag).toMatch(/^"[0-9a-f:]+"$/);
  if (recorded['content-range'] !== undefined) {
    expect(answer.headers['content-range']?.replace(/\d+$/, 'N')).toBe(recorded['content-range'].replace(/\d+$/, 'N'));
  }
}

function compareBody(exchange: Exchange, answer: Answer): void {
  const recorded = exchange.response.body;
  if (exchange.name === 'metrics') return compareMetrics(String(recorded), answer.text);
  if (typeof recorded !== 'string') {
    const ours: unknown = JSON.parse(answer.text);
    const differences: string[] = [];
    if (isError(recorded)) {
      expect(errorText(ours)).toBe(errorText(JSON.parse(rename(JSON.stringify(recorded)))));
    } else if (exchange.name in ALLOWED_DIFFERENCES) {
      compareKnownKeys(recorded, ours, exchange.name, differences);
    } else {
      compareShape(recorded, ours, 'body', differences);
    }
    expect(differences).toEqual([]);
    return;
  }
  const digest = /^<(\d+) bytes sha256=(\w+)>$/.exec(recorded);
  if (digest === null) {
    expect(masked(answer.text)).toBe(masked(rename(recorded)));
  } else if (answer.status === 401) {
    expect(sha256(answer.bytes)).toBe(digest[2]);
  } else if (answer.headers['content-length'] !== undefined) {
    expect(answer.bytes.length).toBe(Number(answer.headers['content-length']));
  }
}

function isError(body: unknown): boolean {
  return typeof (body as { status: unknown }).status === 'object';
}

function errorText(body: unknown): string {
  return masked((body as { status: { error: string } }).status.error);
}

/** Without what differs between two clusters: folders, hashes, and where in the body a parser stopped. */
function masked(text: string): string {
  return text
    .replaceAll(/"?\/[\w./-]*snapshots/g, (path) => `${path.startsWith('"') ? '"' : ''}<snapshots>`)
    .replaceAll(/\b[0-9a-f]{64}\b/g, (hash) => (/^0+$/.test(hash) ? hash : '<hash>'))
    .replaceAll(/ at line \d+ column \d+/g, '');
}

/** Same keys and types all the way down; booleans, and strings that name a state, have the same value. */
function compareShape(recorded: unknown, ours: unknown, path: string, differences: string[]): void {
  if (kind(recorded) !== kind(ours)) {
    differences.push(`${path}: ${kind(ours)} instead of ${kind(recorded)}`);
  } else if (Array.isArray(recorded) && Array.isArray(ours)) {
    if ((recorded.length === 0) !== (ours.length === 0)) differences.push(`${path}: ${ours.length} elements`);
    for (const [index, element] of ours.entries()) compareShape(recorded[0], element, `${path}[${index}]`, differences);
  } else if (isRecord(recorded) && isRecord(ours)) {
    const byPeer = Object.keys(recorded).every((key) => /^\d+$/.test(key)) && Object.keys(recorded).length > 0;
    for (const key of byPeer ? [] : Object.keys(recorded)) {
      if (!(key in ours)) differences.push(`${path}.${key}: missing`);
    }
    for (const [key, value] of Object.entries(ours)) {
      const expected = byPeer ? Object.values(recorded)[0] : recorded[key];
      if (!byPeer && !(key in recorded)) differences.push(`${path}.${key}: not in the recording`);
      else compareShape(expected, value, `${path}.${key}`, differences);
    }
  } else if (typeof recorded === 'boolean' || EXACT_STRINGS.has(path.split('.').at(-1) ?? '')) {
    // The elements of a list are compared to its first one, whose name is not theirs.
    if (recorded !== ours && !path.includes('[')) differences.push(`${path}: ${String(ours)}, not ${String(recorded)}`);
  }
}

/** Every key we serve is a recorded one of the same type. */
function compareKnownKeys(recorded: unknown, ours: unknown, path: string, differences: string[]): void {
  if (kind(recorded) !== kind(ours)) differences.push(`${path}: ${kind(ours)} instead of ${kind(recorded)}`);
  if (!isRecord(recorded) || !isRecord(ours)) return;
  const byName = path.startsWith('partial manifest') && path !== 'partial manifest';
  for (const [key, value] of Object.entries(ours)) {
    if (key in recorded) compareKnownKeys(recorded[key], value, `${path}.${key}`, differences);
    else if (!byName) differences.push(`${path}.${key}: not in the recording`);
  }
}

function compareMetrics(recorded: string, ours: string): void {
  const families = (text: string) => new Set(text.split('\n').filter((line) => line.startsWith('# TYPE')));
  const known = families(recorded);
  expect([...families(ours)].filter((line) => !known.has(line))).toEqual([]);
  for (const line of ['app_info{name="qdrant",version="1.18.3"} 1', 'snapshot_creation_running{id="documents"} 0']) {
    expect(recorded.split('\n')).toContain(line);
    expect(ours.split('\n').map((one) => one.replace(/version="[^"]+"/, 'version="1.18.3"'))).toContain(line);
  }
  expect(ours).toContain('snapshot_recovery_running{id="documents"} 0');
}

function kind(value: unknown): string {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'array' : typeof value;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return kind(value) === 'object';
}
