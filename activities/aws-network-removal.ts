/**
 * Takes a network apart, in the order in which its parts let go of each other: endpoints and NAT gateways, their
 * addresses, abandoned interfaces, routes, the internet gateway, subnets, security groups, the VPC.
 *
 * 1. Only what carries the tags of `scope` goes, and inside a VPC that does, what EKS left there by its own tags.
 * 2. A part that is still in use is left for the next attempt; the others go all the same.
 */
import type { Aws } from '../src/clients/aws/clients.ts';
import { isInUse, isNotFound } from '../src/clients/aws/errors.ts';
import { findEc2, fromTagList, paged, type Ec2Kind } from '../src/clients/aws/inventory.ts';
import { eksNameOf, type Tags } from '../src/domain/aws-names.ts';
import { FleetError, messageOf } from '../src/domain/errors.ts';
import type { Ledger } from './aws-ledger.ts';

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
  const pending = await ledger.unsettled(KINDS);
  const blockers = await takeApart(aws, scope, eksNameOf(ledger.owner));
  const left: string[] = [];
  for (const kind of KINDS) {
    const found = await findEc2(aws, kind, scope);
    left.push(...found.map(({ id }) => id));
  }
  if (left.length > 0) {
    const detail = blockers.length === 0 ? `${left.join(', ')} are going.` : blockers.join(' ');
    throw new FleetError(
      blockers.length === 0 ? 'InfrastructureNotReady' : 'InfrastructureBlocked',
      `The network in ${aws.region} is not gone: ${detail}`,
    );
  }
  if (pending !== undefined) {
    throw new FleetError(
      'InfrastructureNotReady',
      `A ${pending.kind} may have been made at ${pending.called_at?.toISOString()}; looking for it until AWS must list it.`,
    );
  }
  await ledger.forgetKinds(KINDS, onlyOwn);
}

/** One round over everything. @returns what is in the way, in words */
async function takeApart(aws: Aws, scope: Tags, eksName: string): Promise<string[]> {
  const { ec2 } = aws;
  const blockers: string[] = [];
  const ids = async (kind: Ec2Kind) => (await findEc2(aws, kind, scope)).map(({ id }) => id);
  const attempt = async (what: string, send: () => Promise<unknown>) => {
    try {
      await send();
    } catch (error) {
      if (isNotFound(error)) return;
      if (!isInUse(error)) throw error;
      blockers.push(`${what} is still in use (${messageOf(error)}).`);
    }
  };

  for (const id of await ids('vpc-endpoint')) {
    await attempt(`Endpoint ${id}`, () => ec2.deleteVpcEndpoints({ VpcEndpointIds: [id] }));
  }
  const gateways = await ids('natgateway');
  for (const id of gateways) await attempt(`NAT gateway ${id}`, () => deleteNatGateway(aws, id));
  const going = await ids('natgateway');
  // Their addresses and subnets cannot go before them, and EC2 would only say so.
  if (going.length > 0) return blockers;

  for (const AllocationId of await ids('elastic-ip')) {
    await attempt(`Address ${AllocationId}`, () => ec2.releaseAddress({ AllocationId }));
  }
  const vpcs = await ids('vpc');
  for (const vpc of vpcs) await removeAbandonedInterfaces(aws, vpc, eksName);
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
  if (blockers.length > 0) for (const vpc of vpcs) blockers.push(...(await inhabitants(aws, vpc, scope)));
  return blockers;
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

/** Interfaces that the VPC CNI of our cluster left behind when its node went; nothing uses them any more. */
async function removeAbandonedInterfaces({ ec2 }: Aws, vpc: string, eksName: string): Promise<void> {
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
    await ec2.deleteNetworkInterface({ NetworkInterfaceId });
  }
}

/** EKS and its controllers tag the groups that they make with the cluster's name; the VPC around them is ours. */
async function removeEksSecurityGroups(
  { ec2 }: Aws,
  vpc: string,
  eksName: string,
  attempt: (what: string, send: () => Promise<unknown>) => Promise<void>,
): Promise<void> {
  const { SecurityGroups = [] } = await ec2.describeSecurityGroups({
    Filters: [
      { Name: 'vpc-id', Values: [vpc] },
      { Name: `tag:kubernetes.io/cluster/${eksName}`, Values: ['owned'] },
    ],
  });
  for (const { GroupId, GroupName, VpcId, Tags } of SecurityGroups) {
    const owned = fromTagList(Tags)[`kubernetes.io/cluster/${eksName}`] === 'owned';
    if (!owned || VpcId !== vpc || GroupName === 'default') continue;
    await attempt(`Security group ${GroupId}`, () => ec2.deleteSecurityGroup({ GroupId }));
  }
}

/** What lives in a VPC and keeps it: interfaces with their owners, and subnets that are not ours. */
async function inhabitants({ ec2 }: Aws, vpc: string, scope: Tags): Promise<string[]> {
  const Filters = [{ Name: 'vpc-id', Values: [vpc] }];
  const { NetworkInterfaces = [] } = await ec2.describeNetworkInterfaces({ Filters });
  const interfaces = NetworkInterfaces.map(
    ({ NetworkInterfaceId, SubnetId, Status, Description, RequesterId, OwnerId, Attachment }) =>
      `Network interface ${NetworkInterfaceId} in ${SubnetId} is ${Status}: "${Description ?? ''}", made by ` +
      `${RequesterId ?? OwnerId ?? 'unknown'}${Attachment?.InstanceId === undefined ? '' : `, at ${Attachment.InstanceId}`}.`,
  );
  const { Subnets = [] } = await ec2.describeSubnets({ Filters });
  const foreign = Subnets.filter(({ Tags }) => {
    const tags = fromTagList(Tags);
    return !Object.entries(scope).every(([key, value]) => tags[key] === value);
  }).map(({ SubnetId }) => `Subnet ${SubnetId} is not ours.`);
  const lines = [...interfaces, ...foreign];
  if (lines.length === 0) return [];
  const shown = lines.slice(0, 8);
  return [...shown, ...(lines.length > shown.length ? [`And ${lines.length - shown.length} more.`] : [])];
}
