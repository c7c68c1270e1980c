/** The fleet's MAC: what it binds, which keys it takes, and what an altered object is. */
import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BackupMac, isTrusted } from '../../src/clients/backup-mac.ts';
import { loadConfig } from '../../src/config.ts';
import type { BackupLocation } from '../../src/domain/naming.ts';

const key = (id: string) => ({ id, key: randomBytes(32) });
const [first, second] = [key('2026a'), key('2025b')];
const mac = new BackupMac([first, second]);
const at: BackupLocation = { tenant: 'acme', cluster: 'docs', prefix: '', backup: '20261101T030000Z-00000000' };
const body = { state: 'COMMITTED', revision: 3, manifest: { sha256: 'ab', size: 2 }, nothing: undefined };
const read = (value: unknown) => JSON.parse(JSON.stringify(value)) as object;

test('what was signed is valid after it was written and read, whatever the order of its keys', () => {
  const sealed = read(mac.seal('record', at, body));
  expect(mac.check('record', at, sealed)).toBe('valid');
  expect(mac.check('record', at, Object.fromEntries(Object.entries(sealed).reverse()))).toBe('valid');
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (any) => {
      const { mac: _, ...bare } = any;
      expect(mac.check('manifest', at, read(mac.seal('manifest', at, bare)))).toBe('valid');
    }),
  );
});

test('it binds tenant, cluster, backup, kind and every field', () => {
  const sealed = read(mac.seal('record', at, body)) as Record<string, unknown>;
  expect(mac.check('manifest', at, sealed)).toBe('wrong');
  for (const change of [{ tenant: 'beta' }, { cluster: 'other' }, { backup: '20261101T030000Z-00000001' }]) {
    expect(mac.check('record', { ...at, ...change }, sealed)).toBe('wrong');
  }
  for (const change of [{ state: 'DELETING' }, { revision: 4 }, { manifest: { sha256: 'ac', size: 2 } }, { more: 1 }]) {
    expect(mac.check('record', at, { ...sealed, ...change })).toBe('wrong');
  }
  const { revision: _, ...less } = sealed;
  expect(mac.check('record', at, less)).toBe('wrong');
});

test('keys are rotated by their ids: the first signs, all verify, an unknown one is told', () => {
  const old = read(new BackupMac([second]).seal('record', at, body));
  expect(mac.check('record', at, old)).toBe('valid');
  expect(mac.seal('record', at, old)).toMatchObject({ mac: { keyId: '2026a' } });
  expect(new BackupMac([first]).check('record', at, old)).toBe('unknown-key');
  expect(new BackupMac([{ ...second, key: randomBytes(32) }]).check('record', at, old)).toBe('wrong');
});

test.for([
  [{}, 'missing'],
  [{ mac: null }, 'wrong'],
  [{ mac: 'x' }, 'wrong'],
  [{ mac: { keyId: '2026a' } }, 'wrong'],
  [{ mac: { keyId: '2026a', hmac: '' } }, 'wrong'],
  [{ mac: { keyId: ['2026a'], hmac: 'AAAA' } }, 'wrong'],
  [{ mac: { keyId: '__proto__', hmac: 'AAAA' } }, 'unknown-key'],
] as const)('%j: %s', ([change, seal]) => {
  expect(mac.check('record', at, { ...body, ...change })).toBe(seal);
  expect(isTrusted(seal)).toBe(false);
});

test('what is no object, or deeper than anything the fleet writes, is not valid', () => {
  for (const any of [null, 'text', 7, []]) expect(isTrusted(mac.check('record', at, any))).toBe(false);
  const deep: unknown = JSON.parse(`${'['.repeat(20_000)}${']'.repeat(20_000)}`);
  expect(mac.check('record', at, { deep, mac: { keyId: '2026a', hmac: 'AAAA' } })).toBe('wrong');
});

test('without a key nothing is signed, and nothing is told apart', () => {
  const none = new BackupMac();
  expect(none.isOn).toBe(false);
  expect(none.seal('record', at, mac.seal('record', at, body))).toEqual(body);
  expect(none.check('record', at, body)).toBe('unchecked');
});

test('the configuration takes keys and repeats none of them', () => {
  const env = { DATABASE_URL: 'postgres://u:p@127.0.0.1/d', FLEET_BACKUP_BUCKET: 'backups' };
  const base64 = randomBytes(32).toString('base64');
  const load = (text: string) => loadConfig({ ...env, FLEET_BACKUP_MAC_KEY: text }).FLEET_BACKUP_MAC_KEY;
  expect(load(`a:${base64}, b:${base64}`).map(({ id }) => id)).toEqual(['a', 'b']);
  expect(load('')).toEqual([]);
  const short = randomBytes(16).toString('base64');
  for (const text of [`a:${short}`, base64, `a:${base64},a:${base64}`, `a b:${base64}`]) {
    let message = '';
    try {
      load(text);
    } catch (error) {
      ({ message } = error as Error);
    }
    expect(message).toContain('FLEET_BACKUP_MAC_KEY: entry');
    expect(message).not.toContain(base64);
    expect(message).not.toContain(short);
  }
});
