/** The raw HTTP client against servers that say exactly what each test wants, byte by byte. */
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { putPart, signedHeaders } from '../../src/clients/part-upload.ts';
import { exchange, type Exchange } from '../../src/clients/raw-http.ts';
import { SnapshotSource } from '../../src/clients/snapshot-source.ts';
import { RateLimiter } from '../../src/clients/transfer-budget.ts';

let server: Server;
let origin = '';
let connections = 0;
/** The requests of all connections, in order; bodies included. */
let requests: string[] = [];
let answer: (socket: Socket, request: string) => void;
const open = new Set<Socket>();

beforeEach(async () => {
  connections = 0;
  requests = [];
  server = createServer((socket) => {
    connections += 1;
    open.add(socket);
    socket.on('error', () => undefined);
    let seen = '';
    socket.on('data', (chunk: Buffer) => {
      seen += chunk.toString('latin1');
      const end = seen.indexOf('\r\n\r\n') + 4;
      const length = Number(/content-length: (\d+)/.exec(seen)?.[1] ?? 0);
      if (end < 4 || seen.length < end + length) return;
      const request = seen;
      seen = '';
      requests.push(request);
      answer(socket, request);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

afterEach(async () => {
  for (const socket of open) socket.destroy();
  open.clear();
  await new Promise((resolve) => server.close(resolve));
});

const OK = 'HTTP/1.1 206 Partial Content\r\ncontent-length: 5\r\n\r\n';

async function get(change: Partial<Exchange> = {}): Promise<string> {
  const target = change.target ?? Buffer.alloc(5);
  await exchange({
    url: new URL(`${origin}/file`),
    headers: {},
    target,
    accept: () => undefined,
    onBytes: () => undefined,
    signal: new AbortController().signal,
    ...change,
  });
  return target.toString('latin1');
}

describe('answers', () => {
  test('a head and a body in single bytes', async () => {
    answer = (socket) => {
      const bytes = `${OK}hello`.split('');
      const next = () => {
        const byte = bytes.shift();
        if (byte !== undefined) socket.write(byte, () => setImmediate(next));
      };
      socket.setNoDelay(true);
      next();
    };
    expect(await get()).toBe('hello');
  });

  test('one connection serves them all', async () => {
    answer = (socket) => socket.write(`${OK}hello`);
    for (let round = 0; round < 5; round += 1) expect(await get()).toBe('hello');
    expect(connections).toBe(1);
    expect(requests[0]).toMatch(/^GET \/file HTTP\/1\.1\r\nhost: 127\.0\.0\.1:\d+\r\naccept-encoding: identity\r\n/);
  });

  test.for([
    ['chunked', 'HTTP/1.1 206 x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n', /transfer-encoding/],
    ['chunked and with a length', `${OK.slice(0, -2)}Transfer-Encoding: chunked\r\n\r\nhello`, /transfer-encoding/],
    ['compressed', `${OK.slice(0, -2)}Content-Encoding: gzip\r\n\r\nhello`, /content-encoding "gzip"/],
    ['without a length', 'HTTP/1.1 206 x\r\n\r\nhello', /content-length/],
    ['with two lengths', `${OK.slice(0, -2)}Content-Length: 5\r\n\r\nhello`, /content-length came twice/],
    ['with a list of lengths', OK.replace('5', '5, 5'), /content-length/],
    ['with a signed length', OK.replace(' 5', ' +5'), /content-length/],
    ['shorter than the range', OK.replace(' 5', ' 4'), /content-length is 4, not 5/],
    ['longer than the range', OK.replace(' 5', ' 6'), /content-length is 6, not 5/],
    ['with a folded header', `${OK.slice(0, -2)} folded\r\n\r\n`, /not a header/],
    ['with a space before the colon', OK.replace('length:', 'length :'), /not a header/],
    ['with a bare line feed', OK.replace('\r\nc', '\nc'), /status line/],
    ['with a NUL', `${OK.slice(0, -2)}a: \0\r\n\r\n`, /not a header/],
    ['of HTTP/1.0', OK.replace('1.1', '1.0'), /status line/],
    ['not final', 'HTTP/1.1 100 Continue\r\n\r\n', /status line/],
    ['not HTTP', 'SSH-2.0-OpenSSH\r\n\r\n', /status line/],
    ['a head without end', `HTTP/1.1 206 x\r\n${'a: b\r\n'.repeat(4000)}`, /head is longer/],
  ] as const)('%s is refused', async ([, bytes, message]) => {
    answer = (socket) => socket.write(bytes);
    await expect(get()).rejects.toThrow(message);
    // Nothing of such a connection is used again.
    answer = (socket) => socket.write(`${OK}hello`);
    expect(await get()).toBe('hello');
    expect(connections).toBe(2);
  });

  test('more than announced: the range is right, and the connection is not used again', async () => {
    answer = (socket) => socket.write(`${OK}hello, and more`);
    const room = Buffer.alloc(20, '.');
    expect(await get({ target: room.subarray(0, 5) })).toBe('hello');
    expect(room.toString()).toBe('hello...............');
    expect(await get()).toBe('hello');
    expect(connections).toBe(2);
  });

  test('"connection: close" is believed', async () => {
    answer = (socket) => socket.write(`${OK.slice(0, -2)}Connection: close\r\n\r\nhello`);
    await get();
    await get();
    expect(connections).toBe(2);
  });

  test('an end in the middle of the body is an error, not a short body', async () => {
    answer = (socket) => socket.end(`${OK}hel`);
    await expect(get()).rejects.toThrow('closed the connection');
    expect(requests).toHaveLength(1);
  });
});

describe('kept connections', () => {
  test('one that the other side closed is replaced, once', async () => {
    answer = (socket) => socket.write(`${OK}hello`);
    await get();
    let first = true;
    answer = (socket) => {
      if (first) socket.resetAndDestroy();
      else socket.write(`${OK}again`);
      first = false;
    };
    expect(await get()).toBe('again');
    expect(connections).toBe(2);
    answer = (socket) => socket.resetAndDestroy();
    await expect(get()).rejects.toThrow();
    expect(connections).toBe(3);
  });

  test('a fresh one that is closed without an answer is not tried again', async () => {
    answer = (socket) => socket.resetAndDestroy();
    await expect(get()).rejects.toThrow();
    expect(connections).toBe(1);
  });

  test('one that was cut in the middle of an answer is not tried again', async () => {
    answer = (socket) => socket.write(`${OK}hello`);
    await get();
    answer = (socket) => socket.write(`${OK}h`, () => socket.resetAndDestroy());
    await expect(get()).rejects.toThrow();
    expect(connections).toBe(1);
  });
});

test('an abort ends the read by its reason and closes the connection', async () => {
  const stop = new AbortController();
  const closed = new Promise<void>((resolve) => {
    answer = (socket) => {
      socket.once('close', () => resolve());
      socket.write(`${OK}he`, () => stop.abort(new Error('The worker stops.')));
    };
  });
  await expect(get({ signal: stop.signal })).rejects.toThrow('The worker stops.');
  await closed;
});

test('a limited read comes in slices and waits as the limiter says', async () => {
  const size = 200_000;
  answer = (socket) => void socket.write(`HTTP/1.1 206 x\r\ncontent-length: ${size}\r\n\r\n${'x'.repeat(size)}`);
  let waits = 0;
  class Counting extends RateLimiter {
    override spend(bytes: number): number {
      expect(bytes).toBeLessThanOrEqual(this.slice);
      waits += 1;
      super.spend(bytes);
      return 1;
    }
  }
  const limiter = new Counting(1_000_000);
  expect(await get({ target: Buffer.alloc(size), limiter })).toBe('x'.repeat(size));
  expect(waits).toBeGreaterThanOrEqual(size / limiter.slice - 1);
});

test('no header can smuggle a line in', async () => {
  await expect(get({ headers: { 'api-key': 'a\r\nx: y' } })).rejects.toThrow('api-key');
  expect(connections).toBe(0);
});

describe('SnapshotSource', () => {
  const serve = (status: string, fields: string, body: string) => {
    answer = (socket) => socket.write(`HTTP/1.1 ${status}\r\n${fields}content-length: ${body.length}\r\n\r\n${body}`);
  };
  const opened = async () => {
    serve('206 x', 'etag: "1"\r\ncontent-range: bytes 0-0/5\r\n', 'h');
    return SnapshotSource.open(`${origin}/file`, { 'api-key': 'k' }, new AbortController().signal);
  };
  const read = (source: SnapshotSource, start = 0, length = 5) =>
    source.readInto(Buffer.alloc(length), start, new AbortController().signal, () => undefined);

  test('200 is right for a range that is the whole file', async () => {
    const source = await opened();
    serve('200 OK', 'etag: "1"\r\n', 'hello');
    expect(await read(source)).toBe(0x3610a686);
    expect(requests[1]).toContain('if-match: "1"\r\n');
    expect(requests[1]).toContain('api-key: k\r\n');
    await expect(read(source, 1, 2)).rejects.toMatchObject({ code: 'QdrantUnavailable' });
  });

  test.for([
    ['another range', 'content-range: bytes 1-2/5\r\n'],
    ['a file that grew', 'content-range: bytes 0-1/6\r\n'],
    ['no range', ''],
  ] as const)('%s is refused', async ([, fields]) => {
    const source = await opened();
    serve('206 x', fields, 'he');
    await expect(read(source, 0, 2)).rejects.toMatchObject({ code: 'QdrantUnavailable' });
  });

  test.for([
    [404, 'SnapshotVanished'],
    [412, 'SnapshotVanished'],
    [416, 'SnapshotVanished'],
    [403, 'QdrantRejected'],
    [500, 'QdrantUnavailable'],
  ] as const)('%i is %s', async ([status, code]) => {
    const source = await opened();
    serve(`${status} x`, '', 'no');
    await expect(read(source)).rejects.toMatchObject({ code });
  });
});

describe('putPart', () => {
  const signing = { region: 'us-east-1', accessKeyId: 'AKIAIOSFODNN7EXAMPLE', secretAccessKey: 'secret' };
  const put = () => {
    const part = { key: 'a b/(c)', uploadId: 'u/1', partNumber: 3, body: Buffer.from('hello'), crc32: 'NhCmhg==' };
    return putPart({ bucket: new URL(`${origin}/bucket`), ...part }, signing, new AbortController().signal);
  };

  test('one request with the body, over one connection', async () => {
    answer = (socket) => socket.write('HTTP/1.1 200 OK\r\netag: "e"\r\ncontent-length: 0\r\n\r\n');
    expect([await put(), await put()]).toEqual(['"e"', '"e"']);
    expect(connections).toBe(1);
    expect(requests[1]).toMatch(/^PUT \/bucket\/a%20b\/%28c%29\?partNumber=3&uploadId=u%2F1 HTTP\/1\.1\r\n/);
    expect(requests[1]).toMatch(/\r\n\r\nhello$/);
  });

  test('a bucket with a host name of its own has no name in the path', async () => {
    answer = (socket) => socket.write('HTTP/1.1 200 OK\r\netag: "e"\r\ncontent-length: 0\r\n\r\n');
    const part = { key: 'a/b', uploadId: 'u', partNumber: 1, body: Buffer.from('hello'), crc32: 'NhCmhg==' };
    await putPart({ bucket: new URL(origin), ...part }, signing, new AbortController().signal);
    expect(requests[0]).toMatch(/^PUT \/a\/b\?partNumber=1&uploadId=u HTTP/);
  });

  test('a refusal comes back as its status', async () => {
    answer = (socket) => socket.write('HTTP/1.1 403 Forbidden\r\ntransfer-encoding: chunked\r\n\r\n');
    expect(await put()).toBe(403);
  });

  test('the signature covers what must not change', () => {
    const at = new Date('2026-01-02T03:04:05.678Z');
    const guard = (crc: string) => ({ 'x-amz-checksum-crc32': crc, 'x-amz-content-sha256': 'UNSIGNED-PAYLOAD' });
    const sign = (url: string, crc = 'NhCmhg==', more = {}) =>
      signedHeaders(new URL(url), guard(crc), { ...signing, ...more }, at)['authorization'];
    const signature = sign('http://host/b/k?partNumber=1&uploadId=u');
    expect(signature).toMatch(
      /^AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE\/20260102\/us-east-1\/s3\/aws4_request, SignedHeaders=host;x-amz-checksum-crc32;x-amz-content-sha256;x-amz-date, Signature=[0-9a-f]{64}$/,
    );
    const others = [
      sign('http://host/b/k?partNumber=2&uploadId=u'),
      sign('http://host/b/l?partNumber=1&uploadId=u'),
      sign('http://host/b/k?partNumber=1&uploadId=u', 'AAAAAA=='),
      sign('http://host/b/k?partNumber=1&uploadId=u', 'NhCmhg==', { sessionToken: 't' }),
    ];
    expect(new Set([signature, ...others]).size).toBe(5);
  });
});
