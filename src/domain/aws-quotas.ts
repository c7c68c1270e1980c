/** Quotas of an AWS account, by the errors that tell of their exhaustion. */

/** Name, service and code in Service Quotas. By the error's name, or by the call where an error's name says too little. */
const QUOTAS: Readonly<Record<string, readonly [name: string, service: string, code: string]>> = {
  VpcLimitExceeded: ['VPCs per Region', 'vpc', 'L-F678F1CE'],
  SubnetLimitExceeded: ['Subnets per VPC', 'vpc', 'L-407747CB'],
  InternetGatewayLimitExceeded: ['Internet gateways per Region', 'vpc', 'L-A4707A72'],
  NatGatewayLimitExceeded: ['NAT gateways per Availability Zone', 'vpc', 'L-FE5A380F'],
  RouteTableLimitExceeded: ['Route tables per VPC', 'vpc', 'L-589F43AA'],
  RouteLimitExceeded: ['Routes per route table', 'vpc', 'L-93826ACB'],
  VpcEndpointLimitExceeded: ['Gateway VPC endpoints per Region', 'vpc', 'L-1B52E74A'],
  // EKS makes these for its control plane, and tells of them in the health of a cluster or a node group.
  RulesPerSecurityGroupLimitExceeded: ['Inbound or outbound rules per security group', 'vpc', 'L-0EA8095F'],
  SecurityGroupLimitExceeded: ['VPC security groups per Region', 'vpc', 'L-E79EC296'],
  NetworkInterfaceLimitExceeded: ['Network interfaces per Region', 'vpc', 'L-DF5E4CA3'],
  EniLimitReached: ['Network interfaces per Region', 'vpc', 'L-DF5E4CA3'],
  AddressLimitExceeded: ['EC2-VPC Elastic IPs', 'ec2', 'L-0263D0A3'],
  VcpuLimitExceeded: ['Running On-Demand Standard instances (vCPUs)', 'ec2', 'L-1216C47A'],
  InstanceLimitExceeded: ['Running On-Demand Standard instances (vCPUs)', 'ec2', 'L-1216C47A'],
  'eks:CreateCluster': ['Clusters', 'eks', 'L-1194D53C'],
  'eks:CreateNodegroup': ['Managed node groups per cluster', 'eks', 'L-6D54EA21'],
  'iam:CreateRole': ['Roles per account', 'iam', 'L-FE177D64'],
  'iam:AttachRolePolicy': ['Managed policies attached to an IAM role', 'iam', 'L-0DA4ABF3'],
  TooManyBuckets: ['General purpose buckets', 's3', 'L-DC2B2D3D'],
};

/** What to do about a quota that a call was refused for. @param error its name @param action such as `ec2:CreateVpc` */
export function quotaAdvice(error: string, action: string): string {
  const quota = QUOTAS[error] ?? QUOTAS[action];
  if (quota === undefined)
    return 'A quota of the account is reached; Service Quotas shows which, and takes requests to raise it.';
  const [title, service, code] = quota;
  return `The quota "${title}" is reached. Remove what is not needed, or raise it: aws service-quotas request-service-quota-increase --service-code ${service} --quota-code ${code} --desired-value <n>.`;
}

/** The same for a quota that is named in the middle of a text, such as a node group's words about its machines. */
export function quotaAdviceIn(text: string): string | undefined {
  const error = Object.keys(QUOTAS).find((name) => !name.includes(':') && text.includes(name));
  return error === undefined ? undefined : quotaAdvice(error, '');
}
