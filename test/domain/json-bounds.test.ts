/** JSON is counted before it is parsed: no fewer values than it has, and at no cost to speak of. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { jsonProblem, MAX_JSON_DEPTH } from '../../src/domain/json-bounds.ts';

/** Values of whatever kind; members count by their values. */
function valuesIn(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 1;
  return Object.values(value).reduce<number>((sum, inner) => sum + valuesIn(inner), 1);
}

test('no JSON has more values than are counted, and at most twice as many are', () => {
  // Brackets, commas, quotes and backslashes in strings and names count for nothing.
  const text = fc.string({ unit: fc.constantFrom('[', '{', ',', '"', '\\', '}', 'x'), maxLength: 8 });
  const value = fc.letrec((tie) => ({
    any: fc.oneof({ depthSize: 'small' }, text, fc.integer(), tie('list'), tie('map')),
    list: fc.array(tie('any')),
    map: fc.dictionary(text, tie('any')),
  })).any;
  fc.assert(
    fc.property(value, fc.boolean(), (any, spaced) => {
      const json = JSON.stringify(any, null, spaced ? 1 : 0);
      const values = valuesIn(JSON.parse(json));
      if (values > 1) expect(jsonProblem(json, values - 1)).toMatch(/more than \d+ values/);
      expect(jsonProblem(json, 2 * values)).toBeUndefined();
    }),
    { numRuns: 500 },
  );
});

test('depth is bounded, and what is no JSON is left to the parser', () => {
  const nested = (levels: number) => '['.repeat(levels) + ']'.repeat(levels);
  expect(jsonProblem(nested(MAX_JSON_DEPTH), 1000)).toBeUndefined();
  expect(jsonProblem(nested(MAX_JSON_DEPTH + 1), 1000)).toMatch(/levels deep/);
  expect(jsonProblem(`{"a":${'{"b":'.repeat(MAX_JSON_DEPTH)}1`, 1000)).toMatch(/levels deep/);
  for (const text of ['', '"', '"\\', '"\\"', ']]]', 'x']) expect(jsonProblem(text, 10)).toBeUndefined();
});

test.each([
  ['empty lists', '[],'],
  ['numbers', '0,'],
  ['objects', '{"a":1},'],
  ['brackets', '['],
])('32 MiB of %s are refused in a second of CPU', (_what, piece) => {
  const bomb = `[${piece.repeat((32 * 2 ** 20) / piece.length)}0]`;
  const before = process.cpuUsage();
  expect(jsonProblem(bomb, 3_000_000)).toMatch(/^(has|is) more than/);
  const { user, system } = process.cpuUsage(before);
  expect((user + system) / 1e6).toBeLessThan(1);
});
