import { Cron } from 'croner';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { cronProblem, timeZoneProblem } from '../../api/cron.ts';
import { startApi, TOKENS, type TestApi } from './support.ts';

let api: TestApi;
const path = '/v1/clusters/docs/schedules';

beforeAll(async () => {
  api = await startApi();
  await api.addCluster('docs');
});
afterAll(() => api.close());

test('a schedule is made, shown, listed, triggered and deleted', async () => {
  const body = {
    cron: '0 3 * * *',
    timeZone: 'Europe/Berlin',
    retention: { keepLast: 7 },
    collections: ['a'],
    format: 'incremental',
    jitterSeconds: 60,
  };
  const made = await api.send('POST', path, { body });
  expect(made.status).toBe(201);
  expect(made.headers.get('location')).toBe(`${path}/backup`);
  expect(made.body).toMatchObject({ ...body, name: 'backup', cluster: 'docs', paused: false, recentRuns: [] });
  expect(made.body.nextRuns.length).toBeGreaterThan(3);
  expect(await api.send('GET', `${path}/backup`)).toMatchObject({ status: 200, body: { cron: body.cron } });
  await expect
    .poll(async () => (await api.send('GET', path)).body.items, { timeout: 10_000 })
    .toMatchObject([{ name: 'backup', cron: body.cron }]);

  const twice = await api.send('POST', path, { body });
  expect(twice).toMatchObject({ status: 409, body: { code: 'ScheduleExists' } });

  expect(await api.send('POST', `${path}/backup/trigger`)).toMatchObject({ status: 202 });
  await expect
    .poll(async () => (await api.send('GET', `${path}/backup`)).body.recentRuns.length, { timeout: 10_000 })
    .toBe(1);
  const [run] = (await api.send('GET', `${path}/backup`)).body.recentRuns;
  expect(run.operation).toMatch(new RegExp(`^backup-${api.tenant}--docs--backup-20`));
  const operation = await api.send('GET', `/v1/operations/${encodeURIComponent(run.operation)}`);
  expect(operation).toMatchObject({ status: 200, body: { kind: 'backup', cluster: 'docs', done: false } });

  expect(await api.send('DELETE', `${path}/backup`)).toMatchObject({ status: 204 });
  expect(await api.send('GET', `${path}/backup`)).toMatchObject({ status: 404, body: { code: 'ScheduleNotFound' } });
});

test('it can be made paused, and names keep clusters apart', async () => {
  await api.addCluster('a-b');
  await api.addCluster('a');
  const one = await api.send('POST', '/v1/clusters/a-b/schedules', {
    body: { name: 'c', cron: '@daily', paused: true },
  });
  const two = await api.send('POST', '/v1/clusters/a/schedules', { body: { name: 'b-c', cron: '@hourly' } });
  expect(one).toMatchObject({ status: 201, body: { paused: true, cron: '@daily', timeZone: 'UTC' } });
  expect(two).toMatchObject({ status: 201, body: { paused: false, cron: '@hourly' } });
});

test('nothing is made for an unknown cluster, and nothing of others is reached', async () => {
  const body = { name: 'mine', cron: '@daily' };
  const unknown = await api.send('POST', '/v1/clusters/none/schedules', { body });
  expect(unknown).toMatchObject({ status: 404, body: { code: 'ClusterNotFound' } });
  await api.send('POST', path, { body });
  for (const [method, at] of [
    ['GET', `${path}/mine`],
    ['DELETE', `${path}/mine`],
    ['POST', `${path}/mine/trigger`],
    ['GET', `${path}/No--name`],
  ] as const) {
    const answer = await api.send(method, at, { token: TOKENS.other });
    expect(answer).toMatchObject({ status: 404, body: { code: 'ScheduleNotFound' } });
  }
  expect(await api.send('GET', `${path}/mine`)).toMatchObject({ status: 200 });
});

test('every bad field is named at once', async () => {
  const body = { name: 'X', cron: '* * *', timeZone: 'Mars/Olympus', jitterSeconds: -1, retention: {}, every: 1 };
  const answer = await api.send('POST', path, { body });
  expect(answer).toMatchObject({ status: 400, body: { code: 'InvalidInput' } });
  const pointers = answer.body.errors.map((error: { pointer: string }) => error.pointer);
  expect(pointers.sort()).toEqual(
    ['#/cron', '#/every', '#/jitterSeconds', '#/name', '#/retention/keepLast', '#/timeZone'].sort(),
  );
});

describe('cron expressions', () => {
  test.each([
    '0 3 * *',
    '0 0 3 * * *',
    '0 3 * * * 2030',
    '@every 6h',
    '@reboot',
    'CRON_TZ=UTC 0 3 * * *',
    '0 3 * * FRI#2',
    '0 3 L * *',
    '0 3 ? * *',
    '0 3 15W * *',
    '61 3 * * *',
    '0 0 30 2 *',
    '*/0 * * * *',
    '0 3 * * *\n',
    '',
  ])('refuses %j', (cron) => {
    expect(cronProblem(cron)).toBeDefined();
  });

  // Temporal decides when a schedule fires; what we accept must mean there what it means to everybody.
  test.each([
    '0 3 * * *',
    '*/15 * * * *',
    '5,35 8-18/2 * * MON-FRI',
    '0 0 13 * FRI',
    '0 0 1 JAN *',
    '0 0 29 2 *',
    '30 4 1,15 * *',
    '0 12 * * 0',
    '0 12 * * 7',
    '0 22 * * 1-5',
    '@hourly',
    '@daily',
    '@weekly',
    '@monthly',
    '@yearly',
  ])('%s fires in Temporal when croner says so', async (cron) => {
    expect(cronProblem(cron)).toBeUndefined();
    const name = `c${Buffer.from(cron).toString('hex').slice(0, 30)}`;
    const made = await api.send('POST', path, { body: { name, cron, paused: true } });
    expect(made.status).toBe(201);
    expect(made.body.cron).toBe(cron);
    const theirs = made.body.nextRuns.slice(0, 5);
    const now = new Date(Date.parse(theirs[0]) - 1000);
    const ours = new Cron(cron, { domAndDow: true, timezone: 'UTC' }).nextRuns(theirs.length, now);
    expect(theirs).toEqual(ours.map((at) => at.toISOString()));
    await api.send('DELETE', `${path}/${name}`);
  });
});

describe('time zones', () => {
  test.each(['UTC', 'Europe/Berlin', 'America/Argentina/Buenos_Aires', 'Asia/Kolkata', 'Etc/GMT+5'])('%s', (zone) => {
    expect(timeZoneProblem(zone)).toBeUndefined();
  });
  test.each(['', 'europe/berlin', '+01:00', 'Mars/Olympus', 'UTC ', '../etc/passwd'])('refuses %j', (zone) => {
    expect(timeZoneProblem(zone)).toBeDefined();
  });
});
