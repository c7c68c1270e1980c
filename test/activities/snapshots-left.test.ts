/** The notes of what could not be removed from a node, in a real PostgreSQL; HTTP servers stand in for the nodes. */
import { createServer, type Server } from 'node:http';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Kubernetes } from '../../src/clients/kubernetes.ts';
import { Parts } from './support.ts';

/** Peers are reached on port 6333 of their pod's address; these belong to nobody else. */
const hostOf = (peer: number) => `127.253.${process.pid % 250}.${peer}`;
const MINE = 'docs-shard-0-mine.snapshot';
const KNOWN = 'docs-shard-0-from-before.snapshot';
const LATER = 'docs-shard-0-from-somebody-later.snapshot';

/** A node with the snapshots of one shard. */
class Node {
  readonly peer: number;
  up = true;
  busy = false;
  collections = ['docs'];
  snapshots = new Map<string, string>();
  readonly #server: Server = createServer(({ method, url = '' }, response) => {
    const result = (value: unknown) => void response.end(JSON.stringify({ result: value }));
    if (!this.up) {
      response.writeHead(503).end('{}');
      return;
    }
    if (url === '/cluster') {
      const peers = { 1: { uri: 'http://qdrant-0' }, 2: { uri: 'http://qdrant-1' } };
      result({ status: 'enabled', peer_id: this.peer, peers });
      return;
    }
    if (url === '/collections') {
      result({ collections: this.collections.map((name) => ({ name })) });
      return;
    }
    if (url === '/metrics') {
      response.end(`snapshot_creation_running{id="docs"} ${this.busy ? 1 : 0}\n`);
      return;
    }
    const [, name] = /\/collections\/docs\/shards\/0\/snapshots(?:\/([^?]+))?/.exec(url) ?? [];
    if (method === 'DELETE' && name !== undefined) {
      result(this.snapshots.delete(name));
      return;
    }
    result([...this.snapshots].map(([name, creation_time]) => ({ name, creation_time, size: 1, checksum: 'aa' })));
  });

  constructor(peer: number) {
    this.peer = peer;
  }

  listen(): Promise<void> {
    return new Promise((resolve) => this.#server.listen(6333, hostOf(this.peer), resolve));
  }

  close(): Promise<void> {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }
}

const nodes = [new Node(1), new Node(2)] as const;
let parts: Parts;
beforeAll(async () => {
  // Only the question where the pods are is answered by hand.
  const pods = nodes.map(({ peer }) => ({ name: `qdrant-${peer - 1}`, ip: hostOf(peer), ready: true, reason: '' }));
  const kubernetes = {
    pods: () => Promise.resolve(pods),
    secretValue: () => Promise.resolve('key'),
    // No certificates: loopback may be plain.
    secret: () => Promise.resolve(undefined),
  };
  parts = await Parts.open({ kubernetes: kubernetes as unknown as Kubernetes });
  await Promise.all(nodes.map((node) => node.listen()));
});
afterEach(() => {
  for (const node of nodes) Object.assign(node, { up: true, busy: false, collections: ['docs'] });
});
afterAll(async () => {
  await Promise.all(nodes.map((node) => node.close()));
  await parts.close();
});

let clusters = 0;
/** A cluster of its own whose first node has a snapshot of ours that was left, one from before and one made later. */
async function left() {
  clusters += 1;
  const ref = { tenant: parts.tenant, cluster: `c${clusters}` };
  const name = (id: string) => `${parts.tenant}-${ref.cluster}-${id}`;
  const utc = (time: number) => new Date(time).toISOString().slice(0, 19);
  const now = Date.now();
  const [node] = nodes;
  node.snapshots = new Map([
    [MINE, utc(now - 1000)],
    [KNOWN, utc(now - 86_400_000)],
    [LATER, utc(now + 7_200_000)],
  ]);
  const task = { collection: 'docs', shard: 0, peer: '1' };
  const note = () =>
    parts.as(name('backup'), (activities) =>
      activities.noteSnapshotsLeft({ ...ref, peer: '1', tasks: [task], known: [KNOWN] }),
    );
  await note();
  await note();
  return {
    ref,
    node,
    names: () => [...node.snapshots.keys()].sort(),
    close: () => parts.closed.add(name('backup')),
    /** As a sweep does it, under its lease. */
    remove: async () => {
      await parts.as(name('sweep'), (activities) => activities.takeLease({ ...ref, mode: 'shared' }));
      return parts.as(name('sweep'), (activities) => activities.removeSnapshotsLeft(ref));
    },
    copying: () =>
      parts.as(name('other'), (activities) => activities.takeLease({ ...ref, mode: 'shared', copying: true })),
    forget: () => parts.as(name('delete'), (activities) => activities.forgetCluster(ref)),
    notes: async () => {
      const rows = await parts.catalog.db.selectFrom('snapshots_left').selectAll().execute();
      return rows.filter(({ cluster }) => cluster === ref.cluster).length;
    },
  };
}

describe('what was left on a node', () => {
  test('goes with the next sweep, and its note; what others made stays', async () => {
    const { close, remove, names, notes } = await left();
    close();
    expect(await remove()).toEqual({ removed: 1, left: 0 });
    expect(names()).toEqual([KNOWN, LATER].sort());
    expect(await notes()).toBe(0);
    expect(await remove()).toEqual({ removed: 0, left: 0 });
  });

  test('stays while its operation is open', async () => {
    const { close, remove, names, notes } = await left();
    expect(await remove()).toEqual({ removed: 0, left: 0 });
    expect(names()).toContain(MINE);
    expect(await notes()).toBe(1);
    close();
    expect(await remove()).toEqual({ removed: 1, left: 0 });
  });

  test('stays while a backup copies the cluster: its snapshots look the same', async () => {
    const { close, remove, names, copying, notes } = await left();
    close();
    await copying();
    expect(await remove()).toEqual({ removed: 0, left: 1 });
    expect(names()).toContain(MINE);
    expect(await notes()).toBe(1);
  });

  test.for([
    ['does not answer', { up: false }],
    ['is making a snapshot', { busy: true }],
  ] as const)('stays noted while its node %s', async ([, state]) => {
    const { close, node, remove, names, notes } = await left();
    close();
    Object.assign(node, state);
    expect(await remove()).toEqual({ removed: 0, left: 1 });
    expect(await notes()).toBe(1);
    Object.assign(node, { up: true, busy: false });
    expect(await remove()).toEqual({ removed: 1, left: 0 });
    expect(names()).not.toContain(MINE);
  });

  test('is forgotten with its collection, and with its cluster', async () => {
    const first = await left();
    first.close();
    first.node.collections = [];
    expect(await first.remove()).toEqual({ removed: 0, left: 0 });
    expect(await first.notes()).toBe(0);
    const second = await left();
    await second.forget();
    expect(await second.notes()).toBe(0);
  });
});
