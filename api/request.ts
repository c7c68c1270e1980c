/** Reading requests: the body, the query, paging and the parts of the path. */
import type { z } from '@hono/zod-openapi';
import { FleetError } from '../src/domain/errors.ts';
import { ANSWERS } from '../src/domain/input/limits.ts';
import { shown } from '../src/domain/input/echo.ts';
import { foreignMap, memberPath } from '../src/domain/input/names.ts';
import { Problems } from '../src/domain/input/problems.ts';
import { checkStructure } from '../src/domain/input/structure.ts';
import { isBackupId, MAX_CLUSTER_LENGTH, nameProblem } from '../src/domain/naming.ts';
import type { ApiContext } from './context.ts';
import { invalidRequest, pointerTo, type RequestError } from './problem.ts';

/** How the fields of a body become a domain input. */
export interface BodyRule<T> {
  /** Documents the body; its keys are the fields that the body may have. */
  readonly schema: z.ZodObject;
  /** What the API adds: the tenant, and whatever the path says. */
  readonly fixed: Readonly<Record<string, unknown>>;
  /** Fields that the domain calls otherwise: body name to domain name. */
  readonly renamed?: Readonly<Record<string, string>>;
  /** The domain's guard. */
  readonly parse: (input: unknown) => T;
}

/**
 * The JSON body through the domain's guard; no body counts as `{}`.
 *
 * @throws RequestError `InvalidInput` listing every bad field by its JSON pointer, unknown fields included
 */
export async function readBody<T>(c: ApiContext, rule: BodyRule<T>): Promise<T> {
  const body = parseJson(await c.req.text());
  const fields = Object.keys(rule.schema.shape);
  const problems = new Problems();
  if (!checkStructure(body, problems)) throw invalidBody(problems);
  const input = foreignMap<unknown>();
  const known = fields.length === 0 ? 'this request takes no fields' : `known: ${fields.join(', ')}`;
  for (const [field, value] of Object.entries(body)) {
    if (fields.includes(field)) input[rule.renamed?.[field] ?? field] = value;
    else problems.add(memberPath('', field), `is not known here; ${known}. Remove it`);
  }
  try {
    const parsed = rule.parse({ ...input, ...rule.fixed });
    if (problems.count === 0) return parsed;
  } catch (error) {
    if (!FleetError.is(error, 'InvalidInput')) throw error;
    const bodyName = new Map(Object.entries(rule.renamed ?? {}).map(([mine, theirs]) => [theirs, mine]));
    const fields = error.fields.map(({ field, detail }) => ({ field: bodyName.get(field) ?? field, detail }));
    problems.merge({ fields, more: error.more, wellFormed: error.wellFormed });
  }
  throw invalidBody(problems);
}

function invalidBody({ fields, count, wellFormed }: Problems): RequestError {
  const errors = fields.map(({ field, detail }) => ({ pointer: pointerTo(field), detail }));
  return invalidRequest(errors, { count, wellFormed });
}

function parseJson(text: string): Record<string, unknown> {
  if (text.trim() === '') return {};
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw invalidRequest([{ pointer: '#', detail: `is not valid JSON: ${shown(error.message, ANSWERS.pathLength)}` }]);
  }
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw invalidRequest([{ pointer: '#', detail: 'must be one JSON object' }]);
  }
  return body as Record<string, unknown>;
}

/** @throws RequestError `InvalidInput` naming every bad or unknown query parameter */
export function readQuery<S extends z.ZodObject>(c: ApiContext, schema: S): z.output<S> {
  const parsed = schema.safeParse(c.req.query());
  if (parsed.success) return parsed.data;
  const known = Object.keys(schema.shape).join(', ');
  throw invalidRequest(
    parsed.error.issues.flatMap((issue) =>
      issue.code === 'unrecognized_keys'
        ? issue.keys.map((parameter) => ({ parameter, detail: `is not known here; known: ${known}. Remove it` }))
        : [{ parameter: issue.path.map(String).join('.'), detail: issue.message }],
    ),
  );
}

/** Turn rows into a page: ask for one more than `size`, so that the last page is known to be the last. */
export function pageOf<R, T>(rows: readonly R[], size: number, keyOf: (row: R) => string, view: (row: R) => T) {
  const shown = rows.slice(0, size);
  const last = shown.at(-1);
  const more = rows.length > size && last !== undefined;
  return { items: shown.map(view), ...(more && { nextPageToken: Buffer.from(keyOf(last)).toString('base64url') }) };
}

/** What the catalogue's listing needs for a page request. */
export function pageAfter(
  { pageSize: size, pageToken }: { pageSize: number; pageToken?: string | undefined },
  isKey: (key: string) => boolean,
) {
  if (pageToken === undefined) return { size, page: { limit: size + 1 } };
  const after = Buffer.from(pageToken, 'base64url').toString();
  if (!isKey(after)) {
    const detail = 'must be the nextPageToken of the page before';
    throw invalidRequest([{ parameter: 'pageToken', detail }], { wellFormed: true });
  }
  return { size, page: { limit: size + 1, after } };
}

export function isClusterName(text: string): boolean {
  return nameProblem(text, MAX_CLUSTER_LENGTH) === undefined;
}

/** The cluster of the path. What cannot be a name cannot exist. */
export function clusterParam(c: ApiContext): string {
  const cluster = c.req.param('cluster') ?? '';
  if (!isClusterName(cluster)) throw clusterNotFound(cluster);
  return cluster;
}

export function clusterNotFound(cluster: string): FleetError {
  return new FleetError(
    'ClusterNotFound',
    `There is no cluster "${shown(cluster, ANSWERS.pathLength)}". GET /v1/clusters lists yours.`,
  );
}

export function backupParam(c: ApiContext): string {
  const backup = c.req.param('backup') ?? '';
  if (!isBackupId(backup)) throw backupNotFound(backup);
  return backup;
}

export function backupNotFound(backup: string): FleetError {
  return new FleetError(
    'BackupNotFound',
    `There is no backup "${shown(backup, ANSWERS.pathLength)}". GET /v1/clusters/{cluster}/backups lists those of a cluster.`,
  );
}
