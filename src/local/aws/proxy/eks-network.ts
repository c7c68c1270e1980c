/** What EKS does in the caller's VPC: it checks the subnets, and makes a security group for the cluster. */
import { errorAnswer } from './answers.ts';
import type { Answer, AwsCall } from './call.ts';
import type { Members } from './eks-resources.ts';
import type { Upstream } from './upstream.ts';
import { childText, elements, parseXml } from './xml.ts';

/** @returns the network part of the cluster, or the refusal */
export async function clusterNetwork(upstream: Upstream, call: AwsCall): Promise<Members | Answer> {
  const invalid = (message: string) => errorAnswer(call, 400, 'InvalidParameterException', message);
  const { subnetIds = [] } = (call.params['resourcesVpcConfig'] ?? {}) as { subnetIds?: string[] };
  const ids = Object.fromEntries(subnetIds.map((id, index) => [`SubnetId.${index + 1}`, id]));
  const answer = await upstream.ec2(call, { Action: 'DescribeSubnets', ...ids });
  if (subnetIds.length === 0 || answer.status >= 300) {
    return invalid(`The subnet ID '${subnetIds.join("', '")}' does not exist`);
  }
  const subnets = elements(parseXml(answer.body), 'item').filter((item) => childText(item, 'subnetId') !== undefined);
  const zones = new Set(subnets.map((subnet) => childText(subnet, 'availabilityZone')));
  if (zones.size < 2) return invalid('Subnets specified must be in at least two different AZs');
  const [vpcId, ...others] = new Set(subnets.map((subnet) => childText(subnet, 'vpcId')));
  if (vpcId === undefined || others.length > 0) return invalid('Subnets specified must belong to one VPC');

  const name = String(call.params['name']);
  const group = await upstream.ec2(call, {
    Action: 'CreateSecurityGroup',
    GroupName: `eks-cluster-sg-${name}-${Math.floor(Math.random() * 1e9)}`,
    GroupDescription: 'EKS created security group applied to ENI that is attached to EKS Control Plane master nodes',
    VpcId: vpcId,
    'TagSpecification.1.ResourceType': 'security-group',
    'TagSpecification.1.Tag.1.Key': 'aws:eks:cluster-name',
    'TagSpecification.1.Tag.1.Value': name,
    'TagSpecification.1.Tag.2.Key': `kubernetes.io/cluster/${name}`,
    'TagSpecification.1.Tag.2.Value': 'owned',
  });
  const groupId = /<groupId>([^<]+)</.exec(group.body)?.[1];
  return { resourcesVpcConfig: { vpcId, ...(groupId !== undefined && { clusterSecurityGroupId: groupId }) } };
}

/** EKS removes its security group with the cluster; it stays where something else uses it, and then so does the VPC. */
export async function removeClusterSecurityGroup(upstream: Upstream, call: AwsCall, cluster: Members): Promise<void> {
  const { clusterSecurityGroupId: id } = (cluster['resourcesVpcConfig'] ?? {}) as { clusterSecurityGroupId?: string };
  if (id !== undefined) await upstream.ec2(call, { Action: 'DeleteSecurityGroup', GroupId: id });
}
