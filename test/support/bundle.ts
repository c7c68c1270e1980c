/** The workflows' bundle, made once in a test run. */
import { existsSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { execa } from 'execa';
import { lock } from '../../src/local/lock.ts';

const BUNDLER = resolve(import.meta.dirname, '../../src/bundle-workflows.ts');

let ownFolder: string | undefined;

/**
 * @param kubeconfig of the stack that all test files share; the bundle lies beside its files. Without a stack each process
 *   makes its own: one that an earlier run left would be of older sources.
 * @returns the bundle's file
 */
export async function bundleFile(kubeconfig: string): Promise<string> {
  const folder = kubeconfig === '' ? (ownFolder ??= mkdtempSync(join(tmpdir(), 'fleet-bundle-'))) : dirname(kubeconfig);
  const file = join(folder, 'workflows-under-test.js');
  if (existsSync(file)) return file;
  // The first of the test processes makes it, and the others wait.
  const release = await lock(`${file}.lock`);
  try {
    if (!existsSync(file)) await execa(process.execPath, [BUNDLER, file]);
  } finally {
    release();
  }
  return file;
}
