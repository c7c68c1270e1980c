/** The fleet's bucket, and those that clusters have of their own. */
import type { BucketRef, InBucket } from '../domain/naming.ts';
import { BackupStore, type StoreOptions } from './s3.ts';

/** Buckets of clusters whose clients are kept; the one that was asked for least recently goes. */
const MOST_STORES = 256;

export class BackupStores {
  /** The fleet's. */
  readonly fleet: BackupStore;
  readonly #options: StoreOptions;
  readonly #others = new Map<string, BackupStore>();

  /** @param options of the fleet's bucket */
  constructor(options: StoreOptions) {
    this.#options = options;
    this.fleet = new BackupStore(options);
  }

  /** The store of what is in a bucket; the fleet's where none is named. */
  of({ bucket }: InBucket): BackupStore {
    if (bucket === undefined) return this.fleet;
    const key = `${bucket.region}/${bucket.name}`;
    const known = this.#others.get(key);
    if (known !== undefined) {
      this.#keep(key, known);
      return known;
    }
    const store = new BackupStore(
      { ...this.#options, bucket: bucket.name, region: this.#regionOf(bucket) },
      this.fleet,
    );
    this.#keep(key, store);
    return store;
  }

  #keep(key: string, store: BackupStore): void {
    this.#others.delete(key);
    this.#others.set(key, store);
    const [oldest] = this.#others;
    if (oldest === undefined || this.#others.size <= MOST_STORES) return;
    this.#others.delete(oldest[0]);
    oldest[1].close();
  }

  close(): void {
    for (const store of [this.fleet, ...this.#others.values()]) store.close();
  }

  /** An address of one's own is one place with one region, whatever the cluster's is on AWS. */
  #regionOf({ region }: BucketRef): string {
    return this.#options.endpoint === undefined ? region : this.#options.region;
  }
}
