/** The table of AWS operations holds all that production code uses, and what it says of the emulators is so. */
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { EMULATORS, startAwsEmulators, type AwsEmulators } from '../../src/local/aws/emulators.ts';
import { OPERATIONS, operationsTable } from '../../src/local/aws/operations.ts';
import { probe } from './probe.ts';

const ROOT = resolve(import.meta.dirname, '../..');

let aws: AwsEmulators;
beforeAll(async () => {
  aws = await startAwsEmulators({ managedPolicies: false });
}, 300_000);
afterAll(() => aws.stop());

test('every operation that production code uses is in it', () => {
  const sources = ['activities', 'src/clients/aws', 'src/providers'].flatMap((folder) =>
    readdirSync(join(ROOT, folder)).flatMap((name) => (/aws/.test(folder + name) ? [join(ROOT, folder, name)] : [])),
  );
  const used = sources
    .flatMap((file) => [...readFileSync(file, 'utf8').matchAll(/\b(autoscaling|ec2|eks|iam|sts|s3)\.([a-z])(\w+)\(/g)])
    .map(([, service, first = '', rest]) => `${service}:${first.toUpperCase()}${rest}`);
  expect(used.length).toBeGreaterThan(50);
  expect([...new Set(used)].filter((operation) => OPERATIONS[operation] === undefined)).toEqual([]);
});

test.each(EMULATORS)('%s has what it is said to have', async (name) => {
  const wrong: string[] = [];
  for (const [operation, known] of Object.entries(OPERATIONS)) {
    const has = await probe(aws.urls[name] ?? '', operation);
    if (has !== undefined && has === (known[name] === 'no'))
      wrong.push(`${operation}: ${has ? 'has it' : 'has it not'}`);
  }
  expect(wrong).toEqual([]);
});

test('the document holds the table', () => {
  const text = readFileSync(join(ROOT, 'docs/aws-emulators.md'), 'utf8');
  const [, table] = /<!-- operations -->\s+([^]*?)\s+<!-- end of operations -->/.exec(text) ?? [];
  expect(table).toBe(operationsTable());
});
