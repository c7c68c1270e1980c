import { describe, expect, test } from 'vitest';
import { FleetError } from '../../src/domain/errors.ts';
import {
  parseBackupInput,
  parseDeleteInput,
  parseProvisionInput,
  parseRestoreInput,
  parseRetentionInput,
} from '../../src/domain/input.ts';

const ref = { tenant: 'acme', cluster: 'docs' };

function problems(parse: (input: unknown) => unknown, input: unknown): Record<string, string> {
  try {
    parse(input);
  } catch (error) {
    if (!FleetError.is(error, 'InvalidInput')) throw error;
    return Object.fromEntries(error.fields.map(({ field, detail }) => [field, detail]));
  }
  return {};
}

describe('workflow inputs', () => {
  test('the smallest inputs are enough', () => {
    expect(parseProvisionInput(ref)).toEqual(ref);
    expect(parseBackupInput(ref)).toEqual(ref);
    expect(parseDeleteInput(ref)).toEqual(ref);
    expect(parseRetentionInput({ ...ref, policy: { keepLast: 3 } })).toEqual({ ...ref, policy: { keepLast: 3 } });
  });

  test('every bad field is named at once, with what it should be', () => {
    const input = {
      tenant: 'Acme',
      nodes: 0,
      version: 'a b',
      storage: '10 GB',
      replicationFactor: 1.5,
      resources: { cpu: 'lots', gpu: 1 },
      collections: [{ name: 'a/b', vectorSize: 'big' }, 7],
      nodez: 3,
    };
    expect(problems(parseProvisionInput, input)).toEqual({
      tenant: expect.stringContaining('lower-case'),
      cluster: 'is needed',
      nodes: 'must be from 1 to 64, is 0',
      version: expect.stringContaining('image tag'),
      storage: expect.stringContaining('10Gi'),
      replicationFactor: 'must be a whole number, is number 1.5',
      'resources.cpu': expect.stringContaining('500m'),
      'resources.gpu': expect.stringContaining('is not known here; known: cpu, memory'),
      'collections[0].name': expect.stringContaining('must not contain'),
      'collections[0].vectorSize': 'must be a whole number, is string "big"',
      'collections[1]': 'must be one JSON object',
      nodez: expect.stringContaining('is not known here'),
    });
  });

  test.each([[undefined], [null], ['acme'], [[ref]], [3]])('%j is no input', (input) => {
    expect(problems(parseBackupInput, input)['']).toBe('must be one JSON object');
  });

  test('a retention policy has to say what to keep', () => {
    expect(problems(parseRetentionInput, ref)).toHaveProperty('policy');
    expect(problems(parseRetentionInput, { ...ref, policy: { minGood: 2 } })).toHaveProperty(['policy.keepLast']);
    expect(problems(parseRetentionInput, { ...ref, policy: { keepLast: 0 } })).toHaveProperty(['policy.keepLast']);
  });

  test('a backup is full or incremental', () => {
    expect(parseBackupInput({ ...ref, format: 'incremental' })).toEqual({ ...ref, format: 'incremental' });
    expect(problems(parseBackupInput, { ...ref, format: 'delta' })['format']).toBe('must be one of full, incremental');
  });

  test('a restore names a backup id', () => {
    const input = { tenant: 'acme', source: 'docs', cluster: 'docs2', backup: 'latest' };
    expect(problems(parseRestoreInput, input)['backup']).toContain('20261121T030000Z-1a2b3c4d');
    expect(problems(parseRestoreInput, { ...input, collections: [] })['collections']).toContain('leave the field out');
  });

  test('a restore renames to names that are legal, distinct and selected', () => {
    const input = { tenant: 'acme', source: 'docs', cluster: 'docs2', backup: '20261121T030000Z-1a2b3c4d' };
    const rename = { documents: 'documents_v2' };
    expect(parseRestoreInput({ ...input, rename })).toEqual({ ...input, rename });
    expect(problems(parseRestoreInput, { ...input, rename: ['a'] })['rename']).toContain(
      'must be an object of values by name',
    );
    expect(problems(parseRestoreInput, { ...input, rename: { a: 'x/y', b: 3 } })).toEqual({
      'rename.a': expect.stringContaining('must not contain'),
      'rename.b': expect.stringContaining('must be a string'),
    });
    expect(problems(parseRestoreInput, { ...input, rename: { a: 'c', b: 'c' } })).toHaveProperty(['rename.a']);
    const selected = { ...input, collections: ['a', 'c'], rename: { a: 'c', b: 'd' } };
    expect(problems(parseRestoreInput, selected)).toEqual({
      'rename.a': '"c" would be the name of two collections',
      'rename.b': 'is not among "collections"',
    });
    expect(problems(parseRestoreInput, { ...input, rename, inPlace: true, nodes: 3 })).toEqual({
      rename: expect.stringContaining('inPlace'),
      nodes: expect.stringContaining('inPlace'),
    });
  });
});
