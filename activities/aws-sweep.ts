/** What an account has of ours, and what of it belongs to nobody. */
import type { Aws } from '../src/clients/aws/clients.ts';
import { ifThere } from '../src/clients/aws/answers.ts';
import { EC2_KINDS, findEc2, fromTagList, paged } from '../src/clients/aws/inventory.ts';
import { AWS_TAGS, carries, clusterTags, IAM_PATH, operationTag, type Tags } from '../src/domain/aws-names.ts';
import { findOrphans, type ClusterFacts, type Orphans, type TaggedResource } from '../src/domain/aws-sweep.ts';
import type { ActivityDeps } from './deps.ts';

export function createAwsSweepActivities(deps: ActivityDeps) {
  return {
    /**
     * List what carries this installation's and this tenant's tags in a region, and tell what is an orphan. Changes
     * nothing. Buckets are left out: they may hold backups.
     */
    async surveyInfrastructure(input: {
      tenant: string;
      region: string;
      cluster?: string;
    }): Promise<{ found: number; orphans: Orphans[] }> {
      const { tenant, region, cluster } = input;
      const installation = await deps.catalog.installation();
      const scope: Record<string, string> = { ...clusterTags({ installation, tenant, cluster: cluster ?? '' }) };
      if (cluster === undefined) delete scope[AWS_TAGS.cluster];
      const resources = await listOurs(await deps.aws.of(region), scope);
      const clusters = await clusterFacts(tenant);
      const over = await endedOperations(tenant, resources);
      return { found: resources.length, orphans: findOrphans(resources, clusters, (operation) => over.has(operation)) };
    },
  };

  async function clusterFacts(tenant: string): Promise<Map<string, ClusterFacts>> {
    const rows = await deps.catalog.run('read the clusters', (db) =>
      db.selectFrom('clusters').select(['cluster', 'created_by']).where('tenant', '=', tenant).execute(),
    );
    const facts = rows.map(async ({ cluster, created_by: createdBy }) => {
      const ledger = await deps.catalog.resources({ tenant, cluster });
      const ids = new Set(ledger.flatMap(({ resource_id: id }) => (id === null ? [] : [id])));
      return [cluster, { createdBy: operationTag(createdBy), ledger: ids }] as const;
    });
    return new Map(await Promise.all(facts));
  }

  /** Operation tags of the resources whose operation Temporal no longer runs. */
  async function endedOperations(tenant: string, resources: readonly TaggedResource[]): Promise<Set<string>> {
    const wanted = new Set(resources.map(({ tags }) => tags[AWS_TAGS.operation] ?? ''));
    const rows = await deps.catalog.run('read the operations', (db) =>
      db.selectFrom('operations').select(['id', 'run_id']).where('tenant', '=', tenant).execute(),
    );
    for (const { id, run_id: runId } of rows) {
      const tag = operationTag(id);
      if (wanted.has(tag) && (await deps.temporal.isOpen(id, runId))) wanted.delete(tag);
    }
    return wanted;
  }
}

async function listOurs(aws: Aws, scope: Tags): Promise<TaggedResource[]> {
  const all: TaggedResource[] = [];
  for (const kind of EC2_KINDS) all.push(...(await findEc2(aws, kind, scope)));
  all.push(...(await eksClusters(aws)), ...(await roles(aws)));
  return all.filter(({ tags }) => carries(tags, scope));
}

async function eksClusters({ eks }: Aws): Promise<TaggedResource[]> {
  const names = await paged(async ({ NextToken: nextToken }) => {
    const { clusters = [], nextToken: next } = await eks.listClusters({
      ...(nextToken !== undefined && { nextToken }),
    });
    return [clusters, next];
  });
  return describeAll(names, async (id) => {
    const { cluster } = await eks.describeCluster({ name: id });
    return { kind: 'eks-cluster', id, tags: cluster?.tags ?? {} };
  });
}

async function roles({ iam }: Aws): Promise<TaggedResource[]> {
  const names = await paged(async ({ NextToken: Marker }) => {
    const answer = await iam.listRoles({ PathPrefix: IAM_PATH, ...(Marker !== undefined && { Marker }) });
    return [(answer.Roles ?? []).map(({ RoleName = '' }) => RoleName), answer.Marker];
  });
  return describeAll(names, async (id) => {
    const { Role } = await iam.getRole({ RoleName: id });
    return { kind: 'iam-role', id, tags: fromTagList(Role?.Tags) };
  });
}

/** One by one, without those that went meanwhile. */
async function describeAll(
  names: readonly string[],
  describe: (name: string) => Promise<TaggedResource>,
): Promise<TaggedResource[]> {
  const all: TaggedResource[] = [];
  for (const name of names) {
    const found = await ifThere(() => describe(name));
    if (found !== undefined) all.push(found);
  }
  return all;
}
