/** Stacks beside each other never hand out the same addresses. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { reservePodRange } from '../../src/local/pod-range.ts';

test('every holder has a range of its own, until none is left; what is released is handed out again', () => {
  const folder = mkdtempSync(join(tmpdir(), 'fleet-ranges-'));
  const held = Array.from({ length: 186 }, () => reservePodRange(folder));
  expect(new Set(held.map(({ cidr }) => cidr)).size).toBe(186);
  for (const { cidr } of held) expect(cidr).toMatch(/^127\.(6[5-9]|[7-9]\d|1\d\d|2[0-4]\d|250)\.0\.0\/16$/);
  expect(() => reservePodRange(folder)).toThrow('All 186 ranges of pod addresses are in use');
  held[7]?.release();
  expect(reservePodRange(folder).cidr).toBe(held[7]?.cidr);
  rmSync(folder, { recursive: true });
});
