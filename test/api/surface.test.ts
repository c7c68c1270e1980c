import { Client, Connection } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import * as schemas from '../../api/schemas.ts';
import { Catalog } from '../../src/clients/catalog.ts';
import * as input from '../../src/domain/input.ts';
import { SEARCH_ATTRIBUTES } from '../../src/domain/search-attributes.ts';
import * as keys from '../../src/temporal-search-attributes.ts';
import { startApi, type TestApi } from './support.ts';

let api: TestApi;
beforeAll(async () => {
  api = await startApi();
});
afterAll(() => api.close());

describe('what a workflow takes', () => {
  const cluster = ['tenant', 'cluster'];
  /** Each with what the path and the token say, and names that a body calls otherwise. */
  const offers: [name: string, parse: (input: unknown) => object, body: { shape: object }, given: string[]][] = [
    ['ProvisionCluster', input.parseProvisionInput, schemas.ProvisionBody, ['tenant']],
    ['UpdateCluster', input.parseUpdateInput, schemas.UpdateBody, cluster],
    ['DeleteCluster', input.parseDeleteInput, schemas.DeleteBody, cluster],
    ['SuspendCluster', input.parseSuspendInput, schemas.NoBody, cluster],
    ['ResumeCluster', input.parseResumeInput, schemas.ResumeBody, cluster],
    ['RotateApiKey', input.parseRotateInput, schemas.RotateBody, cluster],
    ['RotateCertificates', input.parseRotateCertificatesInput, schemas.RotateCertificatesBody, cluster],
    ['BackupCluster', input.parseBackupInput, schemas.BackupBody, cluster],
    ['RestoreCluster', input.parseRestoreInput, schemas.RestoreBody, ['tenant', 'backup', 'source']],
    ['RetentionSweep', input.parseRetentionInput, schemas.RetentionBody, cluster],
    ['VerifyBackup', input.parseVerifyInput, schemas.NoBody, [...cluster, 'backup']],
    ['InfrastructureSweep', input.parseSweepInput, schemas.SweepBody, ['tenant']],
  ];

  test.each(offers)('%s: the API takes every field of it', (name, parse, { shape }, given) => {
    const { message } = errorOf(() => parse({ surprise: true }));
    const known = /surprise: is not known here; known: ([\w, ]+)/.exec(message)?.[1]?.split(', ') ?? [];
    const offered = Object.keys(shape).map((field) =>
      name === 'ProvisionCluster' && field === 'name' ? 'cluster' : field,
    );
    expect(offered.sort()).toEqual(known.filter((field) => !given.includes(field)).sort());
  });
});

function errorOf(run: () => unknown): Error {
  try {
    run();
  } catch (error) {
    return error as Error;
  }
  throw new Error('It did not fail.');
}

