/** What is fetched to build and run the product is what was seen when it was chosen. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

const read = (path: string) => readFileSync(join(import.meta.dirname, '..', path), 'utf8');

interface Lock {
  readonly packages: Readonly<Record<string, { readonly integrity?: string; readonly resolved?: string }>>;
}

test('every entry of the lockfile has a SHA-512, also those of other systems, and names no registry', () => {
  const { packages } = JSON.parse(read('package-lock.json')) as Lock;
  const entries = Object.entries(packages).filter(([path]) => path !== '');
  expect(entries.length).toBeGreaterThan(400);
  expect(entries.filter(([, { integrity }]) => !/^sha512-[\w+/]{86}==$/.test(integrity ?? ''))).toEqual([]);
  expect(entries.filter(([, { resolved }]) => resolved !== undefined)).toEqual([]);
});

test('no package runs a script when it is installed', () => {
  expect(read('.npmrc')).toMatch(/^ignore-scripts=true$/m);
  const installs = read('Dockerfile').match(/npm (?:ci|install)[^\n&]*/g) ?? [];
  expect(installs.length).toBeGreaterThan(0);
  expect(installs.filter((command) => !command.includes('--ignore-scripts'))).toEqual([]);
});

/** Temporal's web UI, which holds no data: nobody has confirmed a digest of this version. */
const BY_TAG = ['temporalio/ui:2.55.0'];

test('base images and those of the compose file are pinned by digest', () => {
  const bases = [...read('Dockerfile').matchAll(/^FROM (\S+)/gm)].map(([, image]) => image ?? '');
  const images = [...read('docker-compose.yml').matchAll(/^\s*image: (\S+)/gm)].map(([, image]) => image ?? '');
  const others = [...bases, ...images].filter((image) => !image.startsWith('qdrant-fleet:'));
  expect(others.length).toBeGreaterThan(6);
  expect(others.filter((image) => !/^[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}$/.test(image))).toEqual(BY_TAG);
});
