/** The fault proxy itself: each fault does what it says, exactly once, and everything else passes as it is. */
import { createServer, type Server } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Agent, request } from 'undici';
import { FaultProxy, qdrantError, s3Error, type Fault } from '../support/fault-proxy.ts';
import { Fleet, openStore, until } from '../support/fleet.ts';

const BODY = Buffer.from(Array.from({ length: 100_000 }, (_, index) => index % 251));

let upstream: Server;
let proxy: FaultProxy;
/** Bodies that reached the upstream completely, and hosts that were asked for. */
const received: Buffer[] = [];
const hosts: (string | undefined)[] = [];
const agent = new Agent();

beforeAll(async () => {
  upstream = createServer((incoming, outgoing) => {
    const chunks: Buffer[] = [];
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
    incoming.on('end', () => {
      received.push(Buffer.concat(chunks));
      hosts.push(incoming.headers.host);
      outgoing.writeHead(200, { 'content-length': BODY.length, etag: '"1"' });
      outgoing.end(incoming.method === 'HEAD' ? undefined : BODY);
    });
    incoming.on('error', () => undefined);
  });
  await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve));
  proxy = await FaultProxy.listen(`http://127.0.0.1:${(upstream.address() as AddressInfo).port}`);
});
afterAll(async () => {
  await proxy.close();
  await agent.close();
  upstream.close();
});
beforeEach(() => {
  proxy.lift();
  proxy.log.length = 0;
  received.length = 0;
});

async function ask(method: 'GET' | 'PUT' | 'HEAD' = 'GET', body?: Buffer) {
  const answer = await request(`${proxy.url}/some/key?x=1`, {
    method,
    dispatcher: agent,
    ...(body !== undefined && { body }),
  });
  return {
    status: answer.statusCode,
    headers: answer.headers,
    bytes: Buffer.from(await answer.body.arrayBuffer()),
  };
}

/** How many bytes of the body arrive before the connection ends, by a socket of our own. */
async function bytesBeforeEnd(): Promise<{ bytes: number; error: string | undefined }> {
  const { hostname, port } = new URL(proxy.url);
  const socket = connect(Number(port), hostname);
  socket.write(`GET /some/key HTTP/1.1\r\nHost: ${hostname}:${port}\r\n\r\n`);
  let text = Buffer.alloc(0);
  let error: string | undefined;
  socket.on('data', (chunk: Buffer) => {
    text = Buffer.concat([text, chunk]);
  });
  socket.on('error', ({ code }: NodeJS.ErrnoException) => {
    error = code;
  });
  await new Promise((resolve) => socket.once('close', resolve));
  return { bytes: text.length - (text.indexOf('\r\n\r\n') + 4), error };
}

describe('without a fault', () => {
  test('everything passes, the Host header too', async () => {
    const { status, headers, bytes } = await ask('PUT', BODY);
    expect({ status, etag: headers['etag'] }).toEqual({ status: 200, etag: '"1"' });
    expect(bytes.equals(BODY)).toBe(true);
    expect(received[0]?.equals(BODY)).toBe(true);
    expect(hosts.at(-1)).toBe(new URL(proxy.url).host);
    expect(proxy.log).toEqual([]);
  });

  test('requests that end do not stay open', async () => {
    await ask();
    expect(await until('no request is open', () => Promise.resolve(proxy.open === 0))).toBe(true);
  });

  test('S3 accepts signatures over the proxy address, and a presigned read through it', async () => {
    const fleet = await Fleet.open();
    const s3 = await FaultProxy.listen(fleet.env['FLEET_S3_ENDPOINT'] ?? '');
    const store = openStore({ ...fleet.env, FLEET_S3_ENDPOINT: s3.url });
    const key = `${fleet.tenant}/through-the-proxy.json`;
    expect(await store.putIf(key, '{"a":1}', { absent: true })).toBe('written');
    expect(await store.putIf(key, '{"a":2}', { absent: true })).toBe('refused');
    const answer = await request(await store.presignRead(key, 60), { dispatcher: agent });
    expect(await answer.body.text()).toBe('{"a":1}');
    await store.deleteKeys([key]);
    store.close();
    await s3.close();
    await fleet.close();
  });
});

