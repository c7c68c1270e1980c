/** The IAM policies of the roles that a cluster gets. Each allows what its bearer does, on what is the cluster's. */
import { eksNameOf } from './aws-names.ts';
import { clusterPrefix, namespaceOf, type ClusterRef } from './naming.ts';

export interface Statement {
  readonly Sid: string;
  readonly Effect: 'Allow' | 'Deny';
  readonly Action: string | readonly string[];
  readonly Resource?: string | readonly string[];
  readonly Principal?: string | Readonly<Record<string, string>>;
  readonly Condition?: Readonly<Record<string, Readonly<Record<string, string | readonly string[]>>>>;
}

export interface PolicyDocument {
  readonly Version: '2012-10-17';
  readonly Statement: readonly Statement[];
}

/** Service account that the backup role is for, in the cluster's own namespace. */
const BACKUP_SERVICE_ACCOUNT = 'qdrant-fleet-backup';

export interface Account {
  readonly partition: string;
  readonly account: string;
  readonly region: string;
}

function document(...Statement: Statement[]): PolicyDocument {
  return { Version: '2012-10-17', Statement };
}

/** EKS takes the cluster role, EC2 the machines'. The account keeps another one's EKS from being the deputy. */
export function serviceTrust(service: 'eks.amazonaws.com' | 'ec2.amazonaws.com', { account }: Account): PolicyDocument {
  return document({
    Sid: 'Service',
    Effect: 'Allow',
    Principal: { Service: service },
    Action: 'sts:AssumeRole',
    // EC2 sets no source account when a machine takes its role.
    ...(service === 'eks.amazonaws.com' && { Condition: { StringEquals: { 'aws:SourceAccount': account } } }),
  });
}

/** One service account of one cluster, by Pod Identity, which tells who asks in tags of the session. */
export function podTrust(
  ref: ClusterRef,
  at: Account,
  pod: { namespace: string; serviceAccount: string },
): PolicyDocument {
  return document({
    Sid: 'PodIdentity',
    Effect: 'Allow',
    Principal: { Service: 'pods.eks.amazonaws.com' },
    Action: ['sts:AssumeRole', 'sts:TagSession'],
    Condition: {
      StringEquals: {
        'aws:SourceAccount': at.account,
        'aws:RequestTag/kubernetes-namespace': pod.namespace,
        'aws:RequestTag/kubernetes-service-account': pod.serviceAccount,
      },
      ArnEquals: { 'aws:SourceArn': `arn:${at.partition}:eks:${at.region}:${at.account}:cluster/${eksNameOf(ref)}` },
    },
  });
}

export function backupPod(ref: ClusterRef) {
  return { namespace: namespaceOf(ref), serviceAccount: BACKUP_SERVICE_ACCOUNT };
}

/** Read the shards in the backups of one cluster. No record is written, and nothing removed, by what runs in its pods. */
export function backupPolicy(ref: ClusterRef, { partition }: Account, bucket: string, prefix: string): PolicyDocument {
  const keys = clusterPrefix({ ...ref, prefix });
  const arn = `arn:${partition}:s3:::${bucket}`;
  return document(
    {
      Sid: 'Objects',
      Effect: 'Allow',
      Action: 's3:GetObject',
      Resource: `${arn}/${keys}*/data/*`,
    },
    {
      Sid: 'List',
      Effect: 'Allow',
      Action: 's3:ListBucket',
      Resource: arn,
      Condition: { StringLike: { 's3:prefix': `${keys}*` } },
    },
    {
      Sid: 'OnlyTls',
      Effect: 'Deny',
      Action: 's3:*',
      Resource: [arn, `${arn}/*`],
      Condition: { Bool: { 'aws:SecureTransport': 'false' } },
    },
  );
}

/** Policies of AWS itself that the roles are given, by name. */
export const MANAGED_POLICIES = {
  cluster: ['AmazonEKSClusterPolicy'],
  node: ['AmazonEKSWorkerNodePolicy', 'AmazonEKS_CNI_Policy', 'AmazonEC2ContainerRegistryPullOnly'],
  volumes: ['service-role/AmazonEBSCSIDriverPolicy'],
  backup: [],
} as const satisfies Record<string, readonly string[]>;

/**
 * What an administrator may do in Kubernetes: everything in an EKS cluster that is made for one Qdrant cluster, and in one
 * that exists already, where others live too, what EKS lets an administrator do in the cluster's own namespace.
 *
 * @param isOwn the fleet makes the EKS cluster
 */
export function adminAccess(ref: ClusterRef, partition: string, isOwn: boolean) {
  const policy = (name: string) => `arn:${partition}:eks::aws:cluster-access-policy/${name}`;
  return isOwn
    ? { policyArn: policy('AmazonEKSClusterAdminPolicy'), accessScope: { type: 'cluster' as const } }
    : {
        policyArn: policy('AmazonEKSAdminPolicy'),
        accessScope: { type: 'namespace' as const, namespaces: [namespaceOf(ref)] },
      };
}
