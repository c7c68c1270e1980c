/**
 * The app without a stack, for what is decided before anything is asked: every cluster and backup is there, and Temporal
 * never answers. What gets past the guards ends as 503, or as 404 where it needs Temporal to find something.
 */
import { Client, Connection } from '@temporalio/client';
import { pino } from 'pino';
import { createApp } from '../../api/app.ts';
import type { Catalog } from '../../src/clients/catalog.ts';
import { DEFAULT_PRESETS, resolveSpec } from '../../src/domain/cluster.ts';
import { FleetError } from '../../src/domain/errors.ts';
import { DEFAULT_QUOTAS } from '../../src/domain/quota.ts';
import { TOKENS } from './support.ts';

const AT = new Date('2026-11-21T03:00:00Z');

export const BACKUP = '20261121T030000Z-1a2b3c4d';

function clusterRow(tenant: string, cluster: string) {
  return {
    ...{ tenant, cluster, phase: 'FAILED_TO_CREATE', spec: resolveSpec({}, DEFAULT_PRESETS), conditions: [] },
    ...{ namespace: `fleet-${tenant}--${cluster}`, created_by: 'test', reason: null, delete_after: null },
    ...{ created_at: AT, updated_at: AT },
  };
}

export function standInApp() {
  const asked: string[] = [];
  const noAnswer = () => Promise.reject(new FleetError('TemporalUnavailable', 'Temporal did not answer.'));
  const catalog = {
    cluster: (ref: { tenant: string; cluster: string }) => {
      asked.push(ref.cluster);
      return Promise.resolve(clusterRow(ref.tenant, ref.cluster));
    },
    clusters: () => Promise.resolve([]),
    backup: (tenant: string, backup: string) => {
      asked.push(backup);
      const times = { created_at: AT, changed_at: AT, deleting_since: null, purge_after: null };
      return Promise.resolve({
        tenant,
        cluster: 'docs',
        backup,
        state: 'COMMITTED',
        bucket: null,
        totals: null,
        ...times,
      });
    },
    backups: () => Promise.resolve([]),
    operation: (_tenant: string, id: string) => {
      asked.push(id);
      return Promise.resolve(undefined);
    },
    run: noAnswer,
  } as unknown as Catalog;
  const temporal = new Client({ connection: Connection.lazy({ address: '127.0.0.1:1' }) });
  // No call gets as far as a socket.
  Object.assign(temporal, { withDeadline: noAnswer, withAbortSignal: noAnswer });
  const app = createApp({
    temporal,
    catalog,
    tokens: new Map([[TOKENS.mine, 'mine']]),
    taskQueue: 'none',
    version: '1.2.3',
    quotas: DEFAULT_QUOTAS,
    logger: pino({ level: 'silent' }),
  });
  async function send(method: string, path: string, text?: string, headers: Record<string, string> = {}) {
    const response = await app.request(path, {
      method,
      headers: { authorization: `Bearer ${TOKENS.mine}`, ...headers },
      ...(text !== undefined && { body: text }),
    });
    return { status: response.status, text: await response.text() };
  }
  return { app, send, asked };
}

export interface Documented {
  readonly method: string;
  /** With its parameters in braces. */
  readonly path: string;
  readonly parameters: readonly { name: string; in: 'path' | 'query' | 'header' }[];
  /** Schema of the JSON body, where there is one. */
  readonly body?: object;
  readonly isPublic: boolean;
}

interface Document {
  readonly components: { readonly schemas: Record<string, object> };
  readonly paths: Record<
    string,
    Record<
      string,
      {
        parameters?: Documented['parameters'];
        requestBody?: { content: { 'application/json': { schema: object } } };
        security?: readonly unknown[];
      }
    >
  >;
}

/** Every route of the OpenAPI document. */
export function routesOf({ paths }: Document): Documented[] {
  return Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { parameters = [], requestBody, security }]) => ({
      method: method.toUpperCase(),
      path,
      parameters,
      ...(requestBody !== undefined && { body: requestBody.content['application/json'].schema }),
      isPublic: security?.length === 0,
    })),
  );
}

export async function documentOf(app: { request: (path: string) => Response | Promise<Response> }): Promise<Document> {
  return (await (await app.request('/openapi.json')).json()) as Document;
}
