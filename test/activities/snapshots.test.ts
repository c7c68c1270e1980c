/** Making a shard snapshot on a node that takes the call and never answers it; an HTTP server stands in for the node. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Kubernetes } from '../../src/clients/kubernetes.ts';
import { Parts } from './support.ts';

/** Peers are reached on port 6333 of their pod's address; these belong to nobody else. */
const hostOf = (peer: number) => `127.252.${process.pid % 250}.${peer}`;
const NAME = 'docs-shard-0-2026-11-21-03-00-00.snapshot';

/** What a node does with the call that makes a snapshot. Only the first answers it. */
type Behaviour = 'answers' | 'makes it' | 'does nothing';

/** What the nodes say of the replica of a peer, before and after its snapshot was made. */
interface States {
  readonly before: string;
  readonly after: string;
  /** In the eyes of the others; default: as the node itself says. */
  readonly elsewhere?: string;
}

class Node {
  readonly calls: string[] = [];
  readonly #behaviour: Behaviour;
  readonly #peer: number;
  readonly #server: Server;
  #made = false;
  #looks = 0;
  readonly states: States;

  constructor(peer: number, behaviour: Behaviour, states: States = { before: 'Active', after: 'Active' }) {
    this.#peer = peer;
    this.states = states;
    this.#behaviour = behaviour;
    this.#server = createServer((request, response) => this.#answer(request, response));
  }

  listen(): Promise<void> {
    return new Promise((resolve) => this.#server.listen(6333, hostOf(this.#peer), resolve));
  }

  #answer({ method, url = '' }: IncomingMessage, response: ServerResponse): void {
    const result = (value: unknown) => void response.end(JSON.stringify({ result: value }));
    if (url === '/cluster') {
      const peers = Object.fromEntries(
        nodes.map((_, index) => [index + 1, { uri: `http://${hostOf(index + 1)}:6335` }]),
      );
      return result({ status: 'enabled', peer_id: this.#peer, peers });
    }
    if (url === '/metrics') {
      // At work for the first looks.
      this.#looks += 1;
      const running = this.#behaviour === 'makes it' && this.#looks <= 2 ? 1 : 0;
      return void response.end(`snapshot_creation_running{id="docs"} ${running}\n`);
    }
    if (url.endsWith('/cluster')) {
      const local = [{ shard_id: 0, points_count: 3, state: this.state }];
      const remote = nodes.flatMap((node, index) =>
        node === this ? [] : [{ shard_id: 0, peer_id: index + 1, state: node.states.elsewhere ?? node.state }],
      );
      return result({ peer_id: this.#peer, shard_count: 1, local_shards: local, remote_shards: remote });
    }
    this.calls.push(`${method}`);
    if (method === 'POST') {
      this.#made = this.#behaviour !== 'does nothing';
      if (this.#behaviour === 'answers') result({ name: NAME, size: 5, checksum: 'aa' });
      return;
    }
    result([
      { name: 'of-somebody-else', size: 1, checksum: 'ff' },
      ...(this.#made ? [{ name: NAME, size: 5, checksum: 'aa' }] : []),
    ]);
  }

  get state(): string {
    return this.#made ? this.states.after : this.states.before;
  }

  close(): Promise<void> {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }
}

const nodes: Node[] = [
  new Node(1, 'makes it'),
  new Node(2, 'does nothing'),
  new Node(3, 'answers'),
  new Node(4, 'answers', { before: 'Dead', after: 'Dead' }),
  new Node(5, 'answers', { before: 'Active', after: 'Partial' }),
  new Node(6, 'answers', { before: 'Active', after: 'Active', elsewhere: 'Dead' }),
];
let parts: Parts;
beforeAll(async () => {
  // Only the question where the pods are is answered by hand.
  const pods = nodes.map((_, index) => ({ name: `qdrant-${index}`, ip: hostOf(index + 1), ready: true, reason: '' }));
  const kubernetes = {
    pods: () => Promise.resolve(pods),
    secretValue: () => Promise.resolve('key'),
    // No certificates: loopback may be plain.
    secret: () => Promise.resolve(undefined),
  };
  parts = await Parts.open({ kubernetes: kubernetes as unknown as Kubernetes });
  await Promise.all(nodes.map((node) => node.listen()));
});
afterAll(async () => {
  await Promise.all(nodes.map((node) => node.close()));
  await parts.close();
});

function create(peer: number) {
  const task = { collection: 'docs', shard: 0, peer: String(peer) };
  const input = { tenant: parts.tenant, cluster: 'docs', task, known: ['of-somebody-else'] };
  return parts.as('backup', (activities) => activities.createShardSnapshot(input));
}

describe.concurrent('a node that takes the call for a snapshot and never answers it', () => {
  test('has made one: it is adopted', async () => {
    expect(await create(1)).toMatchObject({ name: NAME, size: 5, sha256: 'aa', points: { before: 3, after: 3 } });
    expect(nodes[0]?.calls).toEqual(['POST', 'GET']);
  });

  test('has made none: it is told, so that it is tried again', async () => {
    await expect(create(2)).rejects.toMatchObject({
      code: 'QdrantUnavailable',
      message: expect.stringMatching(/qdrant-1 was asked for a snapshot of "docs" shard 0; .*done nothing for 1\d s/),
    });
  });
});

describe.concurrent('the replica that is cut', () => {
  test('is Active before and after, says its node, and says another', async () => {
    expect(await create(3)).toMatchObject({ name: NAME, points: { before: 3, after: 3 } });
  });

  test('is Dead before: nothing is made of it', async () => {
    await expect(create(4)).rejects.toMatchObject({
      code: 'ReplicaNotActive',
      message: expect.stringMatching(/"docs" shard 0 on qdrant-3 \(peer 4\) is Dead before the cut/) as string,
    });
    expect(nodes[3]?.calls).toEqual([]);
  });

  test('has become Partial meanwhile: what was made of it does not count', async () => {
    await expect(create(5)).rejects.toMatchObject({
      code: 'ReplicaNotActive',
      message: expect.stringContaining('is Partial after the cut, says qdrant-4') as string,
    });
    expect(nodes[4]?.calls).toEqual(['POST']);
  });

  test('was cut off and does not know that it is Dead: another node does', async () => {
    await expect(create(6)).rejects.toMatchObject({
      code: 'ReplicaNotActive',
      message: expect.stringContaining('is Dead after the cut, says qdrant-0') as string,
    });
  });

  test('is on a peer that has it no more', async () => {
    const task = { collection: 'docs', shard: 9, peer: '3' };
    const input = { tenant: parts.tenant, cluster: 'docs', task, known: [] };
    await expect(parts.as('backup', (activities) => activities.createShardSnapshot(input))).rejects.toMatchObject({
      code: 'ReplicaNotActive',
      message: expect.stringContaining('is not there any more') as string,
    });
  });
});
