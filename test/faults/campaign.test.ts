/**
 * A random campaign, the same for the same seed: an operation runs while its surroundings break. It may succeed, or
 * fail with a code; afterwards it must succeed, nothing may be left over, and every committed byte must be right.
 *
 * `npm run test:faults` runs many, `npm test` a few quick ones. FLEET_TEST_FAULT_RUNS: how many; FLEET_TEST_FAULT_SEED:
 * the first, or the only one.
 */
import type { WorkflowHandle } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { isErrorCode, messageOf } from '../../src/domain/errors.ts';
import { Arena, COLLECTIONS, HANGS, type Outcome } from '../support/arena.ts';
import { mayMount, ProcessFaults } from '../support/process-faults.ts';
import type { ScanResult } from '../support/scanner.ts';
import type { Fault, FaultProxy } from '../support/fault-proxy.ts';
import { plan, type Company, type Operation, type Place, type Run } from './plan.ts';
import { lineOf, nameOf, summaryOf, type Verdict } from './report.ts';

const CHOSEN = process.env['FLEET_TEST_FAULT_SEED'];
const LONG = process.env['FLEET_TEST_FAULT_RUNS'] !== undefined || CHOSEN !== undefined;
const RUNS = Number(process.env['FLEET_TEST_FAULT_RUNS'] ?? 1);
/** `npm test`: requests that break, a snapshot that vanishes, two backups of one cluster at once. */
const QUICK = [2, 9, 35];
const SEEDS = LONG ? Array.from({ length: RUNS }, (_, index) => Number(CHOSEN ?? 1) + index) : QUICK;
/** Seconds within which an operation has to end under faults. */
const BOUND = 420;
/** Seconds that it may take without. */
const PLAIN = 180;
/** Faults that pass by themselves: an operation that met a few of them has to come to its end. */
const PASSING = /^(request|response) (cut|stall|slow)|^reply dropped|^answer 50[03]|^wrong content|^worker|^snapshot/;

const verdicts: Verdict[] = [];
const scanned = { objects: 0, bytes: 0 };

interface Companion {
  readonly company: Company;
  readonly handle: WorkflowHandle;
}

