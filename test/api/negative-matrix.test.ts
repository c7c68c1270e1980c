/** Every route of the OpenAPI document against whoever should not get in, and against what should not come in. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { STRUCTURE } from '../../src/domain/input/limits.ts';
import { documentOf, routesOf, type Documented } from './stand-in.ts';
import { startApi, TOKENS, type TestApi } from './support.ts';

let api: TestApi;
let routes: Documented[];
/** What is mine, and what is nobody's, by parameter of a path. */
let mine: Record<string, string>;
const NOBODYS: Record<string, string> = {
  cluster: 'nobodys',
  backup: '20261121T030000Z-00000000',
  schedule: 'nobodys',
  operation: 'backup-nobody--nobodys-00000000',
};

beforeAll(async () => {
  api = await startApi();
  await api.addCluster('docs');
  await api.addBackup('docs', '20261121T030000Z-1a2b3c4d');
  const schedule = await api.send('POST', '/v1/clusters/docs/schedules', { body: { cron: '@daily' } });
  const started = await api.send('POST', '/v1/clusters/docs/backups');
  expect([schedule.status, started.status]).toEqual([201, 202]);
  mine = {
    cluster: 'docs',
    backup: '20261121T030000Z-1a2b3c4d',
    schedule: 'backup',
    operation: started.body.operation.id,
  };
  routes = routesOf(await documentOf(api.app)).filter(({ isPublic }) => !isPublic);
});
afterAll(async () => {
  await api.send('DELETE', '/v1/clusters/docs/schedules/backup');
  await api.close();
});

function pathOf(path: string, values: Readonly<Record<string, string>>): string {
  return path.replaceAll(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(values[name] ?? ''));
}

interface Row {
  readonly what: string;
  readonly status: number;
}

/** 0 successes, 0 answers of 500 and above, and the app answers still. */
async function judge(rows: readonly Row[], size: number): Promise<void> {
  expect(rows.filter(({ status }) => status < 400)).toEqual([]);
  expect(rows.filter(({ status }) => status >= 500)).toEqual([]);
  expect(rows.length).toBeGreaterThanOrEqual(size);
  console.log(`${rows.length} requests, 0 successes, 0 answers of 500 and above`);
  expect(await api.send('GET', '/v1/clusters/docs')).toMatchObject({ status: 200 });
  expect(Object.keys(Object.prototype)).toEqual([]);
}

test('no route lets anybody in without a token of the tenant', async () => {
  const rows: Row[] = [];
  const tokens: [string, { token: string | null; headers?: Record<string, string> }][] = [
    ['no token', { token: null }],
    ['an empty one', { token: null, headers: { authorization: 'Bearer ' } }],
    ['an unknown one', { token: 'x'.repeat(28) }],
    ['a prefix', { token: TOKENS.mine.slice(0, -1) }],
    ['two', { token: `${TOKENS.mine},${TOKENS.other}` }],
    ['another scheme', { token: null, headers: { authorization: `Basic ${TOKENS.mine}` } }],
    ['a long one', { token: 'é'.repeat(4000).replaceAll('é', 'e') }],
  ];
  for (const { method, path } of routes) {
    for (const [name, token] of tokens) {
      const { status, body } = await api.send(method, pathOf(path, mine), token);
      rows.push({ what: `${method} ${path} with ${name}`, status });
      expect([status, body.code]).toEqual([401, 'Unauthorized']);
    }
  }
  await judge(rows, 27 * tokens.length - 40);
});

