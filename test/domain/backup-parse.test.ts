/** What comes out of a bucket is input: nothing that is not the backup's own gets through the parsers. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  parseBases,
  parseBuckets,
  parseCopied,
  parseIntent,
  parseLane,
  parseManifest,
  parsePlan,
  parseRecord,
  parseSample,
} from '../../src/domain/backup-parse.ts';
import { missingIndexes } from '../../src/domain/collection-config.ts';
import { FleetError } from '../../src/domain/errors.ts';
import { isKeyBelow } from '../../src/domain/json-guard.ts';
import { backupKeys, type BackupLocation } from '../../src/domain/naming.ts';
import { packProblem } from '../../src/domain/shard-recipe.ts';
import { manifestOf, recordOf, shardOf } from '../support/stored-backup.ts';

const location: BackupLocation = { tenant: 'acme', cluster: 'docs', prefix: '', backup: '20261101T030000Z-00000000' };
const { data } = backupKeys(location);
const sample = { key: `${data}run/documents/shard-0.sample.json`, sha256: 'ab'.repeat(32), points: 1 };
const documents = {
  name: 'documents',
  config: { params: { vectors: { size: 4, distance: 'Cosine' }, replication_factor: 2 } },
  payloadSchema: { constructor: { data_type: 'keyword' } },
  shards: [{ ...shardOf(location, 'text'), sample }],
};
const manifest = manifestOf(location, { collections: [documents], aliases: [{ alias: 'a', collection: 'documents' }] });

/** Every JSON parser, by what it reads. */
const PARSERS: Readonly<Record<string, (json: unknown) => unknown>> = {
  record: (json) => parseRecord(json, location),
  manifest: (json) => parseManifest(json, location),
  plan: (json) => parsePlan(json, 'plan'),
  bases: (json) => parseBases(json, 'bases'),
  buckets: (json) => parseBuckets(json, 'buckets'),
  intent: (json) => parseIntent(json, location),
  sample: (json) => parseSample(json, 'sample'),
  copied: (json) => parseCopied(json, 'copied', location),
  lane: (json) => parseLane(json, 'lane', '1'),
};

test('what the fleet writes is read', () => {
  expect(parseManifest(JSON.parse(JSON.stringify(manifest)), location)).toEqual(manifest);
  const record = recordOf(location, 'COMMITTED', '{}');
  expect(parseRecord(JSON.parse(JSON.stringify(record)), location)).toEqual(record);
});

describe('any JSON', () => {
  const before = Object.getOwnPropertyNames(Object.prototype);
  const hostile = fc.json({ maxDepth: 6 }).map((text) => text.replaceAll(/"[a-z]?":/g, '"__proto__":'));

  test.for(Object.keys(PARSERS))('as a %s is read or refused, and changes no prototype', (name) => {
    fc.assert(
      fc.property(fc.oneof(fc.json(), hostile), (text) => {
        try {
          PARSERS[name]?.(JSON.parse(text));
        } catch (error) {
          if (!FleetError.is(error, 'IntegrityMismatch')) throw error;
          // What somebody else wrote is not repeated at length.
          expect(error.message.length).toBeLessThan(2000);
        }
        expect(Object.getOwnPropertyNames(Object.prototype)).toEqual(before);
        expect(({} as Record<string, unknown>)['get']).toBeUndefined();
      }),
      { numRuns: 1000 },
    );
  });

  test('put in place of any value of a manifest leaves only keys of the backup', () => {
    const places = placesOf(manifest);
    fc.assert(
      fc.property(fc.constantFrom(...places), fc.jsonValue({ maxDepth: 3 }), (place, value) => {
        const forged = withValue(manifest, place, value);
        try {
          for (const key of keysIn(parseManifest(forged, location))) expect(isKeyBelow(key, data)).toBe(true);
        } catch (error) {
          if (!FleetError.is(error, 'IntegrityMismatch')) throw error;
        }
      }),
      { numRuns: 3000 },
    );
  });
});

test('names that users give may be those of a prototype, those of the fleet may not', () => {
  const config = {
    params: { vectors: { constructor: { size: 4, distance: 'Dot' } } },
    metadata: { prototype: { constructor: 1 } },
  };
  const named = manifestOf(location, { collections: [{ ...documents, config }] });
  const read = parseManifest(JSON.parse(JSON.stringify(named)), location);
  expect(read).toEqual(named);
  expect(missingIndexes(read.collections[0]?.payloadSchema ?? {}, {})).toEqual(['constructor']);
  for (const name of ['constructor', 'prototype', '__proto__']) {
    const spec = JSON.parse(JSON.stringify(manifest.spec).replace('{', `{"${name}":{},`)) as typeof manifest.spec;
    expect(() => parseManifest({ ...manifest, spec }, location)).toThrow(`has a key "${name}"`);
    const record = JSON.stringify(recordOf(location, 'COMMITTED', '{}')).replace('{', `{"${name}":{},`);
    expect(() => parseRecord(JSON.parse(record), location)).toThrow(`has a key "${name}"`);
  }
});

