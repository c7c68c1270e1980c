import { StorageV1Api, KubeConfig } from '@kubernetes/client-node';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { resolveAws } from '../../src/domain/aws.ts';
import { storageClassOf } from '../../src/domain/naming.ts';
import { Parts } from '../activities/support.ts';

let parts: Parts;
let storage: StorageV1Api;
beforeAll(async () => {
  parts = await Parts.open();
  const config = new KubeConfig();
  config.loadFromFile(inject('localEnv')['KUBECONFIG'] ?? '');
  storage = config.makeApiClient(StorageV1Api);
});
afterAll(() => parts.close());

const made = (operation: string, cluster: string) =>
  parts.as(operation, (a) => a.ensureStorageClass({ tenant: parts.tenant, cluster, spec: resolveAws({}, 3) }));

test('a storage class that an earlier operation left is made anew, with the tags of this one', async () => {
  const name = storageClassOf({ tenant: parts.tenant, cluster: 'left' });
  await made('first', 'left');
  const first = await storage.readStorageClass({ name });
  await made('first', 'left');
  expect((await storage.readStorageClass({ name })).metadata?.uid).toBe(first.metadata?.uid);
  await made('second', 'left');
  const second = await storage.readStorageClass({ name });
  expect(Object.values(second.parameters ?? {})).toContain('qdrant-fleet/operation=second');
  expect(second.metadata?.uid).not.toBe(first.metadata?.uid);
  await storage.deleteStorageClass({ name });
});

test("one of somebody else's is refused, and stays as it is", async () => {
  const name = storageClassOf({ tenant: parts.tenant, cluster: 'theirs' });
  await storage.createStorageClass({ body: { metadata: { name }, provisioner: 'somebody.example' } });
  await expect(made('first', 'theirs')).rejects.toMatchObject({ code: 'ResourceNotOurs' });
  expect(await storage.readStorageClass({ name })).toMatchObject({ provisioner: 'somebody.example' });
  await storage.deleteStorageClass({ name });
});
