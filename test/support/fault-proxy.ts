/** An HTTP/1.1 proxy that breaks what passes through it: by rules, each a fixed number of times, each logged. */
import { Agent, createServer, request, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, type Socket } from 'node:net';
import { pipeline } from 'node:stream/promises';

/** A byte of a body: its offset, or a share of the body's length. */
export type Place = number | { readonly share: number };
type Side = 'request' | 'response';
/** How a connection ends: in order, or by a reset. */
type End = 'fin' | 'rst';

export type Fault =
  /** The connection ends in front of this byte. On the side of the request the upstream sees the same. */
  | { readonly kind: 'cut'; readonly side: Side; readonly at: Place; readonly by: End }
  /** Nothing moves any more from this byte on, until `lift()`. */
  | { readonly kind: 'stall'; readonly side: Side; readonly at: Place }
  | { readonly kind: 'slow'; readonly side: Side; readonly bytesPerSecond: number }
  /** One bit of this byte is turned over. */
  | { readonly kind: 'flip'; readonly side: Side; readonly at: Place; readonly bit: number }
  /** The answer's `content-length` is wrong by so many bytes. */
  | { readonly kind: 'length'; readonly by: number }
  /** The upstream is not asked, or, where `done` says so, asked first and its answer thrown away. */
  | {
      readonly kind: 'answer';
      readonly status: number;
      readonly body: string;
      readonly contentType: string;
      readonly done?: boolean;
    }
  /** Headers of the answer that do not come through, by their names in lower case. */
  | { readonly kind: 'hide'; readonly headers: RegExp }
  /** The upstream does it, and its answer is lost. */
  | { readonly kind: 'drop-reply'; readonly by: End }
  /** Something happens elsewhere while the request is held, or while a body is; then all of it passes unharmed. */
  | {
      readonly kind: 'event';
      readonly name: string;
      /** Default: before the upstream is asked. */
      readonly inside?: { readonly side: Side; readonly at: Place };
      readonly happens: (request: { readonly path: string }) => Promise<void>;
    };

export interface Rule {
  readonly fault: Fault;
  /** Name in the log; default: the fault's own. */
  readonly name?: string;
  readonly method?: string;
  /** Of path and query. */
  readonly path?: RegExp;
  /** Only requests with a header of such a name, in lower case. */
  readonly header?: RegExp;
  /** Matching requests that pass unharmed first; default 0. */
  readonly skip?: number;
  /** Matching requests that are harmed then; default 1. */
  readonly times?: number;
}

export interface Injected {
  readonly name: string;
  readonly method: string;
  /** Without the query, which may hold a signature. */
  readonly path: string;
  readonly at: Date;
  /** When the request was over that it befell, by an answer or because one side lost patience. */
  until?: Date;
}

/** An error as S3 words it. `status` 200 is what a failed CompleteMultipartUpload may look like. */
export function s3Error(status: number, code: string): Fault {
  const body = `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>injected</Message></Error>`;
  return { kind: 'answer', status, body, contentType: 'application/xml' };
}

/** An error as Qdrant words it. */
export function qdrantError(status: number): Fault {
  const body = JSON.stringify({ status: { error: 'injected' }, time: 0 });
  return { kind: 'answer', status, body, contentType: 'application/json' };
}

export class FaultProxy {
  readonly log: Injected[] = [];
  readonly #upstream: { host: string; port: number };
  readonly #server: Server;
  readonly #agent = new Agent({ keepAlive: false });
  #rules: { rule: Rule; seen: number }[] = [];
  #held: (() => void)[] = [];
  #open = 0;

