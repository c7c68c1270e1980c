/** `/v1/operations/{id}`: follow and cancel what was started. An operation is a workflow, under the same id. */
import { z } from '@hono/zod-openapi';
import { WorkflowFailedError, isGrpcCancelledError, isGrpcDeadlineError } from '@temporalio/client';
import { WorkflowNotFoundError } from '@temporalio/common';
import { FORMATS, formatProblem } from '../../src/domain/input/formats.ts';
import { NUMBERS } from '../../src/domain/input/limits.ts';
import { addRoute, type Api, type ApiContext, type ApiDeps } from '../context.ts';
import type { LongPolls } from '../long-polls.ts';
import { quotasOf } from '../quota.ts';
import { identifyOperation, operationNotFound, readOperation } from '../read-operation.ts';
import { readQuery } from '../request.ts';
import { Operation } from '../schemas.ts';
import { accepted } from '../start-operation.ts';
import { callTemporal } from '../temporal.ts';
import { json, param, problems, started } from './documentation.ts';

const MAX_WAIT_SECONDS = NUMBERS.waitSeconds.max;

const WaitQuery = z.strictObject({
  wait: z
    .string()
    .regex(/^[0-9]{1,4}s?$/, 'must be seconds, such as "30s"')
    .optional()
    .openapi({
      description: `Answer when the operation is done, at the latest after this; at most ${MAX_WAIT_SECONDS}s.`,
    }),
});

export function operationRoutes(api: Api, deps: ApiDeps, longPolls: LongPolls): void {
  addRoute(
    api,
    {
      method: 'get',
      path: '/v1/operations/{operation}',
      tags: ['Operations'],
      summary: 'Look at an operation',
      request: { params: z.object({ operation: param.operation }), query: WaitQuery },
      responses: {
        200: json(Operation, 'The operation'),
        ...problems('InvalidInput', 'OperationNotFound', 'QuotaReached'),
      },
    },
    async (c) => {
      const id = operationParam(c);
      const { wait } = readQuery(c, WaitQuery);
      const tenant = c.get('tenant');
      if (wait !== undefined) {
        const seconds = Math.min(Number.parseInt(wait, 10), MAX_WAIT_SECONDS);
        await longPolls.hold(tenant, await quotasOf(deps, tenant), () => waitForEnd(c, deps, id, seconds));
      }
      return c.json(await readOperation(deps, tenant, id));
    },
  );
  addRoute(
    api,
    {
      method: 'post',
      path: '/v1/operations/{operation}/cancel',
      tags: ['Operations'],
      summary: 'Ask an operation to stop and to remove what it made; does nothing once it is done',
      request: { params: z.object({ operation: param.operation }) },
      responses: { ...started(), ...problems('OperationNotFound') },
    },
    async (c) => {
      const [id, tenant] = [operationParam(c), c.get('tenant')];
      const { running } = await identifyOperation(deps, tenant, id);
      if (running) await cancel(deps, id);
      return accepted(c, await readOperation(deps, tenant, id, { progress: false }));
    },
  );
}

/** Long poll, ended early when the client goes away. How the operation ended is read afterwards. */
async function waitForEnd(c: ApiContext, deps: ApiDeps, id: string, seconds: number): Promise<void> {
  const { running } = await identifyOperation(deps, c.get('tenant'), id);
  if (!running) return;
  const { temporal } = deps;
  const result = () => temporal.workflow.getHandle(id).result();
  try {
    await temporal.withAbortSignal(c.req.raw.signal, () => temporal.withDeadline(Date.now() + seconds * 1000, result));
  } catch (error) {
    const ended = error instanceof WorkflowFailedError;
    if (!ended && !isGrpcDeadlineError(error) && !isGrpcCancelledError(error)) {
      deps.logger.debug({ operation: id, err: error }, 'the wait for an operation ended early');
    }
  }
}

async function cancel({ temporal }: ApiDeps, id: string): Promise<void> {
  try {
    await callTemporal(temporal, () => temporal.workflow.getHandle(id).cancel());
  } catch (error) {
    // It ended in between.
    if (!(error instanceof WorkflowNotFoundError)) throw error;
  }
}

/** The id of the path. What cannot be one of ours is not asked for anywhere. */
function operationParam(c: ApiContext): string {
  const id = c.req.param('operation') ?? '';
  if (formatProblem(FORMATS.operation, id) !== undefined) throw operationNotFound(id);
  return id;
}
