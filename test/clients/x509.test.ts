/** Certificates of a cluster's own authority, judged by OpenSSL and by handshakes. */
import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer, type TLSSocket, connect } from 'node:tls';
import type { AddressInfo } from 'node:net';
import { afterAll, expect, test } from 'vitest';
import { certificatesIn, isPair, issue, makeAuthority } from '../../src/clients/x509.ts';

const folder = mkdtempSync(join(tmpdir(), 'qdrant-fleet-x509-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const openssl = (...args: string[]) =>
  execFileSync(process.env['OPENSSL'] ?? 'openssl', args, { cwd: folder, encoding: 'utf8', stdio: 'pipe' });

const NAMES = [
  'qdrant.fleet-acme--docs.svc',
  '*.qdrant-headless.fleet-acme--docs.svc',
  'localhost',
  '127.0.0.1',
  '::1',
];
const authority = makeAuthority('fleet-acme--docs', 3650);
const leaf = issue(authority, { names: NAMES, days: 90 });

test('OpenSSL accepts the chain by its strict rules, for both purposes', () => {
  writeFileSync(join(folder, 'ca.pem'), authority.cert);
  writeFileSync(join(folder, 'leaf.pem'), leaf.cert);
  for (const purpose of ['sslserver', 'sslclient']) {
    const answer = openssl('verify', '-x509_strict', '-CAfile', 'ca.pem', '-purpose', purpose, 'leaf.pem');
    expect(answer).toContain('leaf.pem: OK');
  }
  const text = openssl('x509', '-in', 'leaf.pem', '-noout', '-text');
  expect(text).toMatch(/CA:FALSE/);
  expect(text).toMatch(/TLS Web Server Authentication, TLS Web Client Authentication/);
  expect(openssl('x509', '-in', 'ca.pem', '-noout', '-text')).toMatch(/CA:TRUE, pathlen:0/);
});

test('names, addresses and times are what was asked for', () => {
  const [read] = certificatesIn(leaf.cert);
  if (read === undefined) throw new Error('no certificate');
  expect(read.checkHost('qdrant-3.qdrant-headless.fleet-acme--docs.svc')).toBeDefined();
  expect(read.checkHost('a.b.qdrant-headless.fleet-acme--docs.svc')).toBeUndefined();
  expect(read.checkHost('qdrant.fleet-acme--other.svc')).toBeUndefined();
  expect(read.checkIP('127.0.0.1')).toBe('127.0.0.1');
  expect(read.checkIP('::1')).toBeDefined();
  expect(read.checkIP('127.0.0.2')).toBeUndefined();
  const days = (read.validToDate.getTime() - Date.now()) / 86_400_000;
  expect(days).toBeGreaterThan(89.9);
  expect(days).toBeLessThan(90.1);
  expect(read.checkIssued(new X509Certificate(authority.cert))).toBe(true);
});

test('a certificate does not outlive its authority, and times beyond 2049 are written as such', () => {
  const short = makeAuthority('short', 10);
  expect(new X509Certificate(issue(short, { names: ['a'], days: 90 }).cert).validToDate).toEqual(
    new X509Certificate(short.cert).validToDate,
  );
  expect(new X509Certificate(makeAuthority('long', 20_000).cert).validToDate.getUTCFullYear()).toBeGreaterThan(2049);
});

test('a renewed certificate keeps the key when it is told to', () => {
  const renewed = issue(authority, { names: NAMES, days: 90, key: leaf.key });
  expect(isPair({ cert: renewed.cert, key: leaf.key })).toBe(true);
  expect(isPair({ cert: issue(authority, { names: NAMES, days: 90 }).cert, key: leaf.key })).toBe(false);
  expect(new X509Certificate(renewed.cert).serialNumber).not.toBe(new X509Certificate(leaf.cert).serialNumber);
});

test('a handshake in both directions works by the authority, and by a bundle of two', async () => {
  const next = makeAuthority('fleet-acme--docs', 3650);
  const bundle = `${authority.cert}${next.cert}`;
  expect(certificatesIn(bundle)).toHaveLength(2);
  for (const signer of [authority, next]) {
    const pair = issue(signer, { names: NAMES, days: 1 });
    const server = createServer({ ...pair, ca: bundle, requestCert: true, rejectUnauthorized: true }, (socket) => {
      socket.end(socket.authorized ? 'mutual' : 'no');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const said = await new Promise<string>((resolve, reject) => {
      const socket: TLSSocket = connect({ host: '127.0.0.1', port, ca: bundle, ...pair });
      let text = '';
      socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
      socket.on('end', () => resolve(text));
      socket.on('error', reject);
    });
    expect(said).toBe('mutual');
    await new Promise((resolve) => server.close(resolve));
  }
});

test('200 certificates in a row are read by Node, whatever their random parts are', () => {
  const issuer = new X509Certificate(authority.cert);
  for (let index = 0; index < 200; index += 1) {
    const made = new X509Certificate(issue(authority, { names: [`n${index}`], days: 1, key: leaf.key }).cert);
    expect(made.verify(issuer.publicKey)).toBe(true);
  }
});