describe('campaign', () => {
  let arena: Arena;
  let processes: ProcessFaults;
  let disks = false;
  let reference = '';
  beforeAll(async () => {
    disks = await mayMount();
    arena = await Arena.open();
    processes = new ProcessFaults(arena);
    await processes.startWorker();
    const first = await arena.run('BackupCluster', { cluster: 'docs' });
    expect(first.code, first.message).toBe('done');
    reference = await contentOf(arena, String(first.result['backup']));
  }, 180_000);
  afterAll(async () => {
    if (verdicts.length > 0) console.log(summaryOf(verdicts, scanned));
    await arena.close();
  });

  test.for(SEEDS)('seed %i', { timeout: 3 * BOUND * 1000 }, async (seed) => {
    const verdict = await runOf(plan(seed, LONG || seed % 2 === 1));
    verdicts.push(verdict);
    if (LONG) console.log(lineOf(verdict));
    expect(verdict.violations, lineOf(verdict)).toEqual([]);
  });

  async function runOf(run: Run): Promise<Verdict> {
    const start = Date.now();
    const faults: Record<string, number> = {};
    const operations: Verdict['operations'][number][] = [];
    const violations: string[] = [];
    let recovery: number | undefined;
    try {
      recovery = await attempt(run, faults, operations, violations);
    } catch (error) {
      violations.push(`the run broke off: ${messageOf(error)}`);
      arena.lift();
      await processes.over().catch(() => undefined);
      await processes.oneWorker().catch(() => undefined);
      await arena.emptyTarget().catch(() => undefined);
    }
    return { run, faults, operations, recovery, seconds: (Date.now() - start) / 1000, violations };
  }

  /** @returns seconds from the end of the faults to the end of the operation */
  async function attempt(
    run: Run,
    faults: Record<string, number>,
    operations: Verdict['operations'][number][],
    violations: string[],
  ): Promise<number | undefined> {
    const { operation, rules } = run;
    const input = await prepare(run);
    const companions: Companion[] = [];
    // First, so that no other rule takes the request it waits for.
    arm(run, companions);
    for (const { place, rule } of rules) for (const { proxy } of proxiesOf(operation, place)) proxy.inject(rule);

    const broken = await arena.end(await arena.start(...input), BOUND);
    const ended = Date.now();
    operations.push({ name: operation, ...broken });
    violations.push(...judge(broken));
    const last = await processes.over();
    const logged = arena.proxies.flatMap(({ log }) => log.splice(0));
    // Each node's proxy waits for the event, and it happens once.
    const hits = logged.filter(
      ({ name }, index) => name !== eventOf(run) || logged.findIndex((hit) => hit.name === name) === index,
    );
    for (const hit of hits) faults[nameOf(hit)] = (faults[nameOf(hit)] ?? 0) + 1;
    arena.lift();
    const event = eventOf(run);
    if (event !== undefined && hits.every(({ name }) => name !== event))
      violations.push(`${event}: its place was never met`);
    for (const companion of companions) await judgeCompanion(companion, broken, operations, violations);

    let healed = broken;
    const faultless = Math.max(...hits.map(({ at, until }) => (until ?? at).getTime()), last?.getTime() ?? 0);
    let recovery = faultless === 0 ? undefined : Math.max(0, ended - faultless) / 1000;
    if (broken.code !== 'done') {
      const gentle = hits.length <= 2 && hits.every(({ name }) => PASSING.test(name));
      if (gentle && companions.length === 0) violations.push(`faults that pass made it fail: ${broken.message}`);
      if (operation === 'restore' || operation === 'relay') {
        const left = await arena.emptyTarget();
        if (left.length > 0 && !broken.message.includes('Left behind'))
          violations.push(`collections left: ${left.join(', ')}`);
      }
      const again = Date.now();
      healed = await arena.run(...input, PLAIN);
      if (healed.code !== 'done') violations.push(`without faults it failed with ${healed.code}: ${healed.message}`);
      recovery = (Date.now() - again) / 1000;
    }
    await processes.oneWorker();
    await arena.settled();
    const found = await arena.scan(processes.worker);
    if (healed.code === 'done') violations.push(...(await check(run, healed, found)));
    violations.push(...found.violations);
    scanned.objects += found.objects;
    scanned.bytes += found.bytes;
    return recovery;
  }

  /** Have the event of a run happen when a request is met at its place: once, whichever node it is for. */
  function arm(run: Run, companions: Companion[]): void {
    const { operation, event } = run;
    if (event === undefined) return;
    const { place, skip, inside } = event;
    let happened = false;
    for (const { proxy, node } of proxiesOf(operation, place)) {
      const fault: Fault = {
        kind: 'event',
        name: eventOf(run) ?? '',
        ...(inside !== undefined && { inside }),
        happens: async ({ path }) => {
          if (happened) return;
          happened = true;
          if ('process' in event) {
            if (event.process === 'disk full' && !disks) return;
            await processes.happen(event.process, node, path);
          } else
            companions.push({ company: event.company, handle: await arena.start(...(await beside(event.company))) });
        },
      };
      proxy.inject({ fault, method: place.method, path: place.path, skip });
    }
  }

  /** The operation's input; a restore needs a backup and a sweep something to remove. */
  async function prepare({ operation, event }: Run): Promise<[string, Record<string, unknown>]> {
    if (operation === 'backup') return ['BackupCluster', { cluster: 'docs' }];
    if (operation === 'incremental') return ['BackupCluster', { cluster: 'docs', format: 'incremental' }];
    if (operation === 'sweep') {
      await backUp();
      return ['RetentionSweep', SWEEP];
    }
    const newest = operation === 'verify' ? (await listed())[0] : await full();
    // A sweep is to find the one that is being restored in its way.
    if (event !== undefined && 'company' in event && event.company === 'sweep beside the restore') await backUp();
    if (operation === 'verify') return ['VerifyBackup', { cluster: 'docs', backup: newest }];
    const via = operation === 'relay' ? { via: 'worker' } : {};
    return ['RestoreCluster', { source: 'docs', backup: newest, cluster: 'target', ...via }];
  }

  async function backUp(): Promise<void> {
    const made = await arena.run('BackupCluster', { cluster: 'docs' });
    expect(made.code, made.message).toBe('done');
  }

  async function listed(): Promise<string[]> {
    const ref = { tenant: arena.fleet.tenant, cluster: 'docs' };
    return (await arena.fleet.catalog.backups(ref, { limit: 100 })).map(({ backup }) => backup);
  }

  /** The newest backup that nodes can pull; an incremental one needs a worker. */
  async function full(): Promise<string> {
    const { store, tenant } = arena.fleet;
    for (const backup of await listed()) {
      const manifest = await store.getJson(`${tenant}/docs/${backup}/manifest.json`);
      if ((manifest?.body as { formatVersion?: unknown } | undefined)?.formatVersion === 1) return backup;
    }
    await backUp();
    return full();
  }

  async function beside(company: Company): Promise<[string, Record<string, unknown>]> {
    switch (company) {
      case 'second backup':
        return ['BackupCluster', { cluster: 'docs' }];
      case 'backup of the target':
        return ['BackupCluster', { cluster: 'target' }];
      case 'second restore':
      case 'restore into the source': {
        const backup = await full();
        const cluster = company === 'second restore' ? 'target' : 'docs';
        return ['RestoreCluster', { source: 'docs', backup, cluster }];
      }
      default:
        return ['RetentionSweep', SWEEP];
    }
  }

  async function judgeCompanion(
    { company, handle }: Companion,
    first: Outcome,
    operations: Verdict['operations'][number][],
    violations: string[],
  ): Promise<void> {
    const outcome = await arena.end(handle, PLAIN);
    operations.push({ name: company, ...outcome });
    violations.push(...judge(outcome));
    const exclusive = company.includes('target') || company.includes('into') || company === 'second restore';
    const expected = exclusive ? 'ClusterBusy' : 'done';
    if (outcome.code !== expected) {
      violations.push(`${company} ended with ${outcome.code}, not ${expected}: ${outcome.message}`);
    }
    if (first.code !== 'done') violations.push(`${company} made the first one fail: ${first.message}`);
  }

  /** What the operation promised. */
  async function check({ operation, event }: Run, { result }: Outcome, { backups }: ScanResult): Promise<string[]> {
    if (operation === 'backup' || operation === 'incremental') {
      const content = await contentOf(arena, String(result['backup']));
      return content === reference ? [] : [`the manifest tells another cluster than the one there is: ${content}`];
    }
    if (operation === 'restore' || operation === 'relay') {
      const wrong = await arena.compareTarget();
      await arena.emptyTarget();
      return wrong;
    }
    if (operation === 'verify' || (event !== undefined && 'company' in event)) return [];
    const standing = (['COMMITTED', 'DELETING', 'PURGING'] as const).flatMap((state) => backups[state] ?? []);
    return standing.length === 1 ? [] : [`${standing.length} backups after a sweep that keeps one`];
  }

  function proxiesOf(operation: Operation, { on }: Place): readonly { proxy: FaultProxy; node: number }[] {
    if (on === 'node') {
      const count = arena.source.peers.length;
      const all = arena.nodes.map((proxy, node) => ({ proxy, node }));
      return operation === 'restore' || operation === 'relay' ? all.slice(count) : all.slice(0, count);
    }
    // What is met on the way to the store may still happen to a node.
    const node = operation === 'restore' ? arena.source.peers.length : 0;
    return [{ proxy: on === 's3' ? arena.s3 : arena.pull, node }];
  }
});

const SWEEP = { cluster: 'docs', policy: { keepLast: 1, undoHours: 0 } };

function eventOf({ event }: Run): string | undefined {
  if (event === undefined) return undefined;
  return 'process' in event ? event.process : event.company;
}

/** A code of the closed set, and a reason that somebody can act on. */
function judge({ code, message }: Outcome): string[] {
  if (code === 'done') return [];
  if (code === HANGS) return [`it hangs: ${message}`];
  if (!isErrorCode(code)) return [`it ended with ${code}, which is no code: ${message}`];
  if (code === 'Internal') return [`it ended as Internal: ${message}`];
  return [];
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
