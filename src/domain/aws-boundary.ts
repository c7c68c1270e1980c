/** The permissions boundary of every role that the fleet makes: docs/iam/boundary.json is generated from it. */
import { BUCKET_PATTERN } from './aws-names.ts';
import type { PolicyDocument } from './aws-policies.ts';

/** Name that the worker's policy expects where no ARN is given. */
export const BOUNDARY_NAME = 'qdrant-fleet-boundary';

/**
 * The most that a role can do, whatever policies it has: what AWS' own policies for EKS clusters, machines and volumes
 * give, and reading backups. No IAM but one role of AWS' own, no STS, no deletion in S3.
 *
 * @param bucket the fleet's; default: only those that clusters have of their own
 */
export function boundaryPolicy(bucket?: string, partition = 'aws'): PolicyDocument {
  const buckets = [BUCKET_PATTERN, ...(bucket === undefined ? [] : [bucket])].map(
    (name) => `arn:${partition}:s3:::${name}`,
  );
  return {
    Version: '2012-10-17',
    Statement: [
      { Sid: 'ClusterMachinesVolumes', Effect: 'Allow', Action: [...RUNNING], Resource: '*' },
      {
        Sid: 'LoadBalancers',
        Effect: 'Allow',
        Action: 'iam:CreateServiceLinkedRole',
        Resource: '*',
        Condition: { StringEquals: { 'iam:AWSServiceName': 'elasticloadbalancing.amazonaws.com' } },
      },
      {
        Sid: 'ReadBackups',
        Effect: 'Allow',
        Action: ['s3:GetObject', 's3:ListBucket'],
        Resource: buckets.flatMap((arn) => [arn, `${arn}/*`]),
      },
    ],
  };
}

/** What the policies in MANAGED_POLICIES of aws-policies.ts hold, `Describe` of EC2 and load balancers as a whole. */
const RUNNING = [
  'autoscaling:DescribeAutoScalingGroups',
  'autoscaling:UpdateAutoScalingGroup',
  'ec2:Describe*',
  'ec2:AssignPrivateIpAddresses',
  'ec2:AttachNetworkInterface',
  'ec2:AttachVolume',
  'ec2:AuthorizeSecurityGroupIngress',
  'ec2:CopyVolumes',
  'ec2:CreateNetworkInterface',
  'ec2:CreateRoute',
  'ec2:CreateSecurityGroup',
  'ec2:CreateSnapshot',
  'ec2:CreateTags',
  'ec2:CreateVolume',
  'ec2:DeleteNetworkInterface',
  'ec2:DeleteRoute',
  'ec2:DeleteSecurityGroup',
  'ec2:DeleteSnapshot',
  'ec2:DeleteTags',
  'ec2:DeleteVolume',
  'ec2:DetachNetworkInterface',
  'ec2:DetachVolume',
  'ec2:EnableFastSnapshotRestores',
  'ec2:LockSnapshot',
  'ec2:ModifyInstanceAttribute',
  'ec2:ModifyNetworkInterfaceAttribute',
  'ec2:ModifyVolume',
  'ec2:RevokeSecurityGroupIngress',
  'ec2:UnassignPrivateIpAddresses',
  'ecr:BatchGetImage',
  'ecr:BatchImportUpstreamImage',
  'ecr:GetAuthorizationToken',
  'ecr:GetDownloadUrlForLayer',
  'eks-auth:AssumeRoleForPodIdentity',
  'eks:DescribeCluster',
  'elasticloadbalancing:*',
  'kms:DescribeKey',
] as const;
