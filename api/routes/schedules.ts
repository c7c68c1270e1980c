/** Backup schedules of a cluster. */
import { z } from '@hono/zod-openapi';
import { ScheduleAlreadyRunning, ScheduleNotFoundError, type ScheduleHandle } from '@temporalio/client';
import { FleetError } from '../../src/domain/errors.ts';
import { shown } from '../../src/domain/input/echo.ts';
import { ANSWERS } from '../../src/domain/input/limits.ts';
import { addRoute, type Api, type ApiContext, type ApiDeps } from '../context.ts';
import { invalidRequest } from '../problem.ts';
import { requireSchedule } from '../quota.ts';
import { clusterParam, readBody } from '../request.ts';
import {
  isScheduleName,
  parseSchedule,
  scheduleIdOf,
  scheduleOptions,
  schedulePrefix,
  scheduleQuery,
  viewOfSchedule,
} from '../schedule.ts';
import { Schedule, ScheduleBody } from '../schemas.ts';
import { argumentProblem, callTemporal } from '../temporal.ts';
import { existingCluster } from './clusters.ts';
import { body, json, param, problems } from './documentation.ts';

const TAGS = ['Schedules'];
const ONE = '/v1/clusters/{cluster}/schedules/{schedule}';
const MAX_LISTED = 1000;

export function scheduleRoutes(api: Api, deps: ApiDeps): void {
  const { temporal } = deps;
  const params = z.object({ cluster: param.cluster, schedule: param.schedule });
  addRoute(
    api,
    {
      method: 'post',
      path: '/v1/clusters/{cluster}/schedules',
      tags: TAGS,
      summary: 'Back up a cluster on a schedule',
      request: { params: z.object({ cluster: param.cluster }), body: body(ScheduleBody) },
      responses: {
        201: { ...json(Schedule, 'The schedule'), headers: z.object({ Location: z.string() }) },
        ...problems('InvalidInput', 'ClusterNotFound', 'ScheduleExists', 'QuotaReached'),
      },
    },
    (c) => create(c, deps),
  );
  addRoute(
    api,
    {
      method: 'get',
      path: '/v1/clusters/{cluster}/schedules',
      tags: TAGS,
      summary: 'List the schedules of a cluster by name; a new one appears within seconds',
      request: { params: z.object({ cluster: param.cluster }) },
      responses: {
        200: json(z.object({ items: z.array(Schedule) }), 'All of them'),
        ...problems('ClusterNotFound'),
      },
    },
    async (c) => {
      const { tenant, cluster } = await existingCluster(c, deps);
      const items = await callTemporal(temporal, () => list(deps, { tenant, cluster }));
      return c.json({ items: items.sort((a, b) => (a.name < b.name ? -1 : 1)) });
    },
  );
  addRoute(
    api,
    {
      method: 'get',
      path: ONE,
      tags: TAGS,
      summary: 'Look at a schedule',
      request: { params },
      responses: { 200: json(Schedule, 'The schedule'), ...problems('ScheduleNotFound') },
    },
    (c) => onSchedule(c, deps, async (handle, ref) => c.json(viewOfSchedule(ref, await handle.describe()))),
  );
  addRoute(
    api,
    {
      method: 'delete',
      path: ONE,
      tags: TAGS,
      summary: 'Delete a schedule; runs that are under way go on',
      request: { params },
      responses: { 204: { description: 'Deleted' }, ...problems('ScheduleNotFound') },
    },
    (c) =>
      onSchedule(c, deps, async (handle) => {
        await handle.delete();
        return c.body(null, 204);
      }),
  );
  addRoute(
    api,
    {
      method: 'post',
      path: `${ONE}/trigger`,
      tags: TAGS,
      summary: 'Run a schedule now; skipped while an earlier run of it is under way',
      request: { params },
      responses: { 202: json(Schedule, 'Accepted; the run appears in recentRuns'), ...problems('ScheduleNotFound') },
    },
    (c) =>
      onSchedule(c, deps, async (handle, ref) => {
        await handle.trigger();
        return c.json(viewOfSchedule(ref, await handle.describe()), 202, { 'Retry-After': '1' });
      }),
  );
}

async function create(c: ApiContext, deps: ApiDeps): Promise<Response> {
  const { tenant, cluster } = await existingCluster(c, deps);
  const request = await readBody(c, { schema: ScheduleBody, fixed: { tenant, cluster }, parse: parseSchedule });
  await requireSchedule(deps, tenant, request.cron);
  try {
    const description = await callTemporal(deps.temporal, async () => {
      const handle = await deps.temporal.schedule.create(scheduleOptions(request, deps.taskQueue));
      return handle.describe();
    });
    const location = `/v1/clusters/${cluster}/schedules/${request.name}`;
    return c.json(viewOfSchedule({ tenant, cluster }, description), 201, { Location: location });
  } catch (error) {
    if (error instanceof ScheduleAlreadyRunning) {
      throw new FleetError('ScheduleExists', `Cluster "${cluster}" has a schedule "${request.name}" already.`);
    }
    const refused = argumentProblem(error);
    if (refused === undefined) throw error;
    const detail = `Temporal does not take this schedule: ${shown(refused, 200)}`;
    throw invalidRequest([{ pointer: '#', detail }], { wellFormed: true });
  }
}

async function list({ temporal }: ApiDeps, ref: { tenant: string; cluster: string }) {
  const found = [];
  for await (const summary of temporal.schedule.list({ query: scheduleQuery(ref) })) {
    if (summary.scheduleId.startsWith(schedulePrefix(ref))) found.push(viewOfSchedule(ref, summary));
    if (found.length === MAX_LISTED) break;
  }
  return found;
}

/** The tenant is part of the schedule's id, so no other tenant's can be reached. */
async function onSchedule(
  c: ApiContext,
  { temporal }: ApiDeps,
  use: (handle: ScheduleHandle, ref: { tenant: string; cluster: string }) => Promise<Response>,
): Promise<Response> {
  const ref = { tenant: c.get('tenant'), cluster: clusterParam(c) };
  const name = c.req.param('schedule') ?? '';
  try {
    if (!isScheduleName(name)) throw scheduleNotFound(ref.cluster, name);
    const handle = temporal.schedule.getHandle(scheduleIdOf(ref, name));
    return await callTemporal(temporal, () => use(handle, ref));
  } catch (error) {
    if (error instanceof ScheduleNotFoundError) throw scheduleNotFound(ref.cluster, name);
    throw error;
  }
}

function scheduleNotFound(cluster: string, name: string): FleetError {
  return new FleetError(
    'ScheduleNotFound',
    `Cluster "${cluster}" has no schedule "${shown(name, ANSWERS.pathLength)}".`,
  );
}
