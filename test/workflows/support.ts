/** The real workflow code in a real worker on the shared Temporal, over activities that a test holds in its hand. */
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { Context } from '@temporalio/activity';
import { Client, Connection, WorkflowFailedError, type WorkflowHandle } from '@temporalio/client';
import { ApplicationFailure, CancelledFailure, type TypedSearchAttributes } from '@temporalio/common';
import { DefaultLogger, NativeConnection, Runtime, Worker, type WorkerOptions } from '@temporalio/worker';
import { inject } from 'vitest';
import type { CopiedShard } from '../../activities/backup-store.ts';
import type { Activities } from '../../activities/index.ts';
import { FleetActivityInterceptor } from '../../activities/interceptor.ts';
import { resolveSpec, type ClusterRequest } from '../../src/domain/cluster.ts';
import { FleetError, type ErrorCode } from '../../src/domain/errors.ts';
import type { Progress } from '../../src/domain/operation.ts';
import { waitingQueue } from '../../src/domain/task-queues.ts';
import { byPeer, type ShardTask } from '../../src/domain/topology.ts';
import { bundleFile } from '../support/bundle.ts';

export type ActivityName = keyof Activities;
type Input<K extends ActivityName> = Parameters<Activities[K]>[0];
/** An activity as a test writes it: it may ignore its input and answer at once. */
export type Fakes = {
  readonly [K in ActivityName]?: (input: Input<K>) => ReturnType<Activities[K]> | Awaited<ReturnType<Activities[K]>>;
};

export interface Call {
  readonly name: ActivityName;
  // oxlint-disable-next-line typescript/no-explicit-any -- tests look into inputs as they come
  readonly input: any;
  /** The workflow that called. */
  readonly workflowId: string;
}

export type Outcome = 'COMPLETED' | 'FAILED' | 'CANCELLED';

/** One workflow run, and everything its activities (and its children's) were asked. */
export class Run {
  readonly calls: Call[] = [];
  /** `<name>` when an activity began and `<name> ended` when it answered, in order. */
  readonly events: string[] = [];
  readonly fakes: Fakes;
  #handle: WorkflowHandle | undefined;
  readonly #watchers = new Set<() => void>();

  constructor(fakes: Fakes) {
    this.fakes = fakes;
  }

