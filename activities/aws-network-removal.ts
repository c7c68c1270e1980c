/**
 * Takes a network apart, in the order in which its parts let go of each other: endpoints and NAT gateways, their
 * addresses, abandoned interfaces, routes, the internet gateway, subnets, security groups, the VPC.
 *
 * 1. Only what carries the tags of `scope` goes, and inside a VPC that does, what EKS left there by its own tags.
 * 2. A part that is still in use is left for the next attempt; the others go all the same.
 */
import type { Aws } from '../src/clients/aws/clients.ts';
import { mapAwsError } from '../src/clients/aws/errors.ts';
import { findEc2, fromTagList, paged, type Ec2Kind } from '../src/clients/aws/inventory.ts';
import { describeInterface } from '../src/domain/aws-interfaces.ts';
import { carries, eksNameOf, type Tags } from '../src/domain/aws-names.ts';
import { FleetError } from '../src/domain/errors.ts';
import type { Ledger } from './aws-ledger.ts';
import { removing, type Removal } from './aws-removal.ts';

const KINDS = [
  'vpc-endpoint',
  'natgateway',
  'elastic-ip',
  'route-table',
  'internet-gateway',
  'subnet',
  'vpc',
] as const satisfies readonly Ec2Kind[];

/** @throws FleetError `InfrastructureNotReady` or `InfrastructureBlocked` while something is left */
export async function removeNetwork(aws: Aws, ledger: Ledger, onlyOwn: boolean): Promise<void> {
  const scope = ledger.scope(onlyOwn);
  await removing(ledger, KINDS, onlyOwn, async (removal) => {
    await takeApart(aws, ledger, scope, removal);
    const left = (await Promise.all(KINDS.map((kind) => findEc2(aws, kind, scope)))).flat();
    const names = left.map(({ kind, id }) => `${kind} ${id}`);
    if (left.length > 0 && removal.refusals.length === 0) {
      const { blockers } = removal;
      const detail = blockers.length === 0 ? `${names.join(', ')} are going.` : blockers.join(' ');
      throw new FleetError(
        blockers.length === 0 ? 'InfrastructureNotReady' : 'InfrastructureBlocked',
        `The network in ${aws.region} is not gone: ${detail}`,
      );
    }
    return names;
  });
  const pending = await ledger.unsettled(KINDS);
  if (pending !== undefined) {
    throw new FleetError(
      'InfrastructureNotReady',
      `A ${pending.kind} may have been made at ${pending.called_at?.toISOString()}; looking for it until AWS must list it.`,
    );
  }
  await ledger.forgetKinds(KINDS, onlyOwn);
}

/** One round over everything. */
async function takeApart(aws: Aws, ledger: Ledger, scope: Tags, removal: Removal): Promise<void> {
  const { ec2 } = aws;
  const eksName = eksNameOf(ledger.owner);
  const attempt = removal.attempt.bind(removal);
  const ids = async (kind: Ec2Kind) => {
    const found = await findEc2(aws, kind, scope);
    await ledger.seen(found.map(({ slot }) => slot));
    return found.map(({ id }) => id);
  };

  for (const id of await ids('vpc-endpoint')) {
    await attempt(`Endpoint ${id}`, () => deleteEndpoint(aws, id));
  }
  const gateways = await ids('natgateway');
  for (const id of gateways) await attempt(`NAT gateway ${id}`, () => deleteNatGateway(aws, id));
  const going = gateways.length > 0 ? await ids('natgateway') : [];
  // Their addresses and subnets cannot go before them, and EC2 would only say so.
  if (going.length > 0 && removal.refusals.length === 0) return;

  for (const AllocationId of await ids('elastic-ip')) {
    await attempt(`Address ${AllocationId}`, () => ec2.releaseAddress({ AllocationId }));
  }
  const vpcs = await ids('vpc');
  for (const vpc of vpcs) await removeAbandonedInterfaces(aws, vpc, eksName, attempt);
  for (const id of await ids('route-table')) {
    await attempt(`Route table ${id}`, () => deleteRouteTable(aws, id));
  }
  for (const id of await ids('internet-gateway')) {
    await attempt(`Internet gateway ${id}`, () => deleteInternetGateway(aws, id));
  }
  for (const SubnetId of await ids('subnet')) {
    await attempt(`Subnet ${SubnetId}`, () => ec2.deleteSubnet({ SubnetId }));
  }
  for (const VpcId of vpcs) {
    await removeEksSecurityGroups(aws, VpcId, eksName, attempt);
    await attempt(`VPC ${VpcId}`, () => ec2.deleteVpc({ VpcId }));
  }
  if (removal.blockers.length > 0) {
    for (const vpc of vpcs) removal.blockers.push(...(await inhabitants(aws, vpc, scope)));
  }
}

