/** Whether a store keeps the conditions of writes. Without them two runs overwrite each other's backup in silence. */
import { FleetError } from '../domain/errors.ts';
import type { BackupStore } from './s3.ts';

/** Stores that have shown it to this process. */
const proven = new WeakSet<BackupStore>();

/**
 * Try the two conditions that the commit protocol stands on, once per store and process: a key that exists is not
 * written with `If-None-Match: *`, and no key is written with an `If-Match` that names another content.
 *
 * The key is always the same, and small: a bucket that keeps every version, or lets nobody delete, does not fill up.
 *
 * @param prefix below which backups are
 * @throws IgnoredCondition naming the condition that the store ignores
 */
export async function requireConditionalWrites(store: BackupStore, prefix: string): Promise<void> {
  if (proven.has(store)) return;
  const head = prefix.replace(/^\/+|\/+$/g, '');
  const key = `${head === '' ? '' : `${head}/`}.conditional-writes`;
  const text = JSON.stringify({ purpose: 'Shows that the store keeps the conditions of writes.' });
  const absent = { absent: true } as const;
  const isThere = (await store.putIf(key, text, absent)) === 'refused';
  if (!isThere && (await store.putIf(key, text, absent)) === 'written')
    throw new IgnoredCondition(store, 'If-None-Match');
  if ((await store.putIf(key, text, { etag: '"00000000000000000000000000000000"' })) === 'written') {
    throw new IgnoredCondition(store, 'If-Match');
  }
  proven.add(store);
}

/** Thrown for a store that ignores a condition of writes. */
export class IgnoredCondition extends FleetError {
  constructor({ bucket }: BackupStore, header: string) {
    super(
      'StoreDenied',
      `The store of bucket "${bucket}" ignores ${header} on writes. Backups need conditional writes, or two runs would overwrite each other. Use a store, or a version of it, that supports them.`,
    );
  }
}
