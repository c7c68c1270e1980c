/** Puts an incremental shard together after the format's description, by other code than the fleet's. */
import { createHash } from 'node:crypto';
import { crc32, inflateRawSync } from 'node:zlib';

export interface ScannedShard {
  /** Hex, of what was put together. */
  readonly sha256: string;
  readonly size: number;
  /** Packs that it needs, by path below the cluster's prefix, with the size that the recipe tells. */
  readonly packs: ReadonlyMap<string, number>;
  readonly problems: readonly string[];
}

/** @param fetch gets a pack by its path */
export async function putTogether(
  stored: Buffer,
  fetch: (path: string) => Promise<Buffer | undefined>,
): Promise<ScannedShard> {
  const recipe = inflateRawSync(stored);
  const problems: string[] = [];
  if (recipe.toString('latin1', 0, 8) !== 'QFRECIP1' || recipe.toString('latin1', recipe.length - 8) !== 'QFRECEND') {
    return { sha256: '', size: 0, packs: new Map(), problems: ['the recipe has no head or no end'] };
  }
  let at = recipe.readUInt32LE(recipe.length - 12);
  const number = (): number => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = recipe.readUInt8(at++);
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return Number(value);
    }
  };
  const take = (length: number) => recipe.subarray(at, (at += length));

  const table = Array.from({ length: number() }, () => {
    const path = take(number()).toString();
    const size = number();
    const blocks = number();
    return { path, size, blocks, index: take(32), used: number() };
  });
  const [, size, sha256] = [number(), number(), take(32).toString('hex')];
  const packs = new Map(table.filter(({ used }) => used > 0).map((pack) => [pack.path, pack.size]));
  const contents = await Promise.all(
    table.map(async ({ path, size: wanted, blocks, index, used }) => {
      if (used === 0) return undefined;
      const bytes = await fetch(path);
      if (bytes?.length !== wanted) problems.push(`${path} has ${bytes?.length} bytes, the recipe says ${wanted}`);
      else problems.push(...packProblems(path, bytes, blocks, index));
      return bytes;
    }),
  );

  const hash = createHash('sha256');
  let total = 0;
  at = 8;
  for (let kind = number(); kind !== 0; kind = number()) {
    let bytes: Buffer;
    if (kind === 1) bytes = take(number());
    else if (kind === 2) bytes = Buffer.alloc(number());
    else {
      const [pack, offset, length] = [number(), number(), number()];
      bytes = contents[pack]?.subarray(offset, offset + length) ?? Buffer.alloc(0);
      if (crc32(bytes) !== take(4).readUInt32LE()) problems.push(`${table[pack]?.path} differs at ${offset}`);
    }
    hash.update(bytes);
    total += bytes.length;
  }
  const found = hash.digest('hex');
  if (total !== size || found !== sha256) problems.push(`the recipe gives ${total} bytes of ${found}`);
  return { sha256: found, size: total, packs, problems };
}

/** Every block is what its index says. */
function packProblems(path: string, pack: Buffer, blocks: number, indexHash: Buffer): string[] {
  const index = pack.subarray(pack.length - 44 - blocks * 36, pack.length - 44);
  if (!createHash('sha256').update(index).digest().equals(indexHash)) return [`${path} has another index`];
  if (pack.toString('latin1', pack.length - 8) !== 'QFPACK01') return [`${path} does not end as a pack`];
  let offset = 0;
  for (let entry = 0; entry < blocks; entry += 1) {
    const length = index.readUInt32LE(entry * 36);
    const block = pack.subarray(offset, offset + length);
    offset += length;
    const wanted = index.subarray(entry * 36 + 4, entry * 36 + 36);
    if (!createHash('sha256').update(block).digest().equals(wanted)) return [`${path}: block ${entry} is damaged`];
  }
  return offset === pack.length - 44 - blocks * 36 ? [] : [`${path} holds more than its blocks`];
}