/** DeleteVpcEndpoints succeeds as a call, and says of each endpoint whether it did. */
async function deleteEndpoint({ ec2 }: Aws, id: string): Promise<void> {
  const { Unsuccessful = [] } = await ec2.deleteVpcEndpoints({ VpcEndpointIds: [id] });
  for (const { Error: error } of Unsuccessful) {
    const name = error?.Code ?? 'Unknown';
    const answer = Object.assign(new Error(error?.Message ?? 'no reason given'), {
      name,
      $metadata: { httpStatusCode: 400 },
    });
    throw mapAwsError(answer, 'ec2:DeleteVpcEndpoints');
  }
}

async function deleteNatGateway({ ec2 }: Aws, id: string): Promise<void> {
  const { NatGateways = [] } = await ec2.describeNatGateways({ NatGatewayIds: [id] });
  if (NatGateways[0]?.State === 'deleting' || NatGateways[0]?.State === 'deleted') return;
  await ec2.deleteNatGateway({ NatGatewayId: id });
}

async function deleteRouteTable({ ec2 }: Aws, id: string): Promise<void> {
  const { RouteTables = [] } = await ec2.describeRouteTables({ RouteTableIds: [id] });
  for (const { Main, RouteTableAssociationId } of RouteTables[0]?.Associations ?? []) {
    if (Main !== true) await ec2.disassociateRouteTable({ AssociationId: RouteTableAssociationId });
  }
  await ec2.deleteRouteTable({ RouteTableId: id });
}

async function deleteInternetGateway({ ec2 }: Aws, InternetGatewayId: string): Promise<void> {
  const { InternetGateways = [] } = await ec2.describeInternetGateways({ InternetGatewayIds: [InternetGatewayId] });
  for (const { VpcId } of InternetGateways[0]?.Attachments ?? []) {
    await ec2.detachInternetGateway({ InternetGatewayId, VpcId });
  }
  await ec2.deleteInternetGateway({ InternetGatewayId });
}

type Attempt = Removal['attempt'];

/** Interfaces that the VPC CNI of our cluster left behind when its node went; nothing uses them any more. */
async function removeAbandonedInterfaces({ ec2 }: Aws, vpc: string, eksName: string, attempt: Attempt): Promise<void> {
  const interfaces = await paged(async (token) => {
    const { NetworkInterfaces = [], NextToken } = await ec2.describeNetworkInterfaces({
      Filters: [
        { Name: 'vpc-id', Values: [vpc] },
        { Name: 'status', Values: ['available'] },
        { Name: 'tag:cluster.k8s.amazonaws.com/name', Values: [eksName] },
      ],
      ...token,
    });
    return [NetworkInterfaces, NextToken];
  });
  for (const { NetworkInterfaceId, Status, TagSet } of interfaces) {
    const tags = fromTagList(TagSet);
    if (Status !== 'available' || tags['cluster.k8s.amazonaws.com/name'] !== eksName) continue;
    await attempt(`Network interface ${NetworkInterfaceId}`, () => ec2.deleteNetworkInterface({ NetworkInterfaceId }));
  }
}

/** EKS and its controllers tag the groups that they make with the cluster's name; the VPC around them is ours. */
async function removeEksSecurityGroups({ ec2 }: Aws, vpc: string, eksName: string, attempt: Attempt): Promise<void> {
  const { SecurityGroups = [] } = await ec2.describeSecurityGroups({ Filters: [{ Name: 'vpc-id', Values: [vpc] }] });
  for (const { GroupId, GroupName, VpcId, Tags } of SecurityGroups) {
    const tags = fromTagList(Tags);
    const owned = tags[`kubernetes.io/cluster/${eksName}`] === 'owned' || tags['elbv2.k8s.aws/cluster'] === eksName;
    if (!owned || VpcId !== vpc || GroupName === 'default') continue;
    await attempt(`Security group ${GroupId} ("${GroupName}")`, () => ec2.deleteSecurityGroup({ GroupId }));
  }
}

/** What lives in a VPC and keeps it: interfaces with their owners, subnets and security groups that are not ours. */
async function inhabitants({ ec2 }: Aws, vpc: string, scope: Tags): Promise<string[]> {
  const Filters = [{ Name: 'vpc-id', Values: [vpc] }];
  const { NetworkInterfaces = [] } = await ec2.describeNetworkInterfaces({ Filters });
  const { Subnets = [] } = await ec2.describeSubnets({ Filters });
  const { SecurityGroups = [] } = await ec2.describeSecurityGroups({ Filters });
  const lines = [
    ...NetworkInterfaces.map(describeInterface),
    ...Subnets.filter(({ Tags }) => !carries(fromTagList(Tags), scope)).map(
      ({ SubnetId }) => `Subnet ${SubnetId} is not ours.`,
    ),
    ...SecurityGroups.filter(({ GroupName }) => GroupName !== 'default').map(
      ({ GroupId, GroupName }) => `Security group ${GroupId} ("${GroupName}") is there.`,
    ),
  ];
  const shown = lines.slice(0, 8);
  return [...shown, ...(lines.length > shown.length ? [`And ${lines.length - shown.length} more.`] : [])];
}
