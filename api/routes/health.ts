/** `/livez` and `/readyz`, without a token. */
import { z } from '@hono/zod-openapi';
import { ERROR_CODES, messageOf, type ErrorCode } from '../../src/domain/errors.ts';
import { addRoute, type Api, type ApiDeps } from '../context.ts';
import { Health } from '../schemas.ts';
import { callTemporal } from '../temporal.ts';
import { json } from './documentation.ts';

const PROBE_MS = 2000;
const REMEMBER_MS = 1000;

export function healthRoutes(api: Api, deps: ApiDeps): void {
  const { temporal, catalog } = deps;
  const remembered = new Remembered(look);
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
      const { ready, dependencies } = await remembered.get();
      return c.json({ ready, dependencies }, ready ? 200 : 503);
    },
  );

  async function look() {
    const { namespace } = temporal.options;
    const describe = () => temporal.workflowService.describeNamespace({ namespace });
    const [temporalState, catalogState] = await Promise.all([
      probe(deps, 'TemporalUnavailable', () => callTemporal(temporal, describe, PROBE_MS)),
      // A query of our own tables: a database without the schema is not ready either.
      probe(deps, 'CatalogUnavailable', () => catalog.clusters('', { limit: 1 })),
    ]);
    const ready = temporalState.ready && catalogState.ready;
    return { ready, dependencies: { temporal: temporalState, catalog: catalogState } };
  }
}

/** One answer for all who ask within a moment: probes need no token, so they must cost nothing. */
class Remembered<T> {
  readonly #look: () => Promise<T>;
  #answer: Promise<T> | undefined;
  #until = 0;

  constructor(look: () => Promise<T>) {
    this.#look = look;
  }

  get(): Promise<T> {
    if (this.#answer === undefined || performance.now() > this.#until) {
      this.#until = Number.POSITIVE_INFINITY;
      this.#answer = this.#look().finally(() => {
        this.#until = performance.now() + REMEMBER_MS;
      });
    }
    return this.#answer;
  }
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
