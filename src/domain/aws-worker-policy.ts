/** The IAM policy that a worker needs to make and remove clusters: docs/iam/worker.json is generated from it. */
import { BOUNDARY_NAME } from './aws-boundary.ts';
import { AWS_TAGS, IAM_PATH, MANAGED_BY_TAG } from './aws-names.ts';
import type { PolicyDocument, Statement } from './aws-policies.ts';

/** Ours is what we ask for, and what is tagged so. */
const REQUESTED = { StringEquals: { [`aws:RequestTag/${AWS_TAGS.managedBy}`]: MANAGED_BY_TAG } };
const OURS = { StringEquals: { [`aws:ResourceTag/${AWS_TAGS.managedBy}`]: MANAGED_BY_TAG } };

/** What a node group's machines are started with, besides their launch template. */
const MACHINE_PARTS = ['image', 'instance', 'network-interface', 'security-group', 'subnet', 'volume'];

/**
 * Looking is allowed everywhere, since these calls know no resources. Making needs our tag in the request, changing and
 * removing need it on the resource; EKS is looked at by name. Roles are limited to our path, and get a policy only
 * within the boundary, which nobody takes off again. Which resources an action is about, and which condition keys it brings: Service
 * Authorization Reference. It fits into a managed policy, which IAM limits to 6,144 characters.
 *
 * @param boundary ARN of the permissions boundary; default: the one of {@link BOUNDARY_NAME} in the worker's account
 */
export function workerPolicy(partition = 'aws', boundary?: string): PolicyDocument {
  const ec2 = (kinds: readonly string[]) => kinds.map((kind) => `arn:${partition}:ec2:*:*:${kind}/*`);
  // Of whatever kind: AWS chooses the names, and tags say whose it is.
  const tagged = `arn:${partition}:ec2:*:*:*/*`;
  const eks = `arn:${partition}:eks:*:*:*/fleet-*`;
  const roles = `arn:${partition}:iam::*:role${IAM_PATH}fleet-*`;
  const allow = (
    Sid: string,
    Action: readonly string[],
    Resource: Statement['Resource'],
    Condition?: Statement['Condition'],
  ): Statement => ({
    Sid,
    Effect: 'Allow',
    Action,
    ...(Resource !== undefined && { Resource }),
    ...(Condition !== undefined && { Condition }),
  });
  // An account has twelve digits; a longer pattern would match a path, too.
  const within = boundary ?? `arn:${partition}:iam::${'?'.repeat(12)}:policy/${BOUNDARY_NAME}`;
  const BOUNDED = { StringLike: { 'iam:PermissionsBoundary': within } };
  return {
    Version: '2012-10-17',
    Statement: [
      allow('Look', LOOK, '*'),
      allow('MakeNetwork', MAKE, tagged, REQUESTED),
      allow('TagWhatIsMade', ['ec2:CreateTags'], tagged, {
        StringLike: { 'ec2:CreateAction': ['Create*', 'AllocateAddress', 'RunInstances'] },
      }),
      // The VPC, subnet, address or table that a new thing is put into has to be ours, too.
      allow('ChangeAndRemove', [...MAKE_IN, ...CHANGE], tagged, OURS),
      // Interfaces and groups that EKS made and left behind carry its tags, not ours; they are inside our VPC.
      allow('RemoveGroupsOfEks', ['ec2:DeleteSecurityGroup'], ec2(['security-group']), {
        Null: { 'aws:ResourceTag/aws:eks:cluster-name': 'false' },
      }),
      allow('RemoveGroupsOfLoadBalancers', ['ec2:DeleteSecurityGroup'], ec2(['security-group']), {
        Null: { 'aws:ResourceTag/elbv2.k8s.aws/cluster': 'false' },
      }),
      allow('RemoveInterfacesOfEks', ['ec2:DeleteNetworkInterface'], ec2(['network-interface']), {
        Null: { 'aws:ResourceTag/cluster.k8s.amazonaws.com/name': 'false' },
      }),
      // EKS makes the groups of the machines, with its tags and not with ours.
      allow(
        'KeepMachinesOfPeers',
        ['autoscaling:SetInstanceProtection', 'autoscaling:SuspendProcesses'],
        `arn:${partition}:autoscaling:*:*:autoScalingGroup:*:autoScalingGroupName/eks-*`,
        { StringLike: { 'aws:ResourceTag/eks:cluster-name': 'fleet-*' } },
      ),
      // Before EKS makes a node group it sees whether the caller may start machines by its launch template, which has to
      // be ours, too.
      allow('RunMachines', ['ec2:RunInstances'], ec2(MACHINE_PARTS), {
        ArnLike: { 'ec2:LaunchTemplate': ec2(['launch-template']) },
      }),
      // EKS knows no resource for it.
      allow('MakeClusters', ['eks:CreateCluster'], '*', REQUESTED),
      // Tags of roles are asked for apart from the roles.
      allow(
        'MakeInClusters',
        [
          'eks:CreateNodegroup',
          'eks:CreateAddon',
          'eks:CreateAccessEntry',
          'eks:CreatePodIdentityAssociation',
          'eks:TagResource',
          'iam:TagRole',
        ],
        [eks, roles],
        REQUESTED,
      ),
      // By name alone: what is not there yet has no tags, and the answer has to be that it is not there.
      allow('LookAtClusters', EKS_LOOK, eks),
      allow('ChangeClusters', EKS_CHANGE, eks, OURS),
      allow('MakeRoles', ['iam:CreateRole'], roles, { ...REQUESTED, ...BOUNDED }),
      allow(
        'RemoveRoles',
        [
          'iam:ListAttachedRolePolicies',
          'iam:ListRolePolicies',
          'iam:DetachRolePolicy',
          'iam:DeleteRolePolicy',
          'iam:DeleteRole',
        ],
        roles,
      ),
      allow('AttachKnownPolicies', ['iam:AttachRolePolicy'], roles, {
        ArnEquals: { 'iam:PolicyARN': MANAGED.map((name) => `arn:${partition}:iam::aws:policy/${name}`) },
        ...BOUNDED,
      }),
      // No other role has a policy of its own.
      allow('WriteBackupPolicy', ['iam:PutRolePolicy'], `${roles}-backup`, BOUNDED),
      allow('PassRoles', ['iam:PassRole'], roles, {
        StringEquals: { 'iam:PassedToService': ['eks.amazonaws.com', 'ec2.amazonaws.com', 'pods.eks.amazonaws.com'] },
      }),
      // AWS makes each of these once in an account, in the name of whoever first needs it.
      allow('MakeRolesOfEks', ['iam:CreateServiceLinkedRole'], `arn:${partition}:iam::*:role/aws-service-role/*`, {
        StringEquals: { 'iam:AWSServiceName': ['eks.amazonaws.com', 'eks-nodegroup.amazonaws.com'] },
      }),
    ],
  };
}

