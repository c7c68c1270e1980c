/** Who is asking: the bearer token decides the tenant, and nothing else does. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { MiddlewareHandler } from 'hono';
import type { ApiEnv } from './context.ts';
import { RequestError } from './problem.ts';

const PUBLIC = /^\/(?:livez|readyz|openapi\.json|docs(?:\/[\w.-]+)?)$/;

/**
 * Refuse every request without a known token, except for health and documentation. Accepts `Authorization: Bearer K`
 * and `Authorization: apikey K`, as Qdrant Cloud's clients send it.
 */
export function authenticate(tokens: ReadonlyMap<string, string>): MiddlewareHandler<ApiEnv> {
  const known = [...tokens].map(([token, tenant]) => ({ digest: sha256(token), tenant }));
  return async function authentication(c, next) {
    if (PUBLIC.test(c.req.path)) return next();
    const [, given] = /^(?:bearer|apikey) +(\S+)$/i.exec(c.req.header('authorization') ?? '') ?? [];
    const tenant = given === undefined ? undefined : tenantOf(given, known);
    if (tenant === undefined) {
      throw new RequestError('Unauthorized', 'Send the header "Authorization: Bearer <token>" with a valid token.', {
        headers: { 'WWW-Authenticate': 'Bearer realm="qdrant-fleet"' },
      });
    }
    c.set('tenant', tenant);
    return next();
  };
}

/** Looks at every token, of equal length as a digest, so that the time taken says nothing about any of them. */
function tenantOf(given: string, known: readonly { digest: Buffer; tenant: string }[]): string | undefined {
  const digest = sha256(given);
  let found: string | undefined;
  for (const candidate of known) {
    if (timingSafeEqual(digest, candidate.digest)) found = candidate.tenant;
  }
  return found;
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
