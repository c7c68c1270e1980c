/** Buckets that the emulator has and the local store, too: there the Qdrant nodes reach what is in them. */
import { S3, S3ServiceException } from '@aws-sdk/client-s3';
import { errorAnswer } from './answers.ts';
import type { Answer, AwsCall, Layer } from './call.ts';

/** An S3 of one region that holds objects. */
export interface BucketStore {
  readonly endpoint: string;
  readonly region: string;
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string };
}

/**
 * The emulator knows a bucket's settings, and the local store, which has few of them, its objects. A bucket is made and
 * removed in both, and what is in it is asked of the store.
 */
export class BucketLayer implements Layer {
  readonly #s3: S3;

  constructor(store: BucketStore) {
    this.#s3 = new S3({ ...store, forcePathStyle: true });
  }

  close(): void {
    this.#s3.destroy();
  }

  async handle(call: AwsCall, next: () => Promise<Answer>): Promise<Answer> {
    const { service, operation, resource: Bucket } = call;
    if (service !== 's3' || Bucket === undefined) return next();
    if (operation === 'CreateBucket') {
      const answer = await next();
      // It may have been made before: the emulator forgets all when it stops, the store does not.
      if (answer.status === 200) await unless(/^BucketAlready/, () => this.#s3.createBucket({ Bucket }));
      return answer;
    }
    if (operation === 'DeleteBucket') {
      if ((await this.#keys(Bucket)).length > 0) {
        return errorAnswer(call, 409, 'BucketNotEmpty', 'The bucket you tried to delete is not empty');
      }
      await unless(/^NoSuchBucket$/, () => this.#s3.deleteBucket({ Bucket }));
      return next();
    }
    if (operation === 'ListObjectVersions') {
      const keys = await this.#keys(Bucket);
      return keys.length > 0 ? versions(keys) : next();
    }
    return next();
  }

  /** One key, if there is any. */
  async #keys(Bucket: string): Promise<string[]> {
    const found = await unless(/^NoSuchBucket$/, () => this.#s3.listObjectsV2({ Bucket, MaxKeys: 1 }));
    return (found?.Contents ?? []).flatMap(({ Key }) => (Key === undefined ? [] : [encodeURIComponent(Key)]));
  }
}

async function unless<T>(expected: RegExp, send: () => Promise<T>): Promise<T | undefined> {
  try {
    return await send();
  } catch (error) {
    if (error instanceof S3ServiceException && expected.test(error.name)) return undefined;
    throw error;
  }
}

function versions(keys: readonly string[]): Answer {
  const found = keys.map((key) => `<Version><Key>${key}</Key><VersionId>null</VersionId></Version>`).join('');
  const body = `<ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${found}</ListVersionsResult>`;
  return { status: 200, headers: { 'content-type': 'application/xml' }, body };
}
