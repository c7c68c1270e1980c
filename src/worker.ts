/** The worker: workflows and control activities on one queue, long waits on another, byte streams on a third. */
import './freeze-intrinsics.ts';
import { createServer } from 'node:http';
import { Client } from '@temporalio/client';
import { loadClientConnectConfig } from '@temporalio/envconfig';
import {
  DefaultLogger,
  NativeConnection,
  Runtime,
  Worker,
  type LogLevel,
  type NativeConnectionOptions,
  type WorkerOptions,
} from '@temporalio/worker';
import { createActivities } from '../activities/index.ts';
import { FleetActivityInterceptor } from '../activities/interceptor.ts';
import { AwsClients } from './clients/aws/clients.ts';
import { Catalog } from './clients/catalog.ts';
import { IgnoredCondition, requireConditionalWrites } from './clients/conditional-writes.ts';
import { roleIdentity } from './clients/delete-identity.ts';
import type { BackupStore, StoreOptions } from './clients/s3.ts';
import { BackupMac, NO_MAC } from './clients/backup-mac.ts';
import { BackupStores } from './clients/stores.ts';
import { loadConfig, refusePlaintextTemporal, type Config } from './config.ts';
import { messageOf } from './domain/errors.ts';
import { waitingQueue } from './domain/task-queues.ts';
import { Providers } from './providers/index.ts';
import { keepRenewing } from './renewal-schedule.ts';
import { keepObserving } from './observation-schedule.ts';
import { temporalPort } from './temporal-port.ts';
import { BUNDLER_OPTIONS, WORKFLOWS } from './workflow-bundle.ts';

/** Milliseconds that running activities get after SIGTERM before they are cancelled and taken up elsewhere. */
const GRACE = 10_000;

/** Activities that wait for a node at the same time. Each holds one connection and hardly any memory. */
const WAITS = 200;

async function main(): Promise<void> {
  const config = loadConfig(process.env);
  Runtime.install({ logger: new DefaultLogger(config.FLEET_LOG_LEVEL.toUpperCase() as LogLevel, writeJson) });
  const { connectionOptions, namespace } = loadClientConnectConfig();
  refusePlaintextTemporal(config, connectionOptions);
  const connection = await connectTemporal(connectionOptions);
  const client = new Client({ connection, ...(namespace !== undefined && { namespace }) });
  const catalog = new Catalog(config.DATABASE_URL);
  await catalog.migrate();
  const aws = new AwsClients({
    ...(config.FLEET_AWS_ENDPOINT !== undefined && { endpoint: config.FLEET_AWS_ENDPOINT }),
  });
  const providers = new Providers({ config, catalog, aws });
  const stores = createStores(config);
  await checkStore(stores.fleet, config);
  const activities = createActivities({
    config,
    catalog,
    stores,
    clusters: providers,
    aws,
    temporal: temporalPort(client),
  });
  const shared = {
    connection,
    ...(namespace !== undefined && { namespace }),
    activities,
    interceptors: { activity: [() => ({ inbound: new FleetActivityInterceptor() })] },
    shutdownGraceTime: GRACE,
    shutdownForceTime: 2 * GRACE,
  } satisfies Partial<WorkerOptions>;
  const control = await Worker.create({
    ...shared,
    ...workflowSource(config),
    taskQueue: config.FLEET_TASK_QUEUE,
    maxCachedWorkflows: 200,
    // How long a dead worker's workflows wait for it before another one takes them up; the default is 10 s.
    stickyQueueScheduleToStartTimeout: '3s',
    maxConcurrentActivityTaskExecutions: 100,
  });
  const waits = await Worker.create({
    ...shared,
    taskQueue: waitingQueue(config.FLEET_TASK_QUEUE),
    maxConcurrentActivityTaskExecutions: WAITS,
  });
  const transfer = await Worker.create({
    ...shared,
    taskQueue: `${config.FLEET_TASK_QUEUE}-transfer-${config.FLEET_REGION}`,
    maxConcurrentActivityTaskExecutions: config.FLEET_TRANSFER_STREAMS,
  });
  await keepObserving(client, { taskQueue: config.FLEET_TASK_QUEUE, seconds: config.FLEET_OBSERVE_SECONDS });
  await keepRenewing(client, { taskQueue: config.FLEET_TASK_QUEUE, hours: config.FLEET_RENEW_HOURS });
  const health = serveHealth(config, [control, waits, transfer]);
  try {
    await Promise.all([control.run(), waits.run(), transfer.run()]);
  } finally {
    health.close();
    await providers.close();
    await catalog.close();
    await connection.close();
  }
}