  private constructor(upstream: string) {
    const { hostname, port } = new URL(upstream);
    this.#upstream = { host: hostname, port: Number(port) };
    this.#server = createServer((incoming, outgoing) => {
      this.#open += 1;
      outgoing.once('close', () => {
        this.#open -= 1;
      });
      this.#serve(incoming, outgoing).catch(() => {
        // One of the two sides broke off, by a fault or by itself: so does the other.
        outgoing.destroy();
      });
    });
    this.#server.keepAliveTimeout = 0;
  }

  /** @param port 0 for one that is free */
  static async listen(upstream: string, host = '127.0.0.1', port = 0): Promise<FaultProxy> {
    const proxy = new FaultProxy(upstream);
    await new Promise<void>((resolve, reject) => {
      proxy.#server.once('error', reject);
      proxy.#server.listen(port, host, resolve);
    });
    return proxy;
  }

  get url(): string {
    const { address, port } = this.#server.address() as AddressInfo;
    return `http://${address}:${port}`;
  }

  /** Requests that are not answered yet. */
  get open(): number {
    return this.#open;
  }

  inject(...rules: readonly Rule[]): void {
    this.#rules.push(...rules.map((rule) => ({ rule, seen: 0 })));
  }

  /** No faults from now on; what was held goes on. */
  lift(): void {
    this.#rules = [];
    for (const release of this.#held.splice(0)) release();
  }

  async close(): Promise<void> {
    this.lift();
    this.#server.closeAllConnections();
    this.#agent.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #match({ method = '', url = '', headers }: IncomingMessage): { fault: Fault; entry: Injected } | undefined {
    for (const entry of this.#rules) {
      const { rule } = entry;
      if (rule.method !== undefined && rule.method !== method) continue;
      if (rule.path !== undefined && !rule.path.test(url)) continue;
      if (rule.header !== undefined && !Object.keys(headers).some((name) => rule.header?.test(name))) continue;
      entry.seen += 1;
      const { skip = 0, times = 1 } = rule;
      if (entry.seen <= skip || entry.seen > skip + times) continue;
      const path = url.split('?')[0] ?? '';
      const hit: Injected = { name: rule.name ?? nameOf(rule.fault), method, path, at: new Date() };
      this.log.push(hit);
      return { fault: rule.fault, entry: hit };
    }
    return undefined;
  }

  async #serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const hit = this.#match(incoming);
    const fault = hit?.fault;
    outgoing.once('close', () => {
      if (hit !== undefined) hit.entry.until ??= new Date();
    });
    if (fault?.kind === 'event' && fault.inside === undefined) await fault.happens({ path: incoming.url ?? '' });
    if (fault?.kind === 'answer') {
      if (fault.done === true) for await (const _ of await this.#forward(incoming, fault));
      else for await (const _ of incoming);
      outgoing.writeHead(fault.status, {
        'content-type': fault.contentType,
        'content-length': Buffer.byteLength(fault.body),
      });
      outgoing.end(incoming.method === 'HEAD' ? undefined : fault.body);
      return;
    }
    const empty = Number(incoming.headers['content-length'] ?? 0) === 0;
    if (fault?.kind === 'stall' && fault.side === 'request' && empty) await this.#hold(incoming.socket);
    const answer = await this.#forward(incoming, fault);
    if (fault?.kind === 'drop-reply') {
      for await (const _ of answer);
      return end(incoming.socket, fault.by);
    }
    await this.#reply(incoming, answer, outgoing, fault);
  }

  /** The request with all its headers, `Host` too: S3's signatures cover it. */
  async #forward(incoming: IncomingMessage, fault: Fault | undefined): Promise<IncomingMessage> {
    const headers = [...pairs(incoming.rawHeaders)].filter(([name]) => name.toLowerCase() !== 'connection').flat();
    const outward = request({
      ...this.#upstream,
      agent: this.#agent,
      method: incoming.method,
      path: incoming.url,
      headers: headers as unknown as Record<string, string>,
    });
    const answered = new Promise<IncomingMessage>((resolve, reject) => {
      outward.once('response', resolve);
      outward.once('error', reject);
    });
    incoming.once('close', () => {
      if (!incoming.complete) outward.destroy();
    });
    const size = Number(incoming.headers['content-length'] ?? 0);
    const socket = () => outward.socket ?? undefined;
    const sent = pipeline(
      incoming,
      (source: AsyncIterable<Buffer>) => this.#bend(source, 'request', size, fault, socket, incoming.url ?? ''),
      outward,
    );
    const [answer] = await Promise.all([
      answered,
      sent.catch((error: unknown) => {
        if (error instanceof Cut) end(incoming.socket, error.by);
        throw error;
      }),
    ]);
    return answer;
  }

  async #reply(
    incoming: IncomingMessage,
    answer: IncomingMessage,
    outgoing: ServerResponse,
    fault: Fault | undefined,
  ): Promise<void> {
    const length = answer.headers['content-length'];
    const size = incoming.method === 'HEAD' ? 0 : Number(length ?? 0);
    const changed = fault?.kind === 'length';
    if (size === 0 && fault?.kind === 'cut' && fault.side === 'response') return end(incoming.socket, fault.by);
    const headers = [...pairs(answer.rawHeaders)]
      .filter(([name]) => name.toLowerCase() !== 'connection')
      .filter(([name]) => fault?.kind !== 'hide' || !fault.headers.test(name.toLowerCase()))
      .map(([name, value]) =>
        changed && name.toLowerCase() === 'content-length'
          ? [name, String(Math.max(0, Number(value) + fault.by))]
          : [name, value],
      )
      .flat();
    outgoing.writeHead(answer.statusCode ?? 502, headers);
    outgoing.flushHeaders();
    const socket = () => incoming.socket;
    try {
      await pipeline(
        answer,
        (source: AsyncIterable<Buffer>) => this.#bend(source, 'response', size, fault, socket, incoming.url ?? ''),
        outgoing,
        { end: !changed },
      );
      if (changed) end(incoming.socket, 'fin');
    } catch (error) {
      if (!(error instanceof Cut)) throw error;
    }
  }

  /** A body on its way through. */
  async *#bend(
    source: AsyncIterable<Buffer>,
    side: Side,
    size: number,
    fault: Fault | undefined,
    socket: () => Socket | undefined,
    path: string,
  ): AsyncGenerator<Buffer> {
    const here = fault !== undefined && 'side' in fault && fault.side === side ? fault : undefined;
    const event = fault?.kind === 'event' && fault.inside?.side === side ? fault : undefined;
    const place = here !== undefined && 'at' in here ? here.at : event?.inside?.at;
    const at = place === undefined ? Number.POSITIVE_INFINITY : offset(place, size);
    let passed = 0;
    for await (const chunk of source) {
      const inside = at >= passed && at < passed + chunk.length ? at - passed : -1;
      passed += chunk.length;
      if (here?.kind === 'slow') {
        yield* this.#trickle(chunk, here.bytesPerSecond);
      } else if (inside < 0) {
        yield chunk;
      } else if (event !== undefined) {
        if (inside > 0) yield chunk.subarray(0, inside);
        await event.happens({ path });
        yield chunk.subarray(inside);
      } else if (here?.kind === 'flip') {
        const bent = Buffer.from(chunk);
        bent[inside] = (bent[inside] ?? 0) ^ (1 << (here.bit & 7));
        yield bent;
      } else if (here?.kind === 'cut') {
        if (inside > 0) yield chunk.subarray(0, inside);
        await flushed(socket());
        end(socket(), here.by);
        throw new Cut(here.by);
      } else {
        if (inside > 0) yield chunk.subarray(0, inside);
        await this.#hold(socket());
        yield chunk.subarray(inside);
      }
    }
    // A body that is shorter than it was announced, or has no announced length, is cut at its end.
    if (here?.kind === 'cut' && passed <= at) {
      end(socket(), here.by);
      throw new Cut(here.by);
    }
  }

  async #hold(socket: Socket | undefined): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#held.push(resolve);
      socket?.once('close', () => resolve());
    });
  }

  /** Twenty slices a second. */
  async *#trickle(chunk: Buffer, bytesPerSecond: number): AsyncGenerator<Buffer> {
    const slice = Math.max(1, Math.floor(bytesPerSecond / 20));
    for (let start = 0; start < chunk.length; start += slice) {
      yield chunk.subarray(start, start + slice);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 50);
        this.#held.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }
}

