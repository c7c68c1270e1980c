/** What a request names on AWS and exists already: whose it is, by the tags of fleets. */
import type { Aws } from '../src/clients/aws/clients.ts';
import { ifThere } from '../src/clients/aws/answers.ts';
import { fromTagList } from '../src/clients/aws/inventory.ts';
import { isOfAnother, type Owner, type Tags } from '../src/domain/aws-names.ts';
import type { AwsSpec } from '../src/domain/aws.ts';
import { namedOnAws, notAllowed, type Named } from '../src/domain/tenant-policy.ts';

type Cluster = Omit<Owner, 'operation'>;

/**
 * Refuse what carries the tags of another cluster, tenant or installation, although the operator allows its name. What
 * carries no tags of a fleet is the operator's own, and what does not exist is told by whoever uses it. KMS keys are not
 * looked at: no fleet makes any.
 *
 * @throws FleetError `NotAllowed`, in the words in which a name is refused that nobody allows
 */
export async function refuseForeign(aws: Aws, account: string, owner: Cluster, spec: AwsSpec): Promise<void> {
  const named = namedOnAws(spec);
  const roles = [...named.roleArns, ...named.adminPrincipalArns].filter(({ value }) => roleIn(account, value) !== '');
  const foreign = [
    ...(await foreignOf(named.eksClusters, owner, (names) => clusterTags(aws, names))),
    ...(await foreignOf(named.vpcIds, owner, (ids) => vpcTags(aws, ids))),
    ...(await foreignOf(named.subnetIds, owner, (ids) => subnetTags(aws, ids))),
    ...(await foreignOf(roles, owner, (arns) => roleTags(aws, account, arns))),
  ];
  if (foreign.length > 0) throw notAllowed(owner.tenant, foreign);
}

/** Those of a list whose tags make them another's. */
async function foreignOf(
  named: readonly Named[],
  owner: Cluster,
  tagsOf: (values: string[]) => Promise<ReadonlyMap<string, Tags>>,
): Promise<Named[]> {
  if (named.length === 0) return [];
  const tags = await tagsOf([...new Set(named.map(({ value }) => value))]);
  return named.filter(({ value }) => isOfAnother(tags.get(value) ?? {}, owner));
}

async function clusterTags({ eks }: Aws, names: readonly string[]): Promise<Map<string, Tags>> {
  const tags = new Map<string, Tags>();
  for (const name of names) {
    const found = await ifThere(() => eks.describeCluster({ name }));
    tags.set(name, found?.cluster?.tags ?? {});
  }
  return tags;
}

async function vpcTags({ ec2 }: Aws, ids: string[]): Promise<Map<string, Tags>> {
  const { Vpcs = [] } = (await ifThere(() => ec2.describeVpcs({ VpcIds: ids }))) ?? {};
  return new Map(Vpcs.map(({ VpcId = '', Tags: list }) => [VpcId, fromTagList(list)]));
}

async function subnetTags({ ec2 }: Aws, ids: string[]): Promise<Map<string, Tags>> {
  const { Subnets = [] } = (await ifThere(() => ec2.describeSubnets({ SubnetIds: ids }))) ?? {};
  return new Map(Subnets.map(({ SubnetId = '', Tags: list }) => [SubnetId, fromTagList(list)]));
}

async function roleTags({ iam }: Aws, account: string, arns: readonly string[]): Promise<Map<string, Tags>> {
  const tags = new Map<string, Tags>();
  for (const arn of arns) {
    const found = await ifThere(() => iam.getRole({ RoleName: roleIn(account, arn) }));
    tags.set(arn, fromTagList(found?.Role?.Tags));
  }
  return tags;
}

/** The name of a role of this account; empty for anything else, which IAM here knows nothing about. */
function roleIn(account: string, arn: string): string {
  const [, owner, path = ''] = /^arn:[a-z-]+:iam::(\d{12}):role\/(.+)$/.exec(arn) ?? [];
  return owner === account ? (path.split('/').at(-1) ?? '') : '';
}
