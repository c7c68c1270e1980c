/** The API process: `node src/server.ts`. */
import './freeze-intrinsics.ts';
import { serve, type ServerType } from '@hono/node-server';
import { Client, Connection } from '@temporalio/client';
import { loadClientConnectConfig } from '@temporalio/envconfig';
import { readFileSync } from 'node:fs';
import { pino, type Logger } from 'pino';
import { createApp } from '../api/app.ts';
import { Catalog } from './clients/catalog.ts';
import { loadApiConfig, refusePlaintextTemporal, type ApiConfig } from './config.ts';
import { messageOf } from './domain/errors.ts';
import { HTTP_LIMITS, limitConnections, serverOptions } from './http-limits.ts';
import { shutdownOnSignal } from './shutdown.ts';

const SHUTDOWN_MS = 10_000;
/** A long poll may take a minute; it is cut after this. */
const DRAIN_MS = 4000;
const MIGRATION_RETRY_MS = 2000;

main(readConfig());

function main(config: ApiConfig): void {
  const logger = pino({
    level: config.FLEET_LOG_LEVEL,
    redact: ['authorization', '*.authorization', '*.headers.authorization', 'req.headers.authorization'],
  });
  const { connectionOptions, namespace } = connectConfig(config);
  // Lazy: the API starts without Temporal and says so at /readyz.
  const connection = Connection.lazy(connectionOptions);
  const temporal = new Client({ connection, ...(namespace !== undefined && { namespace }) });
  const catalog = new Catalog(config.DATABASE_URL);
  const app = createApp({
    temporal,
    catalog,
    tokens: config.FLEET_API_TOKENS,
    taskQueue: config.FLEET_TASK_QUEUE,
    ...(config.FLEET_TENANT_POLICY !== undefined && { policy: config.FLEET_TENANT_POLICY }),
    quotas: config.FLEET_QUOTAS,
    version: ownVersion(),
    observeSeconds: config.FLEET_OBSERVE_SECONDS,
    logger,
  });

  const stopping = new AbortController();
  const limits = { ...HTTP_LIMITS, maxConnections: config.FLEET_API_MAX_CONNECTIONS };
  const server = serve(
    {
      fetch: app.fetch,
      hostname: config.FLEET_API_HOST,
      port: config.FLEET_API_PORT,
      serverOptions: serverOptions(limits),
    },
    (info) => {
      logger.info({ address: info.address, port: info.port }, 'listening');
    },
  );
  limitConnections(server, limits);
  const shutdown = shutdownOnSignal({
    timeoutMs: SHUTDOWN_MS,
    logger,
    steps: [
      { name: 'stop migrating', run: () => stopping.abort() },
      { name: 'stop listening', run: () => drain(server) },
      { name: 'close Temporal', run: () => connection.close() },
      { name: 'close the catalogue', run: () => catalog.close() },
    ],
  });
  server.on('error', (error) => {
    logger.error({ err: error }, 'the server failed');
    void shutdown('the server failed', 1);
  });
  void migrate(catalog, logger, stopping.signal);
}

/** Until it has succeeded once; meanwhile /readyz answers 503. */
async function migrate(catalog: Catalog, logger: Logger, stop: AbortSignal): Promise<void> {
  while (!stop.aborted) {
    try {
      await catalog.migrate();
      logger.info('the catalogue is up to date');
      return;
    } catch (error) {
      logger.warn({ reason: messageOf(error) }, 'the catalogue is not ready; trying again');
    }
    await new Promise((resolve) => setTimeout(resolve, MIGRATION_RETRY_MS));
  }
}

/** Answers the requests under way, as far as there is time. */
async function drain(server: ServerType): Promise<void> {
  const cut = setTimeout(() => {
    if ('closeAllConnections' in server) server.closeAllConnections();
  }, DRAIN_MS);
  await new Promise((resolve) => server.close(resolve));
  clearTimeout(cut);
}

function readConfig(): ApiConfig {
  try {
    return loadApiConfig(process.env);
  } catch (error) {
    console.error(messageOf(error));
    return process.exit(1);
  }
}

function connectConfig(config: ApiConfig): ReturnType<typeof loadClientConnectConfig> {
  const found = loadClientConnectConfig();
  try {
    refusePlaintextTemporal(config, found.connectionOptions);
  } catch (error) {
    console.error(messageOf(error));
    return process.exit(1);
  }
  return found;
}

function ownVersion(): string {
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  return version;
}
