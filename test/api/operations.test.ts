import { randomUUID } from 'node:crypto';
import { DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { startApi, TOKENS, type TestApi } from './support.ts';

let api: TestApi;
let idle: TestApi;
let stopWorker: () => Promise<void>;

beforeAll(async () => {
  // Half of the workflows here fail on purpose.
  Runtime.install({ logger: new DefaultLogger('ERROR') });
  [api, idle] = await Promise.all([startApi(), startApi()]);
  const connection = await NativeConnection.connect({ address: inject('localEnv').TEMPORAL_ADDRESS ?? '' });
  const worker = await Worker.create({
    connection,
    namespace: api.deps.temporal.options.namespace,
    taskQueue: api.deps.taskQueue,
    workflowsPath: new URL('./fake-workflows.ts', import.meta.url).pathname,
  });
  const running = worker.run();
  stopWorker = async () => {
    worker.shutdown();
    await running;
    await connection.close();
  };
});
afterAll(async () => {
  await Promise.all([api.close(), idle.close()]);
  await stopWorker();
});

async function provision(name: string, readyTimeoutSeconds?: number): Promise<string> {
  const answer = await api.send('POST', '/v1/clusters', { body: { name, readyTimeoutSeconds } });
  expect(answer.status).toBe(202);
  return answer.body.operation.id;
}

describe('starting', () => {
  test('answers 202 with the operation and the cluster', async () => {
    const answer = await idle.send('POST', '/v1/clusters', { body: { name: 'docs', nodes: 1, collections: [] } });
    const { operation, cluster } = answer.body;
    expect(answer.status).toBe(202);
    expect(answer.headers.get('location')).toBe(`/v1/operations/${operation.id}`);
    expect(answer.headers.get('retry-after')).toBe('5');
    expect(operation.id).toMatch(new RegExp(`^provision-${idle.tenant}--docs-[0-9a-f]{8}$`));
    expect(operation).toMatchObject({ kind: 'provision', cluster: 'docs', done: false, steps: [], percent: 0 });
    expect(cluster).toMatchObject({ name: 'docs', phase: 'CREATING' });

    const described = await idle.deps.temporal.workflow.getHandle(operation.id).describe();
    expect(described).toMatchObject({ type: 'ProvisionCluster', taskQueue: idle.deps.taskQueue });
    expect(await described.staticSummary()).toBe(`Provision ${idle.tenant}/docs: 1 node`);
  });

  test('a cluster that exists is refused at once, and one that was not made to its end has to be deleted first', async () => {
    await idle.addCluster('there');
    await idle.addCluster('broken', 'FAILED_TO_CREATE');
    const refused = await idle.send('POST', '/v1/clusters', { body: { name: 'there' } });
    expect(refused).toMatchObject({ status: 409, body: { code: 'ClusterExists' } });
    const broken = await idle.send('POST', '/v1/clusters', { body: { name: 'broken' } });
    expect(broken).toMatchObject({ status: 409, body: { code: 'ClusterExists' } });
    expect(broken.body.detail).toContain('Delete it first, then make it again.');
  });

  test('every other operation starts its workflow with one argument', async () => {
    await idle.addCluster('used');
    await idle.addBackup('used', '20261121T030000Z-1a2b3c4d');
    const starts = [
      ['DELETE', '/v1/clusters/used', undefined, 'DeleteCluster', {}],
      ['POST', '/v1/clusters/used/backups', undefined, 'BackupCluster', {}],
      ['POST', '/v1/clusters/used/backups', { collections: ['a'] }, 'BackupCluster', { collections: ['a'] }],
      [
        'POST',
        '/v1/clusters/used/retention',
        { policy: { keepLast: 3 }, dryRun: true },
        'RetentionSweep',
        { dryRun: true },
      ],
      [
        'POST',
        '/v1/backups/20261121T030000Z-1a2b3c4d/restores',
        { cluster: 'used' },
        'RestoreCluster',
        { source: 'used' },
      ],
    ] as const;
    for (const [method, path, body, type, input] of starts) {
      const answer = await idle.send(method, path, { body });
      expect(answer).toMatchObject({ status: 202, body: { operation: { cluster: 'used' } } });
      const handle = idle.deps.temporal.workflow.getHandle(answer.body.operation.id);
      const { events } = await handle.fetchHistory();
      const started = events?.[0]?.workflowExecutionStartedEventAttributes;
      const [argument] = (started?.input?.payloads ?? []).map(({ data }) =>
        JSON.parse(Buffer.from(data ?? []).toString()),
      );
      expect(started?.workflowType?.name).toBe(type);
      expect(argument).toMatchObject({ tenant: idle.tenant, cluster: 'used', ...input });
    }
  });
});

test('a sweep of the infrastructure lists unless it is told to remove, and needs a region', async () => {
  const sweep = (body: object) => idle.send('POST', '/v1/infrastructure-sweeps', { body });
  const listing = await sweep({ region: 'eu-west-1' });
  const removing = await sweep({ region: 'eu-west-1', cluster: 'docs', dryRun: false });
  expect(listing).toMatchObject({ status: 202, body: { operation: { kind: 'sweep', cluster: '*', done: false } } });
  expect(listing.body.operation.id).toMatch(new RegExp(`^sweep-${idle.tenant}--eu-west-1-[0-9a-f]{8}$`));
  expect(removing.body.operation.id).toMatch(new RegExp(`^sweep-${idle.tenant}--docs-[0-9a-f]{8}$`));
  const argumentOf = async ({ body }: typeof listing) => {
    const { events } = await idle.deps.temporal.workflow.getHandle(body.operation.id).fetchHistory();
    const { input } = events?.[0]?.workflowExecutionStartedEventAttributes ?? {};
    return JSON.parse(Buffer.from(input?.payloads?.[0]?.data ?? '').toString());
  };
  // What is left out is decided by the workflow, whose default is to list.
  expect(await argumentOf(listing)).toEqual({ tenant: idle.tenant, region: 'eu-west-1' });
  expect(await argumentOf(removing)).toMatchObject({ cluster: 'docs', dryRun: false });
  expect(await sweep({})).toMatchObject({ status: 400, body: { errors: [{ pointer: '#/region' }] } });
  expect(await sweep({ region: 'mars-1', tenant: 'theirs' })).toMatchObject({
    status: 400,
    body: { errors: [{ pointer: '#/tenant' }, { pointer: '#/region' }] },
  });
});

describe('an idempotency key', () => {
  test('makes 50 parallel duplicates one operation', async () => {
    const headers = { 'idempotency-key': randomUUID() };
    const request = { body: { name: 'many' }, headers };
    const answers = await Promise.all(Array.from({ length: 50 }, () => idle.send('POST', '/v1/clusters', request)));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([202]));
    expect(new Set(answers.map(({ body }) => body.operation.links.temporal.runId)).size).toBe(1);
  });

  test('answers the same operation after it ended, and where a new request would be refused', async () => {
    const request = { body: { name: 'again', readyTimeoutSeconds: 1 }, headers: { 'idempotency-key': randomUUID() } };
    const first = await api.send('POST', '/v1/clusters', request);
    await api.send('GET', `${first.headers.get('location')}?wait=20s`);
    await api.addCluster('again');
    const second = await api.send('POST', '/v1/clusters', request);
    expect(second).toMatchObject({ status: 202, body: { operation: { id: first.body.operation.id, done: true } } });
    expect(await api.send('POST', '/v1/clusters', { body: request.body })).toMatchObject({ status: 409 });
  });

  test('is refused with another body', async () => {
    const headers = { 'idempotency-key': randomUUID() };
    const first = await idle.send('POST', '/v1/clusters', { body: { name: 'keyed' }, headers });
    const { links } = first.body.operation;
    await idle.deps.catalog.db
      .insertInto('operations')
      .values({
        id: links.temporal.workflowId,
        run_id: links.temporal.runId,
        kind: 'provision',
        tenant: idle.tenant,
        cluster: 'keyed',
        state: 'running',
        error_code: null,
        error_message: null,
        result: null,
        finished_at: null,
      })
      .execute();
    for (const body of [{ name: 'keyed', nodes: 5 }, { name: 'keyed-too' }]) {
      const answer = await idle.send('POST', '/v1/clusters', { body, headers });
      expect(answer).toMatchObject({ status: 422, body: { code: 'IdempotencyKeyReused' } });
    }
    const others = await idle.send('POST', '/v1/clusters', { body: { name: 'keyed' }, headers, token: TOKENS.other });
    expect(others.status).toBe(202);
  });

  test('has to be visible text', async () => {
    const answer = await idle.send('POST', '/v1/clusters', {
      body: { name: 'k' },
      headers: { 'idempotency-key': 'a b' },
    });
    expect(answer).toMatchObject({ status: 400, body: { errors: [{ header: 'Idempotency-Key' }] } });
  });
});

