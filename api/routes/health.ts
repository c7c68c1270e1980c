/** `/livez` and `/readyz`, without a token. */
import { z } from '@hono/zod-openapi';
import { ERROR_CODES, messageOf, type ErrorCode } from '../../src/domain/errors.ts';
import { addRoute, type Api, type ApiDeps } from '../context.ts';
import { Health } from '../schemas.ts';
import { callTemporal } from '../temporal.ts';
import { json } from './documentation.ts';

const PROBE_MS = 2000;

export function healthRoutes(api: Api, deps: ApiDeps): void {
  const { temporal, catalog } = deps;
  addRoute(
    api,
    {
      method: 'get',
      path: '/livez',
      tags: ['Health'],
      summary: 'Whether the process answers',
      security: [],
      responses: { 200: json(z.object({ version: z.string() }), 'It does') },
    },
    (c) => c.json({ version: deps.version }),
  );
  addRoute(
    api,
    {
      method: 'get',
      path: '/readyz',
      tags: ['Health'],
      summary: 'Whether Temporal and the catalogue answer',
      security: [],
      responses: { 200: json(Health, 'They do'), 503: json(Health, 'One does not, and which') },
    },
    async (c) => {
      const { namespace } = temporal.options;
      const describe = () => temporal.workflowService.describeNamespace({ namespace });
      const [temporalState, catalogState] = await Promise.all([
        probe(deps, 'TemporalUnavailable', () => callTemporal(temporal, describe, PROBE_MS)),
        // A query of our own tables: a database without the schema is not ready either.
        probe(deps, 'CatalogUnavailable', () => catalog.clusters('', { limit: 1 })),
      ]);
      const ready = temporalState.ready && catalogState.ready;
      return c.json({ ready, dependencies: { temporal: temporalState, catalog: catalogState } }, ready ? 200 : 503);
    },
  );
}

/** The reason given is the code's title: what went wrong in detail may name hosts and accounts, and is logged instead. */
async function probe({ logger }: ApiDeps, code: ErrorCode, ask: () => Promise<unknown>) {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`no answer within ${PROBE_MS} ms`)), PROBE_MS);
  try {
    await Promise.race([ask(), late.promise]);
    return { ready: true };
  } catch (error) {
    logger.debug({ dependency: code, reason: messageOf(error) }, 'not ready');
    return { ready: false, reason: ERROR_CODES[code].title };
  } finally {
    clearTimeout(timer);
  }
}