class Cut extends Error {
  readonly by: End;
  constructor(by: End) {
    super('cut');
    this.by = by;
  }
}

function nameOf(fault: Fault): string {
  switch (fault.kind) {
    case 'cut':
      return `${fault.side} cut, ${fault.by.toUpperCase()}`;
    case 'stall':
    case 'slow':
    case 'flip':
      return `${fault.side} ${fault.kind}`;
    case 'length':
      return 'wrong content-length';
    case 'answer':
      return `answer ${fault.status} ${/<Code>(\w+)/.exec(fault.body)?.[1] ?? ''}`.trim();
    case 'hide':
      return 'headers hidden';
    case 'event':
      return fault.name;
    default:
      return 'reply dropped';
  }
}

function offset(place: Place, size: number): number {
  return typeof place === 'number' ? place : Math.min(Math.floor(place.share * size), Math.max(0, size - 1));
}

function end(socket: Socket | undefined, by: End): void {
  if (by === 'rst') socket?.resetAndDestroy();
  else socket?.end(() => socket.destroy());
}

/** What was written so far is with the kernel. */
async function flushed(socket: Socket | undefined): Promise<void> {
  for (;;) {
    if (socket === undefined || socket.destroyed || socket.writableLength === 0) return;
    await new Promise((wake) => setTimeout(wake, 1));
  }
}

function* pairs(raw: readonly string[]): Generator<[string, string]> {
  for (let index = 0; index + 1 < raw.length; index += 2) yield [raw[index] ?? '', raw[index + 1] ?? ''];
}
