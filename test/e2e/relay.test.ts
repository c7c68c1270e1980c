/** Nodes that cannot reach the bucket: a worker serves them, and without it the restore says what to do. */
import type { WorkflowFailedError } from '@temporalio/client';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FaultProxy } from '../support/fault-proxy.ts';
import { Fleet, largePoints } from '../support/fleet.ts';

let fleet: Fleet;
/** The store as the worker reaches it: no node knows this address. */
let s3: FaultProxy;
const cluster = 'docs';
let backup: unknown;
let digest: unknown;

beforeAll(async () => {
  fleet = await Fleet.open();
  s3 = await FaultProxy.listen(fleet.env['FLEET_S3_ENDPOINT'] ?? '');
  await fleet.worker({
    env: {
      FLEET_S3_ENDPOINT: s3.url,
      // Nobody listens there.
      FLEET_S3_NODE_ENDPOINT: 'http://127.0.0.1:9',
      FLEET_TRANSFER_PART_BYTES: String(5 * 1024 * 1024),
    },
  });
  const collections = [{ preset: 'documents', vectorSize: 4, shardNumber: 2 }];
  await fleet.run('ProvisionCluster', { tenant: fleet.tenant, cluster, nodes: 2, collections });
  const access = await fleet.access(cluster);
  await access.load('documents', largePoints(1600));
  digest = await access.digest('documents');
  ({ backup } = await fleet.run('BackupCluster', { tenant: fleet.tenant, cluster }));
});
afterAll(async () => {
  await fleet.close();
  await s3.close();
});

const restore = (target: string, more: object) => ({
  ...{ tenant: fleet.tenant, source: cluster, backup, cluster: target, nodes: 2 },
  ...more,
});

test('via the worker: every replica of every shard goes through it, and equals what was backed up', async () => {
  const { relayed, bytes, points } = await fleet.run('RestoreCluster', restore('relayed', { via: 'worker' }));
  expect(points).toBe(1600);
  expect(bytes).toBeGreaterThan(12_000_000);
  expect(relayed).toBe(2 * Number(bytes));
  const access = await fleet.access('relayed');
  for (const peer of [0, 1]) expect(await access.digest('documents', peer)).toEqual(digest);
});

test('a bit that turned over on its way: dropped, made again, and right the second time', async () => {
  s3.inject({
    fault: { kind: 'flip', side: 'response', at: 100_000, bit: 3 },
    ...{ method: 'GET', path: /shard-0\.\w+\.snapshot/, times: 1 },
  });
  const more = { cluster: 'relayed', nodes: undefined, via: 'worker', rename: { documents: 'second' } };
  const result = await fleet.run('RestoreCluster', restore('relayed', more));
  expect(s3.log.filter(({ name }) => name === 'response flip')).toHaveLength(1);
  // The shard that was refused is not counted, and the other one went twice.
  expect(Number(result['relayed'])).toBeGreaterThan(2 * Number(result['bytes']));
  expect(await (await fleet.access('relayed')).digest('second')).toEqual(digest);
});

test('via the bucket: refused by the network, told with both remedies, and nothing is left', async () => {
  const ended = await fleet.run('RestoreCluster', restore('pulled', { nodes: 1 })).catch((error: unknown) => error);
  const { message } = (ended as WorkflowFailedError).cause as Error;
  expect(message).toContain('cannot reach the bucket at http://127.0.0.1:9');
  expect(message).toContain('FLEET_S3_NODE_ENDPOINT');
  expect(message).toContain('"via": "worker"');
  expect(message).not.toContain('X-Amz');
  expect(await fleet.kubectlNamespaces()).not.toContain(`fleet-${fleet.tenant}--pulled`);
});

test('no path of a served shard is in a history or a log', async () => {
  const query = `TaskQueue = "${fleet.taskQueue}"`;
  for await (const { workflowId, runId } of fleet.client.workflow.list({ query })) {
    const history = await fleet.temporal('workflow', 'show', '-w', workflowId, '-r', runId, '--output', 'json');
    const decoded = history.replaceAll(/"data":\s*"([^"]+)"/g, (_, data: string) =>
      Buffer.from(data, 'base64').toString(),
    );
    expect(decoded).not.toMatch(/\/[0-9a-f]{64}\b/);
  }
  expect(fleet.log).not.toMatch(/\/[0-9a-f]{64}\b/);
});
