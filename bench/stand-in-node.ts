/**
 * Stands in for the Qdrant nodes of a cluster in the benchmark of the orchestration: answers at once, so that what is
 * measured is what the control plane itself takes. One process of its own; settings come by environment.
 */
import { createHash } from 'node:crypto';
import { createServer, type ServerResponse } from 'node:http';

const number = (name: string) => Number(process.env[`BENCH_${name}`]);
const PEERS = number('PEERS');
const COLLECTIONS = number('COLLECTIONS');
const SIZE = number('SIZE');
const POINTS = number('POINTS');
const PORT = number('PORT');
const BLOCK = Buffer.alloc(1024 * 1024, 'a block of a snapshot ');

const name = (index: number) => `collection-${String(index).padStart(5, '0')}`;
const names = Array.from({ length: COLLECTIONS }, (_, index) => name(index));
const peerOf = (collection: string) => 1 + (Number(collection.slice(-5)) % PEERS);
/** Snapshots that are on the nodes, by collection. */
const stored = new Set<string>();
const snapshot = (collection: string) => ({
  ...{ name: `${collection}-0.snapshot`, size: SIZE, checksum: SHA256 },
  creation_time: '2026-11-21T03:00:00',
});

const hash = createHash('sha256');
for (let at = 0; at < SIZE; at += BLOCK.length) hash.update(BLOCK.subarray(0, Math.min(BLOCK.length, SIZE - at)));
const SHA256 = hash.digest('hex');

for (let peer = 1; peer <= PEERS; peer += 1) {
  const server = createServer(({ method = 'GET', url = '/', headers }, response) => {
    const result = (value: unknown) => response.end(JSON.stringify({ result: value }));
    const [path = ''] = url.split('?');
    const [, collection = '', rest = ''] = /^\/collections\/([^/]+)(.*)$/.exec(path) ?? [];
    if (path === '/') return response.end('{"version":"1.18.3"}');
    if (path === '/cluster') {
      const peers = Object.fromEntries(
        Array.from({ length: PEERS }, (_, index) => [index + 1, { uri: `http://${index}` }]),
      );
      return result({ status: 'enabled', peer_id: peer, peers });
    }
    if (path === '/collections') return result({ collections: names.map((each) => ({ name: each })) });
    if (path === '/aliases') return result({ aliases: [] });
    if (path === '/metrics') return response.end('');
    if (rest === '')
      return result({ status: 'green', config: { params: { vectors: { size: 4 } } }, payload_schema: {} });
    if (rest === '/cluster') {
      const shard = { shard_id: 0, state: 'Active', points_count: POINTS };
      const mine = peerOf(collection) === peer;
      const remote_shards = mine ? [] : [{ ...shard, peer_id: peerOf(collection) }];
      return result({ peer_id: peer, shard_count: 1, local_shards: mine ? [shard] : [], remote_shards });
    }
    if (rest !== '/shards/0/snapshots') {
      if (method !== 'DELETE') return range(response, headers.range);
      stored.delete(collection);
      return result(true);
    }
    if (method === 'GET') return result(stored.has(collection) ? [snapshot(collection)] : []);
    stored.add(collection);
    return result(snapshot(collection));
  });
  server.keepAliveTimeout = 60_000;
  server.listen(PORT, `127.0.0.${peer}`, () => {
    if (peer === PEERS) process.stdout.write('ready\n');
  });
}

function range(response: ServerResponse, wanted = ''): void {
  const [, from = '0', to = '0'] = /^bytes=(\d+)-(\d+)$/.exec(wanted) ?? [];
  const start = Number(from);
  const end = Math.min(Number(to), SIZE - 1);
  response.writeHead(206, {
    etag: '"1"',
    'content-length': end - start + 1,
    'content-range': `bytes ${start}-${end}/${SIZE}`,
  });
  let at = start;
  const more = (): void => {
    while (at <= end) {
      const offset = at % BLOCK.length;
      const chunk = BLOCK.subarray(offset, Math.min(BLOCK.length, offset + end - at + 1));
      at += chunk.length;
      if (!response.write(chunk)) return void response.once('drain', more);
    }
    response.end();
  };
  more();
}