test('what is another tenant’s looks like what is nobody’s', async () => {
  const rows: Row[] = [];
  const bodies: Record<string, unknown> = {
    restores: { cluster: 'copy' },
    retention: { policy: { keepLast: 1 } },
    schedules: { cron: '@daily' },
  };
  for (const { method, path, body } of routes.filter((route) => route.path.includes('{'))) {
    const sent = {
      token: TOKENS.other,
      ...(body !== undefined && { body: bodies[path.split('/').at(-1) ?? ''] ?? {} }),
    };
    const foreign = await api.send(method, pathOf(path, mine), sent);
    const missing = await api.send(method, pathOf(path, NOBODYS), sent);
    const hidden = ({ body: { requestId: _id, instance: _at, ...rest } }: typeof foreign, ids: typeof mine) =>
      Object.values(ids).reduce(
        (text, id) => text.replaceAll(`"${id}"`, 'ID').replaceAll(`\\"${id}\\"`, 'ID'),
        JSON.stringify(rest),
      );
    rows.push({ what: `${method} ${path}`, status: foreign.status });
    expect([path, foreign.status, hidden(foreign, mine)]).toEqual([path, 404, hidden(missing, NOBODYS)]);
  }
  await judge(rows, 20);
});

const nested = (depth: number): unknown => (depth === 0 ? 1 : { a: nested(depth - 1) });
/** JSON texts, since `__proto__` in code is no key. */
const quoted = (key: string) => JSON.stringify(key);
const RESERVED = ['__proto__', 'prototype', 'constructor', '', '\0'];
const DOTTED = [
  '__proto__.get',
  '__proto__.bucket.name',
  'constructor.prototype.get',
  'storage.__proto__.x',
  'toString',
];
const HOSTILE_BODIES: Readonly<Record<string, string>> = {
  ...Object.fromEntries(RESERVED.map((key) => [`key ${quoted(key)}`, `{${quoted(key)}: {"get": true}}`])),
  ...Object.fromEntries(
    [...RESERVED, ...DOTTED].map((key) => [
      `setting ${quoted(key)}`,
      `{"name": "evil", "config": {${quoted(key)}: true}}`,
    ]),
  ),
  ...Object.fromEntries(
    RESERVED.flatMap((key) => [
      [`node label ${quoted(key)}`, `{"name": "evil", "placement": {"nodeSelector": {${quoted(key)}: "x"}}}`],
      [`label ${quoted(key)}`, `{"name": "evil", "provider": "aws", "aws": {"labels": {${quoted(key)}: "x"}}}`],
      [`new name of ${quoted(key)}`, `{"cluster": "evil", "rename": {${quoted(key)}: "x"}}`],
      [`collection ${quoted(key)}`, `{"name": "evil", "collections": [{"name": ${quoted(key)}}]}`],
      [`preset ${quoted(key)}`, `{"name": "evil", "collections": [{"preset": ${quoted(key)}}]}`],
    ]),
  ),
  'an unknown field': '{"tenant": "other"}',
  'a setting below a setting': '{"name": "evil", "config": {"storage.wal": 1, "storage.wal.wal_capacity_mb": 1}}',
  'half of a pair': String.raw`{"name": "\ud800", "cluster": "\ud800", "region": "\ud800", "cron": "\ud800"}`,
  'NUL in a text': String.raw`{"name": "a\u0000", "cluster": "a\u0000", "region": "\u0000", "cron": "\u0000 * * * *"}`,
  'too deep': JSON.stringify({ config: nested(STRUCTURE.depth + 1) }),
  'much too deep': `{"a":${'['.repeat(20_000)}${']'.repeat(20_000)}}`,
  'too many values': JSON.stringify({ collections: Array.from({ length: 12_000 }, () => 1) }),
  'too large': JSON.stringify({ name: 'x'.repeat(70_000) }),
  'a long text': JSON.stringify({ name: 'x'.repeat(60_000), cluster: 'x', region: 'x'.repeat(900) }),
  'no JSON': '{"name": ',
  'a list': '[]',
  null: 'null',
  'a text': '"docs"',
  'a number': '1e400',
  'no object where one is due':
    '{"config": [], "aws": 1, "policy": "x", "retention": [], "rename": [], "network": null}',
  'wrong types everywhere':
    '{"name": 1, "cluster": {}, "nodes": "3", "cron": 7, "region": [], "collections": {}, "dryRun": "yes", "undoHours": "1"}',
  'numbers out of range':
    '{"nodes": 1e9, "undoHours": -1, "readyTimeoutSeconds": 0.5, "graceSeconds": 1e300, "jitterSeconds": -1, "policy": {"keepLast": 0}}',
};

