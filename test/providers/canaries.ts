/** Resources that differ from a cluster's own by one tag. Whoever removes one of them has not looked. */
import { tagList } from '../../src/clients/aws/inventory.ts';
import type { Aws } from '../../src/clients/aws/clients.ts';
import { AWS_TAGS, eksNameOf, ownerTags, type Owner, type Tags } from '../../src/domain/aws-names.ts';

/** One set of tags for each tag that can differ, each with that one different; `operation` only where it counts. */
function strangersTags(owner: Owner, operationCounts: boolean): Tags[] {
  const own = ownerTags(owner);
  const { managedBy, installation, tenant, cluster, operation } = AWS_TAGS;
  const differing = [managedBy, installation, tenant, cluster, ...(operationCounts ? [operation] : [])];
  const withOther = differing.map((key) => ({ ...own, [key]: `${own[key]}-x` }));
  const without = differing.map((key) => Object.fromEntries(Object.entries(own).filter(([name]) => name !== key)));
  return [...withOther, ...without];
}

/**
 * Put canaries of every kind into the account.
 *
 * @param operationCounts whether another operation's resources are to be left alone too, as by a compensation
 */
export async function releaseCanaries(aws: Aws, owner: Owner, operationCounts: boolean): Promise<number> {
  const { ec2, eks, iam } = aws;
  let count = 0;
  for (const [index, tags] of strangersTags(owner, operationCounts).entries()) {
    const slot = (name: string) => tagList({ ...tags, [AWS_TAGS.slot]: name });
    const spec = (
      kind: 'vpc' | 'subnet' | 'internet-gateway' | 'elastic-ip' | 'route-table' | 'volume',
      name: string,
    ) => ({
      TagSpecifications: [{ ResourceType: kind, Tags: slot(name) }],
    });
    const { Vpc } = await ec2.createVpc({ CidrBlock: '10.9.0.0/16', ...spec('vpc', 'vpc') });
    const VpcId = Vpc?.VpcId;
    const zone = { AvailabilityZone: 'us-east-1a' };
    const { Subnet: tagged } = await ec2.createSubnet({
      VpcId,
      CidrBlock: '10.9.1.0/24',
      ...zone,
      ...spec('subnet', 'subnet/private/us-east-1a'),
    });
    // A cluster needs a second one, in another zone.
    const { Subnet: second } = await ec2.createSubnet({
      VpcId,
      CidrBlock: '10.9.2.0/24',
      AvailabilityZone: 'us-east-1b',
    });
    await ec2.createInternetGateway(spec('internet-gateway', 'internet-gateway'));
    await ec2.allocateAddress({ Domain: 'vpc', ...spec('elastic-ip', 'nat-address/us-east-1a') });
    await ec2.createRouteTable({ VpcId, ...spec('route-table', 'route-table/public') });
    await ec2.createVolume({ Size: 1, ...zone, ...spec('volume', 'data') });
    await ec2.createLaunchTemplate({
      LaunchTemplateName: `canary-${owner.operation}-${index}`,
      LaunchTemplateData: { InstanceType: 'm5.large' },
      TagSpecifications: [{ ResourceType: 'launch-template', Tags: slot('launch-template') }],
    });
    const trust = { Version: '2012-10-17', Statement: [] };
    await iam.createRole({
      RoleName: `canary-${owner.operation}-${index}`,
      Path: '/qdrant-fleet/',
      AssumeRolePolicyDocument: JSON.stringify(trust),
      Tags: tagList(tags),
    });
    await eks.createCluster({
      name: `${eksNameOf(owner)}-${index}`,
      roleArn: 'arn:aws:iam::123456789012:role/canary',
      resourcesVpcConfig: { subnetIds: [tagged?.SubnetId ?? '', second?.SubnetId ?? ''] },
      tags: { ...tags },
    });
    count += 10;
  }
  return count;
}

/**
 * Canaries that stand alone, one of each such kind for each set of tags, and a way to take them back.
 *
 * @returns takes them back
 */
export async function looseCanaries({ ec2, iam }: Aws, sets: readonly Tags[]): Promise<() => Promise<void>> {
  const recalls: (() => Promise<unknown>)[] = [];
  for (const [index, tags] of sets.entries()) {
    const spec = (kind: 'vpc' | 'internet-gateway' | 'elastic-ip' | 'volume' | 'launch-template', slot: string) => ({
      TagSpecifications: [{ ResourceType: kind, Tags: tagList({ ...tags, [AWS_TAGS.slot]: slot }) }],
    });
    const { Vpc } = await ec2.createVpc({ CidrBlock: '10.8.0.0/16', ...spec('vpc', 'vpc') });
    recalls.push(() => ec2.deleteVpc({ VpcId: Vpc?.VpcId }));
    const { InternetGateway } = await ec2.createInternetGateway(spec('internet-gateway', 'internet-gateway'));
    recalls.push(() => ec2.deleteInternetGateway({ InternetGatewayId: InternetGateway?.InternetGatewayId }));
    const { AllocationId } = await ec2.allocateAddress({
      Domain: 'vpc',
      ...spec('elastic-ip', 'nat-address/us-east-1a'),
    });
    recalls.push(() => ec2.releaseAddress({ AllocationId }));
    const { VolumeId } = await ec2.createVolume({
      Size: 1,
      AvailabilityZone: 'us-east-1a',
      ...spec('volume', 'machine'),
    });
    recalls.push(() => ec2.deleteVolume({ VolumeId }));
    const LaunchTemplateName = `loose-canary-${index}`;
    await ec2.createLaunchTemplate({
      LaunchTemplateName,
      LaunchTemplateData: { InstanceType: 'm5.large' },
      ...spec('launch-template', 'launch-template'),
    });
    recalls.push(() => ec2.deleteLaunchTemplate({ LaunchTemplateName }));
    const RoleName = `loose-canary-${index}`;
    const trust = JSON.stringify({ Version: '2012-10-17', Statement: [] });
    await iam.createRole({
      RoleName,
      Path: '/qdrant-fleet/',
      AssumeRolePolicyDocument: trust,
      Tags: tagList(tags),
    });
    recalls.push(() => iam.deleteRole({ RoleName }));
  }
  return async () => {
    for (const recall of recalls) await recall();
  };
}
