import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { chartValues, nested } from '../../src/domain/chart-values.ts';
import { DEFAULT_PRESETS, resolveSpec } from '../../src/domain/cluster.ts';
import { bytesPerPoint, missingIndexes } from '../../src/domain/collection-config.ts';
import { FleetError } from '../../src/domain/errors.ts';
import { FORMATS } from '../../src/domain/input/formats.ts';
import { ANSWERS, SIZES } from '../../src/domain/input/limits.ts';
import { parseNetwork } from '../../src/domain/ip-network.ts';
import * as guards from '../../src/domain/input.ts';
import { parseProvisionInput, parseRestoreInput, parseUpdateInput } from '../../src/domain/input.ts';

const REF = { tenant: 'acme', cluster: 'docs' };
const RESTORE = { tenant: 'acme', source: 'docs', cluster: 'docs2', backup: '20261121T030000Z-1a2b3c4d' };
/** As JSON has it: `{__proto__: …}` in code sets the prototype instead. */
const json = (text: string): object => JSON.parse(text);

function refusal(run: () => unknown): FleetError {
  try {
    run();
  } catch (error) {
    if (FleetError.is(error, 'InvalidInput')) return error;
    throw error;
  }
  throw new Error('It was not refused.');
}

const RESERVED = ['__proto__', 'prototype', 'constructor'];
const PARSERS = Object.entries(guards).filter(([name]) => name.startsWith('parse')) as [
  string,
  (input: unknown) => unknown,
][];

describe('a name that leads to a prototype', () => {
  test.each([
    ['config', { '__proto__.get': true }],
    ['config', { '__proto__.bucket.name': 'x' }],
    ['config', { 'constructor.prototype.get': true }],
    ['config', { 'storage.__proto__.x': 1 }],
  ])('is refused in %s %j', (field, value) => {
    const problem = refusal(() => parseProvisionInput({ ...REF, nodes: 1, [field]: value }));
    expect(problem.message).toContain(Object.keys(value)[0]);
    expect(() => parseUpdateInput({ ...REF, [field]: value })).toThrow(FleetError);
  });

  test.each(RESERVED)('is refused as a key anywhere: %s', (name) => {
    const evil = json(`{"${name}": {"get": true}}`);
    for (const [, parse] of PARSERS) {
      expect(refusal(() => parse({ ...REF, ...evil })).message).toContain(`${name}: must not be used as a name`);
    }
    for (const input of [
      { placement: { nodeSelector: evil } },
      { provider: 'aws', aws: { labels: evil } },
      { collections: [evil] },
      { resources: evil },
      { network: evil },
    ]) {
      expect(refusal(() => parseProvisionInput({ ...REF, ...input })).message).toContain('must not be used as a name');
    }
    expect(refusal(() => parseRestoreInput({ ...RESTORE, rename: evil })).message).toContain('must not be used');
    for (const field of ['preset', 'name']) {
      expect(() => parseProvisionInput({ ...REF, collections: [{ [field]: name }] })).toThrow(FleetError);
    }
    expect(Object.hasOwn(Object.prototype, 'get')).toBe(false);
  });

  test('reaches no prototype, were it to get as far as the chart', () => {
    for (const name of ['__proto__.get', 'storage.constructor.prototype.get', 'prototype', 'a.__proto__']) {
      expect(refusal(() => nested({ [name]: true })).message).toContain('must not be used as a name');
    }
    const values = chartValues(REF, { ...resolveSpec({}, DEFAULT_PRESETS), config: { 'service.jwt_rbac': true } });
    const config = values['config'] as Record<string, Record<string, unknown>>;
    expect(Object.getPrototypeOf(config)).toBeNull();
    expect(Object.getPrototypeOf(config['service'])).toBeNull();
    expect(JSON.stringify(config)).toBe('{"service":{"jwt_rbac":true},"cluster":{"enabled":true}}');
    expect(Object.keys(Object.prototype)).toEqual([]);
  });

  test('is a name like any other where it comes from a cluster', () => {
    expect(missingIndexes({ constructor: 'keyword', a: 'keyword' }, { a: {} })).toEqual(['constructor']);
    expect(missingIndexes({ constructor: 'keyword' }, { constructor: {} })).toEqual([]);
    expect(bytesPerPoint({ vectors: { size: 4, datatype: 'constructor' } })).toBe(4 * 4 + 512);
  });
});