describe('following', () => {
  test('shows the steps that the workflow reports', async () => {
    const id = await provision('steps');
    const answer = await api.send('GET', `/v1/operations/${id}`);
    expect(answer.body).toMatchObject({ done: false, phase: 'namespace', percent: 25 });
    expect(answer.body.steps.map(({ name }: { name: string }) => name)).toEqual(['namespace', 'release']);
  });

  test('a long poll answers when the operation is done', async () => {
    const id = await provision('done', 1);
    const { body } = await api.send('GET', `/v1/operations/${id}?wait=30s`);
    expect(body).toMatchObject({ done: true, phase: 'done', percent: 100, result: { endpoint: 'http://qdrant' } });
    expect(Date.parse(body.finishedAt)).toBeGreaterThanOrEqual(Date.parse(body.startedAt));
  });

  test('a long poll ends after its time', async () => {
    const id = await provision('waits');
    expect((await api.send('GET', `/v1/operations/${id}?wait=1s`)).body).toMatchObject({ done: false });
    const bad = await api.send('GET', `/v1/operations/${id}?wait=soon`);
    expect(bad).toMatchObject({ status: 400, body: { errors: [{ parameter: 'wait' }] } });
  });

  test('a failure is told by the code that the workflow ended with, in all its words', async () => {
    const id = await provision('fails', 2);
    const { body } = await api.send('GET', `/v1/operations/${id}?wait=30s`);
    expect(body).toMatchObject({ done: true, phase: 'failed' });
    expect(body.error).toMatchObject({ code: 'ChartFailed', detail: 'Helm said no. Left behind: a namespace.' });
  });

  test('a failure of no known code keeps its message to itself', async () => {
    const id = await provision('breaks', 3);
    const { body } = await api.send('GET', `/v1/operations/${id}?wait=30s`);
    expect(body.error.code).toBe('Internal');
    expect(JSON.stringify(body)).not.toContain('hunter2');
  });

  test('cancelling ends it, and a second time does nothing', async () => {
    const id = await provision('stopped');
    expect(await api.send('POST', `/v1/operations/${id}/cancel`)).toMatchObject({ status: 202 });
    const { body } = await api.send('GET', `/v1/operations/${id}?wait=30s`);
    expect(body).toMatchObject({ done: true, phase: 'cancelled', error: { code: 'Cancelled' } });
    const again = await api.send('POST', `/v1/operations/${id}/cancel`);
    expect(again).toMatchObject({ status: 202, body: { operation: { done: true } } });
  });

  test('a terminated one says so', async () => {
    const id = await provision('killed');
    await api.deps.temporal.workflow.getHandle(id).terminate();
    expect((await api.send('GET', `/v1/operations/${id}`)).body).toMatchObject({ error: { code: 'Terminated' } });
  });

  test('without a worker there are no steps, and an answer within the deadline', async () => {
    const started = await idle.send('POST', '/v1/clusters', { body: { name: 'lonely' } });
    const answer = await idle.send('GET', `/v1/operations/${started.body.operation.id}`);
    expect(answer).toMatchObject({ status: 200, body: { done: false, phase: 'running', steps: [] } });
  });

  test('what Temporal has forgotten is read from the catalogue', async () => {
    const row = { run_id: 'run', kind: 'backup', tenant: idle.tenant, cluster: 'old', result: null } as const;
    const times = { started_at: new Date(1e12), finished_at: new Date(1.1e12) };
    const failed = { error_code: 'TopologyUnstable', error_message: 'Shard 3 moves.' };
    await idle.deps.catalog.db
      .insertInto('operations')
      .values({ ...row, ...times, ...failed, id: `backup-${idle.tenant}--old-1`, state: 'failed' })
      .execute();
    const path = `/v1/operations/backup-${idle.tenant}--old-1`;
    const { body } = await idle.send('GET', path);
    expect(body).toMatchObject({
      done: true,
      phase: 'failed',
      error: { code: 'TopologyUnstable', detail: 'Shard 3 moves.' },
    });
    expect(await idle.send('GET', path, { token: TOKENS.other })).toMatchObject({ status: 404 });
  });

  test('of others and of nobody are not found', async () => {
    const id = await provision('private');
    for (const [method, path] of [
      ['GET', `/v1/operations/${id}`],
      ['GET', `/v1/operations/${id}?wait=5s`],
      ['POST', `/v1/operations/${id}/cancel`],
      ['GET', '/v1/operations/nothing'],
      ['GET', `/v1/operations/${'x'.repeat(2000)}`],
    ] as const) {
      const answer = await api.send(method, path, { token: TOKENS.other });
      expect(answer).toMatchObject({ status: 404, body: { code: 'OperationNotFound' } });
    }
    expect((await api.send('GET', `/v1/operations/${id}`)).body.done).toBe(false);
  });

  test('a workflow that is none of ours is not found', async () => {
    const workflowId = `alien-${randomUUID()}`;
    await api.deps.temporal.workflow.start('Alien', { workflowId, taskQueue: 'nobody' });
    expect(await api.send('GET', `/v1/operations/${workflowId}`)).toMatchObject({ status: 404 });
    await api.deps.temporal.workflow.getHandle(workflowId).terminate();
  });
});
