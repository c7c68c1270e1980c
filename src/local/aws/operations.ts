/** Every AWS operation that is used or answered here: which emulator has it, what that one gets wrong, what the proxy adds. */

interface Knowledge {
  /** Where it differs from AWS; `no` where it does not have the operation. Absent: as far as is known as AWS. */
  readonly moto?: string;
  readonly ministack?: string;
  readonly proxy?: string;
}

const TIME = 'takes its time; can fail (`hold`)';
const TOKEN = 'client token';
const LAG = 'not seen at once (`lag`)';
const UPDATE = 'answered by the proxy: an update that takes its time, can fail, and is seen in the next describe';
const NO_GROUPS = {
  moto: 'knows no group of a node group',
  ministack: 'no',
} as const;
const NOT_MOTO = { moto: 'no' } as const;

export const OPERATIONS: Readonly<Record<string, Knowledge>> = {
  'autoscaling:SetInstanceProtection': {
    ...NO_GROUPS,
    proxy: 'answered by the proxy: which of the local machines a smaller group takes',
  },
  'autoscaling:SuspendProcesses': { ...NO_GROUPS, proxy: 'answered by the proxy, which never rebalances zones' },
  'ec2:AllocateAddress': { proxy: LAG },
  'ec2:AssociateRouteTable': {},
  'ec2:AttachInternetGateway': {},
  'ec2:CreateInternetGateway': { proxy: LAG },
  'ec2:CreateLaunchTemplate': { proxy: `${TOKEN}; ${LAG}` },
  'ec2:CreateNatGateway': {
    moto: 'ignores the token; available at once',
    ministack: 'ignores the token; takes an address twice; available at once',
    proxy: `${TOKEN}; pending, available, failed; ${LAG}`,
  },
  'ec2:CreateRoute': { ministack: 'takes a route twice' },
  'ec2:CreateRouteTable': { proxy: `${TOKEN}; ${LAG}` },
  'ec2:CreateSubnet': { ministack: 'takes blocks that overlap', proxy: LAG },
  'ec2:CreateVpc': { proxy: LAG },
  'ec2:CreateVpcEndpoint': { proxy: `${TOKEN}; ${LAG}` },
  'ec2:DeleteInternetGateway': {},
  'ec2:DeleteLaunchTemplate': {},
  'ec2:DeleteNatGateway': {
    moto: 'gone at once; leaves its network interface',
    ministack: 'gone at once',
    proxy: 'deleting, deleted; removes the network interface',
  },
  'ec2:DeleteNetworkInterface': {},
  'ec2:DeleteRouteTable': {},
  'ec2:DeleteSecurityGroup': {},
  'ec2:DeleteSubnet': {
    moto: 'also with a NAT gateway in it',
    ministack: 'also with a NAT gateway in it',
    proxy: 'DependencyViolation while a NAT gateway is in it',
  },
  'ec2:DeleteVolume': {},
  'ec2:DeleteVpc': {},
  'ec2:DeleteVpcEndpoints': {},
  'ec2:DescribeAddresses': {},
  'ec2:DescribeAvailabilityZones': {},
  'ec2:DescribeInstanceTypeOfferings': { ministack: 'no', proxy: 'a short list, where the emulator has none' },
  'ec2:DescribeInternetGateways': {},
  'ec2:DescribeLaunchTemplates': {},
  'ec2:DescribeNatGateways': { proxy: 'states' },
  'ec2:DescribeNetworkInterfaces': {},
  'ec2:DescribeRouteTables': {},
  'ec2:DescribeSecurityGroups': {},
  'ec2:DescribeSubnets': {},
  'ec2:DescribeVolumes': {},
  'ec2:DescribeVpcEndpoints': {},
  'ec2:DescribeVpcs': {},
  'ec2:DetachInternetGateway': {},
  'ec2:DisassociateRouteTable': {},
  'ec2:ModifyVpcAttribute': {},
  'ec2:ReleaseAddress': { proxy: 'InvalidIPAddress.InUse while a NAT gateway has it' },
  'eks:AssociateAccessPolicy': NOT_MOTO,
  'eks:CreateAccessEntry': { ...NOT_MOTO, proxy: TOKEN },
  'eks:CreateAddon': { ...NOT_MOTO, ministack: 'active at once', proxy: `${TOKEN}; ${TIME}; ${LAG}` },
  'eks:CreateCluster': {
    moto: 'active at once; takes any subnet and version',
    ministack: 'active at once; takes any subnet, version and role',
    proxy:
      `${TOKEN}; ${TIME}; ${LAG}; subnets of one VPC in two zones; the version is one that there is; ` +
      'makes the security group; keeps access, upgrade policy and deletion protection',
  },
  'eks:CreateNodegroup': {
    moto: 'active at once',
    ministack: 'active at once',
    proxy: `${TOKEN}; ${TIME}; ${LAG}; refused before the cluster is active; its machines become nodes (local stack)`,
  },
  'eks:CreatePodIdentityAssociation': { ...NOT_MOTO, proxy: TOKEN },
  'eks:DeleteAccessEntry': NOT_MOTO,
  'eks:DeleteAddon': { ...NOT_MOTO, proxy: TIME },
  'eks:DeleteCluster': {
    moto: 'gone at once',
    ministack: 'gone at once, with its node groups',
    proxy: `${TIME}; refused with node groups, on its way, or protected; removes the security group`,
  },
  'eks:DeleteNodegroup': { moto: 'gone at once', ministack: 'gone at once', proxy: TIME },
  'eks:DeletePodIdentityAssociation': NOT_MOTO,
  'eks:DescribeAccessEntry': NOT_MOTO,
  'eks:DescribeAddon': { ...NOT_MOTO, proxy: 'states, health, updates' },
  'eks:DescribeAddonVersions': { ...NOT_MOTO, ministack: 'no', proxy: 'a short list' },
  'eks:DescribeCluster': {
    moto: 'no access or upgrade policy; an endpoint that nobody has',
    ministack: 'no certificate authority; an endpoint where nobody listens',
    proxy: 'states, health, updates; endpoint and certificate authority of the local API server',
  },
  'eks:DescribeClusterVersions': { ...NOT_MOTO, ministack: 'no', proxy: 'a short list' },
  'eks:DescribeNodegroup': { proxy: 'states, health, updates' },
  'eks:DescribePodIdentityAssociation': NOT_MOTO,
  'eks:DescribeUpdate': { ...NOT_MOTO, ministack: 'no', proxy: 'InProgress, Successful, Failed' },
  'eks:ListAccessEntries': NOT_MOTO,
  'eks:ListAddons': { ...NOT_MOTO, proxy: 'shows what is being deleted' },
  'eks:ListClusters': { proxy: 'shows what is being deleted' },
  'eks:ListNodegroups': { proxy: 'shows what is being deleted' },
  'eks:ListPodIdentityAssociations': NOT_MOTO,
  'eks:ListUpdates': { ...NOT_MOTO, ministack: 'no', proxy: 'answered by the proxy' },
  'eks:UpdateAddon': { ...NOT_MOTO, ministack: 'done at once', proxy: UPDATE },
  'eks:UpdateClusterConfig': { moto: 'answers without an update', ministack: 'no', proxy: UPDATE },
  'eks:UpdateClusterVersion': { ...NOT_MOTO, ministack: 'no', proxy: `${UPDATE}; one minor version at a time` },
  'eks:UpdateNodegroupConfig': { moto: 'its update cannot be described', ministack: 'no', proxy: UPDATE },
  'eks:UpdateNodegroupVersion': { ...NOT_MOTO, ministack: 'no', proxy: `${UPDATE}; not above the cluster's version` },
  'iam:AttachRolePolicy': { ministack: "takes any name as AWS' own policy" },
  'iam:CreateRole': { proxy: LAG },
  'iam:DeleteRole': {},
  'iam:DeleteRolePolicy': {},
  'iam:DetachRolePolicy': {},
  'iam:GetRole': {},
  'iam:ListAttachedRolePolicies': {},
  'iam:ListRolePolicies': {},
  'iam:ListRoles': {},
  'iam:PutRolePolicy': {},
  's3:CreateBucket': {
    proxy:
      'makes it on the local store, too, which holds the objects, without versions, lock, encryption or policy (local stack)',
  },
  's3:DeleteBucket': { proxy: 'from the local store, too; refused with objects in it (local stack)' },
  's3:GetBucketTagging': {},
  's3:ListObjectVersions': { proxy: 'what the local store holds (local stack)' },
  's3:PutBucketEncryption': {},
  's3:PutBucketLifecycleConfiguration': {},
  's3:PutBucketPolicy': {},
  's3:PutBucketTagging': {},
  's3:PutBucketVersioning': {},
  's3:PutObjectLockConfiguration': { moto: 'refuses it for a bucket with objects in it' },
  's3:PutPublicAccessBlock': {},
  'sts:GetCallerIdentity': { proxy: 'asked by the webhook with the URL of a token (local stack)' },
};

/** Which emulator proves an operation in the local stack: see front.ts. */
function provenBy(operation: string): 'moto' | 'ministack' | 'the proxy alone' {
  const { moto, ministack } = OPERATIONS[operation] ?? {};
  if (operation.startsWith('autoscaling:')) return 'the proxy alone';
  const routed = /^(eks|sts):/.test(operation) ? 'ministack' : 'moto';
  return (routed === 'moto' ? moto : ministack) === 'no' ? 'the proxy alone' : routed;
}

/** The table of docs/aws-emulators.md. */
export function operationsTable(): string {
  const rows = Object.entries(OPERATIONS).map(([operation, { moto = 'yes', ministack = 'yes', proxy = '' }]) => {
    const cells = [`\`${operation}\``, provenBy(operation), moto, ministack, proxy];
    return `| ${cells.join(' | ')} |`;
  });
  return ['| operation | proven by | moto | ministack | the proxy adds |', '|---|---|---|---|---|', ...rows].join('\n');
}
