/** What child processes see of this process's environment: a program in Helm's and the engine's place tells. */
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openShard } from '../../src/clients/engine.ts';
import { Helm } from '../../src/clients/helm.ts';

const folder = mkdtempSync(join(tmpdir(), 'qdrant-fleet-canary-'));
const SECRETS = {
  AWS_ACCESS_KEY_ID: 'canary-aws-id',
  AWS_SECRET_ACCESS_KEY: 'canary-aws-secret',
  AWS_SESSION_TOKEN: 'canary-aws-token',
  DATABASE_URL: 'postgres://u:canary-db@127.0.0.1/d',
  PGPASSWORD: 'canary-pg',
  FLEET_API_TOKENS: 'acme=canary-api',
  FLEET_BACKUP_MAC_KEY: 'canary-mac',
  TEMPORAL_API_KEY: 'canary-temporal',
  HELM_REGISTRY_CONFIG: 'canary-registry',
  HELM_PLUGINS: 'canary-plugins',
  NODE_OPTIONS: '--no-deprecation',
};
const before = { ...process.env };
beforeAll(() => void Object.assign(process.env, SECRETS, { HTTPS_PROXY: 'http://proxy.test', AWS_PROFILE: 'fleet' }));
afterAll(() => {
  for (const name of [...Object.keys(SECRETS), 'HTTPS_PROXY', 'AWS_PROFILE']) {
    if (before[name] === undefined) delete process.env[name];
    else process.env[name] = before[name];
  }
  rmSync(folder, { recursive: true, force: true });
});

/** A program that writes its environment down and answers as told. */
function program(name: string, answer: string): { path: string; seen: () => Record<string, string> } {
  const [path, out] = [join(folder, name), join(folder, `${name}.env`)];
  writeFileSync(path, `#!/bin/sh\nenv -0 > '${out}'\necho '${answer}'\n`);
  chmodSync(path, 0o755);
  const read = () => readFileSync(out, 'utf8').split('\0').filter(Boolean);
  return {
    path,
    seen: () => Object.fromEntries(read().map((line) => [line.split('=')[0] ?? '', line.slice(line.indexOf('=') + 1)])),
  };
}

test('Helm sees no secret of the worker, a home of its own, and what it needs', async () => {
  const helm = program('helm', '{"version": 1, "info": {"status": "deployed"}}');
  await new Helm({ binary: helm.path, kubeconfig: '/etc/kube' }).status('space', 'qdrant');
  const seen = helm.seen();
  expect(JSON.stringify(seen)).not.toMatch(/canary/);
  expect(Object.keys(seen).filter((name) => name.startsWith('AWS_') || name === 'NODE_OPTIONS')).toEqual([]);
  expect(seen).toMatchObject({ KUBECONFIG: '/etc/kube', HTTPS_PROXY: 'http://proxy.test' });
  const { HOME: home = '', HELM_CONFIG_HOME: config = '' } = seen;
  expect(home).not.toBe(process.env['HOME']);
  expect(config.startsWith(home)).toBe(true);
  expect(existsSync(home)).toBe(true);
});

test('what the operator names reaches Helm as well', async () => {
  const helm = program('helm-with-plugin', '{"version": 1, "info": {"status": "deployed"}}');
  await new Helm({ binary: helm.path, kubeconfig: '/etc/kube', env: ['AWS_PROFILE', 'HOME'] }).status(
    'space',
    'qdrant',
  );
  expect(helm.seen()).toMatchObject({ AWS_PROFILE: 'fleet', HOME: process.env['HOME'] });
  expect(JSON.stringify(helm.seen())).not.toMatch(/canary/);
});

test('the engine, which opens what came from a bucket, sees none either', async () => {
  const python = program('python', '{"points": 0, "indexes": []}');
  await openShard(python.path, '/no/snapshot', mkdtempSync(join(folder, 'scratch-')), new AbortController().signal);
  expect(JSON.stringify(python.seen())).not.toMatch(/canary|AWS_/);
  expect(python.seen()).toMatchObject({ PATH: process.env['PATH'], PYTHONDONTWRITEBYTECODE: '1' });
});