test.for([
  'acme/other/20261101T030000Z-00000000/data/run/x.snapshot',
  'beta/docs/20261101T030000Z-00000000/data/run/x.snapshot',
  'acme/docs/20261102T030000Z-00000000/data/run/x.snapshot',
  `${data}../../20261102T030000Z-00000000/data/run/x.snapshot`,
  `${data}run/./x.snapshot`,
  `${data}run//x.snapshot`,
  `${data}run/\u0000.snapshot`,
  `${data}run/..\\x.snapshot`,
  `/${data}run/x.snapshot`,
  data,
  `${data}run/${'x'.repeat(1100)}`,
  'acme/docs/20261101T030000Z-00000000/commit.json',
])('%j is no key of the backup', (key) => {
  const shards = [{ ...shardOf(location, 'text'), key }];
  const forged = manifestOf(location, { collections: [{ ...documents, shards }] });
  expect(() => parseManifest(forged, location)).toThrow(FleetError);
  const sampled = [{ ...shardOf(location, 'text'), sample: { ...sample, key } }];
  expect(() =>
    parseManifest(manifestOf(location, { collections: [{ ...documents, shards: sampled }] }), location),
  ).toThrow(FleetError);
});

test('any path of a pack lies below the data of a backup that the record names, or is refused', () => {
  const other = '20261031T030000Z-00000001';
  const segment = fc.oneof(
    fc.constantFrom('..', '.', '', 'data', 'run', 'acme', other, location.backup, 'x.pack', '\u0000', 'a\\b'),
    fc.string({ maxLength: 6 }),
  );
  fc.assert(
    fc.property(fc.array(segment, { maxLength: 6 }), (segments) => {
      const path = segments.join('/');
      const pack = { path, size: 1, blocks: 1, used: 1, indexHash: new Uint8Array(32) };
      if (packProblem(pack, new Set([other])) !== undefined) return;
      expect(path.startsWith(`${other}/data/`)).toBe(true);
      expect(new URL(`http://host/${path}`).pathname.startsWith(`/${other}/data/`)).toBe(true);
    }),
    { numRuns: 5000 },
  );
  const good = { path: `${other}/data/run/docs/x.pack`, size: 1, blocks: 1, used: 1, indexHash: new Uint8Array(32) };
  expect(packProblem(good, new Set([other]))).toBeUndefined();
  expect(packProblem(good, new Set([location.backup]))).toContain('does not name');
  expect(packProblem({ ...good, size: 2 ** 40 })).toContain('larger than any pack');
});

test('a manifest as large as they may be is read in time that grows with it', () => {
  const shards = Array.from({ length: 20_000 }, (_, shard) => shardOf(location, 'text', shard));
  const half = { ...documents, shards: shards.slice(0, 10_000) };
  const timed = (collections: readonly (typeof half)[]) => {
    const json = JSON.parse(JSON.stringify(manifestOf(location, { collections }))) as unknown;
    const begun = performance.now();
    parseManifest(json, location);
    return performance.now() - begun;
  };
  timed([half]);
  expect(timed([{ ...documents, shards }])).toBeLessThan(timed([half]) * 6 + 200);
  const many = Array.from({ length: 6 }, (_, n) => ({ ...documents, name: `c${n}`, shards }));
  expect(() => timed(many)).toThrow(/more than 100000 shards/);
});

type Place = readonly (string | number)[];

/** The paths of all values in a JSON value. */
function placesOf(value: unknown, at: Place = []): Place[] {
  if (typeof value !== 'object' || value === null) return [at];
  const inner = Array.isArray(value) ? value.entries() : Object.entries(value);
  return [...(at.length === 0 ? [] : [at]), ...[...inner].flatMap(([key, next]) => placesOf(next, [...at, key]))];
}

function withValue(whole: unknown, place: Place, value: unknown): unknown {
  const copy = structuredClone(whole) as Record<string | number, unknown>;
  let inner = copy;
  for (const key of place.slice(0, -1)) inner = inner[key] as Record<string | number, unknown>;
  inner[place.at(-1) ?? ''] = value;
  return copy;
}

function keysIn({ collections }: ReturnType<typeof parseManifest>): string[] {
  return collections.flatMap(({ shards }) =>
    shards.flatMap(({ key, sample: kept }) => [key, ...(kept === undefined ? [] : [kept.key])]),
  );
}
