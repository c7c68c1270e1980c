/** The app over the real Temporal and the real catalogue, without a socket. Every test file uses tenants of its own. */
import { randomBytes } from 'node:crypto';
import { Client, Connection } from '@temporalio/client';
import { pino } from 'pino';
import { inject } from 'vitest';
import { createApp } from '../../api/app.ts';
import type { ApiDeps } from '../../api/context.ts';
import { Catalog } from '../../src/clients/catalog.ts';
import { DEFAULT_PRESETS, resolveSpec } from '../../src/domain/cluster.ts';
import { DEFAULT_QUOTAS } from '../../src/domain/quota.ts';
import { namespaceOf } from '../../src/domain/naming.ts';

export const TOKENS = { mine: 'token-of-mine-0123456789abcd', other: 'token-of-other-0123456789abc' } as const;

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  // oxlint-disable-next-line typescript/no-explicit-any -- tests look into answers as they come
  readonly body: any;
}

type Send = { body?: unknown; token?: string | null; headers?: Record<string, string>; raw?: string };

export async function startApi(overrides: Partial<ApiDeps> = {}) {
  const env = inject('localEnv');
  const run = randomBytes(3).toString('hex');
  const [mine, other] = [`t${run}`, `o${run}`];
  const catalog = new Catalog(env.DATABASE_URL ?? '');
  await catalog.migrate();
  const connection = Connection.lazy({ address: env.TEMPORAL_ADDRESS ?? '' });
  const temporal = new Client({ connection, namespace: env.TEMPORAL_NAMESPACE ?? 'default' });
  const lines: Record<string, unknown>[] = [];
  const logger = pino({ level: 'info' }, { write: (line: string) => void lines.push(JSON.parse(line)) });
  const deps: ApiDeps = {
    temporal,
    catalog,
    tokens: new Map([
      [TOKENS.mine, mine],
      [TOKENS.other, other],
    ]),
    taskQueue: `api-test-${run}`,
    quotas: DEFAULT_QUOTAS,
    version: '1.2.3',
    logger,
    ...overrides,
  };
  const app = createApp(deps);

  async function send(method: string, path: string, { body, token = TOKENS.mine, headers, raw }: Send = {}) {
    const response = await app.request(path, {
      method,
      headers: { ...(token !== null && { authorization: `Bearer ${token}` }), ...headers },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      ...(raw !== undefined && { body: raw }),
    });
    const text = await response.text();
    const isJson = /json/.test(response.headers.get('content-type') ?? '');
    const answer: Answer = {
      status: response.status,
      headers: response.headers,
      body: isJson ? JSON.parse(text) : text,
    };
    return answer;
  }

  async function addCluster(cluster: string, phase: 'HEALTHY' | 'FAILED_TO_CREATE' = 'HEALTHY', tenant = mine) {
    const spec = resolveSpec({}, DEFAULT_PRESETS);
    const namespace = namespaceOf({ tenant, cluster });
    await catalog.db
      .insertInto('clusters')
      .values({ tenant, cluster, phase, spec: JSON.stringify(spec), namespace, created_by: 'test', reason: null })
      .execute();
  }

  async function addBackup(cluster: string, backup: string, tenant = mine, bucket: string | null = null) {
    const at = new Date('2026-11-21T03:00:00Z');
    const totals = JSON.stringify({ collections: 1, shards: 2, bytes: 3, points: 4 });
    await catalog.db
      .insertInto('backups')
      .values({ tenant, cluster, backup, state: 'COMMITTED', totals, bucket, created_at: at, changed_at: at })
      .execute();
  }

  async function close() {
    const open = temporal.workflow.list({
      query: `FleetTenant IN ("${mine}", "${other}") AND ExecutionStatus="Running"`,
    });
    for await (const { workflowId } of open)
      await temporal.workflow
        .getHandle(workflowId)
        .terminate()
        .catch(() => null);
    await catalog.close();
    await connection.close();
  }

  return { app, deps, send, addCluster, addBackup, close, lines, tenant: mine, otherTenant: other };
}

export type TestApi = Awaited<ReturnType<typeof startApi>>;
