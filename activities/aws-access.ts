/** Who may do what: IAM roles of the cluster, its machines, its volumes and its backups, and who may enter. */
import type { Aws } from '../src/clients/aws/clients.ts';
import { ifThere, onceSeen, unlessThere } from '../src/clients/aws/answers.ts';
import { fromTagList, tagList } from '../src/clients/aws/inventory.ts';
import { CNI, enforcementOf, type CniFacts } from '../src/domain/aws-addons.ts';
import { bucketNameOf, carries, eksNameOf, IAM_PATH, roleNameOf, type Tags } from '../src/domain/aws-names.ts';
import type { AwsPlan } from '../src/domain/aws-plan.ts';
import {
  adminAccess,
  backupPod,
  backupPolicy,
  MANAGED_POLICIES,
  podTrust,
  serviceTrust,
  type PolicyDocument,
} from '../src/domain/aws-policies.ts';
import { withEnforcement, type Enforcement } from '../src/domain/conditions.ts';
import { FleetError } from '../src/domain/errors.ts';
import type { ClusterRef } from '../src/domain/naming.ts';
import { Ledger } from './aws-ledger.ts';
import { removing, type Removal } from './aws-removal.ts';
import type { ActivityDeps } from './deps.ts';

const ROLES = ['cluster', 'node', 'volumes', 'backup'] as const;
type RoleName = (typeof ROLES)[number];

/** ARNs of the roles; empty where none is needed or made. */
export type RoleArns = Readonly<Record<RoleName, string>>;

export function createAwsAccessActivities(deps: ActivityDeps) {
  return {
    /** Have the roles, each with its policies and within the permissions boundary, if one is configured. */
    async ensureRoles({ plan, ...ref }: ClusterRef & { plan: AwsPlan }): Promise<RoleArns> {
      const { spec, partition, account } = plan;
      if (!spec.create.access) {
        return { cluster: spec.roles.cluster ?? '', node: spec.roles.node ?? '', volumes: '', backup: '' };
      }
      const { aws, ledger } = await open(ref, plan.region);
      for (const role of ROLES) await ensureRole(aws, ledger, ref, plan, role);
      const arn = (role: RoleName) =>
        `arn:${partition}:iam::${account}:role${IAM_PATH}${roleNameOf(ref, plan.region, role)}`;
      return { cluster: arn('cluster'), node: arn('node'), volumes: arn('volumes'), backup: arn('backup') };
    },

    /**
     * Let administrators in, bind the backup role to its service account, and write down whether network policies are
     * enforced.
     *
     * @throws FleetError `ResourceNotOurs` when somebody else gave an administrator an access entry: it stays as it is
     */
    async ensureClusterAccess(
      input: ClusterRef & { plan: AwsPlan; eksCluster: string; roles: RoleArns },
    ): Promise<{ principals: number }> {
      const { plan, eksCluster, roles, ...ref } = input;
      const { aws, ledger } = await open(ref, plan.region);
      for (const principalArn of plan.spec.adminPrincipalArns) {
        const slot = `access-entry/${principalArn}`;
        const { token: clientRequestToken } = await ledger.intend(slot, 'access-entry');
        await letIn(aws, {
          ...{ clusterName: eksCluster, principalArn, clientRequestToken },
          ...{ tags: ledger.tags(slot), ours: ledger.scope(false) },
          policy: adminAccess(ref, plan.partition, plan.spec.create.controlPlane),
        });
        await ledger.record(slot, principalArn);
      }
      if (roles.backup !== '') await ensurePodIdentity(aws, ledger, ref, eksCluster, roles.backup);
      await recordEnforcement(deps, ref, enforcementOf(eksCluster, await cniOf(aws, eksCluster)));
      return { principals: plan.spec.adminPrincipalArns.length };
    },

    /**
     * Remove the roles, and what an EKS cluster of somebody else's was given. What a cluster of ours was given goes
     * with it.
     *
     * @param input `onlyOwn`: only what this very operation made, or the `operation` that is named
     */
    async deleteAccess(
      input: ClusterRef & { region: string; eksCluster?: string; onlyOwn?: boolean; operation?: string },
    ): Promise<void> {
      const { aws, ledger } = await open(input, input.region, input.operation);
      const onlyOwn = input.onlyOwn === true;
      const scope = ledger.scope(onlyOwn);
      // What goes with its EKS cluster need not be looked for when that has gone.
      const inCluster = ['access-entry', 'pod-identity'];
      const kinds = ['iam-role', ...inCluster];
      await removing(ledger, kinds, onlyOwn, async (removal) => {
        const { left, there } = await leaveCluster(
          aws,
          ledger,
          scope,
          input,
          input.eksCluster ?? eksNameOf(input),
          removal,
        );
        for (const role of ROLES) {
          const name = roleNameOf(input, input.region, role);
          const tags = await roleTags(aws, name);
          if (tags === undefined || !carries(tags, scope)) continue;
          await ledger.seen([`role/${role}`]);
          const before = removal.refusals.length;
          await deleteRole(aws, name, removal);
          if (removal.refusals.length > before) left.push(`iam-role ${name}`);
        }
        if (!there) inCluster.length = 0;
        return left;
      });
      const pending = await ledger.unsettled(['iam-role', ...inCluster]);
      if (pending !== undefined) {
        throw new FleetError('InfrastructureNotReady', `"${pending.slot}" may still appear; looking for it.`);
      }
      await ledger.forgetKinds(kinds, onlyOwn);
    },
  };

  async function open(ref: ClusterRef, region: string, of?: string) {
    return { aws: await deps.aws.of(region), ledger: await Ledger.open(deps, ref, region, of) };
  }

  async function ensureRole(aws: Aws, ledger: Ledger, ref: ClusterRef, plan: AwsPlan, role: RoleName): Promise<void> {
    const RoleName = roleNameOf(ref, plan.region, role);
    const boundary = deps.config.FLEET_AWS_PERMISSIONS_BOUNDARY;
    await ledger.obtainNamed({
      slot: `role/${role}`,
      kind: 'iam-role',
      name: RoleName,
      read: () => roleTags(aws, RoleName),
      create: (tags) =>
        aws.iam.createRole({
          RoleName,
          Path: IAM_PATH,
          AssumeRolePolicyDocument: JSON.stringify(trustOf(ref, plan, role)),
          Description: `Qdrant cluster ${ref.tenant}/${ref.cluster}, ${role}`,
          ...(boundary !== undefined && { PermissionsBoundary: boundary }),
          Tags: tagList(tags),
        }),
    });
    for (const policy of MANAGED_POLICIES[role]) {
      const PolicyArn = `arn:${plan.partition}:iam::aws:policy/${policy}`;
      await onceSeen('AWS', `"${RoleName}"`, () => aws.iam.attachRolePolicy({ RoleName, PolicyArn }));
    }
    if (role === 'backup') {
      const { FLEET_BACKUP_BUCKET, FLEET_BACKUP_PREFIX } = deps.config;
      const own = plan.spec.create.backupBucket;
      const bucket = own ? bucketNameOf(ref, plan.region, plan.account) : FLEET_BACKUP_BUCKET;
      const policy = backupPolicy(ref, plan, bucket, FLEET_BACKUP_PREFIX);
      const PolicyDocument = JSON.stringify(policy);
      await onceSeen('AWS', `"${RoleName}"`, () =>
        aws.iam.putRolePolicy({ RoleName, PolicyName: 'backups', PolicyDocument }),
      );
    }
  }
}

