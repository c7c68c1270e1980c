/** The fleet's own mark on what it writes about a backup: HMAC-SHA-256 over canonical JSON, by a key that no bucket holds. */
import { createHmac, timingSafeEqual } from 'node:crypto';
import { canonicalJson } from '../domain/canonical-json.ts';
import { FleetError } from '../domain/errors.ts';
import type { BackupLocation } from '../domain/naming.ts';

/** One key of `FLEET_BACKUP_MAC_KEY`. */
export interface MacKey {
  readonly id: string;
  /** 32 bytes or more. */
  readonly key: Buffer;
}

/** What is signed: the same bytes never count for the other. */
export type SealedKind = 'record' | 'manifest' | 'plan' | 'list';

/**
 * What a MAC says of an object.
 *
 * - `valid`: a key of the fleet made it.
 * - `unchecked`: no key is configured, so nobody can tell.
 * - `missing`: it has none, as those of earlier versions.
 * - `unknown-key`: by a key that is not configured.
 * - `wrong`: by a key that is configured, and not over this content.
 */
export type Seal = 'valid' | 'unchecked' | 'missing' | 'unknown-key' | 'wrong';

interface Mac {
  readonly keyId: string;
  /** Base64. */
  readonly hmac: string;
}

/** What an object with a MAC looks like. */
export type Sealed<T> = T & { readonly mac?: Mac };

/** What nobody is protected from where no key is configured. */
export const NO_MAC =
  'Records and manifests of backups are not signed (FLEET_BACKUP_MAC_KEY is not set): who can write to the bucket can forge or alter a backup unnoticed.';

const PURPOSE = 'qdrant-fleet backup 1';

export class BackupMac {
  readonly #keys: readonly MacKey[];

  /** @param keys the first signs, all verify; none: nothing is signed or checked */
  constructor(keys: readonly MacKey[] = []) {
    this.#keys = keys;
  }

  /** Whether there is a key. */
  get isOn(): boolean {
    return this.#keys.length > 0;
  }

  /** The object with a MAC of the first key in place of any that it had; without one where there is no key. */
  seal<T extends object>(kind: SealedKind, location: BackupLocation, body: T): Sealed<T> {
    const { mac: _, ...bare } = body as Sealed<T>;
    const [first] = this.#keys;
    if (first === undefined) return bare as Sealed<T>;
    const hmac = digest(first, kind, location, bare).toString('base64');
    return { ...bare, mac: { keyId: first.id, hmac } } as Sealed<T>;
  }

  /** What its MAC says of an object that was read. */
  check(kind: SealedKind, location: BackupLocation, body: unknown): Seal {
    if (!this.isOn) return 'unchecked';
    if (typeof body !== 'object' || body === null) return 'missing';
    const { mac, ...bare } = body as Partial<Sealed<object>>;
    if (mac === undefined) return 'missing';
    const { keyId, hmac } = (mac ?? {}) as Partial<Mac>;
    if (typeof keyId !== 'string' || typeof hmac !== 'string') return 'wrong';
    const key = this.#keys.find(({ id }) => id === keyId);
    if (key === undefined) return 'unknown-key';
    const wanted = digestIfAny(key, kind, location, bare);
    if (wanted === undefined) return 'wrong';
    const found = Buffer.from(hmac, 'base64');
    return found.length === wanted.length && timingSafeEqual(found, wanted) ? 'valid' : 'wrong';
  }
}

/** Whether what a MAC says is enough to act on an object without being told to. */
export function isTrusted(seal: Seal): boolean {
  return seal === 'valid' || seal === 'unchecked';
}

/** What a restore says of a backup that nothing proves to be the fleet's. */
export function unprotectedBy(seal: Seal): string | undefined {
  if (seal === 'valid') return undefined;
  return seal === 'unchecked' ? NO_MAC : `The backup was taken unsigned, as asked: ${doubtOf(seal)}.`;
}

/** Why an object is not believed; empty where it is. */
export function doubtOf(seal: Seal): string {
  return isTrusted(seal) ? '' : REASONS[seal];
}

const REASONS: Readonly<Record<Seal, string>> = {
  valid: '',
  unchecked: '',
  missing: 'it has no MAC; backups of a fleet without FLEET_BACKUP_MAC_KEY have none',
  'unknown-key': 'its MAC is by a key that is not in FLEET_BACKUP_MAC_KEY',
  wrong: 'its MAC does not fit its content: somebody else has written it',
};

/**
 * @param what such as `The record`
 * @throws FleetError `BackupNotTrusted` for what was not signed by the fleet, unless the caller takes it all the same
 */
export function requireTrusted(seal: Seal, location: BackupLocation, what: string): void {
  if (isTrusted(seal) || location.acceptUnsigned === true) return;
  throw new FleetError(
    'BackupNotTrusted',
    `${what} of backup ${location.backup} of ${location.tenant}/${location.cluster} is not believed: ${REASONS[seal]}. Look at where it comes from; "acceptUnsigned": true restores it all the same.`,
  );
}

/** `undefined` for what is nested so deeply that the fleet cannot have written it. */
function digestIfAny(...of: Parameters<typeof digest>): Buffer | undefined {
  try {
    return digest(...of);
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

function digest(key: MacKey, kind: SealedKind, location: BackupLocation, body: object): Buffer {
  const { tenant, cluster, backup } = location;
  const text = canonicalJson({ purpose: PURPOSE, kind, tenant, cluster, backup, body }) ?? '';
  return createHmac('sha256', key.key).update(text).digest();
}
