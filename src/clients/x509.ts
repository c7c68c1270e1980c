/**
 * Certificates of a cluster's own authority: X.509 version 3, keys on the curve P-256, signed with ECDSA and SHA-256
 * (RFC 5280, RFC 5480). Node signs and reads certificates, but does not make them; one fixed profile needs no library.
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
  sign,
  X509Certificate,
  type KeyObject,
} from 'node:crypto';
import { isIP } from 'node:net';
import {
  bits,
  boolean,
  explicit,
  implicit,
  integer,
  octets,
  oid,
  printable,
  sequence,
  set,
  time,
  utf8,
} from './der.ts';

/** A certificate and its private key, both in PEM. Never log it. */
export interface KeyPair {
  readonly cert: string;
  /** PKCS #8. */
  readonly key: string;
}

/** A new authority that signs certificates of servers, and no further authorities. */
export function makeAuthority(name: string, days: number, now = new Date()): KeyPair {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  // Two authorities of one cluster stand side by side while one takes over, so their names differ.
  const subject = nameOf(name, randomBytes(4).toString('hex'));
  const extensions = [
    extension(OIDS.basicConstraints, sequence(boolean(true), integer(Buffer.from([0]))), true),
    extension(OIDS.keyUsage, keyUsage(KEY_CERT_SIGN | CRL_SIGN, 1), true),
    extension(OIDS.subjectKeyId, octets(keyId(privateKey))),
  ];
  const cert = certificate({ subject, issuer: subject, key: privateKey, signer: privateKey, extensions, days, now });
  return { cert, key: pemOfKey(privateKey) };
}

/**
 * A certificate for servers that are clients of each other, too.
 *
 * @param names DNS names and IP addresses
 * @param key keep this private key; otherwise a new one is made
 */
export function issue(
  authority: KeyPair,
  { names, days, key, now = new Date() }: { names: readonly string[]; days: number; key?: string; now?: Date },
): KeyPair {
  const privateKey = key === undefined ? generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey : read(key);
  const signer = read(authority.key);
  const extensions = [
    extension(OIDS.basicConstraints, sequence(), true),
    extension(OIDS.keyUsage, keyUsage(DIGITAL_SIGNATURE, 7), true),
    extension(OIDS.extendedKeyUsage, sequence(oid(OIDS.serverAuth), oid(OIDS.clientAuth))),
    extension(OIDS.subjectAltName, sequence(...names.map(generalName))),
    extension(OIDS.subjectKeyId, octets(keyId(privateKey))),
    extension(OIDS.authorityKeyId, sequence(implicit(0, keyId(signer)))),
  ];
  const issuer = subjectOf(authority.cert);
  const end = new X509Certificate(authority.cert).validToDate;
  const cert = certificate({
    ...{ subject: nameOf(names[0] ?? ''), issuer, key: privateKey, signer, extensions, now },
    // Never longer than who vouches for it.
    days: Math.min(days, (end.getTime() - now.getTime()) / DAY),
  });
  return { cert, key: pemOfKey(privateKey) };
}

/** Every certificate in a PEM text, in order. @throws Error when one cannot be read */
export function certificatesIn(pem: string): X509Certificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g) ?? [];
  return blocks.map((block) => new X509Certificate(block));
}

/** Whether a private key belongs to a certificate. */
export function isPair({ cert, key }: KeyPair): boolean {
  return new X509Certificate(cert).checkPrivateKey(read(key));
}

const DAY = 24 * 3600 * 1000;
/** Clocks of nodes may be behind ours. */
const SKEW = 3600 * 1000;

const OIDS = {
  ecdsaWithSha256: '1.2.840.10045.4.3.2',
  commonName: '2.5.4.3',
  serialNumber: '2.5.4.5',
  organization: '2.5.4.10',
  subjectKeyId: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyId: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
} as const;

const DIGITAL_SIGNATURE = 0x80;
const KEY_CERT_SIGN = 0x04;
const CRL_SIGN = 0x02;

