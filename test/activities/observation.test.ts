/** Looks at clusters over a real catalogue: none overwrites an operation, and none waits for another cluster. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { PAGE } from '../../activities/observation.ts';
import type { Kubernetes } from '../../src/clients/kubernetes.ts';
import { resolveSpec, type ClusterPhase } from '../../src/domain/cluster.ts';
import { conditionsOf } from '../../src/domain/conditions.ts';
import { FleetError } from '../../src/domain/errors.ts';
import { namespaceOf, type ClusterRef } from '../../src/domain/naming.ts';
import type { KubernetesAccess } from '../../src/providers/provider.ts';
import { Parts } from './support.ts';

/** Of a suspended cluster nothing but its pods is asked for, and it should have none. */
const empty = { pods: () => Promise.resolve([]) } as unknown as Kubernetes;
const access = { kubernetes: empty } as KubernetesAccess;
/** What a cluster's Kubernetes does when it is asked, by the cluster's name. */
const answers = new Map<string, () => Promise<KubernetesAccess>>();

let parts: Parts;
beforeAll(async () => {
  parts = await Parts.open({ clusters: { of: ({ cluster }) => answers.get(cluster)?.() ?? Promise.resolve(access) } });
});
afterEach(async () => {
  answers.clear();
  for (const table of ['clusters', 'leases', 'operations'] as const) {
    await parts.catalog.db.deleteFrom(table).where('tenant', '=', parts.tenant).execute();
  }
});
afterAll(() => parts.close());

async function add(cluster: string, phase: ClusterPhase = 'SUSPENDED', suspended = true): Promise<ClusterRef> {
  const ref = { tenant: parts.tenant, cluster };
  const spec = { ...resolveSpec({ nodes: 2, collections: [] }, {}), suspended };
  const conditions = JSON.stringify(conditionsOf({ phase }, [], '2026-11-27T00:00:00.000Z'));
  const row = {
    ...ref,
    phase,
    spec: JSON.stringify(spec),
    namespace: namespaceOf(ref),
    created_by: 'maker',
    conditions,
  };
  await parts.catalog.db
    .insertInto('clusters')
    .values({ ...row, reason: null })
    .execute();
  return ref;
}

const observe = () => parts.as('observer', (of) => of.observeClusters({ tenant: parts.tenant }));
const read = async (ref: ClusterRef) => {
  const row = await parts.catalog.cluster(ref);
  const of = (type: string) => row?.conditions.find((condition) => condition.type === type);
  return { phase: row?.phase, reason: row?.reason, observed: row?.observed_at, row, of };
};
const name = (id: string) => `${parts.tenant}-${id}`;

describe('a look', () => {
  test('is recorded with its time, and says what was seen', async () => {
    const ref = await add('asleep');
    expect(await observe()).toEqual({ looked: 1, changed: 0, unseen: 0 });
    const { phase, observed, of, row } = await read(ref);
    expect(phase).toBe('SUSPENDED');
    expect(observed?.getTime()).toBeGreaterThan(Date.now() - 10_000);
    expect(of('Degraded')).toMatchObject({ status: 'False' });
    // The row as such did not change.
    expect(row?.updated_at.getTime()).toBe(row?.created_at.getTime());
  });

  test('changes the phase both ways, and keeps what the last operation failed with', async () => {
    const ref = await add('broken', 'HEALTHY', false);
    answers.set('broken', () => Promise.reject(new FleetError('ClusterNotReady', 'It has no pods.')));
    expect(await observe()).toEqual({ looked: 1, changed: 1, unseen: 0 });
    expect(await read(ref)).toMatchObject({ phase: 'NOT_READY', reason: 'It has no pods.' });
  });

  test('that sees nothing makes the conditions unknown, and neither the phase nor the time another', async () => {
    const ref = await add('blind', 'HEALTHY', false);
    answers.set('blind', () => Promise.reject(new FleetError('KubernetesUnavailable', 'No answer.')));
    expect(await observe()).toEqual({ looked: 1, changed: 0, unseen: 1 });
    const { phase, observed, of } = await read(ref);
    expect([phase, observed]).toEqual(['HEALTHY', null]);
    expect(of('Ready')).toMatchObject({ status: 'Unknown', message: 'No answer.' });
  });

  test('at a cluster that hangs ends by itself, keeps no other one waiting, and is not begun twice', async () => {
    const others = await Promise.all(Array.from({ length: 30 }, (_, at) => add(`c${at}`)));
    const hung = await add('a-hung');
    const { promise, resolve } = Promise.withResolvers<KubernetesAccess>();
    let begun = 0;
    answers.set('a-hung', () => {
      begun += 1;
      return promise;
    });
    const first = observe();
    const since = Date.now();
    for (const ref of others) while ((await read(ref)).observed === null) expect(Date.now() - since).toBeLessThan(6000);
    // Until here nobody has given it up.
    expect((await read(hung)).of('Ready')?.status).not.toBe('Unknown');
    expect(await first).toMatchObject({ looked: 31, unseen: 1 });
    expect((await read(hung)).of('Ready')).toMatchObject({ status: 'Unknown', reason: 'NotSeen' });
    await observe();
    expect(begun).toBe(1);
    resolve(access);
    await promise;
    await observe();
    expect(begun).toBe(2);
  }, 30_000);
});

