/**
 * A random campaign, the same for the same seed: an operation runs while its surroundings break. It may succeed, or
 * fail with a code; afterwards it must succeed, nothing may be left over, and every committed byte must be right.
 *
 * `npm run test:faults` runs many, `npm test` a few quick ones. FLEET_TEST_FAULT_RUNS, FLEET_TEST_FAULT_SEED.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { isErrorCode } from '../../src/domain/errors.ts';
import { Arena, COLLECTIONS, type Outcome } from '../support/arena.ts';
import type { ScanResult } from '../support/scanner.ts';
import { qdrantError, s3Error, type Fault, type FaultProxy, type Rule } from '../support/fault-proxy.ts';

const LONG = process.env['FLEET_TEST_FAULT_RUNS'] !== undefined;
const RUNS = Number(process.env['FLEET_TEST_FAULT_RUNS'] ?? 3);
const SEED = Number(process.env['FLEET_TEST_FAULT_SEED'] ?? 2);
/** Seconds within which an operation has to end under faults. */
const BOUND = 420;

type Operation = 'backup' | 'restore' | 'sweep';

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
class Dice {
  #state: number;
  constructor(seed: number) {
    this.#state = seed * 0x9e3779b1;
  }
  roll(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }
  upTo(limit: number): number {
    return Math.floor(this.roll() * limit);
  }
  pick<T>(items: readonly T[]): T {
    return items[this.upTo(items.length)] as T;
  }
}

/** A request of an operation, and what of it is guarded by a checksum. */
interface Place {
  readonly on: 's3' | 'pull' | 'node';
  readonly method: string;
  readonly path: RegExp;
  readonly flips?: 'request' | 'response';
}

