/** The key's Secret on its way from one key to the next, on a real Kubernetes API. */
import { randomBytes } from 'node:crypto';
import { CoreV1Api, KubeConfig } from '@kubernetes/client-node';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { API_KEY_SECRET, namespaceOf } from '../../src/domain/naming.ts';
import { Parts } from './support.ts';

const ref = { tenant: `t${randomBytes(3).toString('hex')}`, cluster: 'keys' };
let parts: Parts;
let core: CoreV1Api;
beforeAll(async () => {
  parts = await Parts.open();
  const config = new KubeConfig();
  config.loadFromFile(inject('localEnv')['KUBECONFIG'] ?? '');
  core = config.makeApiClient(CoreV1Api);
  await core.createNamespace({ body: { metadata: { name: namespaceOf(ref) } } });
});
afterAll(async () => {
  await core.deleteNamespace({ name: namespaceOf(ref) });
  await parts.close();
});

async function keys(): Promise<{ main: string | undefined; second: string | undefined }> {
  const { data = {} } = await core.readNamespacedSecret({ name: API_KEY_SECRET.name, namespace: namespaceOf(ref) });
  return { main: data[API_KEY_SECRET.key], second: data[API_KEY_SECRET.alternate] };
}

test('the old key stays good until it is dropped, and each stage happens once', async () => {
  const run = <T>(call: () => Promise<T>) => parts.as('rotation', call);
  await run(() => parts.activities.ensureApiKey(ref));
  const first = await keys();
  expect(first.second).toBeUndefined();

  expect(await run(() => parts.activities.stageApiKey({ ...ref, stage: 'added' }))).toEqual({ revision: 1 });
  const both = await keys();
  expect(both.main).toBe(first.main);
  expect(both.second).toBeDefined();
  // A repeated attempt, and a whole rotation that begins anew, go on instead of making a third key.
  expect(await run(() => parts.activities.stageApiKey({ ...ref, stage: 'added' }))).toEqual({ revision: 1 });
  expect(await keys()).toEqual(both);

  expect(await run(() => parts.activities.stageApiKey({ ...ref, stage: 'switched' }))).toEqual({ revision: 2 });
  expect(await keys()).toEqual({ main: both.second, second: both.main });
  expect(await run(() => parts.activities.stageApiKey({ ...ref, stage: 'added' }))).toEqual({ revision: 2 });
  expect(await run(() => parts.activities.stageApiKey({ ...ref, stage: 'switched' }))).toEqual({ revision: 2 });

  expect(await run(() => parts.activities.stageApiKey({ ...ref, stage: 'settled' }))).toEqual({ revision: 3 });
  expect(await keys()).toEqual({ main: both.second, second: undefined });
  expect(await run(() => parts.activities.stageApiKey({ ...ref, stage: 'settled' }))).toEqual({ revision: 3 });
});
