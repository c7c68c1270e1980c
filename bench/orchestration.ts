/**
 * What the orchestration of a backup costs: `npm run bench:orchestration`.
 *
 * The real workflows and activities run in a real worker on a real Temporal, PostgreSQL and S3 store. What is replaced is
 * outside of the process: nodes that answer at once (stand-in-node.ts), and the question where the pods are. So the
 * figures hold no time of Qdrant's; a share of the wall time is an upper bound of what it is with real nodes.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { bundleWorkflowCode, DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import type { ActivityDeps } from '../activities/deps.ts';
import { createActivities } from '../activities/index.ts';
import { FleetActivityInterceptor } from '../activities/interceptor.ts';
import { Catalog } from '../src/clients/catalog.ts';
import type { Kubernetes } from '../src/clients/kubernetes.ts';
import { BackupStores } from '../src/clients/stores.ts';
import { loadConfig } from '../src/config.ts';
import { resolveSpec } from '../src/domain/cluster.ts';
import { waitingQueue } from '../src/domain/task-queues.ts';
import { startInfrastructure, type Infrastructure } from '../src/local/stack.ts';
import { until } from '../src/local/wait.ts';

const PEERS = 3;
const PORT = 26_333;
const SMALL = 64 * 1024;
/** Collections of one small shard each, and one collection of a large one. */
const ROUNDS = [
  { collections: 10, size: SMALL, points: 10 },
  { collections: 100, size: SMALL, points: 10 },
  { collections: 1000, size: SMALL, points: 10 },
  { collections: 1, size: 1e9, points: 2_000_000 },
] as const;
type Round = (typeof ROUNDS)[number];

interface Figures {
  /** Seconds, of the whole operation. */
  readonly wall: number;
  /** Seconds of the worker's process. */
  readonly cpu: number;
  /** Events in the history of the parent, and of its children together. */
  readonly events: number;
  readonly childEvents: number;
  /** Bytes of the largest payload in any of them. */
  readonly payload: number;
  /** Seconds in the activity that moves the bytes of a large shard. */
  readonly moving: number;
}

Runtime.install({ logger: new DefaultLogger('ERROR') });
const dataDir = await mkdtemp(join(tmpdir(), 'qdrant-fleet-bench-'));
const stack = await startInfrastructure({ dataDir, ports: 'free', log: console.error });
try {
  const results: Figures[] = [];
  await withWorker(stack, async (run) => {
    // The first run pays for what is loaded once.
    await run({ collections: 1, size: SMALL, points: 10 }, 'warm');
    for (const round of ROUNDS) results.push(await run(round, `c${round.collections}`));
  });
  print(results);
} finally {
  await stack.stop();
  await rm(dataDir, { recursive: true, force: true });
}

type Run = (round: { collections: number; size: number; points: number }, cluster: string) => Promise<Figures>;

async function withWorker({ env }: Infrastructure, use: (run: Run) => Promise<void>): Promise<void> {
  Object.assign(process.env, env);
  // No engine: opening a copy is the engine's time, and that of a process per shard.
  const { FLEET_ENGINE_PYTHON: _, ...settings }: Record<string, string> = {
    ...env,
    FLEET_QDRANT_HTTP_PORT: String(PORT),
  };
  const config = loadConfig(settings);
  const address = env['TEMPORAL_ADDRESS'] ?? '';
  const [connection, native] = await Promise.all([
    Connection.connect({ address }),
    NativeConnection.connect({ address }),
  ]);
  const client = new Client({ connection });
  const catalog = new Catalog(config.DATABASE_URL);
  await catalog.migrate();
  const stores = new BackupStores({
    bucket: config.FLEET_BACKUP_BUCKET,
    region: config.AWS_REGION,
    forcePathStyle: true,
    endpoint: config.FLEET_S3_ENDPOINT ?? '',
  });
  const pods = Array.from({ length: PEERS }, (_ignored, index) => ({
    ...{ name: `qdrant-${index}`, ip: `127.0.0.${index + 1}`, ready: true, reason: '' },
  }));
  const kubernetes = {
    pods: () => Promise.resolve(pods),
    podPlaces: () => Promise.resolve([]),
    secretValue: () => Promise.resolve('key'),
  } as unknown as Kubernetes;
  const activities = createActivities({
    ...{ config, catalog, stores },
    clusters: { of: () => Promise.resolve({ kubernetes }) },
    temporal: { isOpen: () => Promise.resolve(false), deleteSchedules: () => Promise.resolve(0) },
  } as unknown as ActivityDeps);
  const shared = {
    ...{ connection: native, activities },
    interceptors: { activity: [() => ({ inbound: new FleetActivityInterceptor() })] },
  };
  const workflowsPath = resolve(import.meta.dirname, '../workflows/index.ts');
  const { code } = await bundleWorkflowCode({ workflowsPath, logger: new DefaultLogger('WARN') });
  const queue = config.FLEET_TASK_QUEUE;
  const workers = [
    await Worker.create({ ...shared, taskQueue: queue, workflowBundle: { code }, maxCachedWorkflows: 200 }),
    await Worker.create({ ...shared, taskQueue: waitingQueue(queue) }),
    await Worker.create({
      ...{ ...shared, taskQueue: `${queue}-transfer-${config.FLEET_REGION}` },
      maxConcurrentActivityTaskExecutions: config.FLEET_TRANSFER_STREAMS,
    }),
  ];
  const running = workers.map((worker) => worker.run());
  try {
    await use(async (round, cluster) => {
      const spec = JSON.stringify(resolveSpec({ nodes: PEERS, collections: [] }, {}));
      const row = { tenant: 'bench', cluster, phase: 'HEALTHY' as const, namespace: `fleet-bench--${cluster}` };
      await catalog.db
        .insertInto('clusters')
        .values({ ...row, spec, created_by: 'bench', reason: null })
        .execute();
      const node = await startNodes(round);
      try {
        return await backUp(client, queue, { tenant: 'bench', cluster });
      } finally {
        node.kill('SIGTERM');
      }
    });
  } finally {
    for (const worker of workers) worker.shutdown();
    await Promise.all(running);
    stores.close();
    await catalog.close();
    await Promise.all([connection.close(), native.close()]);
  }
}