/** An administrator to let into an EKS cluster. */
interface Admission {
  readonly clusterName: string;
  readonly principalArn: string;
  readonly clientRequestToken: string;
  readonly tags: Tags;
  /** Tags of every entry that was made for this cluster. */
  readonly ours: Tags;
  readonly policy: ReturnType<typeof adminAccess>;
}

/**
 * Have an entry and a policy on it. On an entry of somebody else's the policy would outlive the cluster, and give rights to
 * whom nobody here let in.
 *
 * @throws FleetError `ResourceNotOurs` when there is such an entry
 */
export async function letIn({ eks }: Pick<Aws, 'eks'>, admission: Admission): Promise<void> {
  const { clusterName, principalArn, clientRequestToken, tags, ours, policy } = admission;
  const entry = { clusterName, principalArn };
  await unlessThere(() => eks.createAccessEntry({ ...entry, clientRequestToken, tags: { ...tags } }));
  const { accessEntry } = await onceSeen('AWS', `"${principalArn}"`, () => eks.describeAccessEntry(entry));
  if (!carries(accessEntry?.tags ?? {}, ours)) {
    throw new FleetError(
      'ResourceNotOurs',
      `The access entry of "${principalArn}" in EKS cluster "${clusterName}" was not made for this cluster, and stays as it is. Leave the principal out of "aws.adminPrincipalArns", or remove the entry.`,
    );
  }
  await onceSeen('AWS', `"${principalArn}"`, () => eks.associateAccessPolicy({ ...entry, ...policy }));
}

/** The add-on that enforces network policies, where there is one that may be looked at. */
async function cniOf({ eks }: Aws, clusterName: string): Promise<CniFacts | undefined> {
  try {
    return (await ifThere(() => eks.describeAddon({ clusterName, addonName: CNI })))?.addon;
  } catch (error) {
    // Not in the policy for an EKS cluster of somebody else's.
    if (FleetError.is(error, 'CloudDenied')) return undefined;
    throw error;
  }
}

async function recordEnforcement({ catalog }: ActivityDeps, ref: ClusterRef, seen: Enforcement): Promise<void> {
  await catalog.run('record whether policies are enforced', (db) =>
    db.transaction().execute(async (tx) => {
      const row = await tx
        .selectFrom('clusters')
        .select('conditions')
        .where('tenant', '=', ref.tenant)
        .where('cluster', '=', ref.cluster)
        .forUpdate()
        .executeTakeFirst();
      const conditions = withEnforcement(row?.conditions ?? [], seen, new Date().toISOString());
      await tx
        .updateTable('clusters')
        .set({ conditions: JSON.stringify(conditions) })
        .where('tenant', '=', ref.tenant)
        .where('cluster', '=', ref.cluster)
        .execute();
    }),
  );
}

