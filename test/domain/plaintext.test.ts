/** Which connections are refused without TLS, and where that is said. */
import { expect, test } from 'vitest';
import { loadApiConfig, loadConfig, refusePlaintextTemporal } from '../../src/config.ts';
import { isLoopback, isPlaintextDatabase, isPlaintextUrl } from '../../src/domain/plaintext.ts';

const LOCAL = { DATABASE_URL: 'postgres://u:p@127.0.0.1/d', FLEET_BACKUP_BUCKET: 'backups' };
const TOKENS = { FLEET_API_TOKENS: 'acme=0123456789abcdef01234567' };

test.each([
  ['127.0.0.1', true],
  ['127.64.3.9', true],
  ['[::1]', true],
  ['::ffff:127.0.0.1', true],
  ['localhost', true],
  ['db.localhost', true],
  ['10.0.0.1', false],
  ['127.0.0.1.nip.io', false],
  ['localhost.example.com', false],
  ['postgres', false],
  ['0.0.0.0', false],
])('%s is this machine: %s', (host, is) => expect(isLoopback(host)).toBe(is));

test.each([
  ['postgres://u:p@127.0.0.1/d', false],
  ['postgres://u:p@localhost/d?sslmode=disable', false],
  ['postgres://u:p@%2Fvar%2Frun%2Fpostgresql/d', false],
  ['postgres://u:p@x/d?host=/var/run/postgresql', false],
  ['postgres://u:p@db/d', true],
  ['postgres://u:p@127.0.0.1/d?host=db', true],
  ['postgres://u:p@db/d?ssl=true', false],
  ['postgres://u:p@db/d?sslmode=disable', true],
  ['postgres://u:p@db/d?sslmode=no-verify', true],
  ['postgres://u:p@db/d?sslmode=require', false],
  ['postgres://u:p@db/d?sslmode=verify-full', false],
  ['postgres://u:p@db/d?sslmode=require&uselibpqcompat=true', true],
  ['postgres://u:p@db/d?sslmode=verify-full&uselibpqcompat=true', false],
])('%s is plaintext: %s', (url, is) => expect(isPlaintextDatabase(url)).toBe(is));

test('PGSSLMODE counts where the URL says nothing', () => {
  expect(isPlaintextDatabase('postgres://u:p@db/d', 'verify-full')).toBe(false);
  expect(isPlaintextDatabase('postgres://u:p@db/d', 'disable')).toBe(true);
  expect(isPlaintextUrl('http://s3:7070')).toBe(true);
  expect(isPlaintextUrl('https://s3:7070')).toBe(false);
});

test('PGHOST counts where the URL names no host', () => {
  for (const url of ['postgres:///d', 'postgresql:///d?sslmode=disable', 'postgres:///d?host=']) {
    expect(isPlaintextDatabase(url), url).toBe(false);
    expect(isPlaintextDatabase(url, undefined, '/var/run/postgresql'), url).toBe(false);
    expect(isPlaintextDatabase(url, undefined, 'db'), url).toBe(true);
  }
  expect(isPlaintextDatabase('postgres:///d', 'verify-full', 'db')).toBe(false);
  expect(isPlaintextDatabase('postgres://127.0.0.1/d', undefined, 'db')).toBe(false);
  expect(() => loadConfig({ ...LOCAL, DATABASE_URL: 'postgres:///d', PGHOST: 'db' })).toThrow(/DATABASE_URL.*PGHOST/);
});

test('the worker names every hop at start, with what to do, and no secret', () => {
  const env = {
    ...LOCAL,
    DATABASE_URL: 'postgres://u:hunter2@db/d',
    FLEET_S3_ENDPOINT: 'http://s3:7070',
    FLEET_S3_NODE_ENDPOINT: 'http://10.0.0.9:7070',
    FLEET_AWS_ENDPOINT: 'http://aws.test',
    FLEET_RELAY_HOST: '10.0.0.7',
    FLEET_QDRANT_TLS: 'false',
  };
  const told = () => loadConfig(env);
  for (const name of ['DATABASE_URL', 'S3_ENDPOINT', 'S3_NODE_ENDPOINT', 'AWS_ENDPOINT', 'RELAY_HOST', 'QDRANT_TLS']) {
    expect(told).toThrow(new RegExp(`${name}: [\\s\\S]*FLEET_ALLOW_PLAINTEXT=true`));
  }
  expect(told).not.toThrow(/hunter2/);
  expect(loadConfig({ ...env, FLEET_ALLOW_PLAINTEXT: 'true' }).FLEET_QDRANT_TLS).toBe(false);
  expect(() => loadConfig({ ...LOCAL, FLEET_QDRANT_TLS: 'false' })).toThrow(/FLEET_QDRANT_TLS/);
  expect(loadConfig({ ...LOCAL, FLEET_QDRANT_TLS: 'false', FLEET_QDRANT_RESOLVER: 'pod-ip' })).toBeDefined();
});

test('loopback needs no permission, and new clusters have TLS', () => {
  const env = { ...LOCAL, FLEET_S3_ENDPOINT: 'http://127.0.0.1:7070', FLEET_RELAY_HOST: '127.0.0.1' };
  expect(loadConfig(env)).toMatchObject({ FLEET_ALLOW_PLAINTEXT: false, FLEET_QDRANT_TLS: true });
  expect(loadApiConfig({ ...LOCAL, ...TOKENS })).toBeDefined();
  expect(() => loadApiConfig({ ...LOCAL, ...TOKENS, FLEET_API_HOST: '0.0.0.0' })).toThrow(/FLEET_API_HOST: callers/);
});

test('Temporal on another machine needs TLS, which an API key turns on', () => {
  const config = loadConfig(LOCAL);
  const ask = (connection: Parameters<typeof refusePlaintextTemporal>[1]) => () =>
    refusePlaintextTemporal(config, connection);
  expect(ask({ address: 'temporal:7233' })).toThrow(/TEMPORAL_TLS=true/);
  expect(ask({ address: 'temporal:7233', tls: false, apiKey: 'k' })).toThrow(/TEMPORAL_ADDRESS/);
  for (const connection of [
    ...[{ address: '127.0.0.1:7233' }, { address: '[::1]:7233' }, {}],
    ...[
      { address: 'temporal:7233', tls: true },
      { address: 'temporal:7233', tls: {} },
      { address: 't:1', apiKey: 'k' },
    ],
  ]) {
    expect(ask(connection)).not.toThrow();
  }
});

test('an issuer and the variables for Helm are read, and nonsense is refused', () => {
  expect(loadConfig({ ...LOCAL, FLEET_CERT_ISSUER: 'ClusterIssuer/internal-ca' }).FLEET_CERT_ISSUER).toEqual({
    ...{ kind: 'ClusterIssuer', name: 'internal-ca' },
  });
  expect(() => loadConfig({ ...LOCAL, FLEET_CERT_ISSUER: 'internal-ca' })).toThrow(/FLEET_CERT_ISSUER/);
  expect(loadConfig({ ...LOCAL, FLEET_HELM_ENV: 'HOME, AWS_PROFILE' }).FLEET_HELM_ENV).toEqual(['HOME', 'AWS_PROFILE']);
  for (const name of ['DATABASE_URL', 'FLEET_API_TOKENS', 'TEMPORAL_API_KEY', 'A=B']) {
    expect(() => loadConfig({ ...LOCAL, FLEET_HELM_ENV: name }), name).toThrow(/FLEET_HELM_ENV/);
  }
});
