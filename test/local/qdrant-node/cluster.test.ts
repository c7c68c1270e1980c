import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { until } from '../../../src/local/wait.ts';
import { TestCluster, testPoint } from './harness.ts';

interface ScrollPage {
  points: { id: number; payload: unknown; vector?: number[] }[];
  next_page_offset: number | null;
}

/** The real server copies and heals in its own time; what is tested here is how the stand-in does it. */
const standIn = process.env['QDRANT_BIN'] === undefined;

describe('three peers', () => {
  let cluster: TestCluster;
  beforeAll(async () => {
    cluster = await TestCluster.start(3);
  });
  afterAll(() => cluster.stop());

  test('every peer answers every route, wherever the points are', async () => {
    await cluster.ok(1, 'PUT', '/collections/spread', {
      vectors: { size: 4, distance: 'Euclid' },
      shard_number: 4,
      replication_factor: 2,
    });
    await cluster.fill(2, 'spread', 0, 500, 4);
    for (const node of [0, 1, 2]) {
      expect(await cluster.count(node, 'spread')).toBe(500);
      const ids: number[] = [];
      let offset: number | null = null;
      do {
        const page: ScrollPage = await cluster.ok(node, 'POST', '/collections/spread/points/scroll', {
          limit: 170,
          offset,
          with_payload: false,
        });
        ids.push(...page.points.map((point) => point.id));
        offset = page.next_page_offset;
      } while (offset !== null);
      expect(ids).toEqual(Array.from({ length: 500 }, (_, id) => id));
    }
    const query = { query: testPoint(123, 4).vector, limit: 3, with_payload: true, params: { exact: true } };
    const near = await cluster.ok<{ points: { id: number; score: number; payload: unknown }[] }>(
      1,
      'POST',
      '/collections/spread/points/query',
      query,
    );
    expect(near.points[0]).toMatchObject({ id: 123, payload: { n: 123, tag: 't4' } });
    const scores = near.points.map((point) => point.score);
    expect(scores).toEqual(scores.toSorted((a, b) => a - b));
    const filter = {
      must: [
        { key: 'tag', match: { value: 't4' } },
        { key: 'n', range: { lt: 100 } },
      ],
    };
    const counted = await cluster.ok(0, 'POST', '/collections/spread/points/count', { filter });
    expect(counted).toEqual({ count: 14 });
  });

  test('named, sparse and multi vectors, UUIDs, and payload changes', async () => {
    await cluster.ok(0, 'PUT', '/collections/kinds', {
      vectors: {
        text: { size: 2, distance: 'Cosine' },
        late: { size: 2, distance: 'Dot', multivector_config: { comparator: 'max_sim' } },
      },
      sparse_vectors: { words: {} },
    });
    const id = '550e8400-e29b-41d4-a716-446655440000';
    const vector = {
      text: [3, 4],
      late: [
        [1, 0],
        [0, 1],
      ],
      words: { indices: [1, 7], values: [0.5, 2] },
    };
    await cluster.ok(1, 'PUT', '/collections/kinds/points?wait=true', { points: [{ id, vector, payload: { a: 1 } }] });
    await cluster.ok(2, 'POST', '/collections/kinds/points/payload?wait=true', { points: [id], payload: { b: [2] } });
    const point = await cluster.ok<{ payload: unknown; vector: typeof vector }>(
      0,
      'GET',
      `/collections/kinds/points/${id}`,
    );
    expect(point.payload).toEqual({ a: 1, b: [2] });
    expect(point.vector.words).toEqual(vector.words);
    expect(point.vector.late).toEqual(vector.late);
    expect(point.vector.text[0]).toBeCloseTo(0.6);
    const sparse = await cluster.ok<{ points: { id: string }[] }>(0, 'POST', '/collections/kinds/points/query', {
      query: { indices: [7], values: [1] },
      using: 'words',
    });
    expect(sparse.points.map((one) => one.id)).toEqual([id]);
  });

  test('a refused vector changes nothing, and says why', async () => {
    await cluster.ok(0, 'PUT', '/collections/strict', { vectors: { size: 4, distance: 'Dot' }, replication_factor: 2 });
    const answer = await cluster.call(1, 'PUT', '/collections/strict/points?wait=true', {
      body: { points: [testPoint(1, 4), testPoint(2, 3)] },
    });
    expect([answer.status, answer.text]).toEqual([400, expect.stringContaining('expected dim: 4, got 3')]);
    expect(await cluster.count(2, 'strict')).toBe(0);
  });

  test('shard ids of custom keys follow the order of creation, and placement is obeyed', async () => {
    await cluster.ok(0, 'PUT', '/collections/tenants', {
      vectors: { size: 4, distance: 'Dot' },
      sharding_method: 'custom',
      replication_factor: 2,
    });
    const peers = await Promise.all(
      [0, 1, 2].map((node) => cluster.layout(node, 'tenants').then((one) => one.peer_id)),
    );
    const placement = [peers[1], peers[2]];
    for (const shard_key of ['acme', 'globex', 'initech']) {
      await cluster.ok(0, 'PUT', '/collections/tenants/shards', { shard_key, placement });
    }
    const { local_shards: local } = await cluster.layout(2, 'tenants');
    expect(local.map((shard) => [shard.shard_id, shard.shard_key])).toEqual([
      [1, 'acme'],
      [2, 'globex'],
      [3, 'initech'],
    ]);
    expect((await cluster.layout(0, 'tenants')).local_shards).toEqual([]);
    await cluster.fill(0, 'tenants', 0, 30, 4, { shard_key: 'globex' });
    const held = (await cluster.layout(1, 'tenants')).local_shards.map((shard) => shard.points_count);
    expect(held).toEqual([0, 30, 0]);
    const without = await cluster.call(0, 'PUT', '/collections/tenants/points', {
      body: { points: [testPoint(1, 4)] },
    });
    expect(without.status).toBe(400);
    await cluster.ok(0, 'POST', '/collections/tenants/shards/delete', { shard_key: 'acme' });
    expect(await cluster.ok(1, 'GET', '/collections/tenants/shards')).toEqual({
      shard_keys: [{ key: 'globex' }, { key: 'initech' }],
    });
  });

  test('aliases change all together or not at all', async () => {
    for (const name of ['blue', 'green']) {
      await cluster.ok(0, 'PUT', `/collections/${name}`, { vectors: { size: 4, distance: 'Dot' } });
    }
    const create = (collection_name: string, alias_name: string) => ({ create_alias: { collection_name, alias_name } });
    await cluster.ok(1, 'POST', '/collections/aliases', { actions: [create('blue', 'live')] });
    const broken = { actions: [{ delete_alias: { alias_name: 'live' } }, create('red', 'live')] };
    expect((await cluster.call(1, 'POST', '/collections/aliases', { body: broken })).status).toBe(404);
    expect(await cluster.ok(2, 'GET', '/aliases')).toEqual({
      aliases: [{ alias_name: 'live', collection_name: 'blue' }],
    });
    await cluster.ok(2, 'POST', '/collections/aliases', {
      actions: [{ delete_alias: { alias_name: 'live' } }, create('green', 'live')],
    });
    await cluster.fill(0, 'live', 0, 5, 4);
    expect([await cluster.count(1, 'green'), await cluster.count(1, 'blue')]).toEqual([5, 0]);
  });

  test('an updated configuration comes back as it was given', async () => {
    await cluster.ok(0, 'PUT', '/collections/tuned', {
      vectors: { size: 4, distance: 'Dot', on_disk: true },
      quantization_config: { scalar: { type: 'int8', always_ram: true } },
      optimizers_config: { indexing_threshold: 50 },
      strict_mode_config: { enabled: true, max_query_limit: 7 },
      metadata: { owner: 'a' },
    });
    await cluster.ok(1, 'PATCH', '/collections/tuned', {
      params: { read_fan_out_factor: 2 },
      hnsw_config: { m: 32 },
      metadata: { tier: 1 },
    });
    const { config } = await cluster.ok<{ config: object }>(2, 'GET', '/collections/tuned');
    expect(config).toMatchObject({
      params: { vectors: { size: 4, distance: 'Dot', on_disk: true }, read_fan_out_factor: 2 },
      hnsw_config: { m: 32, ef_construct: 100 },
      optimizer_config: { indexing_threshold: 50 },
      quantization_config: { scalar: { type: 'int8', always_ram: true } },
      strict_mode_config: { enabled: true, max_query_limit: 7 },
      metadata: { owner: 'a', tier: 1 },
    });
  });

  test('a peer is emptied by moving its shards, and only then removed', async () => {
    await cluster.ok(0, 'PUT', '/collections/moving', { vectors: { size: 4, distance: 'Dot' }, shard_number: 3 });
    await cluster.fill(0, 'moving', 0, 300, 4);
    const view = await cluster.layout(2, 'moving');
    const target = (await cluster.layout(0, 'moving')).peer_id;
    expect((await cluster.call(0, 'DELETE', `/cluster/peer/${view.peer_id}`)).status).toBe(400);
    for (const shard of view.local_shards) {
      const move = { shard_id: shard.shard_id, from_peer_id: view.peer_id, to_peer_id: target };
      await cluster.ok(1, 'POST', '/collections/moving/cluster', { move_shard: move });
    }
    await until(
      'the shards have left the peer',
      async () => (await cluster.layout(2, 'moving')).local_shards.length === 0,
      { withinMs: 10_000 },
    );
    expect(await cluster.count(2, 'moving')).toBe(300);
  });

  test.runIf(standIn)('a move is shown while it runs, can be aborted, and an empty peer can be removed', async () => {
    const own = await TestCluster.start(3, { FLEET_QDRANT_NODE_TRANSFER_DELAY_MS: '700' });
    try {
      await own.ok(0, 'PUT', '/collections/slow', { vectors: { size: 4, distance: 'Dot' }, shard_number: 1 });
      await own.fill(0, 'slow', 0, 50, 4);
      const views = await Promise.all([0, 1, 2].map((node) => own.layout(node, 'slow')));
      const from = views.findIndex((view) => view.local_shards.length === 1);
      const to = from === 2 ? 1 : 2;
      const move = { shard_id: 0, from_peer_id: views[from]?.peer_id, to_peer_id: views[to]?.peer_id };
      await own.ok(1, 'POST', '/collections/slow/cluster', { move_shard: move });
      const running = await own.layout(0, 'slow');
      expect(running.shard_transfers).toEqual([
        { shard_id: 0, from: move.from_peer_id, to: move.to_peer_id, sync: false, method: 'snapshot' },
      ]);
      expect((await own.layout(from, 'slow')).remote_shards).toMatchObject([{ state: 'Partial' }]);
      // Written while the shard moves: it has to be on the side that stays.
      await own.fill(0, 'slow', 50, 60, 4);
      await own.ok(2, 'POST', '/collections/slow/cluster', { abort_transfer: move });
      expect(await own.layout(0, 'slow')).toMatchObject({ shard_transfers: [] });
      const again = await own.call(0, 'POST', '/collections/slow/cluster', { body: { abort_transfer: move } });
      expect(again.status).toBe(404);
      expect((await own.layout(to, 'slow')).local_shards).toEqual([]);

      await own.ok(0, 'POST', '/collections/slow/cluster', { move_shard: move });
      await own.healed('slow');
      expect((await own.layout(to, 'slow')).local_shards).toMatchObject([{ points_count: 60, state: 'Active' }]);
      expect((await own.layout(from, 'slow')).local_shards).toEqual([]);
      const empty = from === 0 ? 1 : from;
      await own.ok(0, 'DELETE', `/cluster/peer/${views[empty]?.peer_id}`);
      const { peers } = await own.ok<{ peers: object }>(0, 'GET', '/cluster');
      expect(Object.keys(peers)).toHaveLength(2);
    } finally {
      await own.stop();
    }
  });

  test('replicate and drop a replica', async () => {
    await cluster.ok(0, 'PUT', '/collections/copies', { vectors: { size: 4, distance: 'Dot' }, shard_number: 1 });
    await cluster.fill(0, 'copies', 0, 100, 4);
    const views = await Promise.all([0, 1, 2].map((node) => cluster.layout(node, 'copies')));
    const from = views.find((view) => view.local_shards.length === 1)?.peer_id;
    const to = views.find((view) => view.local_shards.length === 0);
    const only = { drop_replica: { shard_id: 0, peer_id: from } };
    expect((await cluster.call(0, 'POST', '/collections/copies/cluster', { body: only })).status).toBe(400);
    const copy = { shard_id: 0, from_peer_id: from, to_peer_id: to?.peer_id };
    await cluster.ok(0, 'POST', '/collections/copies/cluster', { replicate_shard: copy });
    await cluster.healed('copies');
    await cluster.ok(0, 'POST', '/collections/copies/cluster', only);
    const target = views.findIndex((view) => view.peer_id === to?.peer_id);
    await until(
      'one replica is left',
      async () => (await cluster.layout(target, 'copies')).remote_shards.length === 0,
      { withinMs: 10_000 },
    );
    expect((await cluster.layout(target, 'copies')).local_shards).toMatchObject([{ points_count: 100 }]);
  });
});