const PLACES: Readonly<Record<Operation, readonly Place[]>> = {
  backup: [
    { on: 's3', method: 'HEAD', path: /^\/[^/]+\/?(\?|$)/ },
    { on: 's3', method: 'PUT', path: /intent\.json/, flips: 'request' },
    { on: 's3', method: 'PUT', path: /plan\.json/, flips: 'request' },
    { on: 's3', method: 'GET', path: /plan\.json/, flips: 'response' },
    { on: 's3', method: 'GET', path: /[?&]uploads/ },
    { on: 's3', method: 'POST', path: /[?&]uploads/ },
    { on: 's3', method: 'PUT', path: /partNumber=/, flips: 'request' },
    { on: 's3', method: 'PUT', path: /partNumber=/, flips: 'request' },
    { on: 's3', method: 'POST', path: /uploadId=/, flips: 'request' },
    { on: 's3', method: 'HEAD', path: /\.snapshot/ },
    { on: 's3', method: 'PUT', path: /manifest\.json/, flips: 'request' },
    { on: 's3', method: 'PUT', path: /commit\.json/, flips: 'request' },
    { on: 'node', method: 'GET', path: /^\/cluster/ },
    { on: 'node', method: 'GET', path: /^\/collections(\?|$)/ },
    { on: 'node', method: 'GET', path: /^\/collections\/\w+\/cluster/ },
    { on: 'node', method: 'POST', path: /\/snapshots\?/ },
    { on: 'node', method: 'GET', path: /\/snapshots\/[^?]+/, flips: 'response' },
    { on: 'node', method: 'GET', path: /\/snapshots\/[^?]+/, flips: 'response' },
    { on: 'node', method: 'DELETE', path: /\/snapshots\// },
  ],
  restore: [
    { on: 's3', method: 'PUT', path: /\/leases\// },
    { on: 's3', method: 'GET', path: /commit\.json/, flips: 'response' },
    { on: 's3', method: 'GET', path: /manifest\.json/, flips: 'response' },
    { on: 's3', method: 'POST', path: /[?&]delete/ },
    { on: 'pull', method: 'GET', path: /\.snapshot/, flips: 'response' },
    { on: 'pull', method: 'GET', path: /\.snapshot/, flips: 'response' },
    { on: 'node', method: 'PUT', path: /^\/collections\/\w+\?/ },
    { on: 'node', method: 'PUT', path: /\/index\?/ },
    { on: 'node', method: 'PUT', path: /\/recover/ },
    { on: 'node', method: 'PUT', path: /\/recover/ },
    { on: 'node', method: 'GET', path: /^\/collections\/\w+\/cluster/ },
    { on: 'node', method: 'POST', path: /\/aliases/ },
  ],
  sweep: [
    { on: 's3', method: 'GET', path: /list-type=2/ },
    { on: 's3', method: 'GET', path: /commit\.json/, flips: 'response' },
    { on: 's3', method: 'PUT', path: /commit\.json/, flips: 'request' },
    { on: 's3', method: 'GET', path: /[?&]uploads/ },
    { on: 's3', method: 'POST', path: /[?&]delete/, flips: 'request' },
  ],
};

const HTML: Fault = { kind: 'answer', status: 200, body: '<html>proxy login</html>', contentType: 'text/html' };

/** What may happen to a request at a place. */
function faultsOf({ on, method, path, flips }: Place): Fault[] {
  const at = { share: 0.5 };
  const writes = method === 'PUT' || method === 'POST';
  const common: Fault[] = [
    { kind: 'drop-reply', by: 'fin' },
    { kind: 'drop-reply', by: 'rst' },
    { kind: 'cut', side: 'response', at, by: 'fin' },
    { kind: 'cut', side: 'response', at: { share: 0 }, by: 'rst' },
    { kind: 'length', by: 1 },
    { kind: 'length', by: -1 },
    { kind: 'slow', side: 'response', bytesPerSecond: 3_000_000 },
  ];
  if (writes) {
    common.push({ kind: 'cut', side: 'request', at, by: 'fin' }, { kind: 'cut', side: 'request', at, by: 'rst' });
    common.push({ kind: 'slow', side: 'request', bytesPerSecond: 3_000_000 });
  }
  if (flips !== undefined) {
    const flip: Fault = { kind: 'flip', side: flips, at, bit: 3 };
    common.push(flip, { ...flip, at: { share: 0.1 } }, { ...flip, at: { share: 0.9 }, bit: 0 });
  }
  if (LONG) common.push({ kind: 'stall', side: writes ? 'request' : 'response', at });
  if (on === 'node') common.push(qdrantError(500), qdrantError(503), qdrantError(403), HTML);
  else common.push(s3Error(500, 'InternalError'), s3Error(503, 'SlowDown'), s3Error(403, 'AccessDenied'));
  if (on === 's3')
    common.push(s3Error(400, 'ExpiredToken'), s3Error(404, method === 'GET' ? 'NoSuchKey' : 'NoSuchUpload'));
  if (on === 's3' && method === 'POST' && path.source.includes('uploadId')) common.push(s3Error(200, 'InternalError'));
  return common;
}

interface Run {
  readonly seed: number;
  readonly operation: Operation;
  readonly rules: readonly { readonly place: Place; readonly rule: Rule }[];
}

function plan(seed: number): Run {
  const dice = new Dice(seed);
  const operation = dice.pick<Operation>(['backup', 'backup', 'backup', 'restore', 'restore', 'sweep']);
  const rules = Array.from({ length: 1 + dice.upTo(3) }, () => {
    const place = dice.pick(PLACES[operation]);
    const fault = dice.pick(faultsOf(place));
    const often = LONG && dice.roll() < 0.1 ? 30 : 1 + dice.upTo(2);
    // Each one that stands still costs the time until somebody loses patience.
    const times = fault.kind === 'stall' ? 1 : often;
    return { place, rule: { fault, method: place.method, path: place.path, skip: dice.upTo(3), times } };
  });
  return { seed, operation, rules };
}

const violations: string[] = [];
const injected = new Map<string, number>();
const outcomes = new Map<string, number>();
const recoveries: number[] = [];
const scanned = { objects: 0, bytes: 0 };

describe('campaign', () => {
  let arena: Arena;
  let reference = '';
  beforeAll(async () => {
    arena = await Arena.open();
    await arena.worker();
    const first = await arena.run('BackupCluster', { cluster: 'docs' });
    expect(first.code, first.message).toBe('done');
    reference = await contentOf(arena, String(first.result['backup']));
  }, 180_000);
  afterAll(async () => {
    await arena.close();
    console.log(summary());
  });

  test.for(Array.from({ length: RUNS }, (_, index) => SEED + index))(
    'seed %i',
    { timeout: 2 * BOUND * 1000 },
    async (seed) => {
      const run = plan(seed);
      const { operation, rules } = run;
      const input = await prepare(operation);
      for (const { place, rule } of rules) for (const proxy of proxiesOf(arena, operation, place)) proxy.inject(rule);
      const broken = await arena.end(await arena.start(...input), BOUND);
      const wrong = judge(broken);
      const hits = collect(arena);
      const last = Math.max(...hits.map(({ at }) => at.getTime()), 0);
      if (broken.code === 'done' && last > 0) recoveries.push(Date.now() - last);
      arena.lift();

      let healed = broken;
      if (broken.code !== 'done') {
        const start = Date.now();
        if (operation === 'restore') {
          const left = await arena.emptyTarget();
          if (left.length > 0 && !broken.message.includes('Left behind'))
            wrong.push(`collections left: ${left.join(', ')}`);
        }
        healed = await arena.run(...input);
        if (healed.code === 'done') recoveries.push(Date.now() - start);
        else wrong.push(`without faults it failed with ${healed.code}: ${healed.message}`);
      }
      await arena.settled();
      const found = await arena.scan();
      if (healed.code === 'done') wrong.push(...(await check(operation, healed, found)));
      wrong.push(...found.violations);
      scanned.objects += found.objects;
      scanned.bytes += found.bytes;

      count(outcomes, `${operation}: ${broken.code}`);
      const story = `seed ${seed}: ${operation}, ${hits.map(({ name, method, path }) => `${name} at ${method} ${path.split('/').at(-1)}`).join('; ') || 'no fault was met'}: ${broken.code} ${broken.message.slice(0, 160)}`;
      if (LONG) console.log(story);
      violations.push(...wrong.map((what) => `${story}: ${what}`));
      expect(wrong, story).toEqual([]);
    },
  );

  /** The operation's input; a restore needs a backup and a sweep something to remove. */
  async function prepare(operation: Operation): Promise<[string, Record<string, unknown>]> {
    if (operation === 'backup') return ['BackupCluster', { cluster: 'docs' }];
    if (operation === 'sweep') {
      const made = await arena.run('BackupCluster', { cluster: 'docs' });
      expect(made.code, made.message).toBe('done');
      return ['RetentionSweep', { cluster: 'docs', policy: { keepLast: 1, undoHours: 0 } }];
    }
    const ref = { tenant: arena.fleet.tenant, cluster: 'docs' };
    const [newest] = await arena.fleet.catalog.backups(ref, { limit: 1 });
    return ['RestoreCluster', { source: 'docs', backup: newest?.backup, cluster: 'target' }];
  }

  /** What the operation promised. */
  async function check(operation: Operation, { result }: Outcome, { backups }: ScanResult): Promise<string[]> {
    if (operation === 'backup') {
      const content = await contentOf(arena, String(result['backup']));
      return content === reference ? [] : [`the manifest tells another cluster than the one there is: ${content}`];
    }
    if (operation === 'restore') {
      const wrong = await arena.compareTarget();
      await arena.emptyTarget();
      return wrong;
    }
    const standing = (['COMMITTED', 'DELETING', 'PURGING'] as const).flatMap((state) => backups[state] ?? []);
    return standing.length === 1 ? [] : [`${standing.length} backups after a sweep that keeps one`];
  }
});

function proxiesOf(arena: Arena, operation: Operation, { on }: Place): readonly FaultProxy[] {
  if (on === 's3') return [arena.s3];
  if (on === 'pull') return [arena.pull];
  const count = arena.source.peers.length;
  return operation === 'restore' ? arena.nodes.slice(count) : arena.nodes.slice(0, count);
}

/** A code of the closed set, and a reason that somebody can act on. */
function judge({ code, message }: Outcome): string[] {
  if (code === 'done') return [];
  if (!isErrorCode(code)) return [`it ended with ${code}, which is no code: ${message}`];
  if (code === 'Internal') return [`it ended as Internal: ${message}`];
  return [];
}

/** The injected faults since the last call. */
function collect(arena: Arena) {
  const hits = arena.proxies.flatMap(({ log }) => log.splice(0));
  for (const { name, path } of hits)
    count(injected, `${name} (${path.startsWith('/fleet-backups') ? 'S3' : 'Qdrant'})`);
  return hits;
}

/** What a manifest says about the cluster, without what differs from backup to backup. */
async function contentOf({ fleet }: Arena, backup: string): Promise<string> {
  const found = await fleet.store.getJson(`${fleet.tenant}/docs/${backup}/manifest.json`);
  if (found === undefined) throw new Error(`Backup ${backup} has no manifest.`);
  const { collections, aliases, spec, peers } = found.body as Manifest;
  expect(collections.map(({ name }) => name)).toEqual(COLLECTIONS);
  const content = {
    collections: collections.map(({ shards, ...rest }) => ({
      ...rest,
      shards: shards.map(({ shard, points }) => ({ shard, points })),
    })),
    aliases,
    spec,
    peers,
  };
  // Qdrant promises no order of keys.
  return JSON.stringify(content, (_key, value: unknown) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  );
}

interface Manifest {
  readonly collections: readonly {
    readonly name: string;
    readonly config: unknown;
    readonly payloadSchema: unknown;
    readonly shards: readonly { readonly shard: number; readonly points: unknown }[];
  }[];
  readonly aliases: unknown;
  readonly spec: unknown;
  readonly peers: unknown;
}

function count(into: Map<string, number>, name: string): void {
  into.set(name, (into.get(name) ?? 0) + 1);
}

function summary(): string {
  const sorted = recoveries.toSorted((a, b) => a - b);
  const seconds = (milliseconds: number | undefined) => `${((milliseconds ?? 0) / 1000).toFixed(1)} s`;
  const rows = (map: Map<string, number>) =>
    [...map].sort(([a], [b]) => a.localeCompare(b)).map(([name, times]) => `  ${name.padEnd(48)} ${times}`);
  return [
    `Faults injected: ${[...injected.values()].reduce((sum, times) => sum + times, 0)}`,
    ...rows(injected),
    `Runs: ${RUNS}, seeds ${SEED} to ${SEED + RUNS - 1}; how they ended under faults:`,
    ...rows(outcomes),
    `Objects hashed again: ${scanned.objects}, ${(scanned.bytes / 1e6).toFixed(0)} MB`,
    `Time to recover: median ${seconds(sorted[Math.floor(sorted.length / 2)])}, maximum ${seconds(sorted.at(-1))}`,
    `Violations: ${violations.length}`,
    ...violations.map((what) => `  ${what}`),
  ].join('\n');
}
