/**
 * The shortest way of a part into a bucket: one signed PUT of the caller's buffer on a keep-alive socket.
 *
 * The SDK needs about 0.2 CPU seconds a gigabyte more for the same. It stays the one that knows how to retry and how to
 * read errors: whatever is not a plain success here is said as "not done", and the SDK sends the part.
 */
import { createHash, createHmac } from 'node:crypto';
import { exchange, type Exchange, type Send } from './raw-http.ts';
import type { ResponseHead } from './response-head.ts';

export interface Signing {
  readonly region: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string | undefined;
}

export interface PartTarget {
  /** The bucket's address, without the key. */
  readonly bucket: URL;
  readonly key: string;
  readonly uploadId: string;
  readonly partNumber: number;
  /** Authorities that are trusted instead of Node's, in PEM. */
  readonly ca?: readonly string[] | undefined;
}

export interface PartRequest extends PartTarget {
  readonly body: Buffer;
  /** Base64. */
  readonly crc32: string;
}

/** @returns the ETag, or the status of the refusal */
export async function putPart(part: PartRequest, signing: Signing, signal: AbortSignal): Promise<string | number> {
  const headers = { 'x-amz-checksum-crc32': part.crc32, 'x-amz-content-sha256': 'UNSIGNED-PAYLOAD' };
  return put(part, headers, part.body, () => true, signing, signal);
}

/** Bytes around the bytes of a chunk: its length in hexadecimal, and two line ends. */
const framing = (length: number) => length.toString(16).length + 4;
const LINE_END = Buffer.from('\r\n');
const trailer = (crc32: string) => Buffer.from(`0\r\nx-amz-checksum-crc32:${crc32}\r\n\r\n`);

/**
 * A part that is sent while it is read: in chunks, its CRC32 behind them (`aws-chunked`, as S3 describes it under
 * "unsigned payload with trailing checksum"). It needs no more memory than what is under way.
 *
 * 1. All chunks but the last have `chunkSize` bytes: the length of the whole has to be said before the first.
 * 2. A store counts as one that checks the trailer only when it answers with the same checksum.
 */
export class PartStream {
  readonly #outcome: Promise<string | number | undefined>;
  #send: Send | undefined;
  #crc32 = '';
  readonly #queue: { readonly bytes: readonly Buffer[]; readonly sent: () => void }[] = [];
  #sending = false;

  constructor(
    part: PartTarget & { size: number; chunkSize: number; isRepeat?: boolean },
    signing: Signing,
    signal: AbortSignal,
  ) {
    const { size, chunkSize } = part;
    const rest = size % chunkSize;
    const chunks = Math.floor(size / chunkSize) * (chunkSize + framing(chunkSize));
    const length = chunks + (rest > 0 ? rest + framing(rest) : 0) + trailer('00000000').length;
    const headers = {
      'content-encoding': 'aws-chunked',
      'x-amz-content-sha256': 'STREAMING-UNSIGNED-PAYLOAD-TRAILER',
      'x-amz-decoded-content-length': String(size),
      'x-amz-trailer': 'x-amz-checksum-crc32',
    };
    const begin = (send: Send) => {
      this.#send = send;
    };
    const checked = (head: ResponseHead) => head.headers.get('x-amz-checksum-crc32') === this.#crc32;
    this.#outcome = put(
      part,
      headers,
      { length, fresh: part.isRepeat === true, begin },
      checked,
      signing,
      signal,
    ).catch(() => undefined);
  }

  /** Send a chunk. It must not be changed before `sent` is called; that happens on failure too. */
  write(bytes: Buffer, sent: () => void): void {
    this.#queue.push({ bytes: [Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, LINE_END], sent });
    this.#next();
  }

  /** @returns the ETag, the status of a refusal, or `undefined` when there was no answer */
  async end(crc32: string): Promise<string | number | undefined> {
    this.#crc32 = crc32;
    this.#queue.push({ bytes: [trailer(crc32)], sent: () => undefined });
    this.#next();
    return this.#outcome;
  }

  /** One chunk at a time: a socket that is given all of them tells of them all at once, when the last one is out. */
  #next(): void {
    if (this.#sending) return;
    const chunk = this.#queue.shift();
    if (chunk === undefined) return;
    this.#sending = true;
    const sent = () => {
      this.#sending = false;
      chunk.sent();
      this.#next();
    };
    // Without a connection there never was a request: its outcome says why.
    if (this.#send === undefined) sent();
    else this.#send(chunk.bytes, sent);
  }
}

async function put(
  part: PartTarget,
  headers: Record<string, string>,
  body: NonNullable<Exchange['body']>,
  isRight: (head: ResponseHead) => boolean,
  signing: Signing,
  signal: AbortSignal,
): Promise<string | number> {
  const url = partUrl(part);
  let outcome: string | number = 0;
  const accept = (head: ResponseHead) => {
    const etag = head.headers.get('etag');
    outcome = head.status === 200 && etag !== undefined && isRight(head) ? etag : head.status;
    if (typeof outcome === 'number') throw new Error(`the store answered ${head.status}`);
  };
  const target = Buffer.alloc(0);
  const signed = signedHeaders(url, headers, signing, new Date());
  try {
    await exchange({ url, headers: signed, body, target, accept, onBytes: () => undefined, signal, ca: part.ca });
  } catch (error) {
    if (signal.aborted || outcome === 0) throw error;
  }
  return outcome;
}

function partUrl({ bucket, key, partNumber, uploadId }: PartTarget): URL {
  const path = `${bucket.pathname.replace(/\/$/, '')}/${key.split('/').map(encode).join('/')}`;
  const url = new URL(bucket.origin);
  url.pathname = path;
  url.search = `partNumber=${partNumber}&uploadId=${encode(uploadId)}`;
  return url;
}

/** Signature version 4 over these headers, of which `x-amz-content-sha256` says how the body is guarded. */
export function signedHeaders(
  url: URL,
  headers: Readonly<Record<string, string>>,
  signing: Signing,
  now: Date,
): Record<string, string> {
  const time = now.toISOString().replaceAll(/[-:]|\.\d+/g, '');
  const all: Record<string, string> = {
    ...headers,
    host: url.host,
    'x-amz-date': time,
    ...(signing.sessionToken !== undefined && { 'x-amz-security-token': signing.sessionToken }),
  };
  const signed = Object.fromEntries(Object.entries(all).sort(([a], [b]) => (a < b ? -1 : 1)));
  const fields = Object.entries(signed).map(([name, value]) => `${name}:${value}\n`);
  const names = Object.keys(signed).join(';');
  const request = [
    'PUT',
    url.pathname,
    url.search.slice(1),
    fields.join(''),
    names,
    headers['x-amz-content-sha256'],
  ].join('\n');
  const scope = [time.slice(0, 8), signing.region, 's3', 'aws4_request'];
  const digest = createHash('sha256').update(request).digest('hex');
  const key = scope.reduce<string | Buffer>((secret, text) => hmac(secret, text), `AWS4${signing.secretAccessKey}`);
  const signature = hmac(key, ['AWS4-HMAC-SHA256', time, scope.join('/'), digest].join('\n')).toString('hex');
  const credential = `${signing.accessKeyId}/${scope.join('/')}`;
  const authorization = `AWS4-HMAC-SHA256 Credential=${credential}, SignedHeaders=${names}, Signature=${signature}`;
  return { ...signed, authorization };
}

function hmac(key: string | Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}

/** As S3 wants it: everything but letters, digits and `-._~`. */
function encode(text: string): string {
  return encodeURIComponent(text).replaceAll(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}
