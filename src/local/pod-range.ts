/** Pod addresses for stacks beside each other, as in tests. */
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { tryLock } from './lock.ts';

/** 127.64.0.0/16 is the usual range, of the stack that people start. */
const FIRST = 65;
const LAST = 250;

const FOLDER = join(tmpdir(), `qdrant-fleet-pod-ranges-${userInfo().uid}`);

/**
 * One of the ranges 127.65.0.0/16 to 127.250.0.0/16 that no other running process of this user holds.
 *
 * @param folder where the holders are noted
 * @returns the CIDR and what gives it back; it is free again, too, when this process has ended
 * @throws Error when all are held
 */
export function reservePodRange(folder = FOLDER): { readonly cidr: string; readonly release: () => void } {
  const count = LAST - FIRST + 1;
  // Anywhere, so that those of other users are seldom met, nor what a process that died left running in its range.
  const start = Math.floor(Math.random() * count);
  for (let step = 0; step < count; step++) {
    const octet = FIRST + ((start + step) % count);
    const lock = tryLock(join(folder, `${octet}.lock`));
    if ('release' in lock) return { cidr: `127.${octet}.0.0/16`, release: lock.release };
  }
  throw new Error(`All ${count} ranges of pod addresses are in use; see ${folder}.`);
}
