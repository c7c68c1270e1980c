/** EKS tokens at a real API server: made by botocore as `aws eks get-token` makes them, judged by our webhook. */
import { KubeConfig, AuthorizationV1Api, CoreV1Api } from '@kubernetes/client-node';
import {
  AssociateAccessPolicyCommand,
  CreateAccessEntryCommand,
  CreateClusterCommand,
  DeleteAccessEntryCommand,
  DescribeClusterCommand,
} from '@aws-sdk/client-eks';
import { execa } from 'execa';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { findEmulators, startAwsEmulators, type AwsEmulators } from '../../src/local/aws/emulators.ts';
import { bindAccessPolicies, TokenWebhook } from '../../src/local/aws/token-webhook.ts';
import { AwsProxy } from '../../src/local/aws/proxy/proxy.ts';
import { localClusterAccess } from '../../src/local/aws/local-cluster.ts';
import { clients, frontLock, makeNetwork, ROLE } from './support.ts';

const SECRET = 'not-a-secret';
/** Whom ministack takes a key for that it has not given out. */
const ROOT = 'arn:aws:iam::123456789012:root';
const POLICY = 'arn:aws:eks::aws:cluster-access-policy/';

let aws: AwsEmulators;
let proxy: AwsProxy;
let webhook: TokenWebhook;
let lock: { release(): void };
let api: ReturnType<typeof clients>;
const admin = new KubeConfig();
let now = Date.now;

beforeAll(async () => {
  const { KUBECONFIG = '', FLEET_LOCAL_TOKEN_WEBHOOK_PORT: port } = inject('localEnv');
  admin.loadFromFile(KUBECONFIG);
  aws = await startAwsEmulators({ managedPolicies: false });
  lock = await frontLock();
  const routes = { eks: aws.urls.ministack ?? '', sts: aws.urls.ministack ?? '', '*': aws.urls.moto ?? '' };
  proxy = await AwsProxy.listen({ routes, pace: { create: 0 }, clusterAccess: localClusterAccess(admin) });
  webhook = await TokenWebhook.listen({
    routes,
    stsHosts: [new URL(proxy.url).host],
    secretOf: (key) => (key === 'test' ? SECRET : undefined),
    port: Number(port),
    now: () => now(),
  });
  await bindAccessPolicies(admin);
  api = clients(proxy);
  const { subnetIds } = await makeNetwork(api.ec2);
  for (const name of ['one', 'two']) {
    await api.eks.send(new CreateClusterCommand({ name, roleArn: ROLE, resourcesVpcConfig: { subnetIds } }));
  }
  // The creator is let into a cluster by itself; of the second nobody is.
  await api.eks.send(new DeleteAccessEntryCommand({ clusterName: 'two', principalArn: ROOT }));
}, 300_000);
afterAll(async () => {
  await webhook.close();
  await proxy.close();
  lock.release();
  await aws.stop();
});

/** As `aws eks get-token` does it: awscli/customizations/eks/get_token.py. */
async function token(cluster: string, { key = 'test', secret = SECRET, action = 'GetCallerIdentity', url = '' } = {}) {
  const script = `
import base64, sys
from botocore.credentials import Credentials
from botocore.model import ServiceId
from botocore.signers import RequestSigner
from botocore.session import Session
cluster, key, secret, action, base = sys.argv[1:]
signer = RequestSigner(ServiceId('sts'), 'us-east-1', 'sts', 'v4', Credentials(key, secret), Session().get_component('event_emitter'))
url = signer.generate_presigned_url({'method': 'GET', 'url': (base or 'https://sts.us-east-1.amazonaws.com') + '/?Action=' + action + '&Version=2011-06-15',
  'body': {}, 'headers': {'x-k8s-aws-id': cluster}, 'context': {}}, region_name='us-east-1', expires_in=60, operation_name='')
print('k8s-aws-v1.' + base64.urlsafe_b64encode(url.encode()).decode().rstrip('='))`;
  const { stdout } = await execa(await findEmulators(), ['-c', script, cluster, key, secret, action, url]);
  return stdout;
}

