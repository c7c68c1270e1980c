/** The HTTP API as a Hono app. */
import { OpenAPIHono } from '@hono/zod-openapi';
import type { MiddlewareHandler } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { methodNotAllowed } from 'hono/method-not-allowed';
import { requestId } from 'hono/request-id';
import { secureHeaders } from 'hono/secure-headers';
import type { Logger } from 'pino';
import { shown } from '../src/domain/input/echo.ts';
import { MAX_BODY_BYTES } from '../src/domain/input/limits.ts';
import { authenticate } from './auth.ts';
import type { Api, ApiDeps, ApiEnv } from './context.ts';
import { LongPolls } from './long-polls.ts';
import { problem, problemOf, RequestError } from './problem.ts';
import { backupRoutes } from './routes/backups.ts';
import { clusterRoutes } from './routes/clusters.ts';
import { lifeRoutes } from './routes/life.ts';
import { docsRoutes } from './routes/docs.ts';
import { healthRoutes } from './routes/health.ts';
import { infrastructureRoutes } from './routes/infrastructure.ts';
import { operationRoutes } from './routes/operations.ts';
import { quotaRoutes } from './routes/quotas.ts';
import { scheduleRoutes } from './routes/schedules.ts';

/** Characters of a path that a message repeats. */
const MAX_PATH = 100;

/** Starts and queries workflows and reads the catalogue; decides nothing about clusters or backups itself. */
export function createApp(deps: ApiDeps): Api {
  const api = new OpenAPIHono<ApiEnv>();
  api.openAPIRegistry.registerComponent('securitySchemes', 'token', { type: 'http', scheme: 'bearer' });

  api.use(requestId());
  api.use(requestLog(deps.logger));
  api.use(secureHeaders());
  api.use(
    methodNotAllowed({
      app: api,
      onMethodNotAllowed: (c, methods) => {
        const allow = methods.join(', ');
        return problem(
          c,
          'MethodNotAllowed',
          `${shown(c.req.path, MAX_PATH)} takes ${allow}, not ${c.req.method}.`,
          [],
          {
            Allow: allow,
          },
        );
      },
    }),
  );
  api.use(authenticate(deps.tokens));
  api.use(
    bodyLimit({
      maxSize: MAX_BODY_BYTES,
      onError: () => {
        throw new RequestError('PayloadTooLarge', `A request body may have ${MAX_BODY_BYTES} bytes.`);
      },
    }),
  );

  healthRoutes(api, deps);
  clusterRoutes(api, deps);
  lifeRoutes(api, deps);
  backupRoutes(api, deps);
  scheduleRoutes(api, deps);
  infrastructureRoutes(api, deps);
  const longPolls = new LongPolls();
  operationRoutes(api, deps, longPolls);
  quotaRoutes(api, deps, longPolls);
  docsRoutes(api, deps);

  api.notFound((c) =>
    problem(c, 'NotFound', `There is no ${shown(c.req.path, MAX_PATH)}. GET /docs shows what there is.`),
  );
  api.onError((error, c) => {
    const response = problemOf(error, c);
    if (response.status >= 500) deps.logger.error({ requestId: c.get('requestId'), err: error }, 'a request failed');
    return response;
  });
  return api;
}

/** One line per request. Headers are never logged: they hold the token. */
function requestLog(logger: Logger): MiddlewareHandler<ApiEnv> {
  return async function logRequest(c, next) {
    const start = performance.now();
    await next();
    const line = {
      requestId: c.get('requestId'),
      tenant: c.get('tenant'),
      method: c.req.method,
      path: c.req.path,
      status: c.res.status,
      code: c.get('problem'),
      ms: Math.round(performance.now() - start),
    };
    const probe = c.req.path === '/livez' || c.req.path === '/readyz';
    logger[probe ? 'debug' : 'info'](line, 'request');
  };
}
