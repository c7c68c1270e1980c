import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { AddressBook } from '../../src/local/kubelet/addresses.ts';
import { readConfig } from '../../src/local/kubelet/config.ts';
import { configToEnv } from '../../src/local/kubelet/qdrant-config.ts';
import { bytesOf } from '../../src/local/kubelet/stats.ts';
import { Workqueue } from '../../src/local/kubelet/workqueue.ts';

const dir = mkdtempSync(join(tmpdir(), 'fleet-addresses-'));
afterAll(() => rmSync(dir, { recursive: true }));

describe('address book', () => {
  test('a pod keeps its address over a restart of the kubelet, until its namespace is gone', () => {
    const file = join(dir, 'a.json');
    const book = new AddressBook(file, '127.80.0.0/16');
    const first = book.addressOf('one', 'q-0');
    const second = book.addressOf('two', 'q-0');
    expect([first, second]).toEqual(['127.80.0.1', '127.80.0.2']);

    const later = new AddressBook(file, '127.80.0.0/16');
    expect(later.addressOf('one', 'q-0')).toBe(first);
    later.keepOnly(new Set(['two']));
    expect(later.addressOf('two', 'q-0')).toBe(second);
    // A freed address rests while others are free: somebody may still be talking to it.
    expect(later.addressOf('one', 'q-0')).toBe('127.80.0.3');
  });

  test('addresses outside a range that was changed are given up', () => {
    const file = join(dir, 'b.json');
    new AddressBook(file, '127.80.0.0/16').addressOf('one', 'q-0');
    expect(new AddressBook(file, '127.81.0.0/16').addressOf('one', 'q-0')).toMatch(/^127\.81\./);
  });

  test('a full range is an error, not a shared address', () => {
    const book = new AddressBook(join(dir, 'c.json'), '127.80.0.16/28');
    const given = Array.from({ length: 16 }, (_, i) => book.addressOf('one', `q-${i}`));
    expect(new Set(given).size).toBe(16);
    expect(() => book.addressOf('one', 'q-16')).toThrow(/No free pod address/);
  });

  test('a range outside of loopback is refused', () => {
    expect(() => new AddressBook(join(dir, 'd.json'), '10.0.0.0/16')).toThrow(/127\.x\.x\.x/);
  });
});

test('a configuration file becomes the environment that means the same', () => {
  expect(
    configToEnv('cluster: {enabled: true, p2p: {port: 6335}}\nlog_level: INFO\nstorage: {x: null, y: [1]}'),
  ).toEqual({
    QDRANT__CLUSTER__ENABLED: 'true',
    QDRANT__CLUSTER__P2P__PORT: '6335',
    QDRANT__LOG_LEVEL: 'INFO',
  });
});

test('the work queue tries again, but not what has been superseded', async () => {
  const queue = new Workqueue(() => undefined);
  const done: string[] = [];
  queue.add('key', async () => {
    queue.add('key', async () => {
      done.push('second');
      await Promise.resolve();
    });
    await Promise.reject(new Error('first'));
  });
  await queue.idle('key');
  expect(done).toEqual(['second']);
});

test('configuration that cannot work is refused by name', () => {
  expect(() => readConfig({})).toThrow(/FLEET_KUBELET_DIR/);
  expect(() => readConfig({ FLEET_KUBELET_DIR: dir, FLEET_KUBELET_NODES: 'x' })).toThrow(/FLEET_KUBELET_NODES/);
  expect(() => readConfig({ FLEET_KUBELET_DIR: dir, FLEET_KUBELET_COMMAND: '{}' })).toThrow(/FLEET_KUBELET_COMMAND/);
  expect(readConfig({ FLEET_KUBELET_DIR: dir }).nodes).toEqual([
    { name: 'local-1', zone: 'local-a' },
    { name: 'local-2', zone: 'local-b' },
    { name: 'local-3', zone: 'local-c' },
  ]);
});

test('quantities of Kubernetes in bytes', () => {
  const read = ['10Gi', '1.5Ki', '2k', '3M', '1000', '1Ti', 'much', undefined].map(bytesOf);
  expect(read).toEqual([10 * 2 ** 30, 1536, 2000, 3_000_000, 1000, 2 ** 40, undefined, undefined]);
});
