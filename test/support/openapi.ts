/**
 * Hold the API against its own document with Schemathesis: `npm run test:openapi`, with further options for it behind
 * `--`. It runs the API over a real Temporal and a real catalogue, with a cluster, a backup and a schedule to find. Install
 * it with `pip install schemathesis`, and say where it is with SCHEMATHESIS when it is not on the PATH.
 */
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { Catalog } from '../../src/clients/catalog.ts';
import { DEFAULT_PRESETS, resolveSpec } from '../../src/domain/cluster.ts';
import { apiPart } from '../../src/local/parts/programs.ts';
import { databaseUrl, postgresFolder, postgresPart } from '../../src/local/parts/postgres.ts';
import { temporalPart } from '../../src/local/parts/temporal.ts';
import { choosePorts } from '../../src/local/ports.ts';
import { loadSecrets } from '../../src/local/secrets.ts';
import { Supervisor } from '../../src/local/supervisor.ts';
import { ensureTools } from '../../src/local/toolchain/toolchain.ts';

const TOKEN = 'schemathesis-0123456789abcdef';

const dataDir = await mkdtemp(join(tmpdir(), 'qdrant-fleet-openapi-'));
await chmod(dataDir, 0o711); // root's Postgres runs as somebody else, who has to pass through
const tools = await ensureTools({ log: console.log });
const ports = await choosePorts('free');
const secrets = loadSecrets(dataDir);
const env = {
  DATABASE_URL: databaseUrl({ ports, secrets }),
  TEMPORAL_ADDRESS: `127.0.0.1:${ports.temporal}`,
  FLEET_BACKUP_BUCKET: 'fleet-backups',
  FLEET_API_TOKENS: `acme=${TOKEN}`,
  FLEET_API_PORT: String(ports.api),
};
const supervisor = new Supervisor(dataDir);
try {
  await supervisor.startAll([
    postgresPart({ dataDir, ports, secrets }),
    temporalPart({ program: tools.temporal, dataDir, ports }),
    apiPart(env, ports, ['postgres', 'temporal']),
  ]);
  const url = `http://127.0.0.1:${ports.api}`;
  await addContents(env.DATABASE_URL, url);
  const { exitCode } = await execa(
    process.env['SCHEMATHESIS'] ?? 'schemathesis',
    [
      ...['run', '--checks', 'all', '--max-examples', '12', '--phases', 'examples,coverage,fuzzing', '--workers', '2'],
      // A long poll takes up to a minute.
      ...[
        '--request-timeout',
        '65',
        '--max-response-time',
        '65',
        '--header',
        `Authorization: Bearer ${TOKEN}`,
        '--url',
        url,
      ],
      ...[...process.argv.slice(2), `${url}/openapi.json`],
    ],
    { stdio: 'inherit', reject: false },
  );
  process.exitCode = exitCode ?? 1;
} finally {
  await supervisor.stop();
  await rm(postgresFolder(dataDir), { recursive: true, force: true });
  await rm(dataDir, { recursive: true, force: true });
}

/** What the examples of the document name. */
async function addContents(database: string, url: string): Promise<void> {
  const catalog = new Catalog(database);
  const ref = { tenant: 'acme', cluster: 'docs' };
  const spec = JSON.stringify(resolveSpec({}, DEFAULT_PRESETS));
  const at = new Date('2026-11-21T03:00:00Z');
  const totals = JSON.stringify({ collections: 1, shards: 2, bytes: 3, points: 4 });
  await catalog.db
    .insertInto('clusters')
    .values({ ...ref, phase: 'HEALTHY', spec, namespace: 'fleet-acme--docs', created_by: 'test', reason: null })
    .execute();
  await catalog.db
    .insertInto('backups')
    .values({
      ...ref,
      ...{
        backup: '20261121T030000Z-1a2b3c4d',
        state: 'COMMITTED',
        totals,
        bucket: null,
        created_at: at,
        changed_at: at,
      },
    })
    .execute();
  await catalog.close();
  const headers = { authorization: `Bearer ${TOKEN}`, 'content-type': 'application/json' };
  const body = JSON.stringify({ cron: '@daily', paused: true });
  const made = await fetch(`${url}/v1/clusters/docs/schedules`, { method: 'POST', headers, body });
  if (made.status !== 201) throw new Error(`The schedule was answered with ${made.status}.`);
}
