/** The operation lease in a real PostgreSQL: who may work on a cluster at the same time, and who may not. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Parts, race } from './support.ts';

let parts: Parts;
beforeAll(async () => {
  parts = await Parts.open();
});
afterAll(() => parts.close());

let clusters = 0;
/** A cluster of its own for each test. */
function fresh() {
  clusters += 1;
  const ref = { tenant: parts.tenant, cluster: `c${clusters}` };
  const name = (id: string) => `${parts.tenant}-${ref.cluster}-${id}`;
  return {
    ref,
    name,
    take: (id: string, mode: 'exclusive' | 'shared') =>
      parts.as(name(id), (activities) => activities.takeLease({ ...ref, mode })),
    copy: (id: string) =>
      parts.as(name(id), (activities) => activities.takeLease({ ...ref, mode: 'shared', copying: true })),
    end: (id: string) => parts.as(name(id), (activities) => activities.endOperation({ state: 'done' })),
    holders: async () => {
      const rows = await parts.catalog.db
        .selectFrom('leases')
        .select(['holder', 'mode'])
        .where('tenant', '=', ref.tenant)
        .where('cluster', '=', ref.cluster)
        .orderBy('holder')
        .execute();
      return rows.map(({ holder, mode }) => `${holder.slice(name('').length)} ${mode}`);
    },
  };
}

describe('the lease of a cluster', () => {
  test('an exclusive holder keeps everybody out, and says who it is', async () => {
    const { take, holders, name } = fresh();
    await take('a', 'exclusive');
    await expect(take('b', 'exclusive')).rejects.toMatchObject({
      code: 'ClusterBusy',
      message: expect.stringContaining(name('a')) as string,
    });
    await expect(take('b', 'shared')).rejects.toMatchObject({ code: 'ClusterBusy' });
    expect(await holders()).toEqual(['a exclusive']);
  });

  test('shared holders get along, and keep an exclusive one out', async () => {
    const { take, holders } = fresh();
    await take('a', 'shared');
    await take('b', 'shared');
    await expect(take('c', 'exclusive')).rejects.toMatchObject({ code: 'ClusterBusy' });
    expect(await holders()).toEqual(['a shared', 'b shared']);
  });

  test('of the shared holders one copies; the next has its turn when that one has ended, or is closed', async () => {
    const { take, copy, end, name } = fresh();
    await take('sweep', 'shared');
    await copy('a');
    await copy('a');
    await expect(copy('b')).rejects.toMatchObject({
      code: 'ClusterNotReady',
      message: expect.stringContaining(name('a')) as string,
    });
    await take('verify', 'shared');
    await end('a');
    await copy('b');
    await expect(copy('c')).rejects.toMatchObject({ code: 'ClusterNotReady' });
    parts.closed.add(name('b'));
    await copy('c');
  });

  test('of many that want to copy at once exactly one may', async () => {
    const { copy } = fresh();
    const { won, lost } = await race(['a', 'b', 'c', 'd', 'e'].map((id) => copy(id)));
    expect(won).toHaveLength(1);
    expect(lost).toEqual(Array(4).fill('ClusterNotReady'));
  });

  test('taking it again is harmless', async () => {
    const { take, holders } = fresh();
    await take('a', 'exclusive');
    await take('a', 'exclusive');
    expect(await holders()).toEqual(['a exclusive']);
  });

  test('the lease of a closed workflow is taken over', async () => {
    const { take, holders, name } = fresh();
    await take('a', 'exclusive');
    parts.closed.add(name('a'));
    await take('b', 'exclusive');
    expect(await holders()).toEqual(['b exclusive']);
  });

  test('one closed and one open holder: the open one still counts, and nothing changes', async () => {
    const { take, holders, name } = fresh();
    await take('a', 'shared');
    await take('b', 'shared');
    parts.closed.add(name('a'));
    await expect(take('c', 'exclusive')).rejects.toMatchObject({ code: 'ClusterBusy' });
    expect(await holders()).toEqual(['a shared', 'b shared']);
  });

  test('of twenty that come at once exactly one gets it', async () => {
    const { take, holders } = fresh();
    const { won, lost } = await race(Array.from({ length: 20 }, (_, index) => take(`w${index}`, 'exclusive')));
    expect(won).toHaveLength(1);
    expect(new Set(lost)).toEqual(new Set(['ClusterBusy']));
    expect(await holders()).toHaveLength(1);
  });

  test('twenty that come at once to take over a closed one: exactly one does', async () => {
    const { take, holders, name } = fresh();
    await take('old', 'exclusive');
    parts.closed.add(name('old'));
    const { won } = await race(Array.from({ length: 20 }, (_, index) => take(`w${index}`, 'exclusive')));
    expect(won).toHaveLength(1);
    expect(await holders()).toHaveLength(1);
  });

  test('ending lets go of the own lease only, and may be repeated', async () => {
    const { take, end, holders } = fresh();
    await take('a', 'shared');
    await take('b', 'shared');
    await end('a');
    await end('a');
    expect(await holders()).toEqual(['b shared']);
  });
});

describe('the record of an operation', () => {
  test('how it ended, and why', async () => {
    const { ref, name } = fresh();
    const id = name('op');
    await parts.as(id, (activities) => activities.registerOperation({ ...ref, kind: 'backup' }));
    expect(await parts.catalog.operation(parts.tenant, id)).toMatchObject({ state: 'running', kind: 'backup' });
    const error = { code: 'ChartFailed', message: 'No chart.' };
    await parts.as(id, (activities) => activities.endOperation({ state: 'failed', error }));
    expect(await parts.catalog.operation(parts.tenant, id)).toMatchObject({
      state: 'failed',
      error_code: 'ChartFailed',
      error_message: 'No chart.',
      finished_at: expect.any(Date) as Date,
    });
    await parts.as(id, (activities) => activities.registerOperation({ ...ref, kind: 'backup' }));
    expect(await parts.catalog.operation(parts.tenant, id)).toMatchObject({ state: 'running', error_code: null });
  });

  test('a name is reserved once; its owner may repeat, somebody else may not', async () => {
    const { ref, name } = fresh();
    const reserve = (id: string) =>
      parts.as(name(id), (activities) => activities.reserveCluster({ ...ref, request: { nodes: 1, collections: [] } }));
    const [first, again] = [await reserve('a'), await reserve('a')];
    expect(again).toEqual(first);
    await expect(reserve('b')).rejects.toMatchObject({ code: 'ClusterExists' });
    expect(await parts.catalog.cluster(ref)).toMatchObject({ created_by: name('a'), phase: 'CREATING' });
    // Undoing the reservation that failed leaves the other's alone.
    const undo = (id: string) =>
      parts.as(name(id), (activities) => activities.forgetCluster({ ...ref, onlyOwn: true }));
    await undo('b');
    expect(await parts.catalog.cluster(ref)).toMatchObject({ created_by: name('a') });
    await undo('a');
    expect(await parts.catalog.cluster(ref)).toBeUndefined();
  });
});
