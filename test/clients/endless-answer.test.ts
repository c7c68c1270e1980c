/** A pod that answers without end, or with JSON that is cheap to send and dear to read, costs the worker little. */
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { QdrantClient } from '../../src/clients/qdrant.ts';

const MiB = 2 ** 20;
const asked: string[] = [];
let server: Server;
let client: QdrantClient;
beforeAll(async () => {
  server = createServer((request, response) => {
    asked.push(request.url ?? '');
    if (request.url === '/collections/bomb') response.end(`{"result":[${'[],'.repeat(16 * MiB)}0]}`);
    else if (request.url === '/collections/error') {
      response.statusCode = 400;
      response.end(`{"status":{"error":[${'[],'.repeat(16 * MiB)}0]}}`);
    } else if (request.url === '/collections/docs/points') answerPoints(request, response);
    else endless(response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  client = new QdrantClient({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

function endless(response: ServerResponse): void {
  const chunk = Buffer.alloc(MiB, 0x20);
  const more = () => {
    while (!response.destroyed && response.write(chunk));
  };
  response.on('drain', more);
  more();
}

function answerPoints(request: AsyncIterable<Buffer>, response: ServerResponse): void {
  void (async () => {
    let text = '';
    for await (const chunk of request) text += chunk.toString();
    const { ids } = JSON.parse(text) as { ids: number[] };
    response.end(JSON.stringify({ result: ids.map((id) => ({ id })) }));
  })();
}

test('an answer without end is cut off, and the message says so', { timeout: 30_000 }, async () => {
  let highest = 0;
  const before = process.memoryUsage().rss;
  const watch = setInterval(() => (highest = Math.max(highest, process.memoryUsage().rss)), 20);
  await expect(client.version()).rejects.toMatchObject({
    code: 'QdrantUnavailable',
    message: expect.stringMatching(/answered with more than 67108864 bytes, and was cut off/),
  });
  clearInterval(watch);
  expect(highest - before).toBeLessThan(400 * MiB);
});

test('an answer of millions of values is not parsed', async () => {
  await expect(client.collection('bomb')).rejects.toMatchObject({
    code: 'QdrantUnavailable',
    message: expect.stringMatching(/answered JSON that has more than 2000000 values/),
  });
  await expect(client.collection('error')).rejects.toMatchObject({ code: 'QdrantRejected' });
});

test('points are asked for a few at a time, in their order', async () => {
  asked.length = 0;
  const ids = Array.from({ length: 9 }, (_, id) => id);
  expect((await client.points('docs', ids)).map(({ id }) => id)).toEqual(ids);
  expect(asked).toHaveLength(3);
});