function trustOf(ref: ClusterRef, plan: AwsPlan, role: RoleName): PolicyDocument {
  switch (role) {
    case 'cluster':
      return serviceTrust('eks.amazonaws.com', plan);
    case 'node':
      return serviceTrust('ec2.amazonaws.com', plan);
    case 'volumes':
      return podTrust(ref, plan, { namespace: 'kube-system', serviceAccount: 'ebs-csi-controller-sa' });
    default:
      return podTrust(ref, plan, backupPod(ref));
  }
}

async function roleTags({ iam }: Aws, RoleName: string): Promise<Tags | undefined> {
  const found = await ifThere(() => iam.getRole({ RoleName }));
  return found === undefined ? undefined : fromTagList(found.Role?.Tags);
}

async function deleteRole({ iam }: Aws, RoleName: string, removal: Removal): Promise<void> {
  const attempt = (send: () => Promise<unknown>) => removal.attempt(`Role ${RoleName}`, send);
  const before = removal.refusals.length;
  await attempt(async () => {
    const { AttachedPolicies = [] } = await iam.listAttachedRolePolicies({ RoleName });
    for (const { PolicyArn } of AttachedPolicies) await attempt(() => iam.detachRolePolicy({ RoleName, PolicyArn }));
    const { PolicyNames = [] } = await iam.listRolePolicies({ RoleName });
    for (const PolicyName of PolicyNames) await attempt(() => iam.deleteRolePolicy({ RoleName, PolicyName }));
    if (removal.refusals.length === before) await iam.deleteRole({ RoleName });
  });
  const [blocker] = removal.blockers;
  if (blocker !== undefined) throw new FleetError('InfrastructureBlocked', blocker);
}

async function ensurePodIdentity(aws: Aws, ledger: Ledger, ref: ClusterRef, clusterName: string, roleArn: string) {
  const pod = backupPod(ref);
  const slot = 'pod-identity/backup';
  await ledger.obtain({
    slot,
    kind: 'pod-identity',
    hasToken: true,
    find: async (tags) => (await associations(aws, clusterName, ref, tags)).map(({ associationId }) => associationId),
    create: async (tags, clientRequestToken) => {
      const request = { clusterName, ...pod, roleArn, clientRequestToken, tags: { ...tags } };
      const { association } = await ledger.settling(() => aws.eks.createPodIdentityAssociation(request));
      return association?.associationId ?? '';
    },
    remove: (associationId) => aws.eks.deletePodIdentityAssociation({ clusterName, associationId }),
  });
}

/** The associations of the backup role's service account that carry the tags. */
async function associations({ eks }: Aws, clusterName: string, ref: ClusterRef, tags: Tags) {
  const listed = await eks.listPodIdentityAssociations({ clusterName, ...backupPod(ref) });
  const found: { associationId: string }[] = [];
  for (const { associationId = '' } of listed.associations ?? []) {
    await ifThere(async () => {
      const { association } = await eks.describePodIdentityAssociation({ clusterName, associationId });
      if (carries(association?.tags ?? {}, tags)) found.push({ associationId });
    });
  }
  return found;
}

/** Take back what the EKS cluster was given, if the cluster is there. @returns what AWS refused to remove */
async function leaveCluster(
  aws: Aws,
  ledger: Ledger,
  scope: Tags,
  ref: ClusterRef,
  clusterName: string,
  removal: Removal,
): Promise<{ left: string[]; there: boolean }> {
  const { eks } = aws;
  const left: string[] = [];
  const attempt = async (what: string, send: () => Promise<unknown>) => {
    const before = removal.refusals.length;
    await removal.attempt(what, send);
    if (removal.refusals.length > before) left.push(what);
  };
  const there = (await ifThere(() => eks.describeCluster({ name: clusterName }))) !== undefined;
  if (!there) return { left, there };
  const bound = await associations(aws, clusterName, ref, scope);
  if (bound.length > 0) await ledger.seen(['pod-identity/backup']);
  for (const { associationId } of bound) {
    await attempt(`pod-identity ${clusterName}/${associationId}`, () =>
      eks.deletePodIdentityAssociation({ clusterName, associationId }),
    );
  }
  const { accessEntries = [] } = await eks.listAccessEntries({ clusterName });
  for (const principalArn of accessEntries) {
    await attempt(`access-entry ${clusterName}/${principalArn}`, async () => {
      const { accessEntry } = await eks.describeAccessEntry({ clusterName, principalArn });
      if (carries(accessEntry?.tags ?? {}, scope)) await eks.deleteAccessEntry({ clusterName, principalArn });
    });
  }
  return { left, there };
}
