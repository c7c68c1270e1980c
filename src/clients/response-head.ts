/** The head of an HTTP/1.1 response, read strictly: what is unusual is refused rather than interpreted. */

export interface ResponseHead {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, string>;
}

/** Bytes that a head may have. */
export const MAX_HEAD = 16 * 1024;

const STATUS_LINE = /^HTTP\/1\.1 ([2-5]\d\d)(?: [\t\x20-\x7e\x80-\xff]*)?$/;
const FIELD = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\t ]*([\t\x20-\x7e\x80-\xff]*)$/;
/** What decides where a body ends and what it is may come once only. */
const SINGLE = new Set(['content-length', 'content-range', 'content-encoding', 'etag']);

/**
 * The end of the head in `bytes`, behind its empty line, or -1 while it is not there.
 *
 * @param from where new bytes begin; what lies before was searched already
 */
export function headEnd(bytes: Buffer, from: number): number {
  const at = bytes.indexOf('\r\n\r\n', Math.max(0, from - 3), 'latin1');
  return at === -1 ? -1 : at + 4;
}

/**
 * Parse a head with its empty line.
 *
 * @throws Error that says what is wrong with it
 */
export function parseHead(bytes: Buffer): ResponseHead {
  const [first = '', ...lines] = bytes.toString('latin1', 0, bytes.length - 4).split('\r\n');
  const status = STATUS_LINE.exec(first)?.[1];
  if (status === undefined) throw new Error(`"${first.slice(0, 80)}" is not a final HTTP/1.1 status line`);
  const headers = new Map<string, string>();
  for (const line of lines) {
    const [, field = '', text = ''] = FIELD.exec(line) ?? [];
    if (field === '') throw new Error(`"${line.slice(0, 80)}" is not a header`);
    const name = field.toLowerCase();
    const value = text.trimEnd();
    const before = headers.get(name);
    if (before !== undefined && SINGLE.has(name)) throw new Error(`${name} came twice`);
    headers.set(name, before === undefined ? value : `${before}, ${value}`);
  }
  return { status: Number(status), headers };
}

/**
 * The length of a body that is sent as it is.
 *
 * @throws Error when it is chunked, compressed or of unknown length
 */
export function plainLength({ headers }: ResponseHead): number {
  const transfer = headers.get('transfer-encoding');
  if (transfer !== undefined) throw new Error(`it has transfer-encoding "${transfer}"`);
  const encoding = headers.get('content-encoding') ?? 'identity';
  if (encoding.toLowerCase() !== 'identity') throw new Error(`it has content-encoding "${encoding}"`);
  const length = headers.get('content-length');
  if (length === undefined || !/^\d{1,15}$/.test(length)) throw new Error(`its content-length is "${length}"`);
  return Number(length);
}

/** The fields of `content-range: bytes 0-9/100`. */
export function contentRange({ headers }: ResponseHead): { start: number; end: number; size: number } | undefined {
  const fields = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/.exec(headers.get('content-range') ?? '');
  return fields === null ? undefined : { start: Number(fields[1]), end: Number(fields[2]), size: Number(fields[3]) };
}
