/** Each room over both emulators: what is made, that making it again changes nothing, and that nothing is left. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { EMULATORS, startAwsEmulators, type AwsEmulators } from '../../src/local/aws/emulators.ts';
import { Account, Site } from './support.ts';

let emulators: AwsEmulators;
beforeAll(async () => {
  emulators = await startAwsEmulators();
}, 300_000);
afterAll(() => emulators.stop());

describe.each(EMULATORS)('on %s', (name) => {
  let account: Account;
  beforeAll(async () => {
    account = await Account.open(emulators.urls[name] ?? '');
  });
  afterAll(() => account.close());

  test('a cluster stands in a network of its own, and is taken down to the last resource', async () => {
    const before = await account.inventory();
    const site = new Site(account, name);
    await site.provision({ instanceType: 'm5.large' });
    await site.remove();
    expect(await account.inventory()).toEqual(before);
    expect(await site.ledger()).toEqual([]);
  });
});
