/** ObserveClusters over activities that a test holds: pages, and what one of them may do to the others. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { fails, gate, REF, Workflows } from './support.ts';

let workflows: Workflows;
beforeAll(async () => {
  workflows = await Workflows.open();
});
afterAll(() => workflows.close());

const page = (cluster: string) => ({ after: { tenant: 'acme', cluster } });
const SEEN = { looked: 100, changed: 1, unseen: 2 };

describe('ObserveClusters', () => {
  test('looks at every page once, a few at a time, and adds up what was seen', async () => {
    const pages = [{}, ...Array.from({ length: 9 }, (_, at) => page(`c${at}`))];
    let [running, most] = [0, 0];
    const run = await workflows.run(
      'ObserveClusters',
      {},
      {
        endLostOperations: () => ({ ended: 1 }),
        listClustersToObserve: () => ({ pages }),
        observeClusters: async () => {
          most = Math.max(most, (running += 1));
          await new Promise((resolve) => setImmediate(resolve));
          running -= 1;
          return SEEN;
        },
      },
    );
    const total = { looked: 1000, changed: 10, unseen: 20, failed: 0, ended: 1 };
    expect(run.ended).toEqual({ status: 'COMPLETED', result: total });
    expect(
      run
        .of('observeClusters')
        .map(({ input }) => JSON.stringify(input))
        .sort(),
    ).toEqual(pages.map((each) => JSON.stringify(each)).sort());
    expect(most).toBeLessThanOrEqual(4);
  });

  test('a page that hangs, and one that fails, do not keep the others', async () => {
    const held = gate();
    const pages = [page('hangs'), page('fails'), ...Array.from({ length: 8 }, (_, at) => page(`c${at}`))];
    const run = await workflows.start(
      'ObserveClusters',
      {},
      {
        listClustersToObserve: () => ({ pages }),
        observeClusters: async ({ after }) => {
          if (after?.cluster === 'hangs') await held.promise;
          if (after?.cluster === 'fails') return fails('CatalogUnavailable')();
          return SEEN;
        },
      },
    );
    // All but the one that hangs; the one that fails is tried twice.
    await run.saw('observeClusters ended', 10);
    held.resolve();
    expect(await run.outcome()).toMatchObject({ status: 'COMPLETED', result: { looked: 900, failed: 1 } });
  });

  test('more pages than one run may hold go on as another run, which ends no operations again', async () => {
    const next = { tenant: 'acme', cluster: 'last' };
    const run = await workflows.run(
      'ObserveClusters',
      { tenant: 'acme' },
      {
        listClustersToObserve: ({ after }) =>
          after === undefined ? { pages: [{}, {}], next } : { pages: [page('x')] },
        observeClusters: () => SEEN,
      },
    );
    expect(run.ended).toMatchObject({ status: 'COMPLETED' });
    expect(run.of('listClustersToObserve').map(({ input }) => input)).toEqual([
      { tenant: 'acme', limit: 100 },
      { tenant: 'acme', limit: 100, after: next },
    ]);
    expect(run.of('observeClusters')).toHaveLength(3);
    expect(run.of('endLostOperations')).toHaveLength(1);
  });

  test('operations that are gone are asked for page by page, and what fails there keeps nobody from looking', async () => {
    let asked = 0;
    const run = await workflows.run(
      'ObserveClusters',
      {},
      {
        endLostOperations: ({ after }) => {
          asked += 1;
          return after === undefined ? { ended: 2, after: 'm' } : fails('TemporalUnavailable')();
        },
      },
    );
    expect(run.ended).toMatchObject({ status: 'COMPLETED', result: { ended: 2, looked: 1 } });
    expect(asked).toBe(3);
  });

  test('an input that is not one is refused by its fields', async () => {
    const run = await workflows.run('ObserveClusters', { ...REF, tenant: 'Not A Tenant' });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'InvalidInput' });
    expect(run.ended.message).toMatch(/tenant: .*cluster/);
  });
});
