/** Shorthands for the OpenAPI entries of the routes. */
import { z, type RouteConfig } from '@hono/zod-openapi';
import { ERROR_CODES, type ErrorCode } from '../../src/domain/errors.ts';
import { FORMATS } from '../../src/domain/input/formats.ts';
import { text } from '../fields.ts';
import { Operation, Problem } from '../schemas.ts';

type Responses = RouteConfig['responses'];

export const param = {
  cluster: text(FORMATS.cluster).openapi({ param: { name: 'cluster', in: 'path' } }),
  backup: text(FORMATS.backup).openapi({ param: { name: 'backup', in: 'path' } }),
  schedule: text(FORMATS.schedule).openapi({ param: { name: 'schedule', in: 'path' } }),
  operation: text(FORMATS.operation).openapi({ param: { name: 'operation', in: 'path' } }),
};

/** Headers of requests that start an operation. */
export const startHeaders = z.object({
  'Idempotency-Key': text(FORMATS.idempotencyKey).min(1).optional().openapi({
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

/**
 * One problem response for each status of the codes. Every protected route may also answer 401 and 503; what takes input
 * answers 422 to one that is well-formed and cannot be done, and 413 to one that is too large.
 */
export function problems(...codes: ErrorCode[]): Responses {
  return problemsOf([...codes, 'Unauthorized', 'CatalogUnavailable', 'TemporalUnavailable']);
}

function problemsOf(all: readonly ErrorCode[]): Responses {
  const told: { code: string; status: number; title: string }[] = all.map((code) => ({ code, ...ERROR_CODES[code] }));
  if (all.includes('InvalidInput')) {
    told.push({ code: 'InvalidInput', status: 422, title: 'The request is well-formed, and not possible like this' });
    told.push({ code: 'PayloadTooLarge', status: 413, title: 'The request body is too large' });
  }
  const byStatus = Map.groupBy(told, ({ status }) => status);
  return Object.fromEntries(
    [...byStatus].map(([status, list]) => [
      status,
      {
        description: list.map(({ code, title }) => `\`${code}\`: ${title}.`).join(' '),
        content: { 'application/problem+json': { schema: Problem } },
      },
    ]),
  );
}

export function pageOfSchema(item: z.ZodType) {
  return z.object({ items: z.array(item), nextPageToken: z.string().optional() });
}
