/** `/v1/clusters/{cluster}/…`: suspend, resume, rotate the API key, take a deletion back. */
import { z } from '@hono/zod-openapi';
import { FleetError } from '../../src/domain/errors.ts';
import {
  parseResumeInput,
  parseRotateCertificatesInput,
  parseRotateInput,
  parseSuspendInput,
} from '../../src/domain/input.ts';
import { addRoute, type Api, type ApiContext, type ApiDeps } from '../context.ts';
import { readOperation } from '../read-operation.ts';
import { clusterParam, readBody, type BodyRule } from '../request.ts';
import { NoBody, ResumeBody, RotateBody, RotateCertificatesBody } from '../schemas.ts';
import { accepted, startOperation } from '../start-operation.ts';
import { callTemporal } from '../temporal.ts';
import { existingCluster } from './clusters.ts';
import { body, param, problems, started, startHeaders } from './documentation.ts';

const request = { params: z.object({ cluster: param.cluster }), headers: startHeaders };

export function lifeRoutes(api: Api, deps: ApiDeps): void {
  const change = <T extends object>(
    kind: 'suspend' | 'resume' | 'rotate-key' | 'rotate-certificates',
    summary: string,
    verb: string,
    rule: Pick<BodyRule<T>, 'schema' | 'parse'>,
  ): void =>
    addRoute(
      api,
      {
        method: 'post',
        path: `/v1/clusters/{cluster}/${kind}`,
        tags: ['Clusters'],
        summary,
        request: { ...request, body: body(rule.schema, false) },
        responses: { ...started(), ...problems('InvalidInput', 'ClusterNotFound', 'IdempotencyKeyReused') },
      },
      async (c) => {
        const [tenant, cluster] = [c.get('tenant'), clusterParam(c)];
        const input = await readBody(c, { ...rule, fixed: { tenant, cluster } });
        const check = async () => void (await existingCluster(c, deps));
        const operation = { kind, cluster, input, summary: `${verb} ${tenant}/${cluster}`, check };
        return accepted(c, await startOperation(c, deps, operation));
      },
    );
  change('suspend', 'Stop the pods, keep the data', 'Suspend', { schema: NoBody, parse: parseSuspendInput });
  change('resume', 'Start a suspended cluster', 'Resume', { schema: ResumeBody, parse: parseResumeInput });
  change('rotate-key', 'Give the cluster a new API key, without a failed request', 'Rotate the API key of', {
    schema: RotateBody,
    parse: parseRotateInput,
  });
  change('rotate-certificates', 'Renew the certificates, without a failed request', 'Rotate the certificates of', {
    schema: RotateCertificatesBody,
    parse: parseRotateCertificatesInput,
  });
  addRoute(
    api,
    {
      method: 'post',
      path: '/v1/clusters/{cluster}/undelete',
      tags: ['Clusters'],
      summary: 'Take a deletion back while its undoHours run',
      request: { params: request.params },
      responses: { ...started(), ...problems('ClusterNotFound', 'UndeleteRefused') },
    },
    (c) => undelete(c, deps),
  );
}

async function undelete(c: ApiContext, deps: ApiDeps): Promise<Response> {
  const [tenant, cluster] = [c.get('tenant'), clusterParam(c)];
  const { phase, delete_after: until } = await existingCluster(c, deps);
  if (phase !== 'DELETING' || until === null || until.getTime() < Date.now()) {
    const detail =
      phase === 'DELETING' ? 'is being removed and can no longer be brought back' : `is ${phase} and not being deleted`;
    throw new FleetError('UndeleteRefused', `Cluster "${cluster}" ${detail}.`);
  }
  const holder = await deps.catalog.run('find the deletion', (db) =>
    db
      .selectFrom('leases')
      .innerJoin('operations', 'operations.id', 'leases.holder')
      .select('leases.holder')
      .where('leases.tenant', '=', tenant)
      .where('leases.cluster', '=', cluster)
      .where('operations.kind', '=', 'delete')
      .executeTakeFirst(),
  );
  if (holder === undefined) throw new FleetError('UndeleteRefused', `No operation deletes cluster "${cluster}".`);
  await callTemporal(deps.temporal, () => deps.temporal.workflow.getHandle(holder.holder).signal('undelete'));
  return accepted(c, await readOperation(deps, tenant, holder.holder, { progress: false }));
}
