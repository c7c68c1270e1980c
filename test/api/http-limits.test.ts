import { once } from 'node:events';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { serve, type ServerType } from '@hono/node-server';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { HTTP_LIMITS, limitConnections, serverOptions, type HttpLimits } from '../../src/http-limits.ts';

const servers: ServerType[] = [];
const sockets: Socket[] = [];
let port: number;

/** @returns the port */
async function start(limits: HttpLimits): Promise<number> {
  const fetch = () => new Response('ok');
  const server = serve({ fetch, hostname: '127.0.0.1', port: 0, serverOptions: serverOptions(limits) });
  servers.push(server);
  limitConnections(server, limits);
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

beforeAll(async () => {
  // The product's bounds, in a fraction of the time.
  const quick = { headersTimeout: 300, requestTimeout: 600, keepAliveTimeout: 300, connectionsCheckingInterval: 50 };
  port = await start({ ...HTTP_LIMITS, ...quick });
});
afterAll(async () => {
  for (const socket of sockets) socket.destroy();
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
});

function open(to: number): Socket {
  const socket = connect(to, '127.0.0.1');
  sockets.push(socket);
  socket.on('error', () => undefined);
  return socket;
}

/** All that the server sends until it closes the connection. */
async function sayAndListen(text: string, to = port): Promise<string> {
  const socket = open(to);
  let heard = '';
  socket.on('data', (data) => {
    heard += String(data);
  });
  socket.write(text);
  await new Promise((resolve) => socket.once('close', resolve));
  return heard;
}

const HEAD = 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n';

test('headers and bodies that do not come end their connection', async () => {
  expect(await sayAndListen('GET / HTTP/1.1\r\nHost: x\r\n')).toMatch(/^HTTP\/1\.1 408/);
  expect(await sayAndListen(`${HEAD}\r\nabc`)).toMatch(/^HTTP\/1\.1 (?:408|200)/);
});

test('headers that are too large are refused', async () => {
  expect(await sayAndListen(`${HEAD}X: ${'x'.repeat(20_000)}\r\n\r\n`)).toMatch(/^HTTP\/1\.1 431/);
});

test('a connection that asks nothing more is closed', async () => {
  expect(await sayAndListen('GET / HTTP/1.1\r\nHost: x\r\n\r\n')).toMatch(/^HTTP\/1\.1 200/);
});

test('more connections than may be open are closed at once', async () => {
  const full = await start({ ...HTTP_LIMITS, maxConnections: 5 });
  const idle = Array.from({ length: 5 }, () => open(full));
  await Promise.all(idle.map((socket) => once(socket, 'connect')));
  expect(await sayAndListen('GET / HTTP/1.1\r\nHost: x\r\n\r\n', full)).toBe('');
  const [socket] = idle;
  socket?.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  const [answer] = (await once(socket as Socket, 'data')) as [Buffer];
  expect(String(answer)).toMatch(/^HTTP\/1\.1 200/);
});
