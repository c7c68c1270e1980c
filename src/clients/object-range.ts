/** Ranged reads of objects in the bucket, straight into the caller's memory. */
import { FleetError, messageOf } from '../domain/errors.ts';
import { exchange } from './raw-http.ts';
import { contentRange, type ResponseHead } from './response-head.ts';
import type { BackupStore } from './s3.ts';
import type { RateLimiter } from './transfer-budget.ts';

export interface RangeOptions {
  readonly store: BackupStore;
  readonly key: string;
  /** Bytes of the whole object. */
  readonly size: number;
  readonly signal: AbortSignal;
  readonly limiter?: RateLimiter | undefined;
}

/** Times that one range is asked for. */
const ATTEMPTS = 3;
/** Seconds that the URL of a range may be used; each read signs its own. */
const URL_LIFETIME = 900;

/**
 * Fill `target` from byte `start` on.
 *
 * @throws FleetError `StoreUnavailable`, `StoreDenied`, or `IntegrityMismatch` when the object is gone or has another size
 */
export async function readRange(target: Buffer, start: number, options: RangeOptions): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await readOnce(target, start, options);
    } catch (error) {
      if (options.signal.aborted) throw options.signal.reason;
      if (FleetError.is(error) && error.code !== 'StoreUnavailable') throw error;
      if (attempt === ATTEMPTS) throw error;
    }
  }
}

async function readOnce(target: Buffer, start: number, options: RangeOptions): Promise<void> {
  const { store, key, size, signal, limiter } = options;
  const end = start + target.length - 1;
  const what = `bytes ${start}-${end} of ${key}`;
  const accept = (head: ResponseHead) => {
    if (head.status === 200 && target.length === size) return;
    const range = contentRange(head);
    if (head.status === 206 && range?.start === start && range.end === end && range.size === size) return;
    throw unusable(what, head.status, range?.size, { key, size });
  };
  const url = await store.presignOwnRead(key, URL_LIFETIME);
  try {
    const headers = { range: `bytes=${start}-${end}` };
    await exchange({
      url: new URL(url),
      ca: store.ca,
      headers,
      target,
      accept,
      signal,
      limiter,
      onBytes: () => undefined,
    });
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    if (FleetError.is(error)) throw error;
    // Never the cause: it may tell the signed URL.
    throw new FleetError('StoreUnavailable', `Reading ${what} broke off: ${messageOf(error).split('http')[0]}`);
  }
}

function unusable(what: string, status: number, found: number | undefined, wanted: Pick<RangeOptions, 'key' | 'size'>) {
  if (status === 403) {
    return new FleetError(
      'StoreDenied',
      `The store did not let us read ${what}. Check the credentials and their policy.`,
    );
  }
  if (status === 404 || status === 416 || (status === 206 && found !== wanted.size)) {
    const size = found === undefined ? '' : ` with ${found} bytes`;
    return new FleetError(
      'IntegrityMismatch',
      `The store answered ${status}${size} to a read of ${what}; the backup has ${wanted.size}.`,
      { object: wanted.key },
    );
  }
  return new FleetError('StoreUnavailable', `The store answered ${status} to a read of ${what}.`);
}
