/** `/v1/clusters`: make, list, look at and delete clusters. */
import type { ClusterRow } from '../../src/clients/catalog.ts';
import { clusterExists } from '../../src/domain/abandoned.ts';
import { resolveSpec } from '../../src/domain/cluster.ts';
import { asSeen } from '../../src/domain/conditions.ts';
import {
  parseDeleteInput,
  parseProvisionInput,
  parseRetentionInput,
  parseUpdateInput,
} from '../../src/domain/input.ts';
import { outputsOf } from '../../src/domain/kubernetes-objects.ts';
import { namespaceOf } from '../../src/domain/naming.ts';
import { requireAllowed, requireChangeAllowed } from '../../src/domain/tenant-policy.ts';
import { publicFailure, withoutAddresses } from '../../src/domain/public-failure.ts';
import { addRoute, type Api, type ApiContext, type ApiDeps } from '../context.ts';
import { requireCluster } from '../quota.ts';
import { clusterNotFound, clusterParam, isClusterName, pageAfter, pageOf, readBody, readQuery } from '../request.ts';
import { Cluster, DeleteBody, PageQuery, ProvisionBody, RetentionBody, UpdateBody } from '../schemas.ts';
import { accepted, startOperation } from '../start-operation.ts';
import { body, json, pageOfSchema, param, problems, started, startHeaders } from './documentation.ts';
import { z } from '@hono/zod-openapi';

const TAGS = ['Clusters'];

export function clusterRoutes(api: Api, deps: ApiDeps): void {
  addRoute(
    api,
    {
      method: 'post',
      path: '/v1/clusters',
      tags: TAGS,
      summary: 'Make a cluster',
      request: { headers: startHeaders, body: body(ProvisionBody) },
      responses: {
        ...started({ cluster: Cluster }),
        ...problems('InvalidInput', 'NotAllowed', 'ClusterExists', 'IdempotencyKeyReused'),
      },
    },
    (c) => provision(c, deps),
  );
  addRoute(
    api,
    {
      method: 'get',
      path: '/v1/clusters',
      tags: TAGS,
      summary: 'List clusters by name',
      request: { query: PageQuery },
      responses: { 200: json(pageOfSchema(Cluster), 'One page'), ...problems('InvalidInput') },
    },
    async (c) => {
      const { size, page } = pageAfter(readQuery(c, PageQuery), isClusterName);
      const rows = await deps.catalog.clusters(c.get('tenant'), page);
      return c.json(
        pageOf(
          rows,
          size,
          (row) => row.cluster,
          (row) => viewOfCluster(row, deps),
        ),
      );
    },
  );
  addRoute(
    api,
    {
      method: 'get',
      path: '/v1/clusters/{cluster}',
      tags: TAGS,
      summary: 'Look at a cluster',
      request: { params: z.object({ cluster: param.cluster }) },
      responses: { 200: json(Cluster, 'The cluster'), ...problems('ClusterNotFound') },
    },
    async (c) => c.json(viewOfCluster(await existingCluster(c, deps), deps)),
  );
  addRoute(
    api,
    {
      method: 'patch',
      path: '/v1/clusters/{cluster}',
      tags: TAGS,
      summary: 'Change a cluster: nodes, version, volumes, resources, configuration',
      request: { params: z.object({ cluster: param.cluster }), headers: startHeaders, body: body(UpdateBody, false) },
      responses: {
        ...started(),
        ...problems('InvalidInput', 'NotAllowed', 'ClusterNotFound', 'IdempotencyKeyReused'),
      },
    },
    async (c) => {
      const [tenant, cluster] = [c.get('tenant'), clusterParam(c)];
      const input = await readBody(c, { schema: UpdateBody, fixed: { tenant, cluster }, parse: parseUpdateInput });
      const summary = `${input.dryRun === true ? 'Preview an update of' : 'Update'} ${tenant}/${cluster}`;
      const check = async () => {
        const { spec } = await existingCluster(c, deps);
        if (deps.policy !== undefined) requireChangeAllowed(deps.policy, tenant, spec, input);
      };
      return accepted(c, await startOperation(c, deps, { kind: 'update', cluster, input, summary, check }));
    },
  );
  addRoute(
    api,
    {
      method: 'delete',
      path: '/v1/clusters/{cluster}',
      tags: TAGS,
      summary: 'Delete a cluster; its backups stay',
      request: {
        params: z.object({ cluster: param.cluster }),
        headers: startHeaders,
        body: body(DeleteBody, false),
      },
      responses: { ...started(), ...problems('InvalidInput', 'ClusterNotFound', 'IdempotencyKeyReused') },
    },
    async (c) => {
      const [tenant, cluster] = [c.get('tenant'), clusterParam(c)];
      const input = await readBody(c, { schema: DeleteBody, fixed: { tenant, cluster }, parse: parseDeleteInput });
      const summary = `Delete ${tenant}/${cluster}`;
      const check = async () => void (await existingCluster(c, deps));
      return accepted(c, await startOperation(c, deps, { kind: 'delete', cluster, input, summary, check }));
    },
  );
  addRoute(
    api,
    {
      method: 'post',
      path: '/v1/clusters/{cluster}/retention',
      tags: ['Backups'],
      summary: 'Remove the backups that a policy does not keep',
      request: { params: z.object({ cluster: param.cluster }), headers: startHeaders, body: body(RetentionBody) },
      responses: { ...started(), ...problems('InvalidInput', 'ClusterNotFound', 'IdempotencyKeyReused') },
    },
    async (c) => {
      const [tenant, cluster] = [c.get('tenant'), clusterParam(c)];
      const input = await readBody(c, {
        schema: RetentionBody,
        fixed: { tenant, cluster },
        parse: parseRetentionInput,
      });
      const summary = `${input.dryRun === true ? 'Preview retention' : 'Apply retention'} of ${tenant}/${cluster}`;
      const check = () => requireClusterOrBackups(c, deps);
      return accepted(c, await startOperation(c, deps, { kind: 'retention', cluster, input, summary, check }));
    },
  );
}

