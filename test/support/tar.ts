/** Writes tars as Qdrant does, for tests: plain and old GNU sparse members. */
import { createHash } from 'node:crypto';

export interface Member {
  readonly name: string;
  readonly content: Buffer;
  readonly type?: string;
  readonly mtime?: number;
  /** What follows the header before the content, and what is written into the header at 386. */
  readonly sparse?: { readonly map: Buffer; readonly more: boolean; readonly blocks: Buffer };
}

export function tar(members: readonly Member[]): Buffer {
  return Buffer.concat([...members.flatMap((member) => pieces(member)), Buffer.alloc(1024)]);
}

function pieces({ name, content, type = '0', mtime = 0, sparse }: Member): Buffer[] {
  const header = Buffer.alloc(512);
  header.write(name.slice(0, 99), 0, 'latin1');
  header.write('0000644\0', 100, 'latin1');
  header.write(`${content.length.toString(8).padStart(11, '0')}\0`, 124, 'latin1');
  header.write(`${mtime.toString(8).padStart(11, '0')}\0`, 136, 'latin1');
  header.write(type, 156, 'latin1');
  header.write('ustar  \0', 257, 'latin1');
  if (sparse !== undefined) {
    sparse.map.copy(header, 386);
    header[482] = sparse.more ? 1 : 0;
  }
  header.fill(' ', 148, 156);
  header.write(
    `${header
      .reduce((sum, byte) => sum + byte, 0)
      .toString(8)
      .padStart(6, '0')}\0 `,
    148,
    'latin1',
  );
  return [header, sparse?.blocks ?? Buffer.alloc(0), content, Buffer.alloc((512 - (content.length % 512)) % 512)];
}

/** @param extents offset and length in pages of 4 KiB, in any order; what is in a page depends on its place and `seed` */
export function sparseMember(name: string, extents: readonly (readonly [number, number])[], seed: number): Member {
  const pages = [...new Set(extents.flatMap(([start, count]) => Array.from({ length: count }, (_, i) => start + i)))];
  pages.sort((a, b) => a - b);
  const runs: { start: number; count: number }[] = [];
  for (const page of pages) {
    const last = runs.at(-1);
    if (last !== undefined && last.start + last.count === page) last.count += 1;
    else runs.push({ start: page, count: 1 });
  }
  const field = (value: number) => `${value.toString(8).padStart(11, '0')}\0`;
  const entries = [...runs, { start: (pages.at(-1) ?? 0) + 9, count: 0 }].map(({ start, count }) =>
    Buffer.from(field(start * 4096) + field(count * 4096), 'latin1'),
  );
  const blocks: Buffer[] = [];
  for (let at = 4; at < entries.length; at += 21) {
    const block = Buffer.alloc(512);
    Buffer.concat(entries.slice(at, at + 21)).copy(block);
    block[504] = at + 21 < entries.length ? 1 : 0;
    blocks.push(block);
  }
  const content = Buffer.concat(
    pages.flatMap((page) =>
      Array.from({ length: 128 }, (_, i) => createHash('sha256').update(`${seed} ${page} ${i}`).digest()),
    ),
  );
  const map = Buffer.concat(entries.slice(0, 4));
  return { name, content, type: 'S', sparse: { map, more: entries.length > 4, blocks: Buffer.concat(blocks) } };
}