/** As a client does that has the cluster's description and a token, and nothing else. */
async function kubernetesOf(name: string, bearer: string): Promise<KubeConfig> {
  const { cluster } = await api.eks.send(new DescribeClusterCommand({ name }));
  const config = new KubeConfig();
  config.loadFromClusterAndUser(
    { name, server: cluster?.endpoint ?? '', caData: cluster?.certificateAuthority?.data ?? '', skipTLSVerify: false },
    { name: 'me', token: bearer },
  );
  return config;
}

test('from the description of a cluster and a token to its Kubernetes API', async () => {
  const core = (await kubernetesOf('one', await token('one'))).makeApiClient(CoreV1Api);
  const { items } = await core.listNamespace();
  expect(items.map(({ metadata }) => metadata?.name)).toContain('kube-system');
  const viaProxy = await token('one', { url: proxy.url });
  expect(await webhook.authenticate(viaProxy)).toMatchObject({ username: ROOT });
});

test.each([
  ['garbage', async () => 'k8s-aws-v1.garbage', 'no URL'],
  ['a token of something else', async () => 'eyJhbGciOi', 'no token of EKS'],
  ['a cluster that there is not', () => token('three'), 'no cluster that there is'],
  ['another secret', () => token('one', { secret: 'another' }), 'no cluster that there is'],
  ['a key that nobody has', () => token('one', { key: 'other' }), 'nobody has its access key'],
  ['no access entry', () => token('two'), 'no access entry'],
  ['another question', () => token('one', { action: 'GetSessionToken' }), 'something else'],
  ['another host', () => token('one', { url: 'https://sts.example.com' }), 'not STS'],
])('%s is refused', async (_, make, why) => {
  const bearer = await make();
  await expect(webhook.authenticate(bearer)).rejects.toThrow(why);
  const core = (await kubernetesOf('one', bearer)).makeApiClient(CoreV1Api);
  await expect(core.listNamespace()).rejects.toMatchObject({ code: 401 });
});

test('a token is good for a quarter of an hour', async () => {
  const bearer = await token('one');
  const begun = Date.now();
  now = () => begun + 14 * 60_000;
  await expect(webhook.authenticate(bearer)).resolves.toMatchObject({ username: ROOT });
  now = () => begun + 15 * 60_000 + 2000;
  await expect(webhook.authenticate(bearer)).rejects.toThrow('expired');
  now = () => begun - 6 * 60_000;
  await expect(webhook.authenticate(bearer)).rejects.toThrow('future');
  now = Date.now;
});

test('a principal may what its access entry says, and no more', async () => {
  const entry = { clusterName: 'two', principalArn: ROOT };
  await api.eks.send(new CreateAccessEntryCommand({ ...entry, username: 'reader', kubernetesGroups: ['auditors'] }));
  await api.eks.send(
    new AssociateAccessPolicyCommand({
      ...entry,
      policyArn: `${POLICY}AmazonEKSViewPolicy`,
      accessScope: { type: 'cluster' },
    }),
  );
  const bearer = await token('two');
  const groups = ['system:authenticated', 'auditors', 'eks-access-policy:AmazonEKSViewPolicy'];
  expect(await webhook.authenticate(bearer)).toMatchObject({ username: 'reader', groups });
  const config = await kubernetesOf('two', bearer);
  const may = async (verb: string, resource: string) => {
    const spec = { resourceAttributes: { verb, resource, namespace: 'default' } };
    const review = config.makeApiClient(AuthorizationV1Api).createSelfSubjectAccessReview({ body: { spec } });
    return (await review).status?.allowed;
  };
  expect([await may('list', 'pods'), await may('delete', 'pods'), await may('get', 'secrets')]).toEqual([
    true,
    false,
    false,
  ]);
});
