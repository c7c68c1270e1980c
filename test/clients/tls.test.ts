/** A real store behind TLS whose certificate a private authority signed: the SDK's way and our own of parts and reads. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { createHash, randomBytes, X509Certificate } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CreateBucketCommand, S3Client, UploadPartCommand } from '@aws-sdk/client-s3';
import { afterAll, beforeAll, expect, inject, test, vi } from 'vitest';
import { BucketShard } from '../../src/clients/bucket-shard.ts';
import { BufferPool, relay } from '../../src/clients/relay.ts';
import { BackupStore, type StoreOptions } from '../../src/clients/s3.ts';
import { SnapshotSource } from '../../src/clients/snapshot-source.ts';
import { loadConfig } from '../../src/config.ts';
import { ensureTools } from '../../src/local/toolchain/toolchain.ts';
import { until } from '../../src/local/wait.ts';
import { freePort } from '../support/fleet.ts';

const MiB = 1024 * 1024;
const BUCKET = 'private-ca';
const body = randomBytes(11 * MiB);
const sha256 = createHash('sha256').update(body).digest('hex');
const folder = mkdtempSync(join(tmpdir(), 'qdrant-fleet-tls-'));
const file = (name: string) => join(folder, name);
const program = process.env['OPENSSL'] ?? 'openssl';
const openssl = (...args: string[]) => execFileSync(program, args, { cwd: folder, stdio: 'pipe' });

let store: ChildProcess;
let node: Server;
let port = 0;
let ca: readonly string[] | undefined;
const options = (change: Partial<StoreOptions> = {}): StoreOptions => ({
  bucket: BUCKET,
  region: 'us-east-1',
  endpoint: `https://localhost:${port}`,
  forcePathStyle: true,
  ...(ca && { ca }),
  ...change,
});

beforeAll(async () => {
  const env = inject('localEnv');
  for (const name of ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY']) process.env[name] = env[name];
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  openssl(
    'req',
    '-x509',
    ...key,
    '-keyout',
    'ca.key',
    '-out',
    'ca.pem',
    '-subj',
    '/CN=Private authority',
    '-days',
    '2',
  );
  openssl('req', ...key, '-keyout', 'key.pem', '-out', 'request.pem', '-subj', '/CN=store');
  writeFileSync(file('names'), `subjectAltName=DNS:localhost,IP:127.0.0.1\n`);
  const signed = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', 'names'];
  openssl('x509', '-req', '-in', 'request.pem', ...signed, '-out', 'cert.pem');
  ca = loadConfig({ ...env, FLEET_S3_CA_FILE: file('ca.pem') }).FLEET_S3_CA_FILE;

  const tools = await ensureTools({ log: () => undefined });
  port = await freePort();
  const tls = [`--cert=${file('cert.pem')}`, `--key=${file('key.pem')}`, `--port=127.0.0.1:${port}`];
  const flags = ['--region=us-east-1', '--quiet', '--keep-alive'];
  mkdirSync(file('data'));
  store = spawn(tools.versitygw, [...tls, ...flags, 'posix', '--data-integrity-etag', file('data')], {
    env: { ROOT_ACCESS_KEY_ID: env['AWS_ACCESS_KEY_ID'], ROOT_SECRET_ACCESS_KEY: env['AWS_SECRET_ACCESS_KEY'] },
    stdio: 'ignore',
  });
  const admin = new S3Client({ ...options(), requestHandler: { httpsAgent: { ca: [...(ca ?? [])] } } });
  const made = async () => {
    const answer = await admin.send(new CreateBucketCommand({ Bucket: BUCKET })).catch(() => undefined);
    return answer !== undefined;
  };
  await until('the store answers over TLS', made, { withinMs: 20_000, everyMs: 50 });
  admin.destroy();
  node = createServer((request, response) => {
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
    const chunk = body.subarray(Number(from), Number(to) + 1);
    const range = `bytes ${from}-${to}/${body.length}`;
    response.writeHead(206, { etag: '"1"', 'content-length': chunk.length, 'content-range': range }).end(chunk);
  });
  await new Promise<void>((resolve) => node.listen(0, '127.0.0.1', resolve));
});
afterAll(async () => {
  store.kill('SIGKILL');
  node.closeAllConnections();
  await new Promise((resolve) => node.close(resolve));
  rmSync(folder, { recursive: true, force: true });
});

async function copy(target: BackupStore, key: string, budget?: number) {
  const { signal } = new AbortController();
  const url = `http://127.0.0.1:${(node.address() as AddressInfo).port}/file`;
  const source = await SnapshotSource.open(url, {}, signal);
  const buffers = new BufferPool(budget);
  const result = await relay({
    ...{ source, store: target, key, partSize: 5 * MiB, lanes: 2, buffers, signal },
    onProgress: () => undefined,
  });
  expect(result.sha256).toBe(sha256);
  expect(await target.head(key)).toEqual({ size: body.length, crc32: result.crc32 });
}

test.for([
  ['held', undefined],
  ['passing through', 4 * MiB],
] as const)('parts %s go our own way, and are read back on it', async ([how, budget]) => {
  const target = new BackupStore(options());
  const sends = vi.spyOn(S3Client.prototype, 'send');
  try {
    await target.check();
    await copy(target, how, budget);
    // A refusal would have been made good by the SDK, unseen.
    expect(sends.mock.calls.filter(([command]) => command instanceof UploadPartCommand)).toEqual([]);
    expect(target.takesTrailers).toBe(true);
    const ranges = { store: target, key: how, size: body.length, rangeSize: 4 * MiB, lanes: 2 };
    const hash = createHash('sha256');
    const stored = new BucketShard({ ...ranges, buffers: new BufferPool() });
    for await (const chunk of stored.stream(new AbortController().signal)) hash.update(chunk);
    expect(hash.digest('hex')).toBe(sha256);
  } finally {
    sends.mockRestore();
    target.close();
  }
});

test('without the authority nothing is sent', async () => {
  expect(new X509Certificate(readFileSync(file('cert.pem'))).issuer).toContain('Private authority');
  const { ca: _, ...plain } = options();
  const target = new BackupStore(plain);
  await expect(target.check()).rejects.toMatchObject({ code: 'StoreUnavailable' });
  target.close();
});
