/** The guard of `aws` in a cluster's request. */
import {
  AWS_REGIONS,
  AWS_ROOMS,
  EKS_LOG_TYPES,
  NAT_MODES,
  resolveAws,
  TAINT_EFFECTS,
  type AwsRequest,
  type EksLogType,
} from './aws.ts';
import { longestPrefix, overlaps, parseCidr } from './cidr.ts';
import { FORMATS, formatProblem } from './input/formats.ts';
import { NUMBERS, SIZES } from './input/limits.ts';
import type { Check, Reader } from './input/reader.ts';

const block: Check = (text) =>
  formatProblem(FORMATS.block, text) ??
  (parseCidr(text) === undefined ? { conflict: FORMATS.block.problem } : undefined);
const region: Check = (text) =>
  AWS_REGIONS.includes(text) ? undefined : `is no region that is known here; known: ${AWS_REGIONS.join(', ')}`;
const logType: Check = (text) =>
  EKS_LOG_TYPES.some((known) => known === text) ? undefined : `must be some of ${EKS_LOG_TYPES.join(', ')}`;

/** Blocks that EKS takes the addresses of Services from, whichever the VPC leaves free; both cannot be taken. */
const SERVICE_BLOCKS = ['10.100.0.0/16', '172.20.0.0/16'];

export function awsRequest(r: Reader): AwsRequest {
  const request = awsFields(r);
  checkNetwork(r, request);
  checkParts(r, request);
  return request;
}

/** The fields by themselves: of a change, whatever is left out stays as it is. */
export function awsFields(r: Reader): AwsRequest {
  return {
    ...r.text('region', region),
    ...r.text('vpcId', FORMATS.vpcId),
    ...r.strings('subnetIds', { min: 2, max: SIZES.subnetIds, each: FORMATS.subnetId }),
    ...r.text('cidr', block),
    ...r.strings('availabilityZones', { min: 2, max: SIZES.availabilityZones, each: FORMATS.zone }),
    ...r.oneOf('natGateways', NAT_MODES),
    ...r.text('eksCluster', FORMATS.eksCluster),
    ...r.text('kubernetesVersion', FORMATS.kubernetesVersion),
    ...r.text('instanceType', FORMATS.instanceType),
    ...r.integer('nodeCount', NUMBERS.machines),
    ...r.map('labels', { max: SIZES.labels, key: FORMATS.labelKey, value: FORMATS.labelValue }),
    ...r.list('taints', { max: SIZES.taints }, (t) => ({
      key: t.required('key', FORMATS.labelKey),
      ...t.text('value', FORMATS.labelValue),
      effect: t.requiredOneOf('effect', TAINT_EFFECTS),
    })),
    ...r.integer('machineVolumeGiB', NUMBERS.machineVolumeGiB),
    ...r.integer('volumeIops', NUMBERS.volumeIops),
    ...r.integer('volumeThroughput', NUMBERS.volumeThroughput),
    ...r.object('endpointAccess', (e) => ({
      ...e.boolean('public'),
      ...e.strings('publicCidrs', { min: 1, max: SIZES.publicCidrs, each: block }),
    })),
    ...r.text('secretsEncryptionKeyArn', FORMATS.keyArn),
    ...(r.strings('logging', { min: 1, max: EKS_LOG_TYPES.length, each: logType }) as { logging?: EksLogType[] }),
    ...r.strings('adminPrincipalArns', { min: 1, max: SIZES.adminPrincipalArns, each: FORMATS.principalArn }),
    ...r.object('roles', (roles) => ({
      ...roles.text('cluster', FORMATS.roleArn),
      ...roles.text('node', FORMATS.roleArn),
    })),
    ...r.object('create', (c) => Object.assign({}, ...AWS_ROOMS.map((room) => c.boolean(room))) as object),
  };
}

function checkNetwork(r: Reader, request: AwsRequest): void {
  const { create, availabilityZones: zones, cidr: text } = resolveAws(request, 1);
  if (request.vpcId !== undefined && request.subnetIds === undefined) {
    r.conflict('subnetIds', 'is needed with "vpcId": name subnets of it in two or more zones');
  }
  if (request.vpcId === undefined && request.subnetIds !== undefined) r.conflict('vpcId', 'is needed with "subnetIds"');
  if (request.vpcId !== undefined && create.network) {
    r.conflict('create.network', 'must not be true with "vpcId": a VPC that is given is used as it is');
  }
  if (request.vpcId === undefined && !create.network && (create.controlPlane || create.nodeGroups)) {
    r.conflict('vpcId', 'is needed, and "subnetIds", where "create.network" is false');
  }
  for (const zone of zones) {
    const { region } = resolveAws(request, 1);
    if (!zone.startsWith(region)) r.conflict('availabilityZones', `"${zone}" is not in ${region}`);
  }
  const block = parseCidr(text);
  if (block === undefined || !create.network) return;
  const count = Math.max(zones.length, request.availabilityZones === undefined ? 3 : 2);
  const longest = longestPrefix(count);
  if (block.prefix < 16) r.conflict('cidr', 'must be /16 or smaller: a VPC has no larger block');
  if (block.prefix > longest) r.conflict('cidr', `is too small for ${count} zones; must be /${longest} or larger`);
  for (const services of SERVICE_BLOCKS) {
    const other = parseCidr(services);
    if (other !== undefined && overlaps(block, other)) {
      r.conflict(
        'cidr',
        `overlaps ${services}, which EKS uses for Services; choose another block, such as 10.64.0.0/16`,
      );
    }
  }
}

function checkParts(r: Reader, request: AwsRequest): void {
  const { create, roles } = resolveAws(request, 1);
  if (!create.controlPlane && request.eksCluster === undefined) {
    r.conflict('eksCluster', 'is needed where "create.controlPlane" is false: the EKS cluster to use');
  }
  if (create.controlPlane && request.eksCluster !== undefined) {
    r.conflict('eksCluster', 'names a cluster that exists; leave it out, or "create.controlPlane"');
  }
  if (!create.access && create.controlPlane && roles.cluster === undefined) {
    r.conflict('roles.cluster', 'is needed where "create.access" is false: the role of the EKS cluster');
  }
  if (!create.access && create.nodeGroups && roles.node === undefined) {
    r.conflict('roles.node', 'is needed where "create.access" is false: the role of the machines');
  }
}
