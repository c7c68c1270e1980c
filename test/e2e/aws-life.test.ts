/**
 * A cluster on AWS through its life, on both emulators and real Kubernetes: machines come and go with it, peers stay
 * where they are, and the worker's policy allows each call. It takes about a minute, and runs with FLEET_TEST_AWS=all
 * only.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CoreV1Api } from '@kubernetes/client-node';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { bucketsKey, clusterPrefix, namespaceOf } from '../../src/domain/naming.ts';
import { startAwsEmulators, type AwsEmulators } from '../../src/local/aws/emulators.ts';
import type { AwsFront } from '../../src/local/aws/front.ts';
import { listResources } from '../../src/local/aws/leftovers.ts';
import { nodegroupIssues } from '../../src/local/aws/proxy/pace.ts';
import type { PolicyDocument } from '../../src/domain/aws-policies.ts';
import { Authorization } from '../aws/authorization.ts';
import { isAllowed } from '../aws/iam.ts';
import { startFront } from '../aws/support.ts';
import { Fleet, smallPoints, until } from '../support/fleet.ts';

let emulators: AwsEmulators;
let front: AwsFront;
let fleet: Fleet;
beforeAll(async () => {
  emulators = await startAwsEmulators({ accessKeyId: credentials().accessKeyId });
  front = await startFront(emulators, credentials());
  const { url, env } = front.proxy;
  fleet = await Fleet.open({ ...env, FLEET_AWS_ENDPOINT: url, FLEET_AWS_CONSISTENCY_SECONDS: '2' });
  await fleet.worker();
}, 300_000);
afterAll(async () => {
  await fleet.close();
  await front.close();
  await emulators.stop();
});

/** The stack has one identity, for the store and for AWS. */
function credentials() {
  const { AWS_ACCESS_KEY_ID: accessKeyId = '', AWS_SECRET_ACCESS_KEY: secretAccessKey = '' } = inject('localEnv');
  return { accessKeyId, secretAccessKey };
}

const ref = () => ({ tenant: fleet.tenant, cluster: 'life' });

/** What AWS asks a policy about the calls from now on, and what of it the worker's would refuse. */
function watchCalls() {
  const read = (name: string) =>
    JSON.parse(readFileSync(join(import.meta.dirname, `../../docs/iam/${name}.json`), 'utf8')) as PolicyDocument;
  const policy: PolicyDocument = {
    Version: '2012-10-17',
    Statement: [...read('worker').Statement, ...read('buckets').Statement],
  };
  const authorization = new Authorization();
  const refused = new Set<string>();
  const asked = new Set<string>();
  front.proxy.watch = (call, answer) => {
    for (const access of authorization.ask(call, answer)) {
      asked.add(access.action);
      if (!isAllowed(policy, access)) refused.add(`${access.action} on ${access.resource}`);
    }
  };
  return { refused, asked };
}

/** The machine that each peer runs on, and how many machines there are. */
async function places(): Promise<{ peers: Record<string, string>; machines: number }> {
  const core = fleet.kubernetes(CoreV1Api);
  const { items: pods } = await core.listNamespacedPod({ namespace: namespaceOf(ref()) });
  const { items: nodes } = await core.listNode({ labelSelector: 'eks.amazonaws.com/nodegroup' });
  const peers = pods.map(({ metadata, spec }) => [metadata?.name ?? '', spec?.nodeName ?? ''] as const);
  return { peers: Object.fromEntries(peers), machines: nodes.length };
}