test('no body that should not come in does', { timeout: 120_000 }, async () => {
  const rows: Row[] = [];
  const withBody = routes.filter(({ body }) => body !== undefined);
  for (const { method, path } of withBody) {
    for (const [what, raw] of Object.entries(HOSTILE_BODIES)) {
      const { status, body } = await api.send(method, pathOf(path, mine), { raw });
      rows.push({ what: `${method} ${path}: ${what}`, status });
      expect([what, status, JSON.stringify(body).length <= 65_536]).toEqual([what, expect.toBeOneOf([400, 413]), true]);
    }
  }
  expect(withBody.length).toBeGreaterThanOrEqual(11);
  await judge(rows, 11 * Object.keys(HOSTILE_BODIES).length);
});

const HOSTILE_IDS = [
  ...[
    'x%00',
    '%00',
    '%ED%A0%80',
    '%ff',
    '%2e%2e',
    '..%2f..',
    '%2f',
    'a%2fb',
    '%25',
    '%',
    'a'.repeat(300),
    '%0a',
    '%20',
  ],
  ...['é', '%F0%9F%98%80', "'", '"', '%27%20OR%201=1--', '__proto__', 'constructor', '*', '%', '_', 'a--b', 'A', '-a'],
  ...['<script>', '%3Cscript%3E', '${x}', '$(x)', ';', '%5C', 'null', 'undefined', '0', '1e9', 'x'.repeat(8000)],
];

test('no id that cannot be one is asked for', { timeout: 120_000 }, async () => {
  const rows: Row[] = [];
  for (const { method, path } of routes) {
    for (const name of [...path.matchAll(/\{(\w+)\}/g)].map(([, found = '']) => found)) {
      for (const id of HOSTILE_IDS) {
        const at = path.replace(`{${name}}`, id.replaceAll('$', '$$$$'));
        const { status } = await api.send(method, pathOf(at, mine), { body: method === 'GET' ? undefined : {} });
        rows.push({ what: `${method} ${path} of ${id.slice(0, 40)}`, status });
      }
    }
  }
  await judge(rows, 24 * HOSTILE_IDS.length);
});

test('no query and no header that should not come in does', async () => {
  const rows: Row[] = [];
  const values = [
    '',
    '%00',
    '-1',
    '0',
    '1e3',
    '0x10',
    ' 5',
    '1.5',
    'x'.repeat(4000),
    '%ED%A0%80',
    '🦀',
    '%25',
    '[]',
    '{}',
  ];
  for (const { method, path, parameters } of routes) {
    for (const parameter of parameters.filter((one) => one.in === 'query')) {
      for (const value of values) {
        // Seconds may be 0, and a token may be any text that decodes to a name.
        if (parameter.name === 'wait' && value === '0') continue;
        const { status } = await api.send(method, `${pathOf(path, mine)}?${parameter.name}=${value}`);
        rows.push({ what: `${method} ${path}?${parameter.name}=${value}`, status });
      }
    }
    if (!parameters.some(({ name }) => name === 'Idempotency-Key')) continue;
    for (const key of ['a b', 'é', 'x'.repeat(256), '\t', 'a\u007F']) {
      const headers = { 'idempotency-key': key };
      // An empty header is none: what HTTP trims away cannot be refused.
      if (key.trim() === '') continue;
      const { status } = await api.send(method, pathOf(path, mine), { headers, raw: '{"surprise": 1}' });
      rows.push({ what: `${method} ${path} with key ${JSON.stringify(key)}`, status });
    }
  }
  await judge(rows, 80);
});
