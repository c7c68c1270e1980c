import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { qdrantCommand } from '../../../src/local/qdrant-node/launch.ts';
import { until } from '../../../src/local/wait.ts';
import { ADMIN_KEY, multipart, READ_ONLY_KEY, sha256, testPoint, TestCluster } from './harness.ts';

interface Snapshot {
  name: string;
  size: number;
  checksum: string;
}

const REAL_SNAPSHOT = join(import.meta.dirname, '../../fixtures/qdrant/shard-1.18.3.snapshot');
const standIn = process.env['QDRANT_BIN'] === undefined;

describe('snapshots', () => {
  let source: TestCluster;
  let target: TestCluster;
  /** One snapshot of each shard of the source, and how many points were in it. */
  const objects = new Map<number, Snapshot & { url: string; points: number | undefined }>();

  beforeAll(async () => {
    [source, target] = await Promise.all([TestCluster.start(3), TestCluster.start(2)]);
    await source.ok(0, 'PUT', '/collections/docs', {
      vectors: { size: 16, distance: 'Cosine' },
      shard_number: 4,
      replication_factor: 2,
    });
    await source.ok(0, 'PUT', '/collections/docs/index?wait=true', { field_name: 'tag', field_schema: 'keyword' });
    await source.fill(0, 'docs', 0, 1500, 16);
    for (const node of [0, 1, 2]) {
      for (const { shard_id: shard, points_count: points } of (await source.layout(node, 'docs')).local_shards) {
        if (objects.has(shard)) continue;
        const path = `/collections/docs/shards/${shard}/snapshots`;
        const snapshot = await source.ok<Snapshot>(node, 'POST', `${path}?wait=true`);
        objects.set(shard, { ...snapshot, points, url: source.url(node, `${path}/${snapshot.name}`) });
      }
    }
  });
  afterAll(() => Promise.all([source.stop(), target.stop()]));

  /** A node of the source that holds the shard, and the snapshot's path on it. */
  async function stored(
    shard: number,
  ): Promise<{ node: number; path: string; snapshot: Snapshot & { points: number | undefined } }> {
    const snapshot = objects.get(shard);
    if (snapshot === undefined) throw new Error(`no snapshot of shard ${shard}`);
    const url = new URL(snapshot.url);
    return { node: source.hosts.indexOf(url.hostname), path: url.pathname, snapshot };
  }

  test('each shard, by URL onto every replica of a cluster of another size with no_sync', async () => {
    await target.ok(0, 'PUT', '/collections/docs', {
      vectors: { size: 16, distance: 'Cosine' },
      shard_number: 4,
      replication_factor: 2,
    });
    await target.ok(0, 'PUT', '/collections/docs/index?wait=true', { field_name: 'tag', field_schema: 'keyword' });
    await Promise.all(
      [0, 1].flatMap((node) =>
        [...objects].map(([shard, { url, checksum }]) =>
          target.ok(node, 'PUT', `/collections/docs/shards/${shard}/snapshots/recover?wait=true`, {
            location: url,
            api_key: ADMIN_KEY,
            priority: 'no_sync',
            checksum,
          }),
        ),
      ),
    );
    await target.healed('docs');
    const counts = async (cluster: TestCluster, node: number) =>
      new Map((await cluster.layout(node, 'docs')).local_shards.map((one) => [one.shard_id, one.points_count]));
    const original = new Map([...objects].map(([shard, { points }]) => [shard, points]));
    for (const node of [0, 1]) {
      expect(await target.count(node, 'docs')).toBe(1500);
      expect(await counts(target, node)).toEqual(original);
    }
    const filter = { must: [{ key: 'tag', match: { value: 't3' } }] };
    const found = await target.ok(1, 'POST', '/collections/docs/points/count', { filter });
    expect(found).toEqual(await source.ok(1, 'POST', '/collections/docs/points/count', { filter }));

    // What is written afterwards reaches both replicas.
    await target.fill(1, 'docs', 1500, 1600, 16);
    const [first, second] = [await counts(target, 0), await counts(target, 1)];
    expect(first).toEqual(second);
    expect([...first.values()].reduce<number>((sum, count) => sum + (count ?? 0), 0)).toBe(1600);
  });

  test('priority=snapshot heals the other replica from the recovered one', async () => {
    const { node, path, snapshot } = await stored(1);
    await source.ok(node, 'PUT', '/collections/docs/points?wait=true', {
      points: Array.from({ length: 200 }, (_, index) => testPoint(5000 + index, 16)),
    });
    const folder = path.slice(0, path.lastIndexOf('/'));
    await source.ok(node, 'PUT', `${folder}/recover?wait=true`, {
      location: snapshot.name,
      priority: 'snapshot',
      checksum: snapshot.checksum,
    });
    await source.healed('docs');
    const views = await Promise.all([0, 1, 2].map((one) => source.layout(one, 'docs')));
    const replicas = views.flatMap((view) => view.local_shards).filter((shard) => shard.shard_id === 1);
    expect(replicas.map((shard) => shard.points_count)).toEqual([snapshot.points, snapshot.points]);
    await source.ok(0, 'POST', '/collections/docs/points/delete?wait=true', {
      points: Array.from({ length: 200 }, (_, index) => 5000 + index),
    });
  });

  test('a download is resumable, and refuses to continue another file', async () => {
    const { node, path, snapshot } = await stored(0);
    const whole = await source.call(node, 'GET', path);
    expect(sha256(whole.bytes)).toBe(snapshot.checksum);
    expect(whole.bytes.length).toBe(snapshot.size);
    const etag = whole.headers.etag ?? '';
    const rest = await source.call(node, 'GET', path, { headers: { range: 'bytes=1000-', 'if-match': etag } });
    expect(rest.status).toBe(206);
    expect(rest.bytes.equals(whole.bytes.subarray(1000))).toBe(true);
    const other = await source.call(node, 'GET', path, { headers: { 'if-match': '"1:2:3:4"' } });
    expect(other.status).toBe(412);
    const zipped = await source.call(node, 'GET', path, { headers: { 'accept-encoding': 'gzip' } });
    expect(zipped.headers['content-length']).toBeUndefined();
    expect(sha256(gunzipSync(zipped.bytes))).toBe(snapshot.checksum);
  });

  test('a read-only key lists and downloads, and changes nothing', async () => {
    const { node, path } = await stored(0);
    const folder = path.slice(0, path.lastIndexOf('/'));
    const status = async (method: string, where: string, body?: unknown) =>
      (await source.call(node, method, where, { key: READ_ONLY_KEY, body })).status;
    expect(await status('GET', folder)).toBe(200);
    expect(await status('GET', path)).toBe(200);
    expect(await status('POST', '/collections/docs/points/count', {})).toBe(200);
    expect(await status('POST', folder)).toBe(403);
    expect(await status('GET', folder.replace(/s$/, ''))).toBe(403);
    expect(await status('DELETE', path)).toBe(403);
    expect(await status('PUT', `${folder}/recover`, { location: 'x' })).toBe(403);
    expect(await status('PUT', '/collections/docs/points', { points: [testPoint(1, 16)] })).toBe(403);
  });

  test('two streams of one shard at the same time both come back whole', async () => {
    const { node } = await stored(2);
    const paths = [0, 1].map(() => source.call(node, 'GET', '/collections/docs/shards/2/snapshot'));
    for (const answer of await Promise.all(paths)) {
      expect(answer.status).toBe(200);
      expect(answer.headers['transfer-encoding']).toBe('chunked');
      expect(answer.bytes.length % 512).toBe(0);
      expect(answer.bytes.subarray(-1024).every((byte) => byte === 0)).toBe(true);
      expect(answer.bytes.includes('shard_config.json')).toBe(true);
      const upload = multipart(answer.bytes);
      const back = await target.call(
        0,
        'POST',
        '/collections/docs/shards/2/snapshots/upload?wait=true&priority=no_sync',
        upload,
      );
      expect(back.status, back.text).toBe(200);
    }
    const held = (await target.layout(0, 'docs')).local_shards.find((shard) => shard.shard_id === 2);
    const original = (await source.layout(node, 'docs')).local_shards.find((shard) => shard.shard_id === 2);
    expect(held?.points_count).toBe(original?.points_count);
  });

  test('a collection snapshot restores a collection that is gone', async () => {
    await source.ok(0, 'PUT', '/collections/gone', { vectors: { size: 4, distance: 'Dot' }, replication_factor: 3 });
    await source.ok(0, 'PUT', '/collections/gone/index?wait=true', { field_name: 'n', field_schema: 'integer' });
    await source.fill(0, 'gone', 0, 90, 4);
    const snapshot = await source.ok<Snapshot>(1, 'POST', '/collections/gone/snapshots?wait=true');
    const { bytes } = await source.call(1, 'GET', `/collections/gone/snapshots/${snapshot.name}`);
    await source.ok(0, 'DELETE', '/collections/gone');
    expect((await source.call(1, 'GET', `/collections/gone/snapshots/${snapshot.name}`)).status).toBe(404);
    const path = `/collections/gone/snapshots/upload?wait=true&priority=snapshot&checksum=${snapshot.checksum}`;
    const answer = await source.call(1, 'POST', path, multipart(bytes));
    expect(answer.status, answer.text).toBe(200);
    await source.healed('gone');
    for (const node of [0, 1, 2]) expect(await source.count(node, 'gone')).toBe(90);
    expect(await source.ok(2, 'GET', '/collections/gone')).toMatchObject({
      payload_schema: { n: { data_type: 'integer', points: 90 } },
    });
  });

  test('a shard snapshot of a real Qdrant 1.18.3', async () => {
    await target.ok(0, 'PUT', '/collections/real', { vectors: { size: 64, distance: 'Cosine' }, shard_number: 1 });
    const views = await Promise.all([0, 1].map((node) => target.layout(node, 'real')));
    const node = views.findIndex((view) => view.local_shards.length === 1);
    const upload = multipart(readFileSync(REAL_SNAPSHOT));
    const answer = await target.call(
      node,
      'POST',
      '/collections/real/shards/0/snapshots/upload?wait=true&priority=snapshot',
      upload,
    );
    expect(answer.status, answer.text).toBe(200);
    expect(await target.count(1 - node, 'real')).toBe(1852);
    const about = await target.ok<{ payload_schema: object }>(node, 'GET', '/collections/real');
    expect(Object.keys(about.payload_schema).sort()).toEqual(['document_id', 'filename', 'tags', 'upload_timestamp']);
  });

  test('as on Qdrant, a snapshot of another vector size is accepted and leaves no points', async () => {
    const { snapshot } = await stored(0);
    const { url } = objects.get(0) ?? { url: '' };
    await target.ok(0, 'PUT', '/collections/other', { vectors: { size: 5, distance: 'Cosine' }, shard_number: 1 });
    const views = await Promise.all([0, 1].map((node) => target.layout(node, 'other')));
    const node = views.findIndex((view) => view.local_shards.length === 1);
    await target.fill(node, 'other', 0, 10, 5);
    const path = '/collections/other/shards/0/snapshots/recover?wait=true';
    const body = { location: url, api_key: ADMIN_KEY, checksum: snapshot.checksum };
    expect(await target.ok(node, 'PUT', path, body)).toBe(true);
    expect((await target.layout(node, 'other')).local_shards).toMatchObject([{ points_count: 0 }]);
  });

  test.runIf(standIn)("Qdrant's engine opens the snapshot on its own", async () => {
    const { node, path, snapshot } = await stored(3);
    const { bytes } = await source.call(node, 'GET', path);
    const file = join(source.dir, snapshot.name);
    writeFileSync(file, bytes);
    const script = `
import sys, qdrant_edge as edge
edge.EdgeShard.unpack_snapshot(sys.argv[1], sys.argv[2])
print(edge.EdgeShard.load(sys.argv[2]).count(edge.CountRequest()))`;
    const run = await promisify(execFile)(qdrantCommand().file, ['-c', script, file, join(source.dir, 'opened')]);
    expect(Number(run.stdout)).toBe(snapshot.points);
  });
});

