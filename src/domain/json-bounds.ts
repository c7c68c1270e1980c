/**
 * JSON text from somebody else, looked at before it is parsed. `JSON.parse` turns 32 MiB of `[[],[],…]` into half a
 * gigabyte of objects and blocks the process for seconds; a count of the separators is cheap and tells it before.
 */

/** Most levels of arrays and objects. Qdrant's own parser stops at 128, and an answer wraps what it holds. */
export const MAX_JSON_DEPTH = 160;

/** How much JSON an object of a bucket may hold. */
export interface JsonBounds {
  readonly bytes: number;
  /** See {@link jsonProblem}. */
  readonly values: number;
}

/** A record, an intent, a lease, a sample: a JSON object that does not grow with the cluster. */
export const SMALL_JSON: JsonBounds = { bytes: 1024 * 1024, values: 100_000 };
/**
 * A manifest, a plan, a list of shards. The entry of a shard that is stored as blocks and sampled has 24 values and, with
 * names of usual length, less than 1,000 bytes: 100,000 of them fit, beside the configurations of the collections.
 */
export const LARGE_JSON: JsonBounds = { bytes: 96 * 1024 * 1024, values: 3_000_000 };

const QUOTE = 34;
const COMMA = 44;
const BACKSLASH = 92;

/**
 * Why a text is not to be parsed; `undefined` when it may be. It need not be JSON.
 *
 * @param most values: each comma and each bracket that opens counts as one, so no text has fewer than its values less one
 */
export function jsonProblem(text: string, most: number): string | undefined {
  let values = 1;
  let depth = 0;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) {
      at = endOfString(text, at);
      continue;
    }
    // `[` and `{`, `]` and `}` differ in one bit each.
    const bracket = code & ~0x20;
    if (bracket === 0x5b) depth += 1;
    else if (bracket === 0x5d) depth -= 1;
    if (bracket !== 0x5b && code !== COMMA) continue;
    values += 1;
    if (values > most) return `has more than ${most} values`;
    if (depth > MAX_JSON_DEPTH) return `is more than ${MAX_JSON_DEPTH} levels deep`;
  }
  return undefined;
}

/** The place of the quote that ends the string which begins at `start`; the text's length when none does. */
function endOfString(text: string, start: number): number {
  for (let from = start + 1; ;) {
    const end = text.indexOf('"', from);
    if (end === -1) return text.length;
    let before = end;
    while (before > from && text.charCodeAt(before - 1) === BACKSLASH) before -= 1;
    if ((end - before) % 2 === 0) return end;
    from = end + 1;
  }
}
