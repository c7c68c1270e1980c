/** Serves shards to nodes that cannot reach the bucket: one object under one secret path, for one recovery. */
import { randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createSecureServer, type Server as SecureServer } from 'node:https';
import { isIP, type AddressInfo } from 'node:net';
import { FleetError, messageOf } from '../domain/errors.ts';

/** The bytes of one shard, wherever they come from. */
export interface ShardBytes {
  /** Exactly as many as `stream` yields. */
  readonly size: number;
  /**
   * All bytes in order, each time from the start. A chunk belongs to the reader until it asks for the next one; the
   * source may use its memory again then.
   */
  stream(signal: AbortSignal): AsyncIterable<Uint8Array>;
}

export interface ServeOptions {
  /** Readers at a time; default 1. */
  readonly readers?: number;
  readonly signal: AbortSignal;
  /** Called with the bytes of each chunk that went out. */
  readonly onBytes: (bytes: number) => void;
  /** Called when a body begins and when it has ended, however it ended. */
  readonly onReaders?: (reading: number) => void;
}

/** A shard on offer. */
export interface ServedShard {
  /** Where nodes get it. Whoever knows it can read the shard: never log it. */
  readonly url: string;
  /** Bytes that went out so far, over all readers. */
  readonly sent: number;
  /** Why a body broke off, when one did because of its source. */
  readonly failure: unknown;
  /** The path is unknown from now on; bodies under way are cut. */
  close(): void;
}

export interface ShardRelayOptions {
  /** Address by which the nodes reach this process: an IP address to listen on, or a name for it. */
  readonly host: string;
  /** 0 for any free one. */
  readonly port: number;
  /** Certificate for the host and its private key, in PEM, as they are now; without it the shards go in plain text. */
  readonly pair?: () => Promise<{ readonly cert: string; readonly key: string }>;
}

/** Bytes that are handed to the socket at a time: the granularity of back-pressure and of progress. */
const SLICE = 256 * 1024;
/** Milliseconds that a reader may take no byte. Qdrant itself gives a download up after 60 s of silence. */
const READER_TIMEOUT = 60_000;

/**
 * One HTTP server per process, listening from the first shard on.
 *
 * 1. A path is 256 random bits and ends with the recovery that it was made for. All else is 404.
 * 2. GET only, the whole object, with its length: Qdrant does one plain GET and resumes nothing.
 * 3. A source is asked for its next chunk when the socket has taken the last one.
 */
export class ShardRelay {
  readonly #options: ShardRelayOptions;
  readonly #shards = new Map<string, Served>();
  #listening: Promise<Server | SecureServer> | undefined;

  constructor(options: ShardRelayOptions) {
    this.#options = options;
  }

  /** @throws FleetError `Internal` when the port cannot be listened on */
  async serve(source: ShardBytes, options: ServeOptions): Promise<ServedShard> {
    const { host, port: configured, pair } = this.#options;
    this.#listening ??= this.#listen();
    const server = await this.#listening.catch((error: unknown) => {
      this.#listening = undefined;
      const where = `${host}:${configured}`;
      throw new FleetError(
        'Internal',
        `The worker cannot listen on ${where} to serve shards: ${messageOf(error)}. Check FLEET_RELAY_HOST and FLEET_RELAY_PORT.`,
        { cause: error },
      );
    });
    // It may have been renewed since.
    if (pair !== undefined && 'setSecureContext' in server) server.setSecureContext(await pair());
    const { port } = server.address() as AddressInfo;
    const path = `/${randomBytes(32).toString('hex')}`;
    const name = isIP(host) === 6 ? `[${host}]` : host;
    const served = new Served(
      source,
      options,
      `${pair === undefined ? 'http' : 'https'}://${name}:${port}${path}`,
      () => this.#shards.delete(path),
    );
    this.#shards.set(path, served);
    return served;
  }

  /** Close every path and the port. */
  async close(): Promise<void> {
    for (const served of [...this.#shards.values()]) served.close();
    const server = await this.#listening?.catch(() => undefined);
    this.#listening = undefined;
    if (server === undefined) return;
    server.closeAllConnections();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  async #listen(): Promise<Server | SecureServer> {
    const { host, port, pair } = this.#options;
    const answer = (request: IncomingMessage, response: ServerResponse) => void this.#answer(request, response);
    const server = pair === undefined ? createServer(answer) : createSecureServer(await pair(), answer);
    // A worker that has nothing else to do may end.
    server.unref();
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      // A name may be of a balancer or a translated address, which is none of this machine's.
      server.listen(port, isIP(host) === 0 ? undefined : host, () => {
        server.off('error', reject);
        server.on('error', () => undefined);
        resolve(server);
      });
    });
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const served = this.#shards.get(request.url ?? '');
    if (served === undefined) return refuse(response, 404);
    if (request.method !== 'GET') return refuse(response, 405);
    await served.answer(response);
  }
}