async function startNodes({
  collections,
  size,
  points,
}: Omit<Round, never> | Parameters<Run>[0]): Promise<ChildProcess> {
  const settings = { PEERS, PORT, COLLECTIONS: collections, SIZE: size, POINTS: points };
  const node = spawn(process.execPath, [join(import.meta.dirname, 'stand-in-node.ts')], {
    env: Object.fromEntries(Object.entries(settings).map(([name, value]) => [`BENCH_${name}`, String(value)])),
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ready = async () => (await fetch(`http://127.0.0.${PEERS}:${PORT}/`).catch(() => undefined))?.ok === true;
  await until('the nodes answer', ready, { withinMs: 60_000, everyMs: 50 });
  return node;
}

async function backUp(client: Client, taskQueue: string, ref: { tenant: string; cluster: string }): Promise<Figures> {
  const workflowId = `bench-${ref.cluster}`;
  const before = process.cpuUsage();
  const begun = performance.now();
  await client.workflow.execute('BackupCluster', { taskQueue, workflowId, args: [ref] });
  const wall = (performance.now() - begun) / 1000;
  const { user, system } = process.cpuUsage(before);
  const parent = await historyOf(client, workflowId);
  const children = await Promise.all(
    Array.from({ length: PEERS }, (_, index) => historyOf(client, `${workflowId}/peer-${index + 1}`)),
  );
  return {
    ...{ wall, cpu: (user + system) / 1e6, events: parent.length },
    childEvents: children.reduce((sum, events) => sum + events.length, 0),
    payload: Math.max(...[parent, ...children].flatMap((events) => events.map(largestPayload))),
    moving: children.reduce((sum, events) => sum + movingSeconds(events), 0),
  };
}

type Events = NonNullable<Awaited<ReturnType<ReturnType<Client['workflow']['getHandle']>['fetchHistory']>>['events']>;

/** No child was started for a peer that gives nothing. A lane that went on as new has several runs: the last counts. */
async function historyOf(client: Client, workflowId: string): Promise<Events> {
  try {
    return (await client.workflow.getHandle(workflowId).fetchHistory()).events ?? [];
  } catch (error) {
    if (error instanceof Error && error.message.includes('not found')) return [];
    throw error;
  }
}

/** Bytes of the largest payload within an event. */
function largestPayload(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  if (value instanceof Uint8Array) return value.length;
  return Math.max(0, ...Object.values(value).map(largestPayload));
}

/** Seconds between start and end of the activities that move a large shard. */
function movingSeconds(events: Events): number {
  let sum = 0;
  for (const event of events) {
    const completed = event.activityTaskCompletedEventAttributes;
    const scheduled = events.find(({ eventId }) => String(eventId) === String(completed?.scheduledEventId));
    if (scheduled?.activityTaskScheduledEventAttributes?.activityType?.name !== 'transferShardSnapshot') continue;
    const started = events.find(({ eventId }) => String(eventId) === String(completed?.startedEventId));
    sum += secondsOf(event.eventTime) - secondsOf(started?.eventTime);
  }
  return sum;
}

function secondsOf(time: { seconds?: unknown; nanos?: number | null } | null | undefined): number {
  return Number(time?.seconds ?? 0) + (time?.nanos ?? 0) / 1e9;
}

function print(results: readonly Figures[]): void {
  const many = results.slice(0, -1);
  const large = results.at(-1);
  const per = (value: number, index: number) => ((1000 * value) / (ROUNDS[index]?.collections ?? 1)).toFixed(1);
  console.log(`\n${cpus()[0]?.model ?? 'a processor'}, ${cpus().length} cores, load ${loadavg()[0]?.toFixed(1)}\n`);
  console.log(
    '| collections | wall | wall each | worker CPU each | parent events each | child events each | largest payload |',
  );
  console.log('|---|---|---|---|---|---|---|');
  for (const [index, { wall, cpu, events, childEvents, payload }] of many.entries()) {
    const count = ROUNDS[index]?.collections ?? 1;
    const cells = [
      count,
      `${wall.toFixed(1)} s`,
      `${per(wall, index)} ms`,
      `${per(cpu, index)} ms`,
      (events / count).toFixed(2),
      (childEvents / count).toFixed(2),
      `${(payload / 1000).toFixed(0)} KB`,
    ];
    console.log(`| ${cells.join(' | ')} |`);
  }
  const [first, last] = [many[0], many.at(-1)];
  if (first !== undefined && last !== undefined) {
    const ratio = last.wall / 1000 / (first.wall / 10);
    console.log(`\nWall time per collection at 1,000 against 10: ${ratio.toFixed(2)} times.`);
  }
  if (large !== undefined) {
    const share = (100 * (large.wall - large.moving)) / large.wall;
    console.log(
      `One shard of 1 GB: ${large.wall.toFixed(2)} s, of which its bytes moved for ${large.moving.toFixed(2)} s; the rest is ${share.toFixed(1)} %.`,
    );
  }
}
