/** How the workflows are bundled, for the worker, for the image and for the tests. */
import { fileURLToPath } from 'node:url';
import type { BundleOptions } from '@temporalio/worker';

/** The file that exports every workflow type. */
export const WORKFLOWS = fileURLToPath(new URL('../workflows/index.ts', import.meta.url));

/**
 * The source map that the SDK needs for stack traces stays in the bundle, without the sources themselves: they were two
 * thirds of its size, and a worker holds the bundle for as long as it runs.
 */
export const BUNDLER_OPTIONS = {
  webpackConfigHook: (config) => ({ ...config, devtool: 'inline-nosources-source-map' }),
} satisfies Partial<BundleOptions>;
