/** AWS clients on the proxy, without retries of their own, and a network to put a cluster in. */
import { dirname, join } from 'node:path';
import { CreateSubnetCommand, CreateVpcCommand, EC2Client } from '@aws-sdk/client-ec2';
import { EKSClient } from '@aws-sdk/client-eks';
import { IAMClient } from '@aws-sdk/client-iam';
import { inject } from 'vitest';
import type { AwsEmulators } from '../../src/local/aws/emulators.ts';
import { startAwsFront, type AwsFront } from '../../src/local/aws/front.ts';
import { tryLock } from '../../src/local/lock.ts';
import { until } from '../support/fleet.ts';
import type { BucketStore } from '../../src/local/aws/proxy/buckets.ts';
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

/**
 * The AWS of the shared stack, which can be had once: its webhook has one port, and machines that no group of its own
 * wants are taken away.
 */
export async function startFront(
  { urls }: AwsEmulators,
  credentials = { accessKeyId: 'test', secretAccessKey: 'not-a-secret' },
): Promise<AwsFront> {
  const { KUBECONFIG: kubeconfig = '', FLEET_LOCAL_TOKEN_WEBHOOK_PORT: port } = inject('localEnv');
  const bucketStore = localStore();
  const lock = await frontLock();
  const front = await startAwsFront({
    moto: urls.moto ?? '',
    ministack: urls.ministack ?? '',
    kubeconfig,
    webhookPort: Number(port),
    credentials,
    bucketStore,
  });
  return {
    proxy: front.proxy,
    close: async () => {
      await front.close();
      lock.release();
    },
  };
}

/** The S3 of the shared stack, in which the proxy makes buckets. */
export function localStore(): BucketStore {
  const { FLEET_S3_ENDPOINT: endpoint = '', AWS_REGION: region = '', ...env } = inject('localEnv');
  const credentials = {
    accessKeyId: env['AWS_ACCESS_KEY_ID'] ?? '',
    secretAccessKey: env['AWS_SECRET_ACCESS_KEY'] ?? '',
  };
  return { endpoint, region, credentials };
}

/** Waits until no other test file has the stack's AWS. */
export async function frontLock(): Promise<{ release(): void }> {
  const path = join(dirname(inject('localEnv')['KUBECONFIG'] ?? ''), 'aws-front.lock');
  return until(
    'the AWS of the stack is free',
    async () => {
      const found = tryLock(path);
      return 'holder' in found ? undefined : found;
    },
    240,
  );
}
