import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  backupIdOf,
  backupKeys,
  isShardCopy,
  backupTimeOf,
  clusterKey,
  encodeCollection,
  isBackupId,
  MAX_CLUSTER_LENGTH,
  MAX_TENANT_LENGTH,
  nameProblem,
  namespaceOf,
} from '../../src/domain/naming.ts';

const name = (max: number) =>
  fc
    .stringMatching(/^[a-z](-?[a-z0-9])*$/)
    .filter((text) => text.length <= max && nameProblem(text, max) === undefined);

test('two clusters never share a namespace, and every namespace is a DNS label', () => {
  const ref = fc.record({ tenant: name(MAX_TENANT_LENGTH), cluster: name(MAX_CLUSTER_LENGTH) });
  fc.assert(
    fc.property(ref, ref, (a, b) => {
      expect(clusterKey(a) === clusterKey(b)).toBe(a.tenant === b.tenant && a.cluster === b.cluster);
      expect(namespaceOf(a)).toMatch(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/);
    }),
  );
});

test.each([
  ['', 'must not be empty'],
  ['Acme', 'must be lower-case'],
  ['a--b', 'single hyphens'],
  ['-a', 'starting with a letter'],
  ['a-', 'not ending with a hyphen'],
  ['1a', 'starting with a letter'],
  ['a'.repeat(21), 'must have at most 20 characters, has 21'],
])('"%s" is no tenant name', (text, problem) => {
  expect(nameProblem(text, MAX_TENANT_LENGTH)).toContain(problem);
});

test('a collection name survives its encoding, whatever Qdrant allows in it', () => {
  const anyName = fc.string({ unit: 'binary', minLength: 1 }).filter((text) => text.isWellFormed());
  fc.assert(
    fc.property(anyName, (text) => {
      const encoded = encodeCollection(text);
      expect(decodeURIComponent(encoded)).toBe(text);
      expect(encoded).toMatch(/^[A-Za-z0-9_%-]+$/);
    }),
  );
  expect(encodeCollection('..')).toBe('%2E%2E');
});

test('keys of two collections never collide, and no segment outgrows a file name', () => {
  const long = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 255 }).filter((text) => text.isWellFormed());
  const keys = backupKeys({ prefix: 'p', tenant: 't', cluster: 'c', backup: 'b' });
  fc.assert(
    fc.property(long, long, (a, b) => {
      const sha256 = 'ab'.repeat(32);
      const [left, right] = [keys.shard('run', a, 0, sha256), keys.shard('run', b, 0, sha256)];
      expect(keys.shard('run', a, 0, `cd${sha256}`)).not.toBe(left);
      expect(isShardCopy(left)).toBe(true);
      expect(left === right).toBe(a === b);
      for (const segment of left.split('/')) expect(segment.length).toBeLessThanOrEqual(255);
    }),
  );
});

test('a backup id carries its time, to the second', () => {
  fc.assert(
    fc.property(fc.date({ min: new Date('2000-01-01'), max: new Date('2100-01-01'), noInvalidDate: true }), (time) => {
      const id = backupIdOf(time, '0123456789abcdef');
      expect(isBackupId(id)).toBe(true);
      expect(backupTimeOf(id).getTime()).toBe(Math.floor(time.getTime() / 1000) * 1000);
    }),
  );
  expect(() => backupTimeOf('yesterday')).toThrow(RangeError);
});

test('the prefix may be empty or carry slashes', () => {
  const location = { tenant: 'acme', cluster: 'docs', backup: 'b' };
  expect(backupKeys({ ...location, prefix: '' }).commit).toBe('acme/docs/b/commit.json');
  expect(backupKeys({ ...location, prefix: '/a/b/' }).commit).toBe('a/b/acme/docs/b/commit.json');
});