async function provision(c: ApiContext, deps: ApiDeps): Promise<Response> {
  const tenant = c.get('tenant');
  const input = await readBody(c, {
    schema: ProvisionBody,
    fixed: { tenant },
    renamed: { name: 'cluster' },
    parse: parseProvisionInput,
  });
  const { cluster } = input;
  const spec = resolveSpec({ ...input, collections: [] }, {});
  const { nodes } = spec;
  const check = async () => {
    if (deps.policy !== undefined) requireAllowed(deps.policy, tenant, input);
    const row = await deps.catalog.cluster({ tenant, cluster });
    if (row !== undefined) throw clusterExists(row);
    await requireCluster(deps, { tenant, cluster }, spec);
  };
  const summary = `Provision ${tenant}/${cluster}: ${nodes} ${nodes === 1 ? 'node' : 'nodes'}`;
  const operation = await startOperation(c, deps, { kind: 'provision', cluster, input, summary, check });
  const row = await deps.catalog.cluster({ tenant, cluster });
  const fresh = { name: cluster, phase: 'CREATING', namespace: namespaceOf({ tenant, cluster }) };
  return accepted(c, operation, { cluster: row === undefined ? fresh : viewOfCluster(row, deps) });
}

/** @throws FleetError `ClusterNotFound` */
export async function existingCluster(c: ApiContext, deps: ApiDeps): Promise<ClusterRow> {
  const cluster = clusterParam(c);
  const row = await deps.catalog.cluster({ tenant: c.get('tenant'), cluster });
  if (row === undefined) throw clusterNotFound(cluster);
  return row;
}

/**
 * A deleted cluster still counts as long as it has backups.
 *
 * @throws FleetError `ClusterNotFound`
 */
export async function requireClusterOrBackups(c: ApiContext, deps: ApiDeps): Promise<void> {
  const ref = { tenant: c.get('tenant'), cluster: clusterParam(c) };
  const [backup] = await deps.catalog.backups(ref, { limit: 1 });
  if (backup === undefined) await existingCluster(c, deps);
}

/** Why the cluster is as it is, without what is for operators only. */
function visibleState({ reason, conditions }: ClusterRow) {
  const failed = conditions.find(({ type, status }) => type === 'Failed' && status === 'True');
  const visible = (message: string) =>
    failed !== undefined && failed.message !== '' && message.startsWith(failed.message)
      ? publicFailure(failed.reason, message, 'the operation that failed').detail
      : withoutAddresses(message);
  return {
    ...(reason !== null && { reason: visible(reason) }),
    conditions: conditions.map((condition) => ({ ...condition, message: visible(condition.message) })),
  };
}

function viewOfCluster(row: ClusterRow, { observeSeconds = 0 }: ApiDeps) {
  const { phase, observed_at: observedAt } = row;
  const { reason, conditions } = visibleState(row);
  return {
    name: row.cluster,
    phase,
    ...(reason !== undefined && { reason }),
    conditions: asSeen({ phase, conditions, observedAt }, new Date(), observeSeconds),
    ...(observedAt !== null && { observedAt: observedAt.toISOString() }),
    ...(row.delete_after !== null && { deleteAfter: row.delete_after.toISOString() }),
    spec: row.spec,
    namespace: row.namespace,
    outputs: outputsOf({ tenant: row.tenant, cluster: row.cluster }, row.spec),
    createdBy: row.created_by,
    createdAt: row.created_at.toISOString(),
    updatedAt: row.updated_at.toISOString(),
  };
}
