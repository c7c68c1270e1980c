/** Blocks of IPv4 addresses: read, compared and cut up. */

/** A block: its first address as an unsigned number, and the length of its prefix. */
export interface Cidr {
  readonly base: number;
  readonly prefix: number;
}

/** Read `10.0.0.0/16`. Returns undefined unless it is well-formed and begins at its own first address. */
export function parseCidr(text: string): Cidr | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\/(\d{1,2})$/.exec(text);
  if (match === null) return undefined;
  const [a = 256, b = 256, c = 256, d = 256, prefix = 33] = match.slice(1).map(Number);
  if ([a, b, c, d].some((part) => part > 255) || prefix > 32) return undefined;
  const base = a * 2 ** 24 + b * 2 ** 16 + c * 2 ** 8 + d;
  return base % sizeOf(prefix) === 0 ? { base, prefix } : undefined;
}

function formatCidr({ base, prefix }: Cidr): string {
  const parts = [24, 16, 8, 0].map((shift) => Math.floor(base / 2 ** shift) % 256);
  return `${parts.join('.')}/${prefix}`;
}

export function overlaps(one: Cidr, other: Cidr): boolean {
  return one.base < other.base + sizeOf(other.prefix) && other.base < one.base + sizeOf(one.prefix);
}

/** The `index`-th block of a longer prefix inside a block. */
function subBlock({ base }: Cidr, prefix: number, index: number): Cidr {
  return { base: base + index * sizeOf(prefix), prefix };
}

function sizeOf(prefix: number): number {
  return 2 ** (32 - prefix);
}

/** Subnets of one availability zone. */
export interface ZoneBlocks {
  readonly publicCidr: string;
  readonly privateCidr: string;
}

/** Longest prefix that a VPC's block may have for this many zones; see {@link cutNetwork}. */
export function longestPrefix(zones: number): number {
  return Math.min(SMALLEST_PRIVATE - partBits(zones), SMALLEST_PUBLIC - partBits(zones) - zoneBits(zones));
}

/**
 * Cut a VPC's block into one large private and one small public subnet for each zone: the block is cut into equal
 * parts, the first ones are the private subnets, and the last part is cut again for the public ones.
 */
export function cutNetwork(block: Cidr, zones: number): ZoneBlocks[] {
  const privatePrefix = block.prefix + partBits(zones);
  const publicPrefix = privatePrefix + zoneBits(zones);
  const last = subBlock(block, privatePrefix, 2 ** partBits(zones) - 1);
  return Array.from({ length: zones }, (_, zone) => ({
    privateCidr: formatCidr(subBlock(block, privatePrefix, zone)),
    publicCidr: formatCidr(subBlock(last, publicPrefix, zone)),
  }));
}

/** Pods take addresses of the private subnets (VPC CNI); 59 usable ones are few, fewer are none. */
const SMALLEST_PRIVATE = 26;
/** AWS' own limit. */
const SMALLEST_PUBLIC = 28;

function partBits(zones: number): number {
  return Math.ceil(Math.log2(zones + 1));
}

function zoneBits(zones: number): number {
  return Math.ceil(Math.log2(zones));
}
