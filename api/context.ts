/** What the routes share: the dependencies, the request's variables, and how a route is added with its documentation. */
import type { OpenAPIHono, RouteConfig } from '@hono/zod-openapi';
import type { Client } from '@temporalio/client';
import type { Context } from 'hono';
import type { RequestIdVariables } from 'hono/request-id';
import type { Logger } from 'pino';
import type { Catalog } from '../src/clients/catalog.ts';
import type { TenantPolicy } from '../src/domain/tenant-policy.ts';
import type { Quotas } from '../src/domain/quota.ts';

export interface ApiDeps {
  readonly temporal: Client;
  readonly catalog: Catalog;
  /** Which token speaks for which tenant. */
  readonly tokens: ReadonlyMap<string, string>;
  /** Where the control workflows run. */
  readonly taskQueue: string;
  /** Which tenant may name what exists, where this process knows; the workers decide in any case. */
  readonly policy?: TenantPolicy;
  readonly version: string;
  /** What tenants may have for whom the catalogue says nothing else. */
  readonly quotas: Quotas;
  /** Seconds between two looks at each cluster; 0, the default, where nobody looks. */
  readonly observeSeconds?: number;
  readonly logger: Logger;
}

export interface ApiEnv {
  Variables: RequestIdVariables & {
    /** Set by the authentication; never read from anywhere else. */
    tenant: string;
    /** Code of the problem that was answered, for the log line. */
    problem?: string;
  };
}

export type Api = OpenAPIHono<ApiEnv>;
export type ApiContext = Context<ApiEnv>;

/**
 * Add a route together with its entry in the OpenAPI document. The zod schemas document only: what a body may hold is
 * decided by the guards of `src/domain`, so that the API, the workflows and the CLI give one answer in the same words.
 */
export function addRoute(api: Api, route: RouteConfig, handler: (c: ApiContext) => Response | Promise<Response>): void {
  api.openAPIRegistry.registerPath(route);
  api.on(route.method.toUpperCase(), route.path.replaceAll(/\{(\w+)\}/g, ':$1'), handler);
}