describe('which requests', () => {
  test('by method and path, after so many, so many times', async () => {
    proxy.inject({ fault: qdrantError(503), method: 'GET', path: /key/, skip: 1, times: 2 });
    proxy.inject({ fault: qdrantError(500), path: /other/ });
    const statuses: number[] = [];
    for (let index = 0; index < 4; index += 1) {
      statuses.push((await ask()).status);
      expect((await ask('HEAD')).status).toBe(200);
    }
    expect(statuses).toEqual([200, 503, 503, 200]);
    expect(proxy.log).toMatchObject([
      { name: 'answer 503', method: 'GET', path: '/some/key' },
      { name: 'answer 503', method: 'GET', path: '/some/key' },
    ]);
  });

  test('none any more once they are lifted', async () => {
    proxy.inject({ fault: qdrantError(500), times: 100 });
    expect((await ask()).status).toBe(500);
    proxy.lift();
    expect((await ask()).status).toBe(200);
  });
});

describe('faults', () => {
  test.for([
    ['fin', 0],
    ['fin', 1],
    ['fin', 50_000],
    ['fin', 99_999],
    ['rst', 50_000],
  ] as const)('an answer is cut by %s at byte %i', async ([by, at]) => {
    proxy.inject({ fault: { kind: 'cut', side: 'response', at, by } });
    const { bytes, error } = await bytesBeforeEnd();
    // What a reset finds unread on its way is lost with it.
    if (by === 'fin') expect(bytes).toBe(at);
    else expect(bytes).toBeLessThanOrEqual(at);
    expect(error).toBe(by === 'rst' ? 'ECONNRESET' : undefined);
    expect((await ask()).bytes.equals(BODY)).toBe(true);
  });

  test.for([{ share: 0 }, { share: 0.5 }, { share: 1 }])('a request is cut: the upstream never has it', async (at) => {
    proxy.inject({ fault: { kind: 'cut', side: 'request', at, by: 'rst' } });
    await expect(ask('PUT', BODY)).rejects.toThrow();
    expect(received).toEqual([]);
    await ask('PUT', BODY);
    expect(received).toHaveLength(1);
  });

  test.for(['request', 'response'] as const)('a %s stands still until the faults are lifted', async (side) => {
    proxy.inject({ fault: { kind: 'stall', side, at: 1000 } });
    let done = false;
    const asked = ask('PUT', BODY).then((answer) => {
      done = true;
      return answer;
    });
    await until('it is held', () => Promise.resolve(proxy.log.length === 1));
    await ask();
    expect(done).toBe(false);
    proxy.lift();
    expect((await asked).bytes.equals(BODY)).toBe(true);
  });

  test('slow: so many bytes a second', async () => {
    proxy.inject({ fault: { kind: 'slow', side: 'response', bytesPerSecond: 200_000 } });
    const start = performance.now();
    expect((await ask()).bytes.equals(BODY)).toBe(true);
    expect(performance.now() - start).toBeGreaterThan(400);
  });

  test.for(['request', 'response'] as const)('one bit of a %s is turned over', async (side) => {
    proxy.inject({ fault: { kind: 'flip', side, at: 70_000, bit: 3 } });
    const { bytes } = await ask('PUT', BODY);
    const bent = side === 'request' ? (received[0] ?? Buffer.alloc(0)) : bytes;
    const other = side === 'request' ? bytes : (received[0] ?? Buffer.alloc(0));
    expect(other.equals(BODY)).toBe(true);
    const different = [...bent.keys()].filter((index) => bent[index] !== BODY[index]);
    expect(different).toEqual([70_000]);
    expect((bent[70_000] ?? 0) ^ (BODY[70_000] ?? 0)).toBe(8);
  });

  test('a wrong content-length', async () => {
    proxy.inject({ fault: { kind: 'length', by: 7 } });
    await expect(ask()).rejects.toThrow();
    expect(proxy.log).toMatchObject([{ name: 'wrong content-length' }]);
  });

  test('errors of S3, with their bodies', async () => {
    const errors: Fault[] = [s3Error(503, 'SlowDown'), s3Error(400, 'ExpiredToken'), s3Error(200, 'InternalError')];
    proxy.inject(...errors.map((fault) => ({ fault })));
    for (const [status, code] of [
      [503, 'SlowDown'],
      [400, 'ExpiredToken'],
      [200, 'InternalError'],
    ] as const) {
      const answer = await ask('PUT', BODY);
      expect(answer.status).toBe(status);
      expect(answer.bytes.toString()).toContain(`<Code>${code}</Code>`);
    }
    expect(received).toEqual([]);
    expect(proxy.log.map(({ name }) => name)).toEqual([
      'answer 503 SlowDown',
      'answer 400 ExpiredToken',
      'answer 200 InternalError',
    ]);
  });

  test('an answer is lost after the upstream did it', async () => {
    proxy.inject({ fault: { kind: 'drop-reply', by: 'rst' } });
    await expect(ask('PUT', BODY)).rejects.toThrow();
    expect(received).toHaveLength(1);
  });
});
