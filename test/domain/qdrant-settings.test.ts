import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parseProvisionInput } from '../../src/domain/input.ts';
import { KEPT_OUT, QDRANT_SETTINGS, settingProblem } from '../../src/domain/qdrant-settings.ts';
import { settingsDocument } from '../support/settings-document.ts';

test('docs/qdrant-settings.md lists what the table has', () => {
  expect(readFileSync('docs/qdrant-settings.md', 'utf8')).toBe(settingsDocument());
});

test('no setting is on both lists, and none goes through another', () => {
  const names = Object.keys(QDRANT_SETTINGS);
  for (const name of names) {
    expect(KEPT_OUT.filter(([kept]) => name === kept)).toEqual([]);
    expect(names.filter((other) => other.startsWith(`${name}.`))).toEqual([]);
  }
  expect(names.length).toBeGreaterThan(90);
});

describe('a setting', () => {
  test('is taken with a value of its type and range', () => {
    const config = {
      'service.jwt_rbac': true,
      'storage.optimizers.deleted_threshold': 0.25,
      'storage.performance.optimizer_cpu_budget': -2,
      'storage.shard_transfer_method': 'wal_delta',
    };
    expect(parseProvisionInput({ tenant: 'acme', cluster: 'docs', config }).config).toEqual(config);
  });

  test.each([
    ['service.jwt_rbac', 'yes', 'must be true or false, is string "yes"'],
    ['service.max_request_size_mb', 0, 'must be a whole number from 1 to 4096, is number 0'],
    ['service.max_request_size_mb', 1.5, 'must be a whole number from 1 to 4096'],
    ['storage.optimizers.deleted_threshold', 1.1, 'must be a number from 0 to 1'],
    ['storage.mmap_advice', 'Random', 'must be one of normal, random, sequential'],
    ['service.api_key', 'x', 'is a secret'],
    ['storage.snapshots_config.s3_config.bucket', 'x', 'where snapshots go'],
    ['storage.recovery_mode', 'x', 'restore a backup instead'],
    ['inference.address', 'http://x', 'to an address'],
    ['telemetry_disabled', true, 'is for whoever runs the fleet'],
    ['cluster.enabled', false, 'belongs to the fleet'],
    ['service.nonsense', 1, 'docs/qdrant-settings.md'],
    ['toString', 1, 'docs/qdrant-settings.md'],
  ])('%s: %j is refused', (name, value, problem) => {
    expect(settingProblem(name, value)).toContain(problem);
  });

  test('is refused for a version that does not know it', () => {
    const of = (version?: string) => settingProblem('storage.low_memory_mode', 'disabled', version);
    expect(of('v1.17.1')).toEqual({ conflict: 'is known from v1.18.0 on, and the version is v1.17.1' });
    expect([of('v1.18.0'), of('v1.19.0-unprivileged'), of('latest'), of()]).toEqual(Array(4).fill(undefined));
    const input = { tenant: 'acme', cluster: 'docs', version: 'v1.16.3', config: { 'storage.quotas.enabled': true } };
    expect(() => parseProvisionInput(input)).toThrow('storage.quotas.enabled');
  });
});
