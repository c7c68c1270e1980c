/** Bundle the workflows ahead of time: `node src/bundle-workflows.ts [file]`, default `dist/workflows.js`. */
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { bundleWorkflowCode, DefaultLogger } from '@temporalio/worker';
import { BUNDLER_OPTIONS, WORKFLOWS } from './workflow-bundle.ts';

const file = resolve(process.argv[2] ?? 'dist/workflows.js');
const { code } = await bundleWorkflowCode({
  ...BUNDLER_OPTIONS,
  workflowsPath: WORKFLOWS,
  logger: new DefaultLogger('WARN'),
});
await mkdir(dirname(file), { recursive: true });
// A worker that starts meanwhile must not read half of it.
await writeFile(`${file}.${process.pid}`, code);
await rename(`${file}.${process.pid}`, file);
process.stdout.write(`${file}: ${(code.length / 1e6).toFixed(2)} MB\n`);
