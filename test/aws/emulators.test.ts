/** The AWS emulators as parts: both start on loopback, answer the SDK, and forget. */
import { CreateClusterCommand, EKSClient, ListClustersCommand } from '@aws-sdk/client-eks';
import { CreateRoleCommand, GetPolicyCommand, IAMClient, ListRolesCommand } from '@aws-sdk/client-iam';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { EMULATORS, startAwsEmulators, type AwsEmulators } from '../../src/local/aws/emulators.ts';

let aws: AwsEmulators;
beforeAll(async () => {
  aws = await startAwsEmulators();
}, 300_000); // the first start installs them
afterAll(() => aws.stop());

const settings = (endpoint = '') => ({
  endpoint,
  region: 'us-east-1',
  credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
});

test.each(EMULATORS)('%s keeps a cluster and a role, and forgets both', async (name) => {
  const eks = new EKSClient(settings(aws.urls[name]));
  const iam = new IAMClient(settings(aws.urls[name]));
  const trust = { Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: 'sts:AssumeRole', Principal: '*' }] };
  const role = { RoleName: 'control-plane', AssumeRolePolicyDocument: JSON.stringify(trust) };
  const { Role } = await iam.send(new CreateRoleCommand(role));
  const network = { subnetIds: ['subnet-0a', 'subnet-0b'] };
  await eks.send(new CreateClusterCommand({ name: 'one', roleArn: Role?.Arn, resourcesVpcConfig: network }));
  const roles = async () => ((await iam.send(new ListRolesCommand({}))).Roles ?? []).map(({ RoleName }) => RoleName);
  expect((await eks.send(new ListClustersCommand({}))).clusters).toEqual(['one']);
  expect(await roles()).toContain('control-plane');

  await aws.reset(name);

  expect((await eks.send(new ListClustersCommand({}))).clusters).toEqual([]);
  expect(await roles()).not.toContain('control-plane');
});

test("moto knows AWS' own policies, and no others", async () => {
  const iam = new IAMClient(settings(aws.urls.moto));
  const arn = (name: string) => ({ PolicyArn: `arn:aws:iam::aws:policy/${name}` });
  expect((await iam.send(new GetPolicyCommand(arn('AmazonEKSClusterPolicy')))).Policy?.PolicyName).toBe(
    'AmazonEKSClusterPolicy',
  );
  await expect(iam.send(new GetPolicyCommand(arn('AmazonEKSBogusPolicy')))).rejects.toThrow(
    /not found|does not exist/i,
  );
});