describe('a look and an operation', () => {
  /** A look that goes on until it is let go. */
  function held(cluster: string) {
    const begun = Promise.withResolvers<undefined>();
    const end = Promise.withResolvers<KubernetesAccess>();
    answers.set(cluster, () => {
      begun.resolve(undefined);
      return end.promise;
    });
    const looked = observe();
    return {
      begun: begun.promise,
      end: async () => {
        end.resolve(access);
        return looked;
      },
    };
  }

  test('a cluster that an operation holds alone is left to it; one that is shared is looked at', async () => {
    const ref = await add('held');
    await parts.as(name('one'), (of) => of.takeLease({ ...ref, mode: 'exclusive' }));
    expect(await observe()).toEqual({ looked: 0, changed: 0, unseen: 0 });
    expect((await read(ref)).observed).toBeNull();
    await parts.as(name('one'), (of) => of.endOperation({ state: 'done' }));
    await parts.as(name('two'), (of) => of.takeLease({ ...ref, mode: 'shared' }));
    expect(await observe()).toMatchObject({ looked: 1 });
  });

  test('a look that began before an operation writes nothing after it has begun, nor after it has ended', async () => {
    const ref = await add('raced');
    const during = held('raced');
    await during.begun;
    await parts.as(name('op'), (of) => of.takeLease({ ...ref, mode: 'exclusive' }));
    expect(await during.end()).toMatchObject({ looked: 0 });
    expect((await read(ref)).observed).toBeNull();
    await parts.as(name('op'), (of) => of.endOperation({ state: 'done' }));

    const around = held('raced');
    await around.begun;
    await parts.as(name('op'), (of) => of.takeLease({ ...ref, mode: 'exclusive' }));
    await parts.as(name('op'), (of) => of.setClusterPhase({ ...ref, phase: 'NOT_READY', degraded: 'one peer' }));
    await parts.as(name('op'), (of) => of.endOperation({ state: 'done' }));
    expect(await around.end()).toMatchObject({ looked: 0 });
    expect(await read(ref)).toMatchObject({ phase: 'NOT_READY', reason: 'one peer' });
  });

  test('a phase that moves is settled only when no operation of the cluster runs', async () => {
    const made = await add('made', 'CREATING', false);
    const changed = await add('changed', 'SCALING');
    for (const [ref, kind] of [
      [made, 'provision'],
      [changed, 'update'],
    ] as const) {
      const id = name(kind);
      await parts.as(id, (of) => of.registerOperation({ ...ref, kind }));
      await parts.as(id, (of) => of.takeLease({ ...ref, mode: 'exclusive' }));
    }
    const sweep = () => parts.as('observer', (of) => of.endLostOperations({ tenant: parts.tenant }));
    expect(await sweep()).toEqual({ ended: 0 });
    expect(await observe()).toEqual({ looked: 0, changed: 0, unseen: 0 });

    parts.closed.add(name('provision'));
    parts.closed.add(name('update'));
    expect(await sweep()).toEqual({ ended: 2 });
    expect(await sweep()).toEqual({ ended: 0 });
    expect(await parts.catalog.operation(parts.tenant, name('update'))).toMatchObject({
      ...{ state: 'failed', error_code: 'Terminated' },
    });
    expect(await observe()).toMatchObject({ changed: 2 });
    const failed = await read(made);
    expect(failed.phase).toBe('FAILED_TO_CREATE');
    expect(failed.of('Failed')).toMatchObject({ status: 'True', reason: 'Terminated' });
    expect(failed.reason).toContain('Delete the cluster, then make it again.');
    expect((await read(changed)).phase).toBe('SUSPENDED');
    // A new one of the same name has to wait until it is deleted.
    const request = { nodes: 1, collections: [] };
    const again = parts.as(name('again'), (of) => of.reserveCluster({ ...made, request }));
    await expect(again).rejects.toMatchObject({ code: 'ClusterExists', message: expect.stringContaining('Delete it') });
  });
});

test('a deletion that failed by itself stays one; one that was ended from outside is settled', async () => {
  const ref = await add('half-gone', 'DELETING');
  await parts.as(name('delete'), (of) => of.registerOperation({ ...ref, kind: 'delete' }));
  const error = { code: 'KubernetesDenied', message: 'No.' };
  await parts.as(name('delete'), (of) => of.endOperation({ state: 'failed', error }));
  expect(await observe()).toMatchObject({ looked: 0 });
  expect((await read(ref)).phase).toBe('DELETING');
  const ended = { code: 'Terminated', message: 'It was ended.' };
  await parts.as(name('delete'), (of) => of.endOperation({ state: 'failed', error: ended }));
  expect(await observe()).toMatchObject({ changed: 1 });
  expect(await read(ref)).toMatchObject({ phase: 'SUSPENDED', reason: expect.stringContaining('(delete)') as string });
});

test('pages cover all clusters once, in order', async () => {
  const count = 2 * PAGE + 7;
  await Promise.all(Array.from({ length: count }, (_, at) => add(`n${String(at).padStart(3, '0')}`)));
  const list = (limit: number, after?: ClusterRef) =>
    parts.as('observer', (of) =>
      of.listClustersToObserve({ tenant: parts.tenant, limit, ...(after !== undefined && { after }) }),
    );
  const { pages, next } = await list(100);
  expect(next).toBeUndefined();
  expect(pages.map(({ after }) => after?.cluster)).toEqual([undefined, 'n099', 'n199']);
  const first = await list(1);
  expect(first).toMatchObject({ pages: [{}], next: { cluster: 'n099' } });
  expect((await list(1, first.next)).next).toMatchObject({ cluster: 'n199' });
  const looked = await Promise.all(pages.map((page) => parts.as('observer', (of) => of.observeClusters(page))));
  expect(looked.map((page) => page.looked)).toEqual([PAGE, PAGE, 7]);
}, 60_000);