interface Contents {
  readonly subject: Buffer;
  readonly issuer: Buffer;
  readonly key: KeyObject;
  readonly signer: KeyObject;
  readonly extensions: readonly Buffer[];
  readonly days: number;
  readonly now: Date;
}

function certificate({ subject, issuer, key, signer, extensions, days, now }: Contents): string {
  const algorithm = sequence(oid(OIDS.ecdsaWithSha256));
  const body = sequence(
    explicit(0, integer(Buffer.from([2]))),
    // 127 random bits: positive, and within the 20 octets that RFC 5280 allows.
    integer(Buffer.concat([Buffer.from([0x40 | (randomBytes(1).readUInt8() & 0x3f)]), randomBytes(15)])),
    algorithm,
    issuer,
    sequence(time(new Date(now.getTime() - SKEW)), time(new Date(now.getTime() + days * DAY))),
    subject,
    spki(key),
    explicit(3, sequence(...extensions)),
  );
  const signed = sequence(body, algorithm, bits(sign('sha256', body, signer)));
  const lines = signed.toString('base64').match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`;
}

function nameOf(commonName: string, serialNumber?: string): Buffer {
  const part = (type: string, value: Buffer) => set(sequence(oid(type), value));
  return sequence(
    part(OIDS.organization, utf8('qdrant-fleet')),
    // At most 64 characters (RFC 5280, appendix A.1).
    part(OIDS.commonName, utf8(commonName.slice(0, 64))),
    ...(serialNumber === undefined ? [] : [part(OIDS.serialNumber, printable(serialNumber))]),
  );
}

/** The subject as it stands in a certificate, byte for byte: chains are built by comparing it. */
function subjectOf(cert: string): Buffer {
  // TBSCertificate: version, serial number, algorithm, issuer, validity, subject.
  const { raw } = new X509Certificate(cert);
  let at = contentOf(raw, contentOf(raw, 0).start).start;
  for (let skipped = 0; skipped < 5; skipped += 1) at = contentOf(raw, at).end;
  return raw.subarray(at, contentOf(raw, at).end);
}

/** Where the content of the value at an offset begins and ends. */
function contentOf(raw: Buffer, at: number): { start: number; end: number } {
  const first = raw.readUInt8(at + 1);
  if (first < 0x80) return { start: at + 2, end: at + 2 + first };
  const bytes = first & 0x7f;
  const start = at + 2 + bytes;
  return { start, end: start + raw.readUIntBE(at + 2, bytes) };
}

function extension(type: string, value: Buffer, critical = false): Buffer {
  return sequence(oid(type), ...(critical ? [boolean(true)] : []), octets(value));
}

function keyUsage(flags: number, unused: number): Buffer {
  return bits(Buffer.from([flags]), unused);
}

function generalName(name: string): Buffer {
  const family = isIP(name);
  if (family === 0) return implicit(2, Buffer.from(name, 'latin1'));
  return implicit(7, family === 4 ? Buffer.from(name.split('.').map(Number)) : addressOf6(name));
}

function addressOf6(address: string): Buffer {
  const [head = '', tail = ''] = address.split('::');
  const words = (text: string) => (text === '' ? [] : text.split(':').map((word) => Number.parseInt(word, 16)));
  const [before, after] = [words(head), words(tail)];
  const middle = address.includes('::') ? Array.from({ length: 8 - before.length - after.length }, () => 0) : [];
  return Buffer.from([...before, ...middle, ...after].flatMap((word) => [word >> 8, word & 0xff]));
}

function spki(key: KeyObject): Buffer {
  return createPublicKey(key).export({ type: 'spki', format: 'der' });
}

/** Method 1 of RFC 7093: 160 bits of the SHA-256 of the public key, which is the last 65 octets on this curve. */
function keyId(key: KeyObject): Buffer {
  return createHash('sha256').update(spki(key).subarray(-65)).digest().subarray(0, 20);
}

function read(pem: string): KeyObject {
  return createPrivateKey(pem);
}

function pemOfKey(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }) as string;
}
