/** Ranged reads of one stored snapshot over HTTP. */
import { crc32 } from 'node:zlib';
import { FleetError, messageOf } from '../domain/errors.ts';
import { exchange } from './raw-http.ts';
import { contentRange, type ResponseHead } from './response-head.ts';
import { whyUntrusted, type ServerTrust } from './server-trust.ts';
import type { RateLimiter } from './transfer-budget.ts';

export class SnapshotSource {
  readonly size: number;
  readonly #url: string;
  readonly #headers: Record<string, string>;
  readonly #etag: string;
  readonly #trust: ServerTrust | undefined;

  private constructor(url: string, headers: Record<string, string>, size: number, etag: string, trust?: ServerTrust) {
    this.#trust = trust;
    this.#url = url;
    this.#headers = headers;
    this.size = size;
    this.#etag = etag;
  }

  /**
   * Learn size and identity of the file. All later reads carry `If-Match`, so that no two files get mixed.
   *
   * @param trust for `https`: whom to trust
   * @throws FleetError `SnapshotVanished` when the node does not have it
   */
  static async open(
    url: string,
    headers: Record<string, string>,
    signal: AbortSignal,
    trust?: ServerTrust,
  ): Promise<SnapshotSource> {
    let size = 0;
    let etag = '';
    const accept = (head: ResponseHead) => {
      const total = contentRange(head)?.size;
      const tag = head.headers.get('etag');
      if (head.status !== 206 || tag === undefined || total === undefined) throw unusable(url, head.status);
      size = total;
      etag = tag;
    };
    await read(url, { ...headers, range: 'bytes=0-0' }, { target: Buffer.alloc(1), signal, accept, trust });
    return new SnapshotSource(url, headers, size, etag, trust);
  }

  /**
   * Read bytes `start` to `start + target.length` into `target`.
   *
   * @param onBytes called with the length of each chunk as it arrives
   * @returns the CRC32 of the bytes, made while they are in the processor's cache
   */
  async readInto(
    target: Buffer,
    start: number,
    signal: AbortSignal,
    onBytes: (count: number) => void,
    limiter?: RateLimiter,
  ): Promise<number> {
    const { size } = this;
    const end = start + target.length - 1;
    const accept = (head: ResponseHead) => {
      // A range that is the whole file is answered with 200.
      if (head.status === 200 && target.length === size && head.headers.get('etag') === this.#etag) return;
      const range = contentRange(head);
      const right = range?.start === start && range.end === end && range.size === size;
      if (head.status !== 206 || !right) throw unusable(this.#url, head.status);
    };
    let crc = 0;
    const onChunk = (chunk: Buffer) => {
      crc = crc32(chunk, crc);
      onBytes(chunk.length);
    };
    const headers = { ...this.#headers, range: `bytes=${start}-${end}`, 'if-match': this.#etag };
    await read(this.#url, headers, { target, signal, accept, onChunk, limiter, trust: this.#trust });
    return crc;
  }
}

interface Reading {
  readonly target: Buffer;
  readonly signal: AbortSignal;
  readonly accept: (head: ResponseHead) => void;
  readonly onChunk?: (chunk: Buffer) => void;
  readonly limiter?: RateLimiter | undefined;
  readonly trust: ServerTrust | undefined;
}

async function read(url: string, headers: Record<string, string>, reading: Reading): Promise<void> {
  const { signal, onChunk = () => undefined, trust, ...rest } = reading;
  const checks = trust && { ca: [trust.ca], servername: trust.servername };
  try {
    await exchange({ url: new URL(url), headers, signal, onBytes: onChunk, ...rest, ...checks });
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    if (FleetError.is(error)) throw error;
    const why = whyUntrusted(error, trust) ?? messageOf(error);
    throw new FleetError('QdrantUnavailable', `GET ${url} broke off: ${why}`, { cause: error });
  }
}

function unusable(url: string, status: number): FleetError {
  // 404: gone; 412: another file under the same name; 416: the file shrank.
  if (status === 404 || status === 412 || status === 416) {
    return new FleetError('SnapshotVanished', `GET ${url} answered ${status}: the snapshot is not there any more.`);
  }
  if (status === 401 || status === 403) {
    return new FleetError('QdrantRejected', `GET ${url} answered ${status}: the API key was not accepted.`);
  }
  return new FleetError('QdrantUnavailable', `GET ${url} answered ${status}, expected 206 with the range asked for.`);
}