test.runIf(process.env['FLEET_TEST_AWS'] === 'all')(
  'grows, shrinks, sleeps, wakes and goes, to the last resource',
  { timeout: 240_000 },
  async () => {
    const account = { endpoint: front.proxy.url, credentials: credentials() };
    const before = await listResources(account);
    const { refused, asked } = watchCalls();
    const collections = [{ preset: 'documents', vectorSize: 4, shardNumber: 4 }];
    const aws = { availabilityZones: ['us-east-1a', 'us-east-1b'] };
    // The stack has nodes of its own besides.
    const placement = { nodeSelector: { 'eks.amazonaws.com/nodegroup': 'workers' } };
    await fleet.run('ProvisionCluster', { ...ref(), provider: 'aws', aws, placement, nodes: 2, collections });
    const two = await places();
    expect(two.machines).toBe(2);
    await (await fleet.access('life')).load('documents', smallPoints(200));
    const digest = await (await fleet.access('life')).digest('documents');

    // No room: what there was stays, and works.
    const plan = await fleet.run('UpdateCluster', { ...ref(), nodes: 3, dryRun: true });
    expect(plan['steps']).toEqual([
      'Add 1 machines, 3 in all',
      'Add 1 nodes, 3 in all',
      expect.stringMatching(/^Move /),
    ]);
    for (const [why, type, says] of [
      [nodegroupIssues.insufficientCapacity(), 'CapacityUnavailable', 'InsufficientInstanceCapacity'],
      [nodegroupIssues.vcpuQuota(), 'CloudQuotaReached', 'L-1216C47A'],
    ] as const) {
      front.proxy.hold({ kind: 'nodegroup', during: 'update', fails: [why] });
      await expect(fleet.run('UpdateCluster', { ...ref(), nodes: 3 })).rejects.toMatchObject({
        cause: { type, message: expect.stringContaining(says) },
      });
    }
    expect(await fleet.catalog.cluster(ref())).toMatchObject({
      phase: 'HEALTHY',
      spec: { nodes: 2, aws: { nodeCount: 2 } },
    });
    expect(await places()).toEqual(two);

    await fleet.run('UpdateCluster', { ...ref(), nodes: 3 });
    const three = await places();
    expect(three.machines).toBe(3);
    expect(new Set(Object.values(three.peers)).size).toBe(3);

    // The machines of the peers that stay are the oldest ones, which a smaller group would take first.
    await fleet.run('UpdateCluster', { ...ref(), nodes: 2 });
    expect(await places()).toEqual(two);
    expect(front.proxy.counts().get('autoscaling:SetInstanceProtection')).toBe(2);
    expect((await fleet.catalog.cluster(ref()))?.spec).toMatchObject({ nodes: 2, aws: { nodeCount: 2 } });

    await fleet.run('SuspendCluster', ref());
    expect(await places()).toEqual({ peers: {}, machines: 0 });
    await fleet.run('ResumeCluster', ref());
    const awake = await places();
    expect(awake.machines).toBe(2);
    expect(await (await fleet.access('life')).digest('documents')).toEqual(digest);

    await fleet.run('DeleteCluster', ref());
    front.proxy.watch = undefined;
    expect([...refused], 'not allowed by docs/iam/worker.json').toEqual([]);
    expect([...asked]).toEqual(expect.arrayContaining(['ec2:RunInstances', 'autoscaling:SetInstanceProtection']));
    expect((await listResources(account)).filter((one) => !before.includes(one))).toEqual([]);
    await until('no machine is left', async () => (await places()).machines === 0);
  },
);

test.runIf(process.env['FLEET_TEST_AWS'] === 'all')(
  'backs up into a bucket of its own, which stays when it goes, and comes back from there under its own name',
  { timeout: 240_000 },
  async () => {
    const own = { tenant: fleet.tenant, cluster: 'own' };
    const account = { endpoint: front.proxy.url, credentials: credentials() };
    const before = await listResources(account);
    const aws = { availabilityZones: ['us-east-1a', 'us-east-1b'], create: { backupBucket: true } };
    const placement = { nodeSelector: { 'eks.amazonaws.com/nodegroup': 'workers' } };
    const collections = [{ preset: 'documents', vectorSize: 4 }];
    await fleet.run('ProvisionCluster', { ...own, provider: 'aws', aws, placement, nodes: 1, collections });
    await (await fleet.access('own')).load('documents', smallPoints(200));
    const digest = await (await fleet.access('own')).digest('documents');

    const { backup, bucket } = await fleet.run<{ backup: string; bucket: string }>('DeleteCluster', {
      ...own,
      finalBackup: true,
    });
    expect((await listResources(account)).filter((one) => !before.includes(one))).toEqual([`bucket ${bucket}`]);
    expect(await fleet.catalog.backup(fleet.tenant, backup)).toMatchObject({ bucket, bucket_region: 'us-east-1' });
    for await (const { key } of fleet.store.list(clusterPrefix({ ...own, prefix: '' }))) {
      if (key !== bucketsKey({ ...own, prefix: '' })) throw new Error(`${key} is in the fleet's bucket.`);
    }

    await fleet.run('RestoreCluster', { tenant: fleet.tenant, source: 'own', backup, cluster: 'own' });
    expect(await (await fleet.access('own')).digest('documents')).toEqual(digest);
    expect(await fleet.run('DeleteCluster', own)).toMatchObject({ bucket });
    expect((await listResources(account)).filter((one) => !before.includes(one))).toEqual([`bucket ${bucket}`]);
  },
);