describe('crashes', () => {
  let cluster: TestCluster;
  afterEach(() => cluster.stop());

  test('a killed peer keeps its data and its id, and gets what it missed', async () => {
    cluster = await TestCluster.start(3);
    await cluster.ok(0, 'PUT', '/collections/kept', {
      vectors: { size: 8, distance: 'Dot' },
      shard_number: 3,
      replication_factor: 2,
    });
    await cluster.ok(0, 'PUT', '/collections/kept/index?wait=true', { field_name: 'tag', field_schema: 'keyword' });
    await cluster.fill(0, 'kept', 0, 600, 8);
    const before = await cluster.layout(1, 'kept');
    await cluster.end(1, 'SIGKILL');

    // Reads and writes go on without it, and so do changes of the metadata.
    await cluster.fill(2, 'kept', 600, 900, 8);
    expect(await cluster.count(0, 'kept')).toBe(900);
    await cluster.ok(0, 'PUT', '/collections/later', { vectors: { size: 4, distance: 'Dot' }, replication_factor: 3 });

    await cluster.startNode(1);
    await cluster.healed('kept');
    await cluster.healed('later');
    const after = await cluster.layout(1, 'kept');
    expect(after.peer_id).toBe(before.peer_id);
    expect(after.local_shards.map((shard) => shard.shard_id)).toEqual(
      before.local_shards.map((shard) => shard.shard_id),
    );
    await expectEqualReplicas(cluster, 'kept', 900);
  });

  test('all peers killed at once come back with every acknowledged write', async () => {
    cluster = await TestCluster.start(3);
    await cluster.ok(0, 'PUT', '/collections/kept', {
      vectors: { size: 8, distance: 'Dot' },
      shard_number: 3,
      replication_factor: 2,
    });
    await cluster.fill(0, 'kept', 0, 500, 8);
    await cluster.ok(1, 'POST', '/collections/kept/points/delete?wait=true', { points: [1, 2, 3] });
    await Promise.all([0, 1, 2].map((node) => cluster.end(node, 'SIGKILL')));
    await Promise.all([0, 1, 2].map((node) => cluster.startNode(node)));
    await cluster.healed('kept');
    await expectEqualReplicas(cluster, 'kept', 497);
  });

  test('SIGTERM ends a peer cleanly', async () => {
    cluster = await TestCluster.start(1);
    await cluster.ok(0, 'PUT', '/collections/kept', { vectors: { size: 8, distance: 'Dot' } });
    await cluster.fill(0, 'kept', 0, 100, 8);
    expect(await cluster.end(0, 'SIGTERM')).toBe(0);
    await cluster.startNode(0);
    expect(await cluster.count(0, 'kept')).toBe(100);
  });

  test.runIf(standIn)('without the peer that owns the metadata, points are still written and read', async () => {
    cluster = await TestCluster.start(3);
    await cluster.ok(0, 'PUT', '/collections/kept', {
      vectors: { size: 8, distance: 'Dot' },
      shard_number: 3,
      replication_factor: 2,
    });
    await cluster.fill(0, 'kept', 0, 100, 8);
    await cluster.end(0, 'SIGKILL');
    await cluster.fill(1, 'kept', 100, 300, 8);
    await cluster.fill(2, 'kept', 300, 400, 8);
    expect(await cluster.count(2, 'kept')).toBe(400);
    const refused = await cluster.call(1, 'PUT', '/collections/more', {
      body: { vectors: { size: 8, distance: 'Dot' } },
    });
    expect(refused.status).toBe(500);
    await cluster.startNode(0);
    await cluster.healed('kept');
    await expectEqualReplicas(cluster, 'kept', 400);
  });
});

/** Every node counts `total`, and all replicas of a shard hold the same number of points. */
async function expectEqualReplicas(cluster: TestCluster, collection: string, total: number): Promise<void> {
  const nodes = [...cluster.hosts.keys()];
  expect(await Promise.all(nodes.map((node) => cluster.count(node, collection)))).toEqual(nodes.map(() => total));
  const views = await Promise.all(nodes.map((node) => cluster.layout(node, collection)));
  const counts = new Map<number, Set<number | undefined>>();
  for (const shard of views.flatMap((view) => view.local_shards)) {
    counts.set(shard.shard_id, (counts.get(shard.shard_id) ?? new Set()).add(shard.points_count));
  }
  expect([...counts.values()].map((replicas) => replicas.size)).toEqual([...counts.keys()].map(() => 1));
}