describe('documentation', () => {
  test('every route is in the OpenAPI document, and nothing else', async () => {
    const { body } = await api.send('GET', '/openapi.json', { token: null });
    expect(body).toMatchObject({ openapi: '3.1.0', info: { version: '1.2.3' } });
    const documented = Object.entries(body.paths).flatMap(([path, methods]) =>
      Object.keys(methods as object).map((method) => `${method.toUpperCase()} ${path}`),
    );
    const served = api.app.routes
      .filter(({ method, path }) => method !== 'ALL' && !path.startsWith('/docs/'))
      .map(({ method, path }) => `${method} ${path.replaceAll(/:(\w+)/g, '{$1}')}`);
    expect(documented.sort()).toEqual([...new Set(served)].sort());
  });

  test('its references lead somewhere, every path parameter is declared and every answer described', async () => {
    const { body } = await api.send('GET', '/openapi.json', { token: null });
    for (const [, name] of JSON.stringify(body).matchAll(/#\/components\/schemas\/(\w+)/g)) {
      expect(body.components.schemas).toHaveProperty(name ?? '');
    }
    for (const [path, methods] of Object.entries<Record<string, { parameters?: { name: string; in: string }[] }>>(
      body.paths,
    )) {
      for (const operation of Object.values(methods)) {
        const inPath = (operation.parameters ?? []).filter((parameter) => parameter.in === 'path');
        expect(inPath.map(({ name }) => name)).toEqual([...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name));
        expect(operation).toHaveProperty('summary');
        expect(operation).toHaveProperty('responses');
      }
    }
  });

  test('/docs comes from here alone', async () => {
    const page = await api.send('GET', '/docs', { token: null });
    const own = [...String(page.body).matchAll(/(?:src|href)="([^"]+)"/g)].map(([, at]) => at ?? '');
    expect(own.filter((at) => !at.startsWith('/docs/') && !at.startsWith('data:'))).toEqual([]);
    expect(page.body).not.toMatch(/https?:|\/\/cdn/);
    expect(page.headers.get('content-security-policy')).toContain("default-src 'none'");
    for (const at of own.filter((path) => path.startsWith('/docs/'))) {
      const file = await api.send('GET', at, { token: null });
      expect(file.status).toBe(200);
      expect(file.body.length).toBeGreaterThan(50);
    }
    expect(await api.send('GET', '/docs/package.json', { token: null })).toMatchObject({ status: 404 });
  });
});

describe('health', () => {
  test('is ready with both', async () => {
    expect(await api.send('GET', '/readyz', { token: null })).toMatchObject({
      status: 200,
      body: { ready: true, dependencies: { temporal: { ready: true }, catalog: { ready: true } } },
    });
  });

  test('tells which one is missing, and where requests then end', async () => {
    const connection = Connection.lazy({ address: '127.0.0.1:1' });
    const catalog = new Catalog('postgres://someone:secretword@127.0.0.1:1/fleet');
    const [noTemporal, noCatalog] = await Promise.all([
      startApi({ temporal: new Client({ connection }) }),
      startApi({ catalog }),
    ]);
    await noTemporal.addCluster('docs');
    const readyz = { token: null };
    const [one, two, start, list, live] = await Promise.all([
      noTemporal.send('GET', '/readyz', readyz),
      noCatalog.send('GET', '/readyz', readyz),
      noTemporal.send('POST', '/v1/clusters/docs/backups'),
      noCatalog.send('GET', '/v1/clusters'),
      noCatalog.send('GET', '/livez', readyz),
    ]);
    expect(one).toMatchObject({
      status: 503,
      body: { dependencies: { temporal: { ready: false }, catalog: { ready: true } } },
    });
    expect(two).toMatchObject({
      status: 503,
      body: { dependencies: { temporal: { ready: true }, catalog: { ready: false } } },
    });
    expect(start).toMatchObject({ status: 503, body: { code: 'TemporalUnavailable' } });
    expect(list).toMatchObject({ status: 503, body: { code: 'CatalogUnavailable' } });
    expect(live.status).toBe(200);
    expect(JSON.stringify([one.body, two.body, start.body, list.body])).not.toMatch(
      /secretword|127\.0\.0\.1|someone|stack/,
    );
    await Promise.all([noTemporal.close(), noCatalog.close(), catalog.close(), connection.close()]);
  });
});

test('an unexpected error leaks nothing and is logged', async () => {
  const broken = await startApi({
    catalog: { clusters: () => Promise.reject(new Error('secretword')) } as unknown as Catalog,
  });
  const answer = await broken.send('GET', '/v1/clusters');
  expect(answer).toMatchObject({ status: 500, body: { code: 'Internal' } });
  expect(JSON.stringify(answer.body)).not.toMatch(/secretword|\.ts/);
  expect(JSON.stringify(broken.lines)).toContain('secretword');
  await broken.close();
});

test('the search attribute keys are those that the domain names', () => {
  const ours = [keys.FLEET_TENANT, keys.FLEET_CLUSTER, keys.FLEET_OPERATION, keys.FLEET_PHASE];
  const expected = Object.entries(SEARCH_ATTRIBUTES).map(([name, type]) => ({ name, type: type.toUpperCase() }));
  expect(ours).toEqual(expected);
});
