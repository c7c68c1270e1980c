/** The network: a VPC with public and private subnets, or one that is there already. */
import type { Aws } from '../src/clients/aws/clients.ts';
import { onceSeen, unlessThere } from '../src/clients/aws/answers.ts';
import { findEc2, tagList, type Ec2Kind } from '../src/clients/aws/inventory.ts';
import type { Tags } from '../src/domain/aws-names.ts';
import type { AwsPlan, NetworkIds } from '../src/domain/aws-plan.ts';
import { FleetError } from '../src/domain/errors.ts';
import type { ClusterRef } from '../src/domain/naming.ts';
import { Ledger } from './aws-ledger.ts';
import type { ActivityDeps } from './deps.ts';
import { removeNetwork } from './aws-network-removal.ts';

interface Room {
  readonly aws: Aws;
  readonly ledger: Ledger;
}

export function createAwsNetworkActivities(deps: ActivityDeps) {
  return {
    /** Have the whole network. What exists is kept; repeating goes on where an earlier attempt ended. */
    async ensureNetwork({ plan, ...ref }: ClusterRef & { plan: AwsPlan }): Promise<NetworkIds> {
      const { spec } = plan;
      if (!spec.create.network) {
        return { vpcId: spec.vpcId ?? '', privateSubnetIds: spec.subnetIds, publicSubnetIds: [], natGatewayIds: [] };
      }
      const room = await open(ref, plan.region);
      const vpcId = await ensureVpc(room, spec.cidr);
      const gateway = await ensureInternetGateway(room, vpcId);
      const publicTable = await ensureRouteTable(room, vpcId, 'public');
      await ensureRoute(room, publicTable, { GatewayId: gateway });
      const tables = [publicTable];
      const publicSubnetIds: string[] = [];
      const privateSubnetIds: string[] = [];
      const natGatewayIds: string[] = [];
      for (const [index, zone] of plan.zones.entries()) {
        const publicSubnet = await ensureSubnet(room, vpcId, zone.name, 'public', zone.publicCidr);
        publicSubnetIds.push(publicSubnet);
        await ensureAssociation(room, publicTable, publicSubnet);
        if (index === 0 || spec.natGateways === 'perZone') {
          const address = await ensureAddress(room, zone.name);
          natGatewayIds.push(await ensureNatGateway(room, zone.name, publicSubnet, address));
          tables.push(await ensureRouteTable(room, vpcId, `private/${zone.name}`));
        }
        const privateSubnet = await ensureSubnet(room, vpcId, zone.name, 'private', zone.privateCidr);
        privateSubnetIds.push(privateSubnet);
        await ensureAssociation(room, tables.at(-1) ?? '', privateSubnet);
      }
      await ensureS3Endpoint(room, vpcId, tables);
      return { vpcId, publicSubnetIds, privateSubnetIds, natGatewayIds };
    },

    /**
     * Wait for the NAT gateways, which nodes reach the world by, and route the private subnets to them: a route to a
     * gateway that is not there yet is refused.
     *
     * @throws FleetError `InfrastructureNotReady` while one is being made, `InfrastructureFailed` when one cannot be
     */
    async awaitNetwork({ plan, network, ...ref }: ClusterRef & { plan: AwsPlan; network: NetworkIds }): Promise<void> {
      if (network.natGatewayIds.length === 0) return;
      const room = await open(ref, plan.region);
      const { NatGateways = [] } = await settled(network.natGatewayIds.join(', '), () =>
        room.aws.ec2.describeNatGateways({ NatGatewayIds: [...network.natGatewayIds] }),
      );
      for (const { NatGatewayId, State, FailureCode, FailureMessage } of NatGateways) {
        if (State === 'available') continue;
        const failed = State === 'failed' || State === 'deleted' || State === 'deleting';
        const why = [FailureCode, FailureMessage].filter((part) => part !== undefined && part !== '').join(': ');
        throw new FleetError(
          failed ? 'InfrastructureFailed' : 'InfrastructureNotReady',
          `NAT gateway ${NatGatewayId} is ${State}${why === '' ? '' : `: ${why}`}.${failed ? natRemedy(FailureCode) : ''}`,
        );
      }
      for (const [index, id] of network.natGatewayIds.entries()) {
        const zone = plan.zones[index]?.name ?? '';
        const table = await ensureRouteTable(room, network.vpcId, `private/${zone}`);
        await ensureRoute(room, table, { NatGatewayId: id });
      }
    },

    /**
     * Remove the network, as far as it goes at this moment.
     *
     * @param input `onlyOwn`: only what this very operation made, or the `operation` that is named, as a compensation must
     * @throws FleetError `InfrastructureNotReady` or `InfrastructureBlocked` while something is left; repeat until not
     */
    async deleteNetwork(input: ClusterRef & { region: string; onlyOwn?: boolean; operation?: string }): Promise<void> {
      const { aws, ledger } = await open(input, input.region, input.operation);
      await removeNetwork(aws, ledger, input.onlyOwn === true);
    },
  };

  async function open(ref: ClusterRef, region: string, of?: string): Promise<Room> {
    return { aws: await deps.aws.of(region), ledger: await Ledger.open(deps, ref, region, of) };
  }
}