async function connectTemporal(options: NativeConnectionOptions): Promise<NativeConnection> {
  try {
    return await NativeConnection.connect(options);
  } catch (error) {
    const address = options.address ?? '127.0.0.1:7233';
    throw new Error(
      `Temporal at ${address} cannot be reached: ${messageOf(error)}. Check TEMPORAL_ADDRESS, and TEMPORAL_API_KEY and TEMPORAL_TLS_* where they are needed.`,
      { cause: error },
    );
  }
}

/** The bundle that the image was built with, or the sources. */
function workflowSource(config: Config): Pick<WorkerOptions, 'workflowBundle' | 'workflowsPath' | 'bundlerOptions'> {
  if (config.FLEET_WORKFLOW_BUNDLE !== undefined) {
    return { workflowBundle: { codePath: config.FLEET_WORKFLOW_BUNDLE } };
  }
  return { workflowsPath: WORKFLOWS, bundlerOptions: BUNDLER_OPTIONS };
}

function createStores(config: Config): BackupStores {
  return new BackupStores({
    bucket: config.FLEET_BACKUP_BUCKET,
    region: config.AWS_REGION,
    forcePathStyle: config.FLEET_S3_FORCE_PATH_STYLE,
    mac: new BackupMac(config.FLEET_BACKUP_MAC_KEY),
    ...(config.FLEET_S3_CA_FILE !== undefined && { ca: config.FLEET_S3_CA_FILE }),
    ...deleteIdentityOf(config),
    ...(config.FLEET_S3_ENDPOINT !== undefined && { endpoint: config.FLEET_S3_ENDPOINT }),
    ...(config.FLEET_S3_NODE_ENDPOINT !== undefined && { nodeEndpoint: config.FLEET_S3_NODE_ENDPOINT }),
  });
}

/** A store that does not answer now may answer later; one that ignores conditions never makes a safe backup. */
async function checkStore(store: BackupStore, config: Config): Promise<void> {
  if (!store.mac.isOn) Runtime.instance().logger.warn('FLEET_BACKUP_MAC_KEY is not set', { unprotected: NO_MAC });
  try {
    await requireConditionalWrites(store, config.FLEET_BACKUP_PREFIX);
  } catch (error) {
    if (error instanceof IgnoredCondition) throw error;
    Runtime.instance().logger.warn('the backup store was not checked', { reason: messageOf(error) });
  }
}

function deleteIdentityOf(config: Config): Pick<StoreOptions, 'deleteIdentity'> {
  const { FLEET_S3_DELETE_ACCESS_KEY_ID: accessKeyId, FLEET_S3_DELETE_SECRET_ACCESS_KEY: secretAccessKey } = config;
  if (accessKeyId !== undefined && secretAccessKey !== undefined)
    return { deleteIdentity: { accessKeyId, secretAccessKey } };
  const role = config.FLEET_BACKUP_DELETE_ROLE_ARN;
  return role === undefined ? {} : { deleteIdentity: roleIdentity(role, config.AWS_REGION, config.FLEET_AWS_ENDPOINT) };
}

/** `/livez`: the process answers. `/readyz`: all workers poll. */
function serveHealth(config: Config, workers: readonly Worker[]) {
  return createServer((request, response) => {
    const states = workers.map((worker) => worker.getState());
    const ready = request.url === '/livez' || states.every((state) => state === 'RUNNING');
    response.writeHead(ready ? 200 : 503, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ ready, workers: states, rssBytes: process.memoryUsage.rss() }));
  }).listen(config.FLEET_WORKER_HEALTH_PORT, config.FLEET_WORKER_HEALTH_HOST);
}

/** One JSON object a line, as the API's log. */
function writeJson(entry: { level: string; timestampNanos: bigint; message: string; meta?: unknown }): void {
  const time = new Date(Number(entry.timestampNanos / 1_000_000n)).toISOString();
  const meta = typeof entry.meta === 'object' && entry.meta !== null ? entry.meta : {};
  const line = JSON.stringify({ level: entry.level.toLowerCase(), time, msg: entry.message, ...meta }, plain);
  process.stdout.write(`${line}\n`);
}

function plain(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return value.toString();
  return value instanceof Error ? { name: value.name, message: value.message } : value;
}

try {
  await main();
} catch (error) {
  process.stderr.write(`${messageOf(error)}\n`);
  process.exitCode = 1;
}
