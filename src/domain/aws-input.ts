/** The guard of `aws` in a cluster's request. */
import {
  AWS_REGIONS,
  AWS_ROOMS,
  EKS_LOG_TYPES,
  KUBERNETES_VERSION,
  NAT_MODES,
  resolveAws,
  TAINT_EFFECTS,
  type AwsRequest,
  type EksLogType,
} from './aws.ts';
import { longestPrefix, overlaps, parseCidr } from './cidr.ts';
import type { Reader } from './input.ts';

type Check = (text: string) => string | undefined;

const like =
  (pattern: RegExp, problem: string): Check =>
  (text) =>
    pattern.test(text) ? undefined : problem;

const vpcId = like(/^vpc-[0-9a-f]{8,17}$/, 'must be the id of a VPC, such as "vpc-0a1b2c3d4e5f60718"');
const subnetId = like(/^subnet-[0-9a-f]{8,17}$/, 'must be ids of subnets, such as "subnet-0a1b2c3d4e5f60718"');
const instanceType = like(/^[a-z][a-z0-9-]{0,15}\.[a-z0-9-]{1,20}$/, 'must be an EC2 type such as "m6i.large"');
const roleArn = like(/^arn:aws[a-z-]*:iam::\d{12}:role\/[\w+=,.@/-]+$/, 'must be the ARN of an IAM role');
const principal = like(
  /^arn:aws[a-z-]*:iam::\d{12}:(?:role|user)\/[\w+=,.@/-]+$/,
  'must be ARNs of IAM roles or users',
);
const keyArn = like(/^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key\/[0-9a-f-]+$/, 'must be the ARN of a KMS key');
const eksName = like(/^[0-9A-Za-z][A-Za-z0-9_-]{0,99}$/, 'must be the name of an EKS cluster');
const labelKey = /^(?:[a-z0-9.-]{1,253}\/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$/;
const cidr: Check = (text) =>
  parseCidr(text) === undefined
    ? 'must be a block that begins at its own first address, such as "10.64.0.0/16"'
    : undefined;
const version = like(KUBERNETES_VERSION, 'must be a version that EKS offers, such as "1.34"');
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
    ...r.text('vpcId', vpcId),
    ...r.strings('subnetIds', { min: 2, check: subnetId }),
    ...r.text('cidr', cidr),
    ...r.strings('availabilityZones', { min: 2 }),
    ...r.oneOf('natGateways', NAT_MODES),
    ...r.text('eksCluster', eksName),
    ...r.text('kubernetesVersion', version),
    ...r.text('instanceType', instanceType),
    ...r.integer('nodeCount', { min: 1, max: 450 }),
    ...r.record('labels', (key) => (labelKey.test(key) ? undefined : 'is no key of a Kubernetes label')),
    ...r.list('taints', (t) => ({
      key: t.required('key', (key) => (labelKey.test(key) ? undefined : 'is no key of a Kubernetes taint')),
      ...t.text('value'),
      effect: t.oneOf('effect', TAINT_EFFECTS).effect ?? (t.bad('effect', 'is needed'), 'NO_SCHEDULE' as const),
    })),
    ...r.integer('machineVolumeGiB', { min: 20, max: 16_384 }),
    ...r.integer('volumeIops', { min: 3000, max: 80_000 }),
    ...r.integer('volumeThroughput', { min: 125, max: 2000 }),
    ...r.object('endpointAccess', (e) => ({
      ...e.boolean('public'),
      ...e.strings('publicCidrs', { min: 1, check: cidr }),
    })),
    ...r.text('secretsEncryptionKeyArn', keyArn),
    ...(r.strings('logging', { min: 1, check: logType }) as { logging?: EksLogType[] }),
    ...r.strings('adminPrincipalArns', { min: 1, check: principal }),
    ...r.object('roles', (roles) => ({ ...roles.text('cluster', roleArn), ...roles.text('node', roleArn) })),
    ...r.object('create', (c) => Object.assign({}, ...AWS_ROOMS.map((room) => c.boolean(room))) as object),
  };
}

function checkNetwork(r: Reader, request: AwsRequest): void {
  const { create, availabilityZones: zones, cidr: text } = resolveAws(request, 1);
  if (request.vpcId !== undefined && request.subnetIds === undefined) {
    r.bad('subnetIds', 'is needed with "vpcId": name subnets of it in two or more zones');
  }
  if (request.vpcId === undefined && request.subnetIds !== undefined) r.bad('vpcId', 'is needed with "subnetIds"');
  if (request.vpcId !== undefined && create.network) {
    r.bad('create.network', 'must not be true with "vpcId": a VPC that is given is used as it is');
  }
  if (request.vpcId === undefined && !create.network && (create.controlPlane || create.nodeGroups)) {
    r.bad('vpcId', 'is needed, and "subnetIds", where "create.network" is false');
  }
  if (new Set(zones).size !== zones.length) r.bad('availabilityZones', 'must not name a zone twice');
  if (zones.length > 6) r.bad('availabilityZones', 'must name at most 6');
  for (const zone of zones) {
    const { region } = resolveAws(request, 1);
    if (!zone.startsWith(region)) r.bad('availabilityZones', `"${zone}" is not in ${region}`);
  }
  const block = parseCidr(text);
  if (block === undefined || !create.network) return;
  const count = Math.max(zones.length, request.availabilityZones === undefined ? 3 : 2);
  const longest = longestPrefix(count);
  if (block.prefix < 16) r.bad('cidr', 'must be /16 or smaller: a VPC has no larger block');
  if (block.prefix > longest) r.bad('cidr', `is too small for ${count} zones; must be /${longest} or larger`);
  for (const services of SERVICE_BLOCKS) {
    const other = parseCidr(services);
    if (other !== undefined && overlaps(block, other)) {
      r.bad('cidr', `overlaps ${services}, which EKS uses for Services; choose another block, such as 10.64.0.0/16`);
    }
  }
}

function checkParts(r: Reader, request: AwsRequest): void {
  const { create, roles } = resolveAws(request, 1);
  if (!create.controlPlane && request.eksCluster === undefined) {
    r.bad('eksCluster', 'is needed where "create.controlPlane" is false: the EKS cluster to use');
  }
  if (create.controlPlane && request.eksCluster !== undefined) {
    r.bad('eksCluster', 'names a cluster that exists; leave it out, or "create.controlPlane"');
  }
  if (!create.access && create.controlPlane && roles.cluster === undefined) {
    r.bad('roles.cluster', 'is needed where "create.access" is false: the role of the EKS cluster');
  }
  if (!create.access && create.nodeGroups && roles.node === undefined) {
    r.bad('roles.node', 'is needed where "create.access" is false: the role of the machines');
  }
}