/** How things of one EC2 kind are found and tagged. */
function ec2Thing({ aws }: Room, kind: Ec2Kind, slot: string) {
  return {
    slot,
    kind,
    find: async (tags: Tags) => (await findEc2(aws, kind, tags)).map(({ id }) => id),
    spec: (tags: Tags) => [{ ResourceType: kind, Tags: tagList(tags) }],
  };
}

async function ensureVpc(room: Room, cidr: string): Promise<string> {
  const { ec2 } = room.aws;
  const thing = ec2Thing(room, 'vpc', 'vpc');
  const VpcId = await room.ledger.obtain({
    ...thing,
    hasToken: false,
    create: async (tags) => {
      const { Vpc } = await ec2.createVpc({ CidrBlock: cidr, TagSpecifications: thing.spec(tags) });
      return Vpc?.VpcId ?? '';
    },
    remove: (id) => ec2.deleteVpc({ VpcId: id }),
  });
  // EKS' private endpoint and the VPC endpoints are found by names of the VPC's own DNS.
  await settled(VpcId, () => ec2.modifyVpcAttribute({ VpcId, EnableDnsSupport: { Value: true } }));
  await settled(VpcId, () => ec2.modifyVpcAttribute({ VpcId, EnableDnsHostnames: { Value: true } }));
  return VpcId;
}

async function ensureSubnet(room: Room, VpcId: string, zone: string, side: 'public' | 'private', cidr: string) {
  const { ec2 } = room.aws;
  const thing = ec2Thing(room, 'subnet', `subnet/${side}/${zone}`);
  // Load balancers of Kubernetes look for these tags.
  const role = side === 'public' ? 'kubernetes.io/role/elb' : 'kubernetes.io/role/internal-elb';
  return room.ledger.obtain({
    ...thing,
    hasToken: false,
    create: async (tags) => {
      const { Subnet } = await settled(VpcId, () =>
        ec2.createSubnet({
          VpcId,
          CidrBlock: cidr,
          AvailabilityZone: zone,
          TagSpecifications: thing.spec({ ...tags, [role]: '1' }),
        }),
      );
      return Subnet?.SubnetId ?? '';
    },
    remove: (SubnetId) => ec2.deleteSubnet({ SubnetId }),
  });
}

async function ensureInternetGateway(room: Room, VpcId: string): Promise<string> {
  const { ec2 } = room.aws;
  const thing = ec2Thing(room, 'internet-gateway', 'internet-gateway');
  const InternetGatewayId = await room.ledger.obtain({
    ...thing,
    hasToken: false,
    create: async (tags) => {
      const { InternetGateway } = await ec2.createInternetGateway({ TagSpecifications: thing.spec(tags) });
      return InternetGateway?.InternetGatewayId ?? '';
    },
    remove: (id) => ec2.deleteInternetGateway({ InternetGatewayId: id }),
  });
  const { InternetGateways = [] } = await settled(InternetGatewayId, () =>
    ec2.describeInternetGateways({ InternetGatewayIds: [InternetGatewayId] }),
  );
  const attached = InternetGateways[0]?.Attachments?.some((attachment) => attachment.VpcId === VpcId) ?? false;
  const about = `${InternetGatewayId} and ${VpcId}`;
  if (!attached) {
    await unlessThere(() => settled(about, () => ec2.attachInternetGateway({ InternetGatewayId, VpcId })));
  }
  return InternetGatewayId;
}

async function ensureAddress(room: Room, zone: string): Promise<string> {
  const { ec2 } = room.aws;
  const thing = ec2Thing(room, 'elastic-ip', `nat-address/${zone}`);
  return room.ledger.obtain({
    ...thing,
    hasToken: false,
    create: async (tags) => {
      const { AllocationId } = await ec2.allocateAddress({ Domain: 'vpc', TagSpecifications: thing.spec(tags) });
      return AllocationId ?? '';
    },
    remove: (AllocationId) => ec2.releaseAddress({ AllocationId }),
  });
}

