/**
 * HTTP over keep-alive sockets, with bodies that the kernel copies straight from and into the caller's buffer: ranged
 * GETs and PUTs of parts.
 *
 * `node:http`, undici and fetch allocate 64 KiB for each read and pass it through several layers; `onread` reads up to
 * all that is there into memory of ours, for about a quarter of the CPU time.
 */
import { connect as connectPlain, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { headEnd, MAX_HEAD, parseHead, plainLength, type ResponseHead } from './response-head.ts';
import type { RateLimiter } from './transfer-budget.ts';

/** Sends bytes. They are the connection's until `sent` is called, which it is in any case. */
export type Send = (bytes: readonly Buffer[], sent: () => void) => void;

/** A body that comes bit by bit, and so cannot be sent once more when a kept connection turns out to be closed. */
export interface StreamedBody {
  /** Bytes of all that will be sent. */
  readonly length: number;
  /** On a connection of its own. */
  readonly fresh: boolean;
  /** Called once, when the head is on its way. */
  readonly begin: (send: Send) => void;
}

export interface Exchange {
  readonly url: URL;
  /** Names in lower case; `host`, `accept-encoding` and `content-length` are set here. */
  readonly headers: Readonly<Record<string, string>>;
  /** Makes it a PUT. Not to be changed before the answer is there. */
  readonly body?: Buffer | StreamedBody;
  /** Certificates of the authorities that are trusted, in PEM; default: those that Node trusts. */
  readonly ca?: readonly string[] | undefined;
  /** The name that the server's certificate has to have; default: the URL's host. */
  readonly servername?: string | undefined;
  /** Filled completely by the body, which has exactly this length. */
  readonly target: Buffer;
  /** Sees the head before any byte of the body, and throws when it is not what was asked for. */
  readonly accept: (head: ResponseHead) => void;
  /** Sees each piece of `target` as it arrives. */
  readonly onBytes: (bytes: Buffer) => void;
  readonly signal: AbortSignal;
  readonly limiter?: RateLimiter | undefined;
}

/** Milliseconds without a byte after which a read is given up. */
const STALL_TIMEOUT = 60_000;
/** Bytes a millisecond that a body is expected to go out with. */
const SLOWEST = 256;
const CONNECT_TIMEOUT = 10_000;
/** Qdrant closes a connection that was idle for 5 s. */
const IDLE_TIMEOUT = 4000;

/** The connection ended before the answer did. */
class ConnectionLost extends Error {
  override name = 'ConnectionLost';
  readonly answered: boolean;
  constructor(message: string, answered: boolean, cause?: unknown) {
    super(message, { cause });
    this.answered = answered;
  }
}

const idle = new Map<string, Connection[]>();

/** Done when `target` is full. Sends once more when a kept connection turns out to be closed. */
export async function exchange(request: Exchange): Promise<void> {
  request.signal.throwIfAborted();
  const { body } = request;
  const kept = isStreamed(body) && body.fresh ? undefined : idle.get(placeOf(request))?.pop();
  if (kept !== undefined) {
    try {
      return await kept.run(request);
    } catch (error) {
      if (!(error instanceof ConnectionLost) || error.answered || request.signal.aborted || isStreamed(body))
        throw error;
    }
  }
  return new Connection(request).run(request);
}

/** Connections to one address are kept apart by what they were checked for. All others have the same authorities. */
function placeOf({ url, ca, servername }: Pick<Exchange, 'url' | 'ca' | 'servername'>): string {
  return servername === undefined ? url.origin : `${url.origin} ${servername} ${ca?.join('')}`;
}

interface Job extends Exchange {
  readonly done: () => void;
  readonly failed: (error: Error) => void;
  /** Bytes of the target that are there, or `undefined` while the head is not. */
  filled: number | undefined;
  reusable: boolean;
}

class Connection {
  readonly #place: string;
  readonly #socket: Socket;
  /** Heads arrive here, with the first bytes of their body. */
  readonly #scratch = Buffer.allocUnsafeSlow(MAX_HEAD);
  #scratchFilled = 0;
  #job: Job | undefined;
  #timer: NodeJS.Timeout;

  constructor({ url, ca, servername }: Pick<Exchange, 'url' | 'ca' | 'servername'>) {
    this.#place = placeOf({ url, ca, servername });
    const host = url.hostname.replace(/^\[|\]$/g, '');
    const onread = {
      buffer: () => this.#nextBuffer(),
      callback: (count: number) => this.#received(count),
    };
    const secure = url.protocol === 'https:';
    const address = { host, port: Number(url.port) || (secure ? 443 : 80), onread };
    // A name is needed for the certificate; an address must not be sent as one.
    const name = servername ?? (/^[\d.]+$|:/.test(host) ? undefined : host);
    this.#socket = secure
      ? connectTls({ ...address, ...(ca && { ca: [...ca] }), ...(name !== undefined && { servername: name }) })
      : connectPlain({ ...address, noDelay: true });
    this.#timer = setTimeout(() => this.#lost('no connection in 10 s'), CONNECT_TIMEOUT);
    this.#socket.once(secure ? 'secureConnect' : 'connect', () => this.#watch());
    this.#socket.once('error', (error) => this.#lost(error.message, error));
    this.#socket.once('end', () => this.#lost('the other side closed the connection'));
    this.#socket.once('close', () => this.#lost('the connection was closed'));
  }

  /** One at a time. */
  async run(request: Exchange): Promise<void> {
    const { signal } = request;
    const head = requestHead(request);
    const onAbort = () => this.#end(signal.reason as Error);
    try {
      await new Promise<void>((resolve, reject) => {
        signal.addEventListener('abort', onAbort, { once: true });
        this.#job = {
          ...request,
          done: resolve,
          failed: reject,
          filled: undefined,
          reusable: !isStreamed(request.body),
        };
        if (this.#socket.destroyed) return this.#lost('the connection was closed');
        if (!this.#socket.connecting) this.#watch();
        this.#socket.ref();
        // Both by one system call.
        this.#socket.cork();
        this.#socket.write(head, 'latin1');
        if (request.body instanceof Buffer) this.#socket.write(request.body);
        this.#socket.uncork();
        if (isStreamed(request.body)) request.body.begin((bytes, sent) => this.#send(bytes, sent));
      });
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  #send(bytes: readonly Buffer[], sent: () => void): void {
    this.#socket.cork();
    for (const [index, piece] of bytes.entries()) {
      if (index < bytes.length - 1) this.#socket.write(piece);
      else this.#socket.write(piece, sent);
    }
    this.#socket.uncork();
    // The time to connect is not to be made longer.
    if (!this.#socket.destroyed && !this.#socket.connecting) this.#watch();
  }

  /** Never more than the range: what is too much lands in the scratch buffer. */
  #nextBuffer(): Buffer {
    const job = this.#job;
    if (job?.filled === undefined) return this.#scratch.subarray(this.#scratchFilled);
    const slice = job.limiter?.slice ?? job.target.length;
    return job.target.subarray(job.filled, Math.min(job.target.length, job.filled + slice));
  }

  /** @returns false to read no further for now */
  #received(count: number): boolean {
    const job = this.#job;
    if (job === undefined) {
      this.#end(new Error('unasked bytes'));
      return false;
    }
    this.#timer.refresh();
    try {
      if (job.filled !== undefined) return this.#body(job, count);
      const before = this.#scratchFilled;
      this.#scratchFilled += count;
      const seen = this.#scratch.subarray(0, this.#scratchFilled);
      const end = headEnd(seen, before);
      if (end === -1) {
        if (seen.length === MAX_HEAD) throw new Error(`its head is longer than ${MAX_HEAD} bytes`);
        return true;
      }
      const head = parseHead(seen.subarray(0, end));
      job.accept(head);
      const length = plainLength(head);
      if (length !== job.target.length) throw new Error(`its content-length is ${length}, not ${job.target.length}`);
      const early = Math.min(seen.length - end, length);
      seen.copy(job.target, 0, end, end + early);
      job.filled = 0;
      job.reusable &&= !/close/i.test(head.headers.get('connection') ?? '') && early === seen.length - end;
      this.#scratchFilled = 0;
      return early === 0 && length > 0 ? true : this.#body(job, early);
    } catch (error) {
      this.#end(error as Error);
      return false;
    }
  }

  #body(job: Job, count: number): boolean {
    const from = job.filled ?? 0;
    job.filled = from + count;
    if (count > 0) job.onBytes(job.target.subarray(from, job.filled));
    const delay = job.limiter?.spend(count) ?? 0;
    if (job.filled === job.target.length) {
      this.#finish(job);
      return true;
    }
    if (delay < 1) return true;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#watch();
      this.#socket.resume();
    }, delay);
    return false;
  }

  #finish(job: Job): void {
    this.#job = undefined;
    clearTimeout(this.#timer);
    // An answer before all was sent is odd; what is left must not meet a buffer that has changed.
    if (job.reusable && this.#socket.writableLength === 0) {
      this.#timer = setTimeout(() => this.#end(new Error('idle')), IDLE_TIMEOUT).unref();
      this.#socket.unref();
      const others = idle.get(this.#place) ?? [];
      others.push(this);
      idle.set(this.#place, others);
    } else {
      this.#socket.destroy();
    }
    job.done();
  }

  #watch(): void {
    clearTimeout(this.#timer);
    // Nothing comes while a body goes out.
    const body = this.#job?.body;
    const patience = STALL_TIMEOUT + (isStreamed(body) ? this.#socket.writableLength : (body?.length ?? 0)) / SLOWEST;
    this.#timer = setTimeout(() => this.#lost(`no byte for ${Math.round(patience / 1000)} s`), patience);
    if (this.#job === undefined) this.#timer.unref();
  }

  #lost(why: string, cause?: unknown): void {
    const answered = this.#scratchFilled > 0 || this.#job?.filled !== undefined;
    this.#end(new ConnectionLost(why, answered, cause));
  }

  #end(error: Error): void {
    clearTimeout(this.#timer);
    this.#socket.destroy();
    const others = idle.get(this.#place)?.filter((other) => other !== this) ?? [];
    if (others.length === 0) idle.delete(this.#place);
    else idle.set(this.#place, others);
    const job = this.#job;
    this.#job = undefined;
    job?.failed(error);
  }
}

function isStreamed(body: Buffer | StreamedBody | undefined): body is StreamedBody {
  return body !== undefined && 'begin' in body;
}

function requestHead({ url, headers, body }: Exchange): string {
  const own = { host: url.host, 'accept-encoding': 'identity', ...(body && { 'content-length': String(body.length) }) };
  const fields = Object.entries({ ...own, ...headers });
  const bad = fields.find(([, value]) => !/^[\t\x20-\x7e\x80-\xff]*$/.test(value));
  if (bad !== undefined) throw new Error(`header ${bad[0]} has characters that no header may have`);
  return `${body ? 'PUT' : 'GET'} ${url.pathname}${url.search} HTTP/1.1\r\n${fields.map(([n, v]) => `${n}: ${v}\r\n`).join('')}\r\n`;
}
