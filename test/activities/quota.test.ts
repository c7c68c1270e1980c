/** Quotas in a real PostgreSQL: who is let in, also when many ask at once, and what counts no more. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { setQuota } from '../../src/clients/quotas.ts';
import type { QuotaName } from '../../src/domain/quota.ts';
import { Parts } from './support.ts';

let parts: Parts;
let tenants = 0;
beforeAll(async () => {
  parts = await Parts.open();
});
afterAll(() => parts.close());

/** A tenant of its own, with quotas of its own. */
async function tenantWith(quotas: Partial<Record<QuotaName, number>>) {
  tenants += 1;
  const tenant = `${parts.tenant}q${tenants}`;
  for (const [name, value] of Object.entries(quotas))
    await setQuota(parts.catalog.db, tenant, name as QuotaName, value);
  const id = (name: string) => `${tenant}-${name}`;
  return {
    tenant,
    id,
    reserve: (cluster: string, request: { nodes?: number; storage?: string } = {}) =>
      parts.as(id(cluster), (activities) =>
        activities.reserveCluster({ tenant, cluster, request: { nodes: 1, collections: [], ...request } }),
      ),
    register: (name: string, counted = true) =>
      parts.as(id(name), (activities) =>
        activities.registerOperation({ tenant, cluster: 'any', kind: 'backup', counted }),
      ),
    copy: (cluster: string, name = cluster) =>
      parts.as(id(name), (activities) => activities.takeLease({ tenant, cluster, mode: 'shared', copying: true })),
    end: (name: string) => parts.as(id(name), (activities) => activities.endOperation({ state: 'done' })),
  };
}

describe('clusters', () => {
  test('of ten that ask at once, as many get in as there is room for, and the others are told what is used', async () => {
    const { reserve } = await tenantWith({ clusters: 3 });
    const outcomes = await Promise.allSettled(Array.from({ length: 10 }, (_, at) => reserve(`c${at}`)));
    const refused = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason as Error] : []));
    expect(refused).toHaveLength(7);
    for (const error of refused) {
      expect(error).toMatchObject({
        code: 'QuotaReached',
        message: expect.stringMatching(/uses 3 of 3 clusters, and this asks for 1 more/) as string,
      });
    }
  });

  test('nodes and volumes count over all clusters; the same request again is not one more', async () => {
    const { reserve } = await tenantWith({ nodes: 5, storageGiB: 100 });
    await reserve('a', { nodes: 3, storage: '10Gi' });
    await reserve('a', { nodes: 3, storage: '10Gi' });
    await expect(reserve('b', { nodes: 3, storage: '1Gi' })).rejects.toMatchObject({ code: 'QuotaReached' });
    await expect(reserve('b', { nodes: 2, storage: '11Gi' })).rejects.toMatchObject({
      message: expect.stringContaining('uses 60 of 100 GiB') as string,
    });
    const spec = await reserve('b', { nodes: 2, storage: '10Gi' });
    expect(spec.maxCollections).toBe(1000);
  });
});

describe('operations', () => {
  test('one more than the quota is refused, unless it is a part of another or a schedule started it', async () => {
    const { register, end } = await tenantWith({ operationsRunning: 2 });
    await register('one');
    await register('two');
    await register('two');
    await expect(register('three')).rejects.toMatchObject({ code: 'QuotaReached' });
    await register('part', false);
    await end('one');
    await end('part');
    await register('three');
  });

  test('one whose workflow was terminated counts no more', async () => {
    const { register, id } = await tenantWith({ operationsRunning: 1 });
    await register('gone');
    parts.closed.add(id('gone'));
    await register('next');
  });

  test('a backup beyond the quota waits for its turn, on whichever cluster', async () => {
    const { copy, end } = await tenantWith({ backupsRunning: 2 });
    await copy('a');
    await copy('b');
    await copy('b');
    await expect(copy('c')).rejects.toMatchObject({
      code: 'ClusterNotReady',
      message: expect.stringContaining('quota "backupsRunning" is 2') as string,
    });
    await end('a');
    await copy('c');
  });
});
