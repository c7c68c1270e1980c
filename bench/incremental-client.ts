/** One run of the incremental path as a process of its own. Settings come by environment; the outcome is one JSON line. */
import { createHash } from 'node:crypto';
import { readFileSync, writeSync } from 'node:fs';
import { copyIncrementally } from '../src/clients/incremental-copy.ts';
import { fetchRecipe, IncrementalShard, type RecipeRef } from '../src/clients/incremental-shard.ts';
import { BackupStore } from '../src/clients/s3.ts';
import { SnapshotSource } from '../src/clients/snapshot-source.ts';
import { BufferPool } from '../src/clients/transfer-budget.ts';
import { blockSizeFor } from '../src/domain/block-cutter.ts';

const MiB = 1024 * 1024;
const text = (name: string) => process.env[`BENCH_${name}`] ?? '';
const store = new BackupStore({
  bucket: text('BUCKET'),
  region: 'us-east-1',
  endpoint: text('ENDPOINT'),
  forcePathStyle: true,
});
const { signal } = new AbortController();
const buffers = new BufferPool(48 * MiB);
const root = 'bench/';
const recipe = text('RECIPE') === '' ? undefined : (JSON.parse(text('RECIPE')) as RecipeRef & { snapshot: number });
await store.check();
const idle = memory('VmRSS');

const outcome = text('MODE') === 'read' ? await readBack() : await copy();
store.close();
writeSync(1, `${JSON.stringify({ ...outcome, idle, peak: memory('VmHWM') })}\n`);

async function copy() {
  const source = await SnapshotSource.open(text('URL'), {}, signal);
  const base = recipe && (await fetchRecipe(store, recipe, signal));
  const folder = text('FOLDER');
  const copied = await copyIncrementally({
    ...{ source, store, root, folder, buffers, signal, lanes: 4, partSize: 8 * MiB },
    known: base?.packs.filter(({ used }) => used > 0) ?? [],
    blockSize: blockSizeFor(source.size, base?.blockSize),
    onProgress: () => undefined,
  });
  const key = `${root}${folder}shard.recipe`;
  await store.putBytes(key, copied.recipe);
  const ref = { key, size: copied.recipe.length, sha256: createHash('sha256').update(copied.recipe).digest('hex') };
  const written = copied.written + copied.recipe.length;
  return { sha256: copied.sha256, written, recipe: { ...ref, snapshot: source.size } };
}

async function readBack() {
  if (recipe === undefined) throw new Error('BENCH_RECIPE is needed.');
  const shard = new IncrementalShard({ store, root, recipe, size: recipe.snapshot, lanes: 4, buffers });
  const hash = createHash('sha256');
  for await (const chunk of shard.stream(signal)) hash.update(chunk);
  return { sha256: hash.digest('hex'), written: 0 };
}

/** Bytes, as Linux counts them. */
function memory(field: 'VmRSS' | 'VmHWM'): number {
  const [, kilobytes = '0'] =
    new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
  return Number(kilobytes) * 1024;
}
