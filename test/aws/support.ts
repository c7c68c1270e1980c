/** AWS clients on the proxy, without retries of their own, and a network to put a cluster in. */
import { CreateSubnetCommand, CreateVpcCommand, EC2Client } from '@aws-sdk/client-ec2';
import { EKSClient } from '@aws-sdk/client-eks';
import { IAMClient } from '@aws-sdk/client-iam';
import type { AwsProxy } from '../../src/local/aws/proxy/proxy.ts';

export const ROLE = 'arn:aws:iam::123456789012:role/control-plane';

export function settings(endpoint: string, maxAttempts = 1) {
  return {
    endpoint,
    region: 'us-east-1',
    maxAttempts,
    credentials: { accessKeyId: 'test', secretAccessKey: 'not-a-secret' },
  };
}

export function clients({ url }: Pick<AwsProxy, 'url'>, maxAttempts = 1) {
  const of = settings(url, maxAttempts);
  return { ec2: new EC2Client(of), eks: new EKSClient(of), iam: new IAMClient(of) };
}

/** A VPC with a subnet in each of two zones. */
export async function makeNetwork(ec2: EC2Client): Promise<{ vpcId: string; subnetIds: string[] }> {
  const { Vpc } = await ec2.send(new CreateVpcCommand({ CidrBlock: '10.9.0.0/16' }));
  const vpcId = Vpc?.VpcId ?? '';
  const subnetIds: string[] = [];
  for (const [index, zone] of ['us-east-1a', 'us-east-1b'].entries()) {
    const command = { VpcId: vpcId, CidrBlock: `10.9.${index}.0/24`, AvailabilityZone: zone };
    const { Subnet } = await ec2.send(new CreateSubnetCommand(command));
    subnetIds.push(Subnet?.SubnetId ?? '');
  }
  return { vpcId, subnetIds };
}

/** The name of the error that a call fails with. */
export async function errorOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
  } catch (error) {
    return (error as Error).name;
  }
  return 'none';
}
