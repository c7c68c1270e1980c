/**
 * The data of the demo: the `mnist` package's 10,000 handwritten digits, 28 x 28 grey values each, as vectors of 784
 * dimensions. Benchmarks of nearest-neighbour search know the same data as `mnist-784`.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

export const DIMENSIONS = 784;

export interface Point {
  readonly id: number;
  readonly vector: readonly number[];
  readonly payload: Readonly<Record<string, unknown>>;
}

const require = createRequire(import.meta.url);

/** All digits, with the payload fields that the default presets index. Always the same. */
export function readDigits(): Point[] {
  const points: Point[] = [];
  for (let digit = 0; digit < 10; digit += 1) {
    const file = require.resolve(`mnist/src/digits/${digit}.json`);
    const { data } = JSON.parse(readFileSync(file, 'utf8')) as { data: number[] };
    for (let start = 0; start + DIMENSIONS <= data.length; start += DIMENSIONS) {
      const vector = data.slice(start, start + DIMENSIONS);
      const id = points.length;
      const ink = vector.reduce((sum, value) => sum + value, 0);
      points.push({
        id,
        vector,
        payload: {
          document_id: `digit-${digit}-${start / DIMENSIONS}`,
          filename: `${digit}.json`,
          content_type: 'image/x-grey-28x28',
          customer_id: `customer-${id % 7}`,
          tags: [`digit:${digit}`, digit % 2 === 0 ? 'even' : 'odd', ink > 100 ? 'bold' : 'fine'],
          upload_timestamp: new Date(Date.UTC(2026, 0, 1) + id * 60_000).toISOString(),
        },
      });
    }
  }
  return points;
}
