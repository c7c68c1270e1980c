/** What is going to be made, decided before anything is: the account, the zones, and whether AWS offers what is asked. */
import type { AvailabilityZone, Subnet } from '@aws-sdk/client-ec2';
import type { Aws } from '../src/clients/aws/clients.ts';
import { isNotFound } from '../src/clients/aws/errors.ts';
import { paged } from '../src/clients/aws/inventory.ts';
import type { AwsPlan } from '../src/domain/aws-plan.ts';
import type { AwsSpec } from '../src/domain/aws.ts';
import { cutNetwork, parseCidr } from '../src/domain/cidr.ts';
import { FleetError } from '../src/domain/errors.ts';
import { invalidInput } from '../src/domain/input/reader.ts';
import type { ClusterRef } from '../src/domain/naming.ts';
import { planEndpoint } from '../src/domain/aws-endpoint.ts';
import { DEFAULT_POLICY, requireAllowed } from '../src/domain/tenant-policy.ts';
import { refuseForeign } from './aws-foreign.ts';
import type { ActivityDeps } from './deps.ts';

/** Zones, by their ids, where EKS has no control plane (Amazon EKS User Guide, "Network requirements"). */
const ZONES_WITHOUT_EKS = new Set(['use1-az3', 'usw1-az2', 'cac1-az3']);

/** Zones that a network spreads over when none are named. */
const ZONES = 3;

export function createAwsPlanActivities(deps: ActivityDeps) {
  const { config } = deps;
  const workers = { cidrs: config.FLEET_AWS_WORKER_CIDRS, vpcIds: config.FLEET_AWS_WORKER_VPCS };

  /** Without a boundary a role that is made could be given any right. */
  function requireBoundary({ create }: AwsSpec): void {
    if (!create.access || config.FLEET_AWS_PERMISSIONS_BOUNDARY !== undefined) return;
    throw new FleetError(
      'NotAllowed',
      'aws.create.access: roles are made within a permissions boundary only, and FLEET_AWS_PERMISSIONS_BOUNDARY is not set. The operator of the fleet sets it (docs/iam/boundary.json); or give "aws.roles" with "create": {"access": false}.',
    );
  }

  return {
    /**
     * Ask AWS whether it can be done, and choose the zones.
     *
     * @throws FleetError `NotAllowed` when it names what exists and is another's, `InvalidInput` that names the field when
     *   AWS does not offer what is asked, or the worker could not reach the cluster
     */
    async planInfrastructure({ spec: asked, ...ref }: ClusterRef & { spec: AwsSpec }): Promise<AwsPlan> {
      const { tenant, cluster } = ref;
      requireAllowed(config.FLEET_TENANT_POLICY ?? DEFAULT_POLICY, tenant, { provider: 'aws', aws: asked });
      requireBoundary(asked);
      const spec = asked.create.controlPlane ? { ...asked, endpointAccess: planEndpoint(asked, workers) } : asked;
      const { region } = spec;
      const aws = await deps.aws.of(region);
      const { Account = '', Arn = '' } = await aws.sts.getCallerIdentity({});
      await refuseForeign(aws, Account, { tenant, cluster, installation: await deps.catalog.installation() }, spec);
      const unchecked: string[] = [];
      const ask = async <T>(what: string, question: () => Promise<T>): Promise<T | undefined> => {
        try {
          return await question();
        } catch (error) {
          // A role that may not ask may still be allowed to make, and AWS then says what is wrong.
          if (!FleetError.is(error, 'CloudDenied') && !FleetError.is(error, 'CloudRejected')) throw error;
          unchecked.push(what);
          return undefined;
        }
      };
      const versions = await ask('versions of Kubernetes', () => offeredVersions(aws));
      if (versions !== undefined && spec.create.controlPlane && !versions.includes(spec.kubernetesVersion)) {
        bad(
          'kubernetesVersion',
          `EKS does not offer ${spec.kubernetesVersion} in ${region}; it offers ${versions.join(', ')}`,
        );
      }
      const offering = await ask('zones of the instance type', () => offeringZones(aws, spec.instanceType));
      if (offering?.size === 0) bad('instanceType', `${spec.instanceType} is not offered in ${region}; choose another`);
      if (spec.vpcId !== undefined) await checkNetwork(aws, spec.vpcId, spec.subnetIds);
      const zones = spec.create.network ? await chooseZones(aws, spec, offering) : [];
      const block = parseCidr(spec.cidr);
      const blocks = block === undefined || zones.length === 0 ? [] : cutNetwork(block, zones.length);
      return {
        spec,
        region,
        partition: Arn.split(':')[1] ?? 'aws',
        account: Account,
        zones: blocks.map((cidrs, index) => ({ name: zones[index] ?? '', ...cidrs })),
        unchecked,
      };
    },
  };
}