describe('settings', () => {
  test('a name and a name below it are refused by name', () => {
    expect(refusal(() => nested({ 'a.b': 1, 'a.b.c': 2 })).fields[0]?.field).toBe('config["a.b.c"]');
    expect(refusal(() => nested({ 'a.b.c': 2, 'a.b': 1 })).fields[0]?.field).toBe('config["a.b"]');
    const config = { 'storage.wal': 1, 'storage.wal.wal_capacity_mb': 64, 'service.jwt_rbac.x': true };
    expect(refusal(() => parseProvisionInput({ ...REF, config })).fields).toEqual([
      { field: 'config["storage.wal"]', detail: expect.stringContaining('is a group of settings') },
      {
        field: 'config["service.jwt_rbac.x"]',
        detail: expect.stringContaining('has nothing below "service.jwt_rbac"'),
      },
    ]);
  });
});

describe('bounds', () => {
  test('a list of errors ends at 50 and says how many there are', () => {
    const input = Object.fromEntries(Array.from({ length: 2000 }, (_, index) => [`field${index}`, index]));
    const { fields, more, message } = refusal(() => parseProvisionInput({ ...REF, ...input }));
    expect(fields).toHaveLength(ANSWERS.errors);
    expect(more).toBe(1950);
    expect(message).toMatch(/; and 19\d\d more$/);
    expect(message.length).toBeLessThan(ANSWERS.messageLength + 20);
  });

  test('what is repeated is cut', () => {
    const long = 'x'.repeat(60_000);
    const { fields } = refusal(() => parseProvisionInput({ ...REF, nodes: long, [long]: 1, config: { [long]: 1 } }));
    expect(fields).toHaveLength(3);
    expect(JSON.stringify(fields).length).toBeLessThan(2000);
  });

  test('depth, values, NUL and halves of pairs are refused by their place', () => {
    let deep: unknown = 1;
    for (let depth = 0; depth < 30_000; depth += 1) deep = [deep];
    expect(refusal(() => parseProvisionInput({ ...REF, x: deep })).message).toContain('levels deep');
    const many = Array.from({ length: 20_000 }, () => 1);
    expect(refusal(() => parseProvisionInput({ ...REF, x: many })).message).toContain('more than 10000 values');
    const bad = 'must not contain NUL or half of a surrogate pair';
    for (const text of ['a\0b', '\uD800', 'x\uDC00']) {
      const rename = { a: text };
      expect(refusal(() => parseRestoreInput({ ...RESTORE, rename })).fields).toEqual([
        { field: 'rename.a', detail: bad },
      ]);
      expect(refusal(() => parseRestoreInput({ ...RESTORE, rename: { [text]: 'a' } })).fields[0]?.detail).toBe(bad);
    }
  });

  test('lists and maps have as many items as they may have, and no more', () => {
    const selector = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, at) => [`key${at}`, 'v']));
    const placement = (count: number) => ({ ...REF, placement: { nodeSelector: selector(count) } });
    expect(parseProvisionInput(placement(SIZES.nodeSelector))).toBeDefined();
    expect(refusal(() => parseProvisionInput(placement(SIZES.nodeSelector + 1))).message).toContain(
      'at most 20 entries',
    );
    const collections = Array.from({ length: SIZES.collectionsNamed + 1 }, (_, at) => `c${at}`);
    expect(refusal(() => parseRestoreInput({ ...RESTORE, collections })).message).toContain('must name at most 200');
    expect(refusal(() => parseRestoreInput({ ...RESTORE, collections: ['a', 'a'] })).message).toContain('twice');
  });

  test('every network that is let in can be read and compared', () => {
    fc.assert(
      fc.property(fc.stringMatching(FORMATS.cidr.pattern), (cidr) => {
        expect(parseNetwork(cidr)).toBeDefined();
      }),
    );
  });

  test('null is no value', () => {
    expect(refusal(() => parseProvisionInput({ ...REF, nodes: null })).message).toContain('is null');
  });
});
