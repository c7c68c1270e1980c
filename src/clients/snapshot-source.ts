/** Ranged reads of one stored snapshot over HTTP. */
import { Agent, request } from 'undici';
import { FleetError, messageOf } from '../domain/errors.ts';

/**
 * One connection per lane is reused for all its parts. Timeouts are ours: undici's body timeout never fires while the
 * reader is the slow side, and its header timeout would cut a node that is busy.
 */
const agent = new Agent({
  headersTimeout: 60_000,
  bodyTimeout: 0,
  connect: { timeout: 10_000 },
  keepAliveTimeout: 4000,
});

/** Milliseconds without a byte after which a read is given up. */
const STALL_TIMEOUT = 60_000;

export class SnapshotSource {
  readonly size: number;
  readonly #url: string;
  readonly #headers: Record<string, string>;
  readonly #etag: string;

  private constructor(url: string, headers: Record<string, string>, size: number, etag: string) {
    this.#url = url;
    this.#headers = headers;
    this.size = size;
    this.#etag = etag;
  }

  /**
   * Learn size and identity of the file. All later reads carry `If-Match`, so that no two files get mixed.
   *
   * @throws FleetError `SnapshotVanished` when the node does not have it
   */
  static async open(url: string, headers: Record<string, string>, signal: AbortSignal): Promise<SnapshotSource> {
    const answer = await send(url, { ...headers, range: 'bytes=0-0' }, signal);
    const etag = answer.headers['etag'];
    const total = /\/(\d+)$/.exec(String(answer.headers['content-range'] ?? ''))?.[1];
    await answer.body.dump();
    if (answer.statusCode !== 206 || typeof etag !== 'string' || total === undefined) {
      throw unusable(url, answer.statusCode);
    }
    return new SnapshotSource(url, headers, Number(total), etag);
  }

  /**
   * Read bytes `start` to `start + target.length` into `target`.
   *
   * @param onBytes called with the length of each chunk as it arrives
   */
  async readInto(target: Buffer, start: number, signal: AbortSignal, onBytes: (count: number) => void): Promise<void> {
    const end = start + target.length - 1;
    const range = { range: `bytes=${start}-${end}`, 'if-match': this.#etag, 'accept-encoding': 'identity' };
    const stall = new AbortController();
    const abort = AbortSignal.any([signal, stall.signal]);
    let watchdog = setTimeout(() => stall.abort(), STALL_TIMEOUT);
    try {
      const answer = await send(this.#url, { ...this.#headers, ...range }, abort);
      if (answer.statusCode !== 206 || answer.headers['content-length'] !== String(target.length)) {
        await answer.body.dump();
        throw unusable(this.#url, answer.statusCode);
      }
      let filled = 0;
      for await (const chunk of answer.body as AsyncIterable<Buffer>) {
        if (filled + chunk.length > target.length) throw short(this.#url, 'more', target.length);
        chunk.copy(target, filled);
        filled += chunk.length;
        onBytes(chunk.length);
        clearTimeout(watchdog);
        watchdog = setTimeout(() => stall.abort(), STALL_TIMEOUT);
      }
      if (filled !== target.length) throw short(this.#url, `only ${filled}`, target.length);
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (FleetError.is(error)) throw error;
      const why = stall.signal.aborted ? `no byte for ${STALL_TIMEOUT / 1000} s` : messageOf(error);
      throw new FleetError('QdrantUnavailable', `Reading ${this.#url} broke off: ${why}`, { cause: error });
    } finally {
      clearTimeout(watchdog);
    }
  }
}

async function send(url: string, headers: Record<string, string>, signal: AbortSignal) {
  try {
    return await request(url, { headers, dispatcher: agent, signal });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new FleetError('QdrantUnavailable', `GET ${url} got no answer: ${messageOf(error)}`, { cause: error });
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

function short(url: string, got: string, expected: number): FleetError {
  return new FleetError('QdrantUnavailable', `GET ${url} sent ${got} bytes of ${expected}.`);
}
