/** Incremental shards in a real store, from an HTTP server that stands in for a node. */
import { createHash, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { chooseBases, release, settle, type BlockShard } from '../../activities/block-references.ts';
import { copyIncrementally, type IncrementalCopyOptions } from '../../src/clients/incremental-copy.ts';
import { fetchRecipe, IncrementalShard } from '../../src/clients/incremental-shard.ts';
import type { Pack } from '../../src/clients/packs.ts';
import { SnapshotSource } from '../../src/clients/snapshot-source.ts';
import { BufferPool } from '../../src/clients/transfer-budget.ts';
import { INCREMENTAL_FORMAT } from '../../src/domain/backup.ts';
import { MIN_BLOCK } from '../../src/domain/block-cutter.ts';
import { backupKeys, clusterPrefix, type BackupLocation } from '../../src/domain/naming.ts';
import { recordOf, sealedRecord, shardOf, storeBackup } from '../support/stored-backup.ts';
import { tar } from '../support/tar.ts';
import { Parts } from './support.ts';

const MiB = 1024 * 1024;
let parts: Parts;
/** What the node serves now, and what it does before each range. */
const node: { body: Buffer; onRange: (start: number) => void } = { body: Buffer.alloc(0), onRange: () => undefined };
const server = createServer((request, response) => {
  const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
  const [start, end] = [Number(from), Math.min(Number(to), node.body.length - 1)];
  node.onRange(start);
  const chunk = node.body.subarray(start, end + 1);
  response.writeHead(206, {
    etag: '"1"',
    'content-length': chunk.length,
    'content-range': `bytes ${start}-${end}/${node.body.length}`,
  });
  response.end(chunk);
});
beforeAll(async () => {
  parts = await Parts.open();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
});
afterAll(async () => {
  server.closeAllConnections();
  server.close();
  await parts.close();
});

const never = new AbortController().signal;
let clusters = 0;
/** A cluster of its own for each test. */
function place(backup: string): BackupLocation {
  return { tenant: parts.tenant, cluster: `c${clusters}`, prefix: '', backup };
}
const id = (n: number) => `20261121T0000${String(n).padStart(2, '0')}Z-0000000${n % 10}`;
const rootOf = () => clusterPrefix(place(id(0)));

/** Two segments of random files, in a tar of tars. */
function snapshot(files: readonly Buffer[], mtime = 1): Buffer {
  const half = Math.ceil(files.length / 2);
  const segment = (from: number, to: number) =>
    tar(files.slice(from, to).map((content, n) => ({ name: `files/${from + n}`, content, mtime })));
  return tar([
    { name: 'segments/a.tar', content: segment(0, half), mtime },
    { name: 'segments/b.tar', content: segment(half, files.length), mtime },
  ]);
}

async function copy(location: BackupLocation, body: Buffer, change: Partial<IncrementalCopyOptions> = {}) {
  node.body = body;
  const { port } = server.address() as AddressInfo;
  const root = rootOf();
  const folder = backupKeys(location).blocks('run', 'docs', 0);
  const signal = change.signal ?? never;
  const copied = await copyIncrementally({
    source: await SnapshotSource.open(`http://127.0.0.1:${port}/file`, {}, signal),
    ...{ store: parts.store, root, folder: folder.slice(root.length), known: [], blockSize: MIN_BLOCK },
    ...{ partSize: 5 * MiB, lanes: 4, buffers: new BufferPool(), signal, onProgress: () => undefined },
    ...change,
  });
  expect(copied.sha256).toBe(sha256(body));
  const recipeSha256 = sha256(copied.recipe);
  const key = `${folder}${recipeSha256.slice(0, 32)}.recipe`;
  await parts.store.putBytes(key, copied.recipe);
  const incremental = { recipeBytes: copied.recipe.length, recipeSha256, written: copied.written };
  const shard: BlockShard = { key, size: body.length, incremental };
  return { ...copied, shard };
}

const recipeRef = ({ key, incremental }: BlockShard) => ({
  key,
  size: incremental.recipeBytes,
  sha256: incremental.recipeSha256,
});
const packsOf = async (shard: BlockShard): Promise<Pack[]> =>
  (await fetchRecipe(parts.store, recipeRef(shard), never)).packs.filter(({ used }) => used > 0);

async function read(shard: BlockShard, buffers = new BufferPool()): Promise<Buffer> {
  const whole = new IncrementalShard({
    ...{ store: parts.store, root: rootOf(), recipe: recipeRef(shard), size: shard.size, lanes: 3, buffers },
  });
  const chunks: Buffer[] = [];
  for await (const chunk of whole.stream(never)) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}

const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');

describe('copy and put together', () => {
  test('of any size, with files that are there twice, zeros, and blocks over every border', async () => {
    clusters += 1;
    const twice = randomBytes(3 * MiB + 77);
    const files = [randomBytes(6 * MiB + 1), twice, Buffer.alloc(2 * MiB), twice, randomBytes(100), Buffer.alloc(0)];
    for (const [n, body] of [snapshot(files), randomBytes(MiB), randomBytes(1), snapshot([])].entries()) {
      const { shard, written } = await copy(place(id(n)), body);
      expect((await read(shard)).equals(body)).toBe(true);
      expect(written).toBeLessThan(body.length * 1.02 + 4096);
    }
    // 9 MiB are new, 5 MiB are there twice or zeros.
    const { written } = await copy(place(id(9)), snapshot(files));
    expect(written).toBeLessThan(9.3 * MiB);
  });

  test('changed here and there: little is written, and reads bring it back through one small budget', async () => {
    clusters += 1;
    const files = Array.from({ length: 4 }, () => randomBytes(8 * MiB));
    const first = await copy(place(id(1)), snapshot(files));
    for (const file of files) for (let at = 0; at < file.length; at += 200_000) file.writeUInt32BE(at, at);
    const body = snapshot(files, 2);
    const second = await copy(place(id(2)), body, { known: await packsOf(first.shard) });
    expect(second.written).toBeLessThan(body.length * 0.03);
    const budget = new BufferPool(16 * MiB);
    const [a, b] = await Promise.all([read(second.shard, budget), read(second.shard, budget)]);
    expect(a.equals(body) && b.equals(body)).toBe(true);
    expect(budget.bytes).toBeLessThanOrEqual(16 * MiB);
  });

  test('after an attempt was killed the packs that it finished are used', async () => {
    clusters += 1;
    const body = snapshot(Array.from({ length: 7 }, () => randomBytes(10 * MiB)));
    const killed = new AbortController();
    node.onRange = (start) => {
      if (start >= 60 * MiB) killed.abort(new Error('The worker stops.'));
    };
    await expect(copy(place(id(1)), body, { signal: killed.signal })).rejects.toThrow('The worker stops.');
    node.onRange = () => undefined;
    const folder = backupKeys(place(id(1))).data;
    expect(await parts.store.openUploads(folder)).toEqual([]);
    const again = await copy(place(id(1)), body);
    expect(again.sent).toBeLessThan(body.length - 31 * MiB);
    expect(again.written).toBeGreaterThan(body.length);
    expect((await read(again.shard)).equals(body)).toBe(true);
  });

  test('a damaged pack ends the stream and is named, before the whole is there', async () => {
    clusters += 1;
    const body = snapshot([randomBytes(3 * MiB)]);
    const { shard } = await copy(place(id(1)), body);
    const [pack] = await packsOf(shard);
    const key = `${rootOf()}${pack?.path}`;
    const bytes: Buffer[] = [];
    for await (const chunk of (await parts.store.read(key, never)) ?? []) bytes.push(Buffer.from(chunk));
    const damaged = Buffer.concat(bytes);
    damaged.writeUInt8(damaged.readUInt8(MiB) ^ 1, MiB);
    await parts.store.putBytes(key, damaged);
    await expect(read(shard)).rejects.toMatchObject({
      code: 'IntegrityMismatch',
      message: expect.stringContaining(key),
    });
    await parts.store.deleteKeys([key]);
    await expect(read(shard)).rejects.toMatchObject({
      code: 'IntegrityMismatch',
      message: expect.stringContaining(key),
    });
  });

  test('a pack that is gone or not whole is none: its blocks are written anew', async () => {
    clusters += 1;
    const body = snapshot([randomBytes(2 * MiB)]);
    const first = await copy(place(id(1)), body);
    const known = await packsOf(first.shard);
    await parts.store.putBytes(`${rootOf()}${known[0]?.path}`, randomBytes(known[0]?.size ?? 0));
    for (const n of [2, 3]) {
      const next = await copy(place(id(n)), body, { known });
      expect(next.written).toBeGreaterThan(2 * MiB);
      expect((await read(next.shard)).equals(body)).toBe(true);
      await parts.store.deleteKeys([`${rootOf()}${known[0]?.path}`]);
    }
  });

  test('another recipe than the committed one is refused', async () => {
    clusters += 1;
    const { shard, recipe } = await copy(place(id(1)), snapshot([randomBytes(MiB)]));
    recipe[recipe.length - 9] = (recipe[recipe.length - 9] ?? 0) ^ 1;
    await parts.store.putBytes(shard.key, recipe);
    await expect(read(shard)).rejects.toMatchObject({ code: 'IntegrityMismatch' });
  });
});

describe('references and removal', () => {
  /** A committed incremental backup of one shard. */
  async function committed(n: number, body: Buffer, known: Pack[] = []) {
    const location = place(id(n));
    const { shard } = await copy(location, body, { known });
    const blocks = await settle(parts.store, location, 'run', [shard], never);
    const entry = { ...shardOf(location, ''), ...shard, sha256: sha256(body) };
    const collections = [{ name: 'docs', config: { params: {} }, payloadSchema: {}, shards: [entry] }];
    const references = blocks.map(({ backup }) => backup).filter((backup) => backup !== location.backup);
    const format = { formatVersion: INCREMENTAL_FORMAT } as const;
    await storeBackup(
      parts.store,
      location,
      'COMMITTED',
      { ...format, collections, blocks },
      { ...format, references },
    );
    await release(parts.store, location, 'run');
    return { location, shard, references };
  }

  const sweep = <T>(run: (activities: Parts['activities']) => Promise<T>) => parts.as('sweep', run);
  const mark = ({ tenant, cluster, backup }: BackupLocation) =>
    sweep((activities) => activities.markBackupDeleting({ tenant, cluster, backup }));
  const purge = ({ tenant, cluster, backup }: BackupLocation) =>
    sweep((activities) => activities.purgeBackup({ tenant, cluster, backup }));
  const leases = async (location: BackupLocation) => {
    const keys: string[] = [];
    for await (const { key } of parts.store.list(backupKeys(location).leases)) keys.push(key);
    return keys;
  };

  test('a backup that another refers to is kept, told by whom, and goes after it', async () => {
    clusters += 1;
    const body = snapshot([randomBytes(MiB)]);
    const base = await committed(1, body);
    const next = await committed(2, body, await packsOf(base.shard));
    expect(next.references).toEqual([id(1)]);
    await mark(base.location);
    expect(await purge(base.location)).toEqual({ state: 'DELETING', objects: 0, heldBy: [id(2)] });
    expect((await read(next.shard)).equals(body)).toBe(true);
    await mark(next.location);
    // Marked, it may still be taken back.
    expect(await purge(base.location)).toMatchObject({ heldBy: [id(2)] });
    expect(await purge(next.location)).toMatchObject({ state: 'DELETED' });
    expect(await purge(base.location)).toMatchObject({ state: 'DELETED' });
  });

  test('while a backup is made, what it may refer to is not purged, marked or not', async () => {
    clusters += 1;
    const base = await committed(1, snapshot([randomBytes(MiB)]));
    const location = place(id(2));
    expect(await chooseBases(parts.store, location, 'run', ['docs'])).toEqual({ bases: [id(1)], allowed: [id(1)] });
    await mark(base.location);
    expect(await purge(base.location)).toEqual({ state: 'DELETING', objects: 0 });
    await release(parts.store, location, 'run');
    expect(await leases(base.location)).toEqual([]);
    expect(await purge(base.location)).toMatchObject({ state: 'DELETED' });
  });

  test('a base that was purged because the lease lapsed: the commit is refused', async () => {
    clusters += 1;
    const body = snapshot([randomBytes(MiB)]);
    const base = await committed(1, body);
    const location = place(id(2));
    await chooseBases(parts.store, location, 'run', ['docs']);
    const { shard } = await copy(location, body, { known: await packsOf(base.shard) });
    // As if an hour had passed without a renewal.
    await parts.store.deleteKeys(await leases(base.location));
    await mark(base.location);
    expect(await purge(base.location)).toMatchObject({ state: 'DELETED' });
    await expect(settle(parts.store, location, 'run', [shard], never)).rejects.toMatchObject({
      code: 'CommitConflict',
    });
    expect(await leases(base.location)).toEqual([]);
  });

  test('a deleter that looked before a marked base was held again has to look again', async () => {
    clusters += 1;
    const body = snapshot([randomBytes(MiB)]);
    const base = await committed(1, body);
    const next = await committed(2, body, await packsOf(base.shard));
    await mark(base.location);
    const seen = await parts.store.getJson(backupKeys(base.location).commit);
    // The newest backup is the base of the third, and gives its blocks from the marked one.
    expect(await chooseBases(parts.store, place(id(3)), 'run', ['docs'])).toEqual({
      bases: [id(2)],
      allowed: [id(1), id(2)],
    });
    const stale = { etag: seen?.etag ?? '' };
    expect(await parts.store.putIf(backupKeys(base.location).commit, '{}', stale)).toBe('refused');
    expect(await purge(base.location)).toEqual({ state: 'DELETING', objects: 0 });
    expect(next.references).toEqual([id(1)]);
  });

  test('packs that no recipe refers to go before the commit, those of another run stay', async () => {
    clusters += 1;
    const location = place(id(1));
    const { shard } = await copy(location, snapshot([randomBytes(MiB)]));
    const stray = `${backupKeys(location).blocks('run', 'docs', 0)}zombie.pack`;
    const foreign = `${backupKeys(location).blocks('other-run', 'docs', 0)}theirs.pack`;
    for (const key of [stray, foreign]) await parts.store.putBytes(key, randomBytes(100));
    await settle(parts.store, location, 'run', [shard], never);
    expect(await parts.store.head(stray)).toBeUndefined();
    expect(await parts.store.head(foreign)).toBeDefined();
    await parts.store.deleteKeys([`${rootOf()}${(await packsOf(shard))[0]?.path}`]);
    await expect(settle(parts.store, location, 'run', [shard], never)).rejects.toMatchObject({
      code: 'IntegrityMismatch',
    });
  });

  test('no more than 16 backups are referred to: the least used ones are left out', async () => {
    clusters += 1;
    const blocks = Array.from({ length: 20 }, (_, n) => ({ backup: id(n), bytes: 1000 + n }));
    const collections = [{ name: 'docs', config: { params: {} }, payloadSchema: {}, shards: [] }];
    const format = { formatVersion: INCREMENTAL_FORMAT } as const;
    const references = blocks.map(({ backup }) => backup);
    const parts40 = { ...format, collections, blocks };
    await storeBackup(parts.store, place(id(40)), 'COMMITTED', parts40, { ...format, references });
    for (const { backup } of blocks) {
      const text = sealedRecord(parts.store, place(backup), recordOf(place(backup), 'COMMITTED', '{}', format));
      await parts.store.putJson(backupKeys(place(backup)).commit, text);
    }
    const { allowed } = await chooseBases(parts.store, place(id(50)), 'run', ['docs']);
    expect(allowed.toSorted()).toEqual(blocks.slice(4).map(({ backup }) => backup));
  });
});