function bad(field: string, detail: string): never {
  throw invalidInput({ fields: [{ field: `aws.${field}`, detail }] });
}

async function offeredVersions({ eks }: Aws): Promise<string[]> {
  const { clusterVersions = [] } = await eks.describeClusterVersions({ includeAll: false });
  const versions = clusterVersions.map(({ clusterVersion = '' }) => clusterVersion);
  return versions.sort((a, b) => Number(a.split('.')[1]) - Number(b.split('.')[1]));
}

async function offeringZones({ ec2 }: Aws, type: string): Promise<Set<string>> {
  const offerings = await paged(async (token) => {
    const { InstanceTypeOfferings = [], NextToken } = await ec2.describeInstanceTypeOfferings({
      LocationType: 'availability-zone',
      Filters: [{ Name: 'instance-type', Values: [type] }],
      ...token,
    });
    return [InstanceTypeOfferings, NextToken];
  });
  return new Set(offerings.map(({ Location = '' }) => Location));
}

async function chooseZones({ ec2, region }: Aws, spec: AwsSpec, offering: Set<string> | undefined): Promise<string[]> {
  const { AvailabilityZones = [] } = await ec2.describeAvailabilityZones({});
  const usable = AvailabilityZones.filter(isUsable)
    .map(({ ZoneName = '' }) => ZoneName)
    .sort();
  for (const zone of spec.availabilityZones) {
    if (!usable.includes(zone))
      bad('availabilityZones', `"${zone}" is not usable in ${region}; usable: ${usable.join(', ')}`);
    if (offering !== undefined && !offering.has(zone)) {
      bad(
        'availabilityZones',
        `"${zone}" does not offer ${spec.instanceType}; these do: ${[...offering].sort().join(', ')}`,
      );
    }
  }
  if (spec.availabilityZones.length > 0) return [...spec.availabilityZones];
  const chosen = usable.filter((zone) => offering?.has(zone) ?? true).slice(0, ZONES);
  if (chosen.length < 2) {
    bad(
      'instanceType',
      `${spec.instanceType} is offered in ${chosen.length} zone of ${region}, two are needed; choose another`,
    );
  }
  return chosen;
}

function isUsable({ State, ZoneType, ZoneId, OptInStatus }: AvailabilityZone): boolean {
  const isZone = ZoneType === undefined || ZoneType === 'availability-zone';
  return State === 'available' && isZone && OptInStatus !== 'not-opted-in' && !ZONES_WITHOUT_EKS.has(ZoneId ?? '');
}

/** A network of somebody else's is looked at and never changed. */
async function checkNetwork({ ec2, region }: Aws, vpc: string, subnetIds: readonly string[]): Promise<void> {
  try {
    await ec2.describeVpcs({ VpcIds: [vpc] });
  } catch (error) {
    if (!isNotFound(error)) throw error;
    bad('vpcId', `there is no VPC "${vpc}" in ${region}`);
  }
  let subnets: Subnet[];
  try {
    subnets = (await ec2.describeSubnets({ SubnetIds: [...subnetIds] })).Subnets ?? [];
  } catch (error) {
    if (!isNotFound(error)) throw error;
    return bad('subnetIds', `not all of ${subnetIds.join(', ')} are in ${region}`);
  }
  const elsewhere = subnets.find(({ VpcId }) => VpcId !== vpc);
  if (elsewhere !== undefined) bad('subnetIds', `${elsewhere.SubnetId} is in ${elsewhere.VpcId}, not in ${vpc}`);
  const zones = new Set(subnets.map(({ AvailabilityZone }) => AvailabilityZone));
  if (zones.size < 2) bad('subnetIds', `must be in two or more zones; all are in ${[...zones].join(', ')}`);
}
