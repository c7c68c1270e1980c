import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startApi, TOKENS, type TestApi } from './support.ts';

let api: TestApi;
beforeAll(async () => {
  api = await startApi();
});
afterAll(() => api.close());

describe('authentication', () => {
  test.each([
    ['none', null, undefined],
    ['unknown', 'x'.repeat(28), undefined],
    ['a prefix of one', TOKENS.mine.slice(0, -1), undefined],
    ['another scheme', null, { authorization: `Basic ${TOKENS.mine}` }],
  ])('refuses a token that is %s', async (_, token, headers) => {
    const answer = await api.send('GET', '/v1/clusters', { token, ...(headers && { headers }) });
    expect(answer).toMatchObject({ status: 401, body: { code: 'Unauthorized', status: 401 } });
    expect(answer.headers.get('www-authenticate')).toMatch(/^Bearer/);
  });

  test('takes "apikey" as Qdrant Cloud clients send it', async () => {
    const headers = { authorization: `apikey ${TOKENS.mine}` };
    expect(await api.send('GET', '/v1/clusters', { token: null, headers })).toMatchObject({ status: 200 });
  });

  test('guards routes that do not exist, and not the public ones', async () => {
    expect(await api.send('GET', '/nowhere', { token: null })).toMatchObject({ status: 401 });
    for (const path of ['/livez', '/readyz', '/openapi.json', '/docs']) {
      expect(await api.send('GET', path, { token: null })).toMatchObject({ status: 200 });
    }
  });
});

describe('problems', () => {
  test('an unknown field is named with the remedy, together with every other bad field', async () => {
    const body = { name: 'Docs', nodez: 3, tenant: 'else', collections: [{ vectorSize: 0 }], 'a/b': 1 };
    const answer = await api.send('POST', '/v1/clusters', { body });
    expect(answer.status).toBe(400);
    expect(answer.headers.get('content-type')).toBe('application/problem+json');
    expect(answer.body).toMatchObject({ code: 'InvalidInput', instance: '/v1/clusters', type: 'about:blank' });
    expect(answer.body.requestId).toBe(answer.headers.get('x-request-id'));
    const pointers = answer.body.errors.map((error: { pointer: string }) => error.pointer);
    expect(pointers.sort()).toEqual(['#/a~1b', '#/collections/0/vectorSize', '#/name', '#/nodez', '#/tenant']);
    const nodez = answer.body.errors.find((error: { pointer: string }) => error.pointer === '#/nodez');
    expect(nodez.detail).toMatch(/is not known here; known: name, provider, nodes, .*Remove it/);
  });

  test.each([
    ['malformed JSON', '{"name": '],
    ['a list', '[]'],
    ['null', 'null'],
  ])('refuses %s as a body', async (_, raw) => {
    expect(await api.send('POST', '/v1/clusters', { raw })).toMatchObject({
      status: 400,
      body: { code: 'InvalidInput', errors: [{ pointer: '#' }] },
    });
  });

  test('a body above 64 KiB is refused', async () => {
    const raw = JSON.stringify({ name: 'x'.repeat(65_536) });
    const answer = await api.send('POST', '/v1/clusters', { raw });
    expect(answer).toMatchObject({ status: 413, body: { code: 'PayloadTooLarge' } });
  });

  test('unknown routes are 404, known ones under another method 405', async () => {
    expect(await api.send('GET', '/v1/nothing')).toMatchObject({ status: 404, body: { code: 'NotFound' } });
    const answer = await api.send('PUT', '/v1/clusters');
    expect(answer).toMatchObject({ status: 405, body: { code: 'MethodNotAllowed' } });
    expect(answer.headers.get('allow')).toContain('POST');
  });

  test('things that do not exist and things of others look the same', async () => {
    await api.addCluster('theirs', 'HEALTHY', api.otherTenant);
    await api.addBackup('theirs', '20261121T030000Z-0000aaaa', api.otherTenant);
    const paths = [
      ['GET', '/v1/clusters/NAME', 'ClusterNotFound'],
      ['DELETE', '/v1/clusters/NAME', 'ClusterNotFound'],
      ['POST', '/v1/clusters/NAME/backups', 'ClusterNotFound'],
      ['GET', '/v1/clusters/NAME/backups', 'ClusterNotFound'],
      ['GET', '/v1/clusters/NAME/schedules', 'ClusterNotFound'],
    ] as const;
    for (const [method, path, code] of paths) {
      const foreign = await api.send(method, path.replace('NAME', 'theirs'));
      const missing = await api.send(method, path.replace('NAME', 'missing'));
      const bad = await api.send(method, path.replace('NAME', 'no--name'));
      expect(foreign).toMatchObject({ status: 404, body: { code } });
      expect(foreign.body.detail).toBe(missing.body.detail.replace('missing', 'theirs'));
      expect(bad).toMatchObject({ status: 404, body: { code } });
    }
    for (const id of ['20261121T030000Z-0000aaaa', '20261121T030000Z-0000bbbb', 'x']) {
      expect(await api.send('GET', `/v1/backups/${id}`)).toMatchObject({
        status: 404,
        body: { code: 'BackupNotFound' },
      });
      const restore = await api.send('POST', `/v1/backups/${id}/restores`, { body: { cluster: 'copy' } });
      expect(restore).toMatchObject({ status: 404, body: { code: 'BackupNotFound' } });
    }
  });

  test('one log line per request, without the token', async () => {
    api.lines.length = 0;
    const answer = await api.send('GET', '/v1/clusters/none', { headers: { 'x-request-id': 'my-id' } });
    expect(answer.headers.get('x-request-id')).toBe('my-id');
    expect(api.lines).toHaveLength(1);
    expect(api.lines[0]).toMatchObject({
      requestId: 'my-id',
      tenant: api.tenant,
      path: '/v1/clusters/none',
      status: 404,
      code: 'ClusterNotFound',
    });
    expect(JSON.stringify(api.lines)).not.toContain(TOKENS.mine);
  });
});

