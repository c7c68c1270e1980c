/** What an account holds: everything that a cluster could have left there. For the demo's and the tests' last look. */
import { EC2 } from '@aws-sdk/client-ec2';
import { EKS } from '@aws-sdk/client-eks';
import { IAM } from '@aws-sdk/client-iam';
import { S3 } from '@aws-sdk/client-s3';

interface Options {
  readonly endpoint: string;
  readonly region?: string;
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string };
}

/**
 * Kind and id of each resource, sorted; what AWS gives every account (default VPC, main route tables, default security
 * groups, its own roles and policies) left out.
 */
export async function listResources({ endpoint, region = 'us-east-1', credentials }: Options): Promise<string[]> {
  const settings = { endpoint, region, credentials };
  const ec2 = new EC2(settings);
  const eks = new EKS(settings);
  const iam = new IAM(settings);
  const s3 = new S3({ ...settings, forcePathStyle: true });
  const { Vpcs = [] } = await ec2.describeVpcs({});
  const standard = new Set(Vpcs.filter(({ IsDefault }) => IsDefault).map(({ VpcId }) => VpcId));
  const own = ({ VpcId }: { readonly VpcId?: string | undefined }) => !standard.has(VpcId);
  const of = <T>(kind: string, items: readonly T[] | undefined, id: (item: T) => string | undefined) =>
    (items ?? []).map((item) => `${kind} ${id(item) ?? '?'}`);

  const found = await Promise.all([
    ec2.describeSubnets({}).then(({ Subnets }) => of('subnet', Subnets?.filter(own), ({ SubnetId }) => SubnetId)),
    ec2.describeInternetGateways({}).then(({ InternetGateways }) =>
      of(
        'internet-gateway',
        InternetGateways?.filter(({ Attachments }) => !Attachments?.some(({ VpcId }) => standard.has(VpcId))),
        ({ InternetGatewayId }) => InternetGatewayId,
      ),
    ),
    ec2.describeNatGateways({}).then(({ NatGateways }) =>
      of(
        'nat-gateway',
        NatGateways?.filter(({ State }) => State !== 'deleted'),
        ({ NatGatewayId }) => NatGatewayId,
      ),
    ),
    ec2.describeAddresses({}).then(({ Addresses }) => of('address', Addresses, ({ AllocationId }) => AllocationId)),
    ec2.describeRouteTables({}).then(({ RouteTables }) =>
      of(
        'route-table',
        RouteTables?.filter((table) => own(table) && !table.Associations?.some(({ Main }) => Main)),
        ({ RouteTableId }) => RouteTableId,
      ),
    ),
    ec2.describeSecurityGroups({}).then(({ SecurityGroups }) =>
      of(
        'security-group',
        SecurityGroups?.filter(({ GroupName }) => GroupName !== 'default'),
        ({ GroupId }) => GroupId,
      ),
    ),
    ec2.describeVpcEndpoints({}).then(({ VpcEndpoints }) =>
      of(
        'vpc-endpoint',
        VpcEndpoints?.filter(({ State }) => State?.toLowerCase() !== 'deleted'),
        ({ VpcEndpointId }) => VpcEndpointId,
      ),
    ),
    ec2
      .describeNetworkInterfaces({})
      .then(({ NetworkInterfaces }) =>
        of('network-interface', NetworkInterfaces, ({ NetworkInterfaceId }) => NetworkInterfaceId),
      ),
    ec2.describeVolumes({}).then(({ Volumes }) => of('volume', Volumes, ({ VolumeId }) => VolumeId)),
    ec2
      .describeLaunchTemplates({})
      .then(({ LaunchTemplates }) =>
        of('launch-template', LaunchTemplates, ({ LaunchTemplateId }) => LaunchTemplateId),
      ),
    eks.listClusters({}).then(({ clusters }) => of('eks-cluster', clusters, (name) => name)),
    iam.listRoles({}).then(({ Roles }) =>
      of(
        'iam-role',
        Roles?.filter(({ Path }) => !Path?.startsWith('/aws-service-role/')),
        ({ RoleName }) => RoleName,
      ),
    ),
    iam.listPolicies({ Scope: 'Local' }).then(({ Policies }) => of('iam-policy', Policies, ({ Arn }) => Arn)),
    iam
      .listInstanceProfiles({})
      .then(({ InstanceProfiles }) =>
        of('instance-profile', InstanceProfiles, ({ InstanceProfileName }) => InstanceProfileName),
      ),
    s3.listBuckets({}).then(({ Buckets }) => of('bucket', Buckets, ({ Name }) => Name)),
  ]);
  for (const client of [ec2, eks, iam, s3]) client.destroy();
  return [...of('vpc', Vpcs.filter(own), ({ VpcId }) => VpcId), ...found.flat()].sort();
}
