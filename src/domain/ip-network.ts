/** Networks in CIDR form: IPv4 and IPv6, read strictly and compared. */

interface Network {
  /** 4 or 6. */
  readonly family: 4 | 6;
  /** The first address, as a number. */
  readonly first: bigint;
  readonly bits: number;
}

/**
 * Read a network such as `10.20.0.0/16` or `fd00::/8`. Host bits are cut off.
 *
 * @returns nothing for text that is no network
 */
export function parseNetwork(text: string): Network | undefined {
  const [address = '', length = '', ...rest] = text.split('/');
  const found = parseAddress(address);
  if (found === undefined || rest.length > 0 || !/^\d{1,3}$/.test(length)) return undefined;
  const width = widthOf(found.family);
  const bits = Number(length);
  if (bits > width) return undefined;
  const hostBits = BigInt(width - bits);
  return { family: found.family, first: (found.value >> hostBits) << hostBits, bits };
}

/** Whether every address of `inner` belongs to `outer`. Text that is no network contains nothing and is in nothing. */
export function containsCidr(outer: string, inner: string): boolean {
  const [wide, narrow] = [parseNetwork(outer), parseNetwork(inner)];
  if (wide === undefined || narrow === undefined || wide.family !== narrow.family) return false;
  const shift = BigInt(widthOf(wide.family) - wide.bits);
  return wide.bits <= narrow.bits && wide.first >> shift === narrow.first >> shift;
}

/** The network of this one address, or nothing when `text` is no address. Brackets around IPv6 are taken off. */
export function hostCidr(text: string): string | undefined {
  const address = text.replace(/^\[(.*)\]$/, '$1');
  const found = parseAddress(address);
  return found && `${address}/${widthOf(found.family)}`;
}

function widthOf(family: 4 | 6): number {
  return family === 4 ? 32 : 128;
}

function parseAddress(text: string): { family: 4 | 6; value: bigint } | undefined {
  if (text.length > 45) return undefined;
  return text.includes(':') ? parseV6(text) : parseV4(text);
}

function parseV4(text: string): { family: 4; value: bigint } | undefined {
  const octets = text.split('.');
  if (octets.length !== 4 || !octets.every((part) => /^(?:0|[1-9]\d{0,2})$/.test(part) && Number(part) <= 255)) {
    return undefined;
  }
  return { family: 4, value: octets.reduce((sum, part) => sum * 256n + BigInt(part), 0n) };
}

function parseV6(text: string): { family: 6; value: bigint } | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const [head = [], tail = []] = halves.map((half) => (half === '' ? [] : half.split(':')));
  const groups = [...head, ...tail];
  if (!groups.every((group) => /^[0-9a-fA-F]{1,4}$/.test(group))) return undefined;
  if (halves.length === 1 ? groups.length !== 8 : groups.length > 7) return undefined;
  const filled = [...head, ...Array.from({ length: 8 - groups.length }, () => '0'), ...tail];
  return { family: 6, value: filled.reduce((sum, group) => sum * 65_536n + BigInt(`0x${group}`), 0n) };
}
