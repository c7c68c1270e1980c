/** Bounds on what a client may take of the API process before its request is even read. */
import type { Server, ServerOptions } from 'node:http';

/** Milliseconds and bytes; https://nodejs.org/api/http.html has what each means. */
export interface HttpLimits {
  /** From the connection, or the request before, until all headers are there. */
  readonly headersTimeout: number;
  /** Until the whole request is there; a body has 64 KiB at most. */
  readonly requestTimeout: number;
  /** Between two requests on one connection; longer than load balancers keep one. */
  readonly keepAliveTimeout: number;
  readonly connectionsCheckingInterval: number;
  readonly maxHeaderSize: number;
  /** Open at the same time; the next one is closed at once. */
  readonly maxConnections: number;
}

export const HTTP_LIMITS: HttpLimits = {
  headersTimeout: 10_000,
  requestTimeout: 30_000,
  keepAliveTimeout: 65_000,
  connectionsCheckingInterval: 2000,
  maxHeaderSize: 16 * 1024,
  maxConnections: 2000,
};

/** What a server is made with. */
export function serverOptions({ maxConnections: _, ...options }: HttpLimits): ServerOptions {
  return options;
}

/** What can be set only on a server that there is. */
export function limitConnections(server: Pick<Server, 'maxConnections'>, { maxConnections }: HttpLimits): void {
  server.maxConnections = maxConnections;
}
