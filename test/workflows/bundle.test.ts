/** What goes into the sandbox: small, pure, and nothing that a worker should not run. */
import { createContext, runInContext } from 'node:vm';
import { expect, test } from 'vitest';
import { bundle } from './support.ts';

const MiB = 1024 * 1024;

test('the bundle is below 2 MB, since every cached workflow costs about twice its size', async () => {
  const code = await bundle();
  expect(Buffer.byteLength(code)).toBeLessThan(2 * MiB);
});

test('the bundle holds no I/O and no schema library', async () => {
  const code = await bundle();
  // Webpack names each module it took in by its path.
  const modules = [...code.matchAll(/^\/\*\*\*\/ "([^"]+)":?/gm)].map(([, path]) => path ?? '');
  expect(modules.length).toBeGreaterThan(20);
  expect(
    modules.filter((path) => /node_modules\/(zod|undici|@aws-sdk|@smithy|kysely|pg|hono|execa)\//.test(path)),
  ).toEqual([]);
  expect(modules.filter((path) => /\/(api|src\/clients|src\/local)\//.test(path))).toEqual([]);
  // Only types are taken from the activities.
  expect(modules.filter((path) => path.includes('/activities/'))).toEqual([]);
  expect(code).not.toMatch(/require\(["']node:/);
  expect(code).not.toMatch(/from ["']node:/);
});

test('exactly the public workflows and the child are exported, each under its own name', async () => {
  const sandbox = createContext({ __webpack_module_cache__: {}, console, TextEncoder, TextDecoder, AbortController });
  runInContext(`${await bundle()}\n;globalThis.__entry = __TEMPORAL__;`, sandbox);
  const entry = (sandbox as { __entry: { importWorkflows(): Record<string, unknown> } }).__entry;
  const exported = Object.entries(entry.importWorkflows());
  expect(exported.map(([name]) => name).sort()).toEqual([
    'BackupCluster',
    'BackupPeer',
    'DeleteCluster',
    'InfrastructureSweep',
    'ObserveClusters',
    'ProvisionCluster',
    'RenewCertificates',
    'RestoreCluster',
    'ResumeCluster',
    'RetentionSweep',
    'RotateApiKey',
    'RotateCertificates',
    'SuspendCluster',
    'UndeleteBackup',
    'UpdateCluster',
    'VerifyBackup',
  ]);
  // An alias would start a type by the function's name, which no worker knows.
  for (const [name, workflow] of exported) expect((workflow as { name: string }).name).toBe(name);
});
