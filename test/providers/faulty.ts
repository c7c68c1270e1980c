/** An account behind the proxy: on ministack alone, or with EC2 and IAM on moto. */
import type { Owner } from '../../src/domain/aws-names.ts';
import type { AwsRequest } from '../../src/domain/aws.ts';
import { startAwsEmulators, type AwsEmulators } from '../../src/local/aws/emulators.ts';
import type { LoggedCall } from '../../src/local/aws/proxy/proxy.ts';
import { AwsProxy } from '../../src/local/aws/proxy/proxy.ts';
import { CREATIONS } from '../../src/local/aws/proxy/resources.ts';
import { releaseCanaries } from './canaries.ts';
import { Site } from './site.ts';
import { Account, countsOf } from './support.ts';

/** Small, with a part of each kind. */
export const REQUEST: AwsRequest = {
  availabilityZones: ['us-east-1a', 'us-east-1b'],
  adminPrincipalArns: ['arn:aws:iam::123456789012:role/admins'],
  create: { backupBucket: true },
};

/** A call that changes something, and which of its kind it is. */
export interface Point {
  readonly service: string;
  readonly operation: string;
  readonly nth: number;
}

export class FaultyAccount {
  readonly proxy: AwsProxy;
  readonly account: Account;
  readonly #emulators: AwsEmulators;

  private constructor(emulators: AwsEmulators, proxy: AwsProxy, account: Account) {
    this.#emulators = emulators;
    this.proxy = proxy;
    this.account = account;
  }

  /** @param on moto is the stricter, and five times as slow */
  static async open(on: 'ministack' | 'both'): Promise<FaultyAccount> {
    const emulators = await startAwsEmulators(on === 'both' ? {} : { which: ['ministack'] });
    const { ministack = '', moto = ministack } = emulators.urls;
    // moto gives a new bucket the tags of a deleted one of its name.
    const proxy = await AwsProxy.listen({ routes: { eks: ministack, sts: ministack, s3: ministack, '*': moto } });
    return new FaultyAccount(emulators, proxy, await Account.open(proxy.url));
  }

  /** @param like of the same name, by another operation */
  site(like?: Site): Site {
    const site =
      like === undefined ? new Site(this.account, 'both') : new Site(this.account, 'both', undefined, like.ref);
    site.pauseMs = 5;
    return site;
  }

  /** Everything that there is, without any fault in the way. */
  inventory(): Promise<string[]> {
    this.proxy.lift();
    return this.account.inventory({ inside: true });
  }

  /** Put canaries beside what a site is going to make. @returns how many */
  async canaries(site: Site, operationCounts: boolean): Promise<number> {
    this.proxy.lift();
    return releaseCanaries(await this.account.aws(), await this.ownerOf(site), operationCounts);
  }

  async ownerOf(site: Site): Promise<Owner> {
    const installation = await this.account.parts.catalog.installation();
    return { ...site.ref, installation, operation: site.operation };
  }

  /** The changing calls since the log was emptied, in order. */
  points(): Point[] {
    const seen = new Map<string, number>();
    return this.proxy.log.filter(changesSomething).map(({ service, operation }) => {
      const name = `${service}:${operation}`;
      const nth = seen.get(name) ?? 0;
      seen.set(name, nth + 1);
      return { service, operation, nth };
    });
  }

  async close(): Promise<void> {
    await this.account.close();
    await this.proxy.close();
    await this.#emulators.stop();
  }
}

/** Operations that change something. */
export const CHANGES = /^(?!Describe|List|Get|Head)/;

/** Operations whose results the proxy can hide for a while. */
export const CREATES = [...Object.keys(CREATIONS), 'CreateCluster', 'CreateNodegroup', 'CreateAddon'];

/** A few of them, the same for the same seed. */
export function sampled<T>(items: readonly T[], count: number, seed: number): T[] {
  const random = mulberry32(seed);
  const left = [...items];
  return Array.from({ length: Math.min(count, left.length) }, () => left.splice(random() * left.length, 1)).flat();
}

function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

function changesSomething({ operation }: LoggedCall): boolean {
  return CHANGES.test(operation);
}

/** How many more there are of each kind than before. */
export function more(before: readonly string[], after: readonly string[]): Record<string, number> {
  const old = countsOf(before);
  const kinds = Object.entries(countsOf(after)).map(([kind, count]) => [kind, count - (old[kind] ?? 0)] as const);
  return Object.fromEntries(kinds.filter(([, count]) => count !== 0));
}