const MANAGED = [
  'AmazonEKSClusterPolicy',
  'AmazonEKSWorkerNodePolicy',
  'AmazonEKS_CNI_Policy',
  'AmazonEC2ContainerRegistryPullOnly',
  'service-role/AmazonEBSCSIDriverPolicy',
];

/**
 * EC2's describes, the lists of EKS and IAM, and who one is: none of them can be limited to a resource. Nor can the look
 * at a role that is not there: it has no path yet, and the answer has to be that it is not there.
 */
const LOOK = [
  'ec2:DescribeAddresses',
  'ec2:DescribeAvailabilityZones',
  'ec2:DescribeInstanceTypeOfferings',
  'ec2:DescribeInternetGateways',
  'ec2:DescribeLaunchTemplates',
  'ec2:DescribeNatGateways',
  'ec2:DescribeNetworkInterfaces',
  'ec2:DescribeRouteTables',
  'ec2:DescribeSecurityGroups',
  'ec2:DescribeSubnets',
  'ec2:DescribeVolumes',
  'ec2:DescribeVpcEndpoints',
  'ec2:DescribeVpcs',
  'eks:DescribeClusterVersions',
  'eks:ListClusters',
  'iam:GetRole',
  'iam:ListRoles',
  'sts:GetCallerIdentity',
];

const MAKE = [
  'ec2:CreateVpc',
  'ec2:CreateSubnet',
  'ec2:CreateInternetGateway',
  'ec2:AllocateAddress',
  'ec2:CreateNatGateway',
  'ec2:CreateRouteTable',
  'ec2:CreateVpcEndpoint',
  'ec2:CreateLaunchTemplate',
];

/** About what a new thing is put into or made from. */
const MAKE_IN = [
  'ec2:CreateSubnet',
  'ec2:CreateRouteTable',
  'ec2:CreateNatGateway',
  'ec2:CreateVpcEndpoint',
  'ec2:RunInstances',
];

const CHANGE = [
  'ec2:ModifyVpcAttribute',
  'ec2:AttachInternetGateway',
  'ec2:DetachInternetGateway',
  'ec2:CreateRoute',
  'ec2:AssociateRouteTable',
  'ec2:DisassociateRouteTable',
  'ec2:DeleteVpcEndpoints',
  'ec2:DeleteNatGateway',
  'ec2:ReleaseAddress',
  'ec2:DeleteRouteTable',
  'ec2:DeleteInternetGateway',
  'ec2:DeleteSubnet',
  'ec2:DeleteVpc',
  'ec2:DeleteLaunchTemplate',
  'ec2:DeleteVolume',
];

const EKS_LOOK = [
  'eks:DescribeCluster',
  'eks:DescribeNodegroup',
  'eks:DescribeUpdate',
  'eks:ListNodegroups',
  'eks:DescribeAddon',
  'eks:DescribeAccessEntry',
  'eks:ListAccessEntries',
  'eks:ListPodIdentityAssociations',
  'eks:DescribePodIdentityAssociation',
];

const EKS_CHANGE = [
  'eks:DeleteCluster',
  'eks:DeleteNodegroup',
  'eks:UpdateNodegroupConfig',
  'eks:DeleteAddon',
  'eks:AssociateAccessPolicy',
  'eks:DeleteAccessEntry',
  'eks:DeletePodIdentityAssociation',
];