async function ensureNatGateway(room: Room, zone: string, SubnetId: string, AllocationId: string): Promise<string> {
  const { ec2 } = room.aws;
  const thing = ec2Thing(room, 'natgateway', `nat/${zone}`);
  return room.ledger.obtain({
    ...thing,
    hasToken: true,
    create: async (tags, ClientToken) => {
      const { NatGateway } = await settled(`${SubnetId} and ${AllocationId}`, () =>
        ec2.createNatGateway({ SubnetId, AllocationId, ClientToken, TagSpecifications: thing.spec(tags) }),
      );
      return NatGateway?.NatGatewayId ?? '';
    },
    remove: (NatGatewayId) => ec2.deleteNatGateway({ NatGatewayId }),
  });
}

async function ensureRouteTable(room: Room, VpcId: string, name: string): Promise<string> {
  const { ec2 } = room.aws;
  const thing = ec2Thing(room, 'route-table', `route-table/${name}`);
  return room.ledger.obtain({
    ...thing,
    hasToken: true,
    create: async (tags, ClientToken) => {
      const { RouteTable } = await settled(VpcId, () =>
        ec2.createRouteTable({ VpcId, ClientToken, TagSpecifications: thing.spec(tags) }),
      );
      return RouteTable?.RouteTableId ?? '';
    },
    remove: (RouteTableId) => ec2.deleteRouteTable({ RouteTableId }),
  });
}

async function ensureRoute(room: Room, table: string, target: { GatewayId: string } | { NatGatewayId: string }) {
  const { ec2 } = room.aws;
  const { RouteTables = [] } = await settled(table, () => ec2.describeRouteTables({ RouteTableIds: [table] }));
  const route = RouteTables[0]?.Routes?.find(({ DestinationCidrBlock }) => DestinationCidrBlock === '0.0.0.0/0');
  const wanted = 'GatewayId' in target ? target.GatewayId : target.NatGatewayId;
  if (route?.GatewayId === wanted || route?.NatGatewayId === wanted) return;
  await unlessThere(() =>
    settled(`${table} and ${wanted}`, () =>
      ec2.createRoute({ RouteTableId: table, DestinationCidrBlock: '0.0.0.0/0', ...target }),
    ),
  );
}

async function ensureAssociation({ aws }: Room, RouteTableId: string, SubnetId: string): Promise<void> {
  const { RouteTables = [] } = await aws.ec2.describeRouteTables({
    Filters: [{ Name: 'association.subnet-id', Values: [SubnetId] }],
  });
  if (RouteTables.some((table) => table.RouteTableId === RouteTableId)) return;
  await unlessThere(() =>
    settled(`${RouteTableId} and ${SubnetId}`, () => aws.ec2.associateRouteTable({ RouteTableId, SubnetId })),
  );
}

/** Backups and image layers go to S3 without passing, and paying, the NAT gateway. */
async function ensureS3Endpoint(room: Room, VpcId: string, tables: readonly string[]): Promise<void> {
  const { ec2 } = room.aws;
  const thing = ec2Thing(room, 'vpc-endpoint', 's3-endpoint');
  await room.ledger.obtain({
    ...thing,
    hasToken: true,
    create: async (tags, ClientToken) => {
      const { VpcEndpoint } = await settled(`${VpcId} and its route tables`, () =>
        ec2.createVpcEndpoint({
          VpcId,
          VpcEndpointType: 'Gateway',
          ServiceName: `com.amazonaws.${room.aws.region}.s3`,
          RouteTableIds: [...tables],
          ClientToken,
          TagSpecifications: thing.spec(tags),
        }),
      );
      return VpcEndpoint?.VpcEndpointId ?? '';
    },
    remove: (id) => ec2.deleteVpcEndpoints({ VpcEndpointIds: [id] }),
  });
}

/** What to do about a gateway that could not be made. Codes: EC2 API Reference, NatGateway. */
function natRemedy(code = ''): string {
  if (code === 'InsufficientFreeAddressesInSubnet') return ' Ask for a larger "aws.cidr".';
  if (code === 'InternalError') return ' AWS calls this a fault of its own: try again.';
  return ' Try again; if it fails again, look for what else works on this VPC.';
}

function settled<T>(what: string, send: () => Promise<T>): Promise<T> {
  return onceSeen('EC2', what, send);
}