function refuse(response: ServerResponse, status: number): void {
  response.writeHead(status, { 'content-length': 0, connection: 'close' });
  response.end();
}

class Served implements ServedShard {
  readonly url: string;
  readonly #source: ShardBytes;
  readonly #options: ServeOptions;
  readonly #forget: () => void;
  readonly #closed = new AbortController();
  readonly #responses = new Set<ServerResponse>();
  #sent = 0;
  #failure: unknown;

  constructor(source: ShardBytes, options: ServeOptions, url: string, forget: () => void) {
    this.#source = source;
    this.#options = options;
    this.url = url;
    this.#forget = forget;
  }

  get sent(): number {
    return this.#sent;
  }

  get failure(): unknown {
    return this.#failure;
  }

  close(): void {
    this.#forget();
    this.#closed.abort(new Error('the shard is no longer served'));
    for (const response of this.#responses) response.destroy();
  }

  async answer(response: ServerResponse): Promise<void> {
    if (this.#responses.size >= (this.#options.readers ?? 1)) return refuse(response, 503);
    const gone = new AbortController();
    response.once('close', () => gone.abort(new Error('the reader went away')));
    response.setTimeout(READER_TIMEOUT, () => response.destroy());
    this.#responses.add(response);
    this.#options.onReaders?.(this.#responses.size);
    const signal = AbortSignal.any([this.#options.signal, this.#closed.signal, gone.signal]);
    try {
      response.writeHead(200, {
        'content-type': 'application/octet-stream',
        'content-length': this.#source.size,
        connection: 'close',
      });
      response.flushHeaders();
      let sent = 0;
      for await (const chunk of this.#source.stream(signal)) {
        sent += chunk.length;
        if (sent > this.#source.size) throw new Error(`the source has more than its ${this.#source.size} bytes`);
        await this.#write(response, chunk, signal);
      }
      if (sent < this.#source.size) throw new Error(`the source ended after ${sent} of ${this.#source.size} bytes`);
      response.end();
    } catch (error) {
      // A body that is cut is one that the node refuses; there is no other way to tell it now.
      response.destroy();
      if (!gone.signal.aborted && !this.#closed.signal.aborted) this.#failure ??= error;
    } finally {
      this.#responses.delete(response);
      this.#options.onReaders?.(this.#responses.size);
    }
  }

  /** Done when the socket has taken the whole chunk, so that its memory may be used again. */
  async #write(response: ServerResponse, chunk: Uint8Array, signal: AbortSignal): Promise<void> {
    for (let at = 0; at < chunk.length; at += SLICE) {
      signal.throwIfAborted();
      const slice = chunk.subarray(at, at + SLICE);
      await new Promise<void>((resolve, reject) => {
        const onAbort = () => reject(signal.reason as Error);
        signal.addEventListener('abort', onAbort, { once: true });
        response.write(slice, (error) => {
          signal.removeEventListener('abort', onAbort);
          if (error) reject(error);
          else resolve();
        });
      });
      this.#sent += slice.length;
      this.#options.onBytes(slice.length);
    }
  }
}
