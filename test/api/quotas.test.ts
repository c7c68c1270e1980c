import { randomUUID } from 'node:crypto';
import { NativeConnection, Worker } from '@temporalio/worker';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { shortestInterval } from '../../api/quota.ts';
import { setQuota } from '../../src/clients/quotas.ts';
import type { QuotaName } from '../../src/domain/quota.ts';
import { startApi, TOKENS, type TestApi } from './support.ts';

let api: TestApi;
beforeAll(async () => {
  api = await startApi();
});
afterAll(() => api.close());

const limit = (quota: QuotaName, value: number | undefined) => setQuota(api.deps.catalog.db, api.tenant, quota, value);

test('a tenant sees what it may have and what it has', async () => {
  await api.addCluster('seen');
  const { status, body } = await api.send('GET', '/v1/quotas');
  const by = Object.fromEntries(body.items.map((item: { name: string }) => [item.name, item]));
  expect(status).toBe(200);
  expect(by).toMatchObject({ clusters: { limit: 20, used: 1 }, nodes: { used: 3 }, storageGiB: { used: 60 } });
  expect(by.machineTypes.allowed).toContain('m*.large');
  expect(await api.send('GET', '/v1/quotas', { token: null })).toMatchObject({ status: 401 });
});

test('a cluster beyond a quota is refused at once, of this tenant only', async () => {
  await limit('nodes', 4);
  const refused = await api.send('POST', '/v1/clusters', { body: { name: 'more', nodes: 2 } });
  expect(refused).toMatchObject({
    status: 403,
    body: { code: 'QuotaReached', title: 'A quota of the tenant is reached' },
  });
  expect(refused.body.detail).toContain('uses 3 of 4 Qdrant nodes');
  const type = await api.send('POST', '/v1/clusters', {
    body: { name: 'more', nodes: 1, provider: 'aws', aws: { instanceType: 'p5.48xlarge' } },
  });
  expect(type.status).not.toBe(202);
  const other = await api.send('POST', '/v1/clusters', { token: TOKENS.other, body: { name: 'more', nodes: 2 } });
  expect(other.status).toBe(202);
  await limit('nodes', undefined);
});

test('a request that was accepted is answered again, also when a new one would be refused', async () => {
  const headers = { 'idempotency-key': randomUUID() };
  const first = await api.send('POST', '/v1/clusters', { body: { name: 'again', nodes: 1 }, headers });
  await limit('clusters', 0);
  const second = await api.send('POST', '/v1/clusters', { body: { name: 'again', nodes: 1 }, headers });
  expect([first.status, second.status]).toEqual([202, 202]);
  expect(second.body.operation.id).toBe(first.body.operation.id);
  await limit('clusters', undefined);
});

describe('schedules', () => {
  test('the shortest time between two runs is found', () => {
    const cases: [cron: string, minutes: number][] = [
      ['*/5 * * * *', 5],
      ['0 3 * * *', 1440],
      ['0,59 0,23 * * *', 1],
      ['0,10 3 29 2 *', 10],
      ['* * * * MON', 1],
      ['@hourly', 60],
    ];
    for (const [cron, minutes] of cases) expect([cron, shortestInterval(cron, 15)]).toEqual([cron, minutes]);
  });

  test('one that runs too often, and one too many, are refused', async () => {
    const path = '/v1/clusters/seen/schedules';
    const often = await api.send('POST', path, { body: { name: 'often', cron: '*/5 * * * *' } });
    expect(often).toMatchObject({ status: 403, body: { code: 'QuotaReached' } });
    expect(often.body.detail).toContain('every 5 minutes');
    await limit('schedules', 1);
    expect(await api.send('POST', path, { body: { name: 'one', cron: '@daily' } })).toMatchObject({ status: 201 });
    const more = async () => (await api.send('POST', path, { body: { name: randomName(), cron: '@daily' } })).body.code;
    // Temporal's lists lag by a moment.
    await expect.poll(more, { timeout: 10_000, interval: 500 }).toBe('QuotaReached');
    await limit('schedules', undefined);
  });
});

function randomName(): string {
  return `n${randomUUID().slice(0, 8)}`;
}

test('a tenant keeps only so many requests open', async () => {
  const { body } = await api.send('POST', '/v1/clusters', { body: { name: 'polled', nodes: 1 } });
  const path = `/v1/operations/${body.operation.id}?wait=2s`;
  await limit('longPolls', 2);
  const answers = await Promise.all(Array.from({ length: 5 }, () => api.send('GET', path)));
  expect(answers.map(({ status }) => status).sort((a, b) => a - b)).toEqual([200, 200, 403, 403, 403]);
  expect(await api.send('GET', path)).toMatchObject({ status: 200 });
  await limit('longPolls', undefined);
});

test('the tenant is the fairness key of what it starts, and one that comes late does not wait for another', async () => {
  await api.addCluster('busy');
  await api.addCluster('late', 'HEALTHY', api.otherTenant);
  // More than the quota lets run at a time, all waiting for a worker.
  await limit('operationsRunning', 1000);
  await limit('backupsRunning', 1000);
  const many = await Promise.all(Array.from({ length: 30 }, () => api.send('POST', '/v1/clusters/busy/backups')));
  const late = await api.send('POST', '/v1/clusters/late/backups', { token: TOKENS.other });
  const ids = [...many, late].map(({ body }) => body.operation.id as string);
  const { temporal } = api.deps;
  expect((await temporal.workflow.getHandle(late.body.operation.id).describe()).priority).toMatchObject({
    fairnessKey: api.otherTenant,
  });

  const connection = await NativeConnection.connect({ address: inject('localEnv').TEMPORAL_ADDRESS ?? '' });
  const worker = await Worker.create({
    connection,
    namespace: temporal.options.namespace,
    taskQueue: api.deps.taskQueue,
    workflowsPath: new URL('./fake-workflows.ts', import.meta.url).pathname,
    maxCachedWorkflows: 0,
    maxConcurrentWorkflowTaskExecutions: 1,
    maxConcurrentWorkflowTaskPolls: 1,
  });
  await worker.runUntil(Promise.all(ids.map((id) => temporal.workflow.getHandle(id).result())));
  await connection.close();
  const closed = await Promise.all(
    ids.map(async (id) => ({ id, at: (await temporal.workflow.getHandle(id).describe()).closeTime?.getTime() ?? 0 })),
  );
  const place = closed.sort((a, b) => a.at - b.at).findIndex(({ id }) => id === late.body.operation.id);
  expect(place).toBeLessThan(ids.length / 2);
  await limit('operationsRunning', undefined);
  await limit('backupsRunning', undefined);
}, 180_000);