  get handle(): WorkflowHandle {
    if (this.#handle === undefined) throw new Error('The run has not been started.');
    return this.#handle;
  }

  set handle(handle: WorkflowHandle) {
    this.#handle = handle;
  }

  /** Names of the calls, without those that only frame an operation. */
  get names(): string[] {
    return this.calls.map(({ name }) => name).filter((name) => !FRAME.has(name));
  }

  of(name: ActivityName): Call[] {
    return this.calls.filter((call) => call.name === name);
  }

  /** The inputs of all `endOperation` calls of the workflow itself, without its children's. */
  get ends(): Input<'endOperation'>[] {
    return this.of('endOperation')
      .filter(({ workflowId }) => workflowId === this.handle.workflowId)
      .map(({ input }) => input as Input<'endOperation'>);
  }

  note(event: string): void {
    this.events.push(event);
    for (const watch of this.#watchers) watch();
  }

  /** Resolves when an event has happened `count` times. */
  async saw(event: string, count = 1): Promise<void> {
    const happened = () => this.events.filter((seen) => seen === event).length >= count;
    if (happened()) return;
    await new Promise<void>((resolve) => {
      const watch = () => {
        if (!happened()) return;
        this.#watchers.delete(watch);
        resolve();
      };
      this.#watchers.add(watch);
    });
  }

  /** How the workflow ended: its status, and its failure's type and message. */
  async outcome(): Promise<{ status: Outcome; type?: string; message?: string; result?: Record<string, unknown> }> {
    try {
      return { status: 'COMPLETED', result: (await this.handle.result()) as Record<string, unknown> };
    } catch (error) {
      if (!(error instanceof WorkflowFailedError)) throw error;
      const { cause } = error;
      if (cause instanceof CancelledFailure) return { status: 'CANCELLED' };
      if (!(cause instanceof ApplicationFailure))
        return { status: 'FAILED', message: `${cause?.name}: ${cause?.message}` };
      return { status: 'FAILED', message: cause.message, ...(cause.type != null && { type: cause.type }) };
    }
  }

  progress(): Promise<Progress> {
    return this.handle.query<Progress>('progress');
  }

  async attributes(): Promise<TypedSearchAttributes> {
    return (await this.handle.describe()).typedSearchAttributes;
  }
}

const FRAME = new Set<string>(['registerOperation', 'endOperation', 'takeLease']);

/** A worker and a client for one test file. All runs of the file share the worker and may run side by side. */
export class Workflows {
  readonly client: Client;
  readonly taskQueue: string;
  readonly #connections: readonly [Connection, NativeConnection];
  readonly #workers: readonly Worker[];
  readonly #running: Promise<unknown>;
  readonly #runs: Map<string, Run>;

  private constructor(
    connections: readonly [Connection, NativeConnection],
    taskQueue: string,
    workers: readonly Worker[],
    runs: Map<string, Run>,
  ) {
    this.#connections = connections;
    this.client = new Client({ connection: connections[0] });
    this.taskQueue = taskQueue;
    this.#workers = workers;
    this.#runs = runs;
    this.#running = Promise.all(workers.map((worker) => worker.run()));
  }

  static async open(): Promise<Workflows> {
    Runtime.install({ logger: new DefaultLogger('ERROR', () => undefined) });
    const address = inject('localEnv')['TEMPORAL_ADDRESS'] ?? '';
    const [connection, native] = await Promise.all([
      Connection.connect({ address }),
      NativeConnection.connect({ address }),
    ]);
    const taskQueue = `workflows-${randomBytes(4).toString('hex')}`;
    const runs = new Map<string, Run>();
    const shared = {
      connection: native,
      activities: dispatcher(runs, taskQueue),
      interceptors: { activity: [() => ({ inbound: new FleetActivityInterceptor() })] },
      // A cancellation is delivered with the answer to a heartbeat.
      maxHeartbeatThrottleInterval: 100,
      defaultHeartbeatThrottleInterval: 100,
    } satisfies Partial<WorkerOptions>;
    const workers = await Promise.all([
      Worker.create({ ...shared, taskQueue, workflowBundle: { code: await bundle() } }),
      Worker.create({ ...shared, taskQueue: waitingQueue(taskQueue) }),
    ]);
    return new Workflows([connection, native], taskQueue, workers, runs);
  }

  /** Start a workflow whose activities are the defaults with some of them replaced. */
  async start(type: string, input: unknown, fakes: Fakes = {}): Promise<Run> {
    const workflowId = `${type}-${randomBytes(6).toString('hex')}`;
    const run = this.expect(workflowId, fakes);
    run.handle = await this.client.workflow.start(type, {
      taskQueue: this.taskQueue,
      workflowId,
      args: input === undefined ? [] : [input],
      // A stuck workflow fails its test by this, not by the runner's patience.
      workflowRunTimeout: '50s',
    });
    return run;
  }

  /** What a workflow that something else starts will find. */
  expect(workflowId: string, fakes: Fakes = {}): Run {
    const run = new Run(fakes);
    this.#runs.set(workflowId, run);
    return run;
  }

  /** Run a workflow to its end. */
  async run(
    type: string,
    input: unknown,
    fakes: Fakes = {},
  ): Promise<Run & { readonly ended: Awaited<ReturnType<Run['outcome']>> }> {
    const run = await this.start(type, input, fakes);
    return Object.assign(run, { ended: await run.outcome() });
  }

  async close(): Promise<void> {
    for (const worker of this.#workers) worker.shutdown();
    await this.#running;
    await Promise.all(this.#connections.map((connection) => connection.close()));
  }
}

/** Every activity, looked up in the run that its workflow, or its workflow's parent, belongs to. */
function dispatcher(
  runs: ReadonlyMap<string, Run>,
  taskQueue: string,
): Record<string, (input: never) => Promise<unknown>> {
  const defaults = fakeActivities(taskQueue);
  return Object.fromEntries(
    (Object.keys(defaults) as ActivityName[]).map((name) => [
      name,
      async (input: never) => {
        const workflowId = Context.current().info.workflowExecution?.workflowId ?? '';
        const run = runs.get(workflowId.split('/')[0] ?? '');
        if (run === undefined) throw ApplicationFailure.nonRetryable(`No test expects workflow ${workflowId}.`);
        run.calls.push({ name, input, workflowId });
        run.note(name);
        try {
          const fake = (run.fakes[name] ?? defaults[name]) as (input: never) => unknown;
          return await Promise.race([fake(input), workerStops()]);
        } finally {
          run.note(`${name} ended`);
        }
      },
    ]),
  );
}

/** Fails when the worker stops, so that an activity that a failed test left waiting does not keep the file from ending. */
function workerStops(): Promise<never> {
  const { promise, reject } = Promise.withResolvers<never>();
  Context.current().cancelled.catch((error: Error) => {
    if (error.message === 'WORKER_SHUTDOWN') reject(error);
  });
  return promise;
}

export const REF = { tenant: 'acme', cluster: 'docs' } as const;
export const BACKUP = '20261121T030000Z-1a2b3c4d';
export const LOCATION = { ...REF, prefix: '', backup: BACKUP } as const;
const AT = '2026-11-21T03:00:00.000Z';

/** Two peers with two shards each. */
export const TASKS: readonly ShardTask[] = [0, 1, 2, 3].map((shard) => ({
  collection: 'documents',
  shard,
  peer: String(1 + (shard % 2)),
}));

/** What a plan says of tasks. */
export function lanesOf(tasks: readonly ShardTask[]) {
  return [...byPeer(tasks)].map(([peer, ofPeer]) => ({ peer, shards: ofPeer.length }));
}

/** What is next in a peer's lane. */
export function laneOf(tasks: readonly ShardTask[], peer: string, from: number) {
  return { tasks: (byPeer(tasks).get(peer) ?? []).slice(from), known: [] };
}

/** A shard as a copy of it is told. */
export function copiedShard({ collection, shard, peer }: ShardTask): CopiedShard {
  const key = `data/${collection}/shard-${shard}.snapshot`;
  const bytes = { size: 1000, sha256: 'aa', crc32: 'AAAAAA==' };
  return { collection, shard, key, ...bytes, points: { before: 10, after: 10 }, sourcePeer: peer, cutAt: AT };
}

export const SPEC = specOf({ nodes: 2, collections: [{ name: 'documents', vectorSize: 4 }] });

function specOf(request: ClusterRequest) {
  return resolveSpec(request, {});
}

const ROLES = { cluster: 'arn:cluster', node: 'arn:node', volumes: 'arn:volumes', backup: 'arn:backup' };
const NETWORK = { vpcId: 'vpc-1', publicSubnetIds: ['p'], privateSubnetIds: ['q'], natGatewayIds: ['nat-1'] };

/** All activities, all of them successful. */
export function fakeActivities(transferQueue: string): Fakes {
  const nothing = () => Promise.resolve();
  return {
    registerOperation: nothing,
    takeLease: nothing,
    releaseLease: nothing,
    endOperation: nothing,
    reserveCluster: ({ request }) =>
      specOf({
        ...request,
        collections: request.collections ?? [
          { name: 'a', vectorSize: 4 },
          { name: 'b', vectorSize: 4 },
        ],
      }),
    loadCluster: () => ({ spec: SPEC, phase: 'HEALTHY', namespace: 'fleet-acme--docs' }),
    clusterExists: () => true,
    setClusterPhase: nothing,
    recordSpec: nothing,
    pauseSchedules: () => ({ schedules: 1 }),
    unpauseSchedules: () => ({ schedules: 1 }),
    planClusterUpdate: () => ({ spec: SPEC, steps: [], downtime: [], oldest: '1.18.3' }),
    inspectCluster: () => ({ serving: true }),
    endLostOperations: () => ({ ended: 0 }),
    listClustersToObserve: () => ({ pages: [{}] }),
    observeClusters: () => ({ looked: 1, changed: 0, unseen: 0 }),
    planShardMoves: () => ({ moves: [], remaining: 0 }),
    moveShard: () => undefined,
    abortShardMoves: nothing,
    replacePeers: () => ({ removed: 1 }),
    removePeers: () => ({ removed: 1 }),
    awaitPodsGone: nothing,
    removeSurplusClaims: () => ({ removed: 2 }),
    nextPodToRestart: () => ({ left: 0 }),
    restartPod: nothing,
    inspectRollout: () => ({ started: [], failing: [] }),
    stageApiKey: () => ({ revision: 1 }),
    ensureCertificates: () => ({ issuedBy: 'fleet', revision: 0, notAfter: '2027-11-27T00:00:00.000Z' }),
    listDueCertificates: () => ({ looked: 0, unseen: 0, due: [] }),
    inspectCertificates: () => ({
      due: false,
      authorityDue: false,
      expired: false,
      stage: 'settled',
      notAfter: '2027-11-27T00:00:00.000Z',
    }),
    stageCertificates: () => ({ issuedBy: 'fleet', revision: 1, notAfter: '2027-11-27T00:00:00.000Z' }),
    growVolumeClaims: () => ({ grown: 2 }),
    awaitVolumesGrown: nothing,
    releaseStatefulSet: nothing,
    forgetCluster: () => ({ schedules: 0 }),
    indexBackup: nothing,
    ensureNamespace: nothing,
    ensureApiKey: nothing,
    applySurroundings: () => ({ objects: 2, access: 'ports open to workers' }),
    deleteVolumeClaims: nothing,
    removeNamespace: nothing,
    installRelease: () => ({ revision: 1 }),
    uninstallRelease: nothing,
    awaitPeers: () => ({ qdrantVersion: '1.18.3' }),
    ensureCollection: nothing,
    nextShards: ({ peer, from }) => laneOf(TASKS, peer, from),
    storeCopied: ({ peer, from }) => ({ key: `copied/${peer}-${from}.json` }),
    copyShardPack: ({ tasks }) => tasks.map(copiedShard),
    createShardSnapshot: ({ task }) => ({
      name: `${task.collection}-${task.shard}.snapshot`,
      size: 1000,
      sha256: 'aa',
      points: { before: 10, after: 10 },
      cutAt: AT,
    }),
    deleteShardSnapshot: nothing,
    sweepShardSnapshots: nothing,
    noteSnapshotsLeft: nothing,
    workOffChores: () => ({ done: 0, left: 0 }),
    removeSnapshotsLeft: () => ({ removed: 0, left: 0 }),
    planBackup: () => ({ location: LOCATION, attempt: 'run-1', transferQueue, lanes: lanesOf(TASKS), startedAt: AT }),
    replanShards: ({ tasks }) => ({
      lanes: lanesOf(tasks.map((task) => ({ ...task, peer: task.peer === '1' ? '2' : '1' }))),
    }),
    commitBackup: ({ shards }) => ({ collections: 1, shards: shards.length, bytes: 4000, points: 40 }),
    abandonBackup: () => ({ removed: true }),
    openBackup: ({ collections }) => ({
      location: LOCATION,
      collections: ['one', 'two', 'three']
        .filter((name) => collections?.includes(name) ?? true)
        .map((name) => ({ name, shards: 1, bytes: 1000 })),
      spec: SPEC,
      qdrantVersion: '1.18.3',
    }),
    renewBackupLease: nothing,
    closeBackup: nothing,
    previewRestore: () => ({
      ...{ allowed: true, refusals: [], unknown: [], peers: 2, collections: 3, replaced: [] },
      ...{ shardReplicas: 6, bytesToPull: 6000, bytesNeededPerNode: 6000 },
    }),
    checkRestoreGates: () => ({ replaced: [], unknown: [] }),
    createRestoredCollection: nothing,
    placeReplicas: () => [
      { shard: 0, peer: '1' },
      { shard: 0, peer: '2' },
    ],
    recoverReplica: nothing,
    relayReplica: () => ({ relayed: 1000 }),
    awaitRecoveriesIdle: nothing,
    dropReplacedCollection: nothing,
    dropRestoredCollection: nothing,
    verifyRestoredCollection: () => ({ points: 10, compared: 5, unsampled: 0 }),
    restoreAliases: () => ({ aliases: 1 }),
    listBackupShards: () => ({
      shards: [0, 1, 2].map((shard) => ({ collection: 'documents', shard, size: 1000 })),
      transferQueue,
    }),
    verifyShard: () => ({ bytes: 1000, opened: true }),
    leaseBackup: () => ({ location: LOCATION }),
    attestBackup: ({ attestation: { kind } }) => ({
      records: [{ backup: BACKUP, state: kind === 'corrupt' ? 'CORRUPT' : 'COMMITTED' }],
    }),
    surveyBackups: () => ({ prefix: '', now: Date.parse(AT), committed: [], deleting: [], purging: [], abandoned: [] }),
    markBackupDeleting: () => 'DELETING',
    undeleteBackup: () => ({ location: LOCATION, state: 'COMMITTED' }),
    purgeBackup: () => ({ state: 'DELETED', objects: 1 }),
    collectUnfinished: () => ({ state: 'ABORTED', objects: 1 }),
    planInfrastructure: ({ spec }) => ({
      spec,
      region: spec.region,
      partition: 'aws',
      account: '123456789012',
      zones: ['a', 'b'].map((zone, index) => ({
        name: `${spec.region}${zone}`,
        publicCidr: `10.64.${index}.0/24`,
        privateCidr: `10.64.${index + 8}.0/24`,
      })),
      unchecked: [],
    }),
    ensureRoles: () => ROLES,
    ensureNetwork: () => NETWORK,
    awaitNetwork: nothing,
    deleteNetwork: nothing,
    ensureControlPlane: () => ({ eksCluster: 'fleet-acme--docs' }),
    awaitControlPlane: () => ({ endpoint: 'https://eks.test', version: '1.34' }),
    ensureAddons: ({ phase }) => ({ addons: [phase] }),
    deleteControlPlane: nothing,
    ensureNodeGroups: nothing,
    awaitNodeGroups: () => ({ machines: 3 }),
    deleteNodeGroups: nothing,
    setMachines: ({ machines }) => ({ machines, update: 'update-1', shielded: [] }),
    configureMachines: ({ aws }) => ({ machines: aws.nodeCount, update: 'update-2', shielded: [] }),
    awaitMachines: ({ machines }) => ({ machines }),
    machinesToWake: ({ aws }) => ({ machines: aws.nodeCount }),
    ensureClusterAccess: () => ({ principals: 0 }),
    deleteAccess: nothing,
    ensureStorageClass: () => ({ storageClass: 'fleet-acme--docs' }),
    controlPlaneExists: () => true,
    drainVolumes: nothing,
    surveyInfrastructure: () => ({ found: 0, orphans: [] }),
    ensureBackupBucket: () => ({ bucket: 'fleet-acme--docs-0' }),
    deleteBackupBucket: () => ({ kept: null }),
    transferShardSnapshot: () => ({ size: 1000, sha256: 'aa', crc32: 'AAAAAA==', sent: 1000 }),
    openCopiedShard: () => ({ points: 10, sample: { key: 'sample', sha256: 'aa', points: 10 } }),
    transferIncrementalShard: () => ({
      ...{ key: 'shard.recipe', size: 1000, sha256: 'aa', crc32: 'AAAAAA==', sent: 10 },
      incremental: { recipeBytes: 5, recipeSha256: 'bb', written: 15 },
    }),
  };
}

/** An activity that fails with a code, retried or not by the code's class. */
export function fails(code: ErrorCode, message = `${code} on purpose.`): () => never {
  return () => {
    throw new FleetError(code, message);
  };
}

/** An activity whose retries are used up, whatever the class of its code. */
export function gaveUp(code: string, message = `${code} on purpose.`): () => never {
  return () => {
    throw ApplicationFailure.nonRetryable(message, code);
  };
}

/** Fails the first `times` times, then answers. */
export function flaky<T>(times: number, fail: () => never, answer: () => T): () => T {
  let calls = 0;
  return () => {
    calls += 1;
    return calls <= times ? fail() : answer();
  };
}

/** Works until it is cancelled, and ends then. */
export async function untilCancelled(): Promise<never> {
  const context = Context.current();
  const beat = setInterval(() => context.heartbeat(), 20);
  try {
    return await context.cancelled;
  } finally {
    clearInterval(beat);
  }
}

/** Works until it is cancelled, takes no notice, and succeeds. */
export async function ignoringCancellation<T>(answer: () => T): Promise<T> {
  try {
    return await untilCancelled();
  } catch (error) {
    if (!(error instanceof CancelledFailure)) throw error;
    return answer();
  }
}

/** A promise that the test settles. */
export function gate<T = void>() {
  return Promise.withResolvers<T>();
}

/** The bundle that all files of a test run share. */
export async function bundle(): Promise<string> {
  return readFile(await bundleFile(inject('localEnv')['KUBECONFIG'] ?? ''), 'utf8');
}
