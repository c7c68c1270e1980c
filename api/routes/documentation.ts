/** Shorthands for the OpenAPI entries of the routes. */
import { z, type RouteConfig } from '@hono/zod-openapi';
import { ERROR_CODES, type ErrorCode } from '../../src/domain/errors.ts';
import { Operation, Problem } from '../schemas.ts';

type Responses = RouteConfig['responses'];

export const param = {
  cluster: z.string().openapi({ param: { name: 'cluster', in: 'path' }, example: 'docs' }),
  backup: z.string().openapi({ param: { name: 'backup', in: 'path' }, example: '20261121T030000Z-1a2b3c4d' }),
  schedule: z.string().openapi({ param: { name: 'schedule', in: 'path' }, example: 'backup' }),
  operation: z.string().openapi({ param: { name: 'operation', in: 'path' } }),
};

/** Headers of requests that start an operation. */
export const startHeaders = z.object({
  'Idempotency-Key': z.string().optional().openapi({
    description:
      'Repeating a request with the same key and body answers the same operation instead of starting another.',
  }),
});

export function json(schema: z.ZodType, description: string) {
  return { description, content: { 'application/json': { schema } } };
}

export function body(schema: z.ZodType, required = true) {
  return { required, content: { 'application/json': { schema } } };
}

/** 202 with the operation that was started. */
export function started(more: Record<string, z.ZodType> = {}): Responses {
  return {
    202: {
      ...json(z.object({ operation: Operation, ...more }), 'Accepted. Follow Location, or poll with ?wait=30s.'),
      headers: z.object({ Location: z.string(), 'Retry-After': z.string() }),
    },
    ...problemsOf(['QuotaReached']),
  };
}

/** One problem response for each status of the codes. Every protected route may also answer 401 and 503. */
export function problems(...codes: ErrorCode[]): Responses {
  return problemsOf([...codes, 'Unauthorized', 'CatalogUnavailable', 'TemporalUnavailable']);
}

function problemsOf(all: readonly ErrorCode[]): Responses {
  const byStatus = Map.groupBy(all, (code) => ERROR_CODES[code].status);
  return Object.fromEntries(
    [...byStatus].map(([status, list]) => [
      status,
      {
        description: list.map((code) => `\`${code}\`: ${ERROR_CODES[code].title}.`).join(' '),
        content: { 'application/problem+json': { schema: Problem } },
      },
    ]),
  );
}

export function pageOfSchema(item: z.ZodType) {
  return z.object({ items: z.array(item), nextPageToken: z.string().optional() });
}