describe.runIf(standIn)('snapshots held up by the test hooks', () => {
  let cluster: TestCluster;
  const folder = '/collections/docs/shards/0/snapshots';
  const gauge = async (name: string) =>
    (await cluster.call(0, 'GET', '/metrics')).text.includes(`${name}{id="docs"} 1`);

  beforeAll(async () => {
    cluster = await TestCluster.start(1, { FLEET_QDRANT_NODE_SNAPSHOT_DELAY_MS: '700' });
    await cluster.ok(0, 'PUT', '/collections/docs', { vectors: { size: 8, distance: 'Dot' }, shard_number: 1 });
    await cluster.fill(0, 'docs', 0, 200, 8);
  });
  afterAll(() => cluster.stop());

  test('a creation goes on when its client is gone, and is listed only when it is complete', async () => {
    const outgoing = request(cluster.url(0, `${folder}?wait=true`), {
      method: 'POST',
      headers: { 'api-key': ADMIN_KEY },
    });
    outgoing.on('error', () => undefined);
    outgoing.end();
    await until('the creation is running', () => gauge('snapshot_creation_running'), { withinMs: 5_000, everyMs: 10 });
    outgoing.destroy();
    expect(await cluster.ok(0, 'GET', folder)).toEqual([]);
    await until('the snapshot is listed', async () => (await cluster.ok<Snapshot[]>(0, 'GET', folder)).length === 1, {
      withinMs: 5_000,
    });
    expect(await gauge('snapshot_creation_running')).toBe(false);
    const [snapshot] = await cluster.ok<Snapshot[]>(0, 'GET', folder);
    const { bytes } = await cluster.call(0, 'GET', `${folder}/${snapshot?.name}`);
    expect(sha256(bytes)).toBe(snapshot?.checksum);
  });

  test('a kill in the middle of a recovery leaves the old shard', async () => {
    const [snapshot] = await cluster.ok<Snapshot[]>(0, 'GET', folder);
    await cluster.fill(0, 'docs', 200, 300, 8);
    await cluster.end(0, 'SIGTERM');
    await cluster.startNode(0, { FLEET_QDRANT_NODE_RECOVERY_DELAY_MS: '30000' });
    const recover = `${folder}/recover`;
    const body = { location: snapshot?.name, priority: 'snapshot' };
    expect((await cluster.call(0, 'PUT', `${recover}?wait=false`, { body })).status).toBe(202);
    await until('the recovery is running', () => gauge('snapshot_recovery_running'), { withinMs: 5_000, everyMs: 10 });
    await cluster.end(0, 'SIGKILL');
    await cluster.startNode(0);
    expect(await cluster.count(0, 'docs')).toBe(300);
    expect(await cluster.ok(0, 'PUT', `${recover}?wait=true`, body)).toBe(true);
    expect(await cluster.count(0, 'docs')).toBe(200);
    await cluster.end(0, 'SIGKILL');
    await cluster.startNode(0);
    expect(await cluster.count(0, 'docs')).toBe(200);
  });
});