describe('lists', () => {
  test('clusters come in pages by name', async () => {
    for (const name of ['page-c', 'page-a', 'page-b']) await api.addCluster(name);
    const first = await api.send('GET', '/v1/clusters?pageSize=2');
    expect(first.body.items.map(({ name }: { name: string }) => name)).toEqual(['page-a', 'page-b']);
    const second = await api.send('GET', `/v1/clusters?pageSize=2&pageToken=${first.body.nextPageToken}`);
    expect(second.body.items.map(({ name }: { name: string }) => name)).toEqual(['page-c']);
    expect(second.body).not.toHaveProperty('nextPageToken');
    const [one] = first.body.items;
    expect(one).toMatchObject({ phase: 'HEALTHY', spec: { nodes: 3 }, namespace: expect.stringContaining('--page-a') });
    expect(await api.send('GET', '/v1/clusters/page-a')).toMatchObject({ status: 200, body: one });
  });

  test('backups come newest first, also when the cluster is gone', async () => {
    const ids = ['20261119T030000Z-00000001', '20261121T030000Z-00000001', '20261120T030000Z-00000001'];
    for (const id of ids) await api.addBackup('gone', id);
    const first = await api.send('GET', '/v1/clusters/gone/backups?pageSize=2');
    expect(first.body.items.map(({ id }: { id: string }) => id)).toEqual([ids[1], ids[2]]);
    const second = await api.send('GET', `/v1/clusters/gone/backups?pageToken=${first.body.nextPageToken}`);
    expect(second.body.items).toMatchObject([{ id: ids[0], cluster: 'gone', totals: { points: 4 } }]);
    expect(await api.send('GET', `/v1/backups/${ids[0]}`)).toMatchObject({ status: 200, body: { id: ids[0] } });
  });

  test('a backup tells its bucket where that is the cluster’s own', async () => {
    await api.addBackup('own', '20261118T030000Z-00000001');
    await api.addBackup('own', '20261118T040000Z-00000001', undefined, 'fleet-acme--own-1');
    const { body } = await api.send('GET', '/v1/clusters/own/backups');
    expect(body.items.map(({ bucket }: { bucket?: string }) => bucket)).toEqual(['fleet-acme--own-1', undefined]);
  });

  test('what is being removed is shown on request, and can be taken back; what is past that cannot', async () => {
    const id = (n: number) => `2026112${n}T030000Z-0000000${n}`;
    const change = (n: number, state: 'CORRUPT' | 'DELETING' | 'PURGING') =>
      api.deps.catalog.db
        .updateTable('backups')
        .set({ state, ...(state === 'DELETING' && { deleting_since: new Date(0), purge_after: new Date(1000) }) })
        .where('tenant', '=', api.tenant)
        .where('backup', '=', id(n))
        .execute();
    for (const n of [1, 2, 3, 4]) await api.addBackup('removed', id(n));
    await change(2, 'CORRUPT');
    await change(3, 'DELETING');
    await change(4, 'PURGING');
    const list = async (query: string) => {
      const { body } = await api.send('GET', `/v1/clusters/removed/backups${query}`);
      return body.items.map((item: { id: string; state: string }) => `${item.id.slice(7, 8)} ${item.state}`);
    };
    expect(await list('')).toEqual(['2 CORRUPT', '1 COMMITTED']);
    expect(await list('?state=CORRUPT')).toEqual(['2 CORRUPT']);
    expect(await list('?state=DELETING')).toEqual(['3 DELETING']);
    expect(await api.send('GET', '/v1/clusters/removed/backups?state=PURGING')).toMatchObject({ status: 400 });
    expect((await api.send('GET', `/v1/backups/${id(3)}`)).body).toMatchObject({
      ...{ state: 'DELETING', deletingSince: '1970-01-01T00:00:00.000Z', purgeAfter: '1970-01-01T00:00:01.000Z' },
    });

    const undelete = (n: number, token?: string) =>
      api.send('POST', `/v1/backups/${id(n)}/undelete`, token === undefined ? {} : { token });
    expect(await undelete(3)).toMatchObject({
      status: 202,
      body: { operation: { kind: 'undelete', cluster: 'removed' } },
    });
    expect(await undelete(4)).toMatchObject({ status: 409, body: { code: 'UndeleteRefused' } });
    expect(await undelete(3, TOKENS.other)).toMatchObject({ status: 404, body: { code: 'BackupNotFound' } });

    const restore = (n: number, more: object = {}) =>
      api.send('POST', `/v1/backups/${id(n)}/restores`, { body: { cluster: 'copy', ...more } });
    expect(await restore(3)).toMatchObject({ status: 409, body: { code: 'BackupNotCommitted' } });
    expect(await restore(2)).toMatchObject({ status: 409, body: { code: 'BackupDamaged' } });
    expect(await restore(2, { acceptDamaged: true })).toMatchObject({ status: 202 });
  });

  test('a cluster without backups has an empty list', async () => {
    await api.addCluster('fresh');
    expect((await api.send('GET', '/v1/clusters/fresh/backups')).body).toEqual({ items: [] });
  });

  test.each([
    ['pageSize=0', 'pageSize'],
    ['pageSize=251', 'pageSize'],
    ['pageSize=many', 'pageSize'],
    ['pageToken=%21', 'pageToken'],
    ['page_size=3', 'page_size'],
  ])('refuses ?%s', async (query, parameter) => {
    const answer = await api.send('GET', `/v1/clusters?${query}`);
    expect(answer).toMatchObject({ status: 400, body: { code: 'InvalidInput', errors: [{ parameter }] } });
  });
});
