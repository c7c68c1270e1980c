/** Checksums of a whole, from parts that several lanes read in any order. */
import { createHash, type Hash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { base64Crc32, combineCrc32 } from './crc32.ts';

/** Bytes hashed at a stretch: 2 ms, then others get their turn. */
const STRETCH = 4 * 1024 * 1024;

export class InOrderDigest {
  readonly #sha256: Hash | undefined;
  #crc = 0;
  #index = 0;
  readonly #waiting = new Map<number, () => void>();

  /** @param sha256 `false`: CRC32 only */
  constructor(sha256: boolean) {
    this.#sha256 = sha256 ? createHash('sha256') : undefined;
  }

  /** Add what comes next. For one reader that reads in order. */
  add(bytes: Buffer, crc: number): void {
    this.#sha256?.update(bytes);
    this.#crc = combineCrc32(this.#crc, crc, bytes.length);
  }

  /** Wait for the parts before `index`, then hash this one. */
  async turn(index: number, body: Buffer, crc: number, signal: AbortSignal): Promise<void> {
    if (this.#index !== index) {
      await new Promise<void>((resolve, reject) => {
        const onAbort = () => reject(signal.reason as Error);
        if (signal.aborted) return onAbort();
        signal.addEventListener('abort', onAbort, { once: true });
        this.#waiting.set(index, () => {
          signal.removeEventListener('abort', onAbort);
          resolve();
        });
      });
    }
    for (let at = 0; at < body.length && this.#sha256 !== undefined; at += STRETCH) {
      if (at > 0) await nextTurn();
      this.#sha256.update(body.subarray(at, at + STRETCH));
    }
    this.#crc = combineCrc32(this.#crc, crc, body.length);
    this.#index += 1;
    const wake = this.#waiting.get(this.#index);
    this.#waiting.delete(this.#index);
    wake?.();
  }

  result(): { sha256: string; crc32: string } {
    return { sha256: this.#sha256?.digest('hex') ?? '', crc32: base64Crc32(this.#crc) };
  }
}
