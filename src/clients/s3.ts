/** S3, as far as backups use it: small JSON records with conditional writes, multipart uploads, presigned reads. */
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  ListPartsCommand,
  PutObjectCommand,
  type S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { createHash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import { FleetError } from '../domain/errors.ts';
import { jsonProblem, SMALL_JSON, type JsonBounds } from '../domain/json-bounds.ts';
import { BackupMac } from './backup-mac.ts';
import { PartStream, putPart, type Signing } from './part-upload.ts';
import type { DeleteIdentity } from './delete-identity.ts';
import { buildClient, isStale } from './s3-client.ts';
import {
  isConflict,
  isMissing,
  isPrecondition,
  mapError,
  nameOf,
  refusesBatches,
  refusesChecksums,
} from './s3-errors.ts';

export interface StoreOptions {
  readonly bucket: string;
  readonly region: string;
  /** For stores other than AWS. */
  readonly endpoint?: string;
  /** The store's address as Qdrant nodes see it, for presigned reads; default: `endpoint`. */
  readonly nodeEndpoint?: string;
  readonly forcePathStyle: boolean;
  /** Certificates of the authorities that are trusted, in PEM; default: those that Node trusts. */
  readonly ca?: readonly string[];
  /** Who deletes what is no lease; default: who reads and writes. */
  readonly deleteIdentity?: DeleteIdentity;
  /** Signs and checks what is written about backups; default: nothing is signed. */
  readonly mac?: BackupMac;
}

/** An object's body and what conditional writes need. */
export interface StoredText {
  readonly text: string;
  readonly etag: string;
  /** The store's clock when it answered, milliseconds since the epoch. */
  readonly storeTime: number;
}

/** The same, parsed. */
export interface StoredJson extends StoredText {
  readonly body: unknown;
}

export interface UploadedPart {
  readonly partNumber: number;
  readonly etag: string;
  readonly size: number;
  /** Base64. */
  readonly crc32: string;
}

/** A part that is sent while it is read. */
export interface StreamedPart {
  /** Send a chunk; it must not be changed before `sent` is called. */
  write(bytes: Buffer, sent: () => void): void;
  /** @returns `undefined` for anything but success: who has the bytes sends them again */
  end(crc32: string): Promise<UploadedPart | undefined>;
}

export interface OpenUpload {
  readonly key: string;
  readonly uploadId: string;
  readonly initiated: Date;
}

/** Condition of a write: the key must be absent, or still have this ETag. */
export type WriteCondition = { readonly absent: true } | { readonly etag: string };

/** What became of a conditional write. */
export type WriteOutcome = 'written' | 'refused';

/** Times that a conditional write is sent while others of the same key are under way; about 6 s altogether. */
const CONFLICT_ATTEMPTS = 8;
/** Reasons for which a store keeps one object of many, that pass. */
const PASSING: ReadonlySet<string> = new Set(['InternalError', 'SlowDown', 'ServiceUnavailable', 'RequestTimeout']);
/** Objects that are deleted side by side where the store takes one at a time. */
const DELETE_LANES = 8;

export class BackupStore {
  readonly bucket: string;
  readonly mac: BackupMac;
  readonly #options: StoreOptions;
  #client: S3Client;
  #signer: S3Client;
  /** Parts in a row that the store refused the short way and took from the SDK; after some there is no short way. */
  #refusals = 0;
  #trailers = true;
  /** False once the store has refused checksum headers; Content-MD5 and our own SHA-256 guard the bytes then. */
  #sums = true;
  /** False once the store has refused to delete many objects in one request. */
  #batches = true;

  /** @param beside a store whose connections are used, too */
  constructor(options: StoreOptions, beside?: BackupStore) {
    this.bucket = options.bucket;
    this.mac = options.mac ?? new BackupMac();
    this.#options = options;
    this.#client = buildClient({ ...options, ...(beside !== undefined && { before: beside.#client }) });
    this.#signer = this.#buildSigner();
  }

  /** @throws FleetError `StoreDenied` or `StoreUnavailable` when the bucket cannot be used */
  async check(signal?: AbortSignal): Promise<void> {
    await this.#call(`use bucket "${this.bucket}"`, () =>
      this.#client.send(new HeadBucketCommand({ Bucket: this.bucket }), abort(signal)),
    );
  }

  /** False when there is no such bucket. @throws FleetError `StoreDenied` or `StoreUnavailable` when that cannot be told */
  async bucketExists(): Promise<boolean> {
    try {
      await this.#ask('look for the bucket', () => this.#client.send(new HeadBucketCommand({ Bucket: this.bucket })));
      return true;
    } catch (error) {
      if (isMissing(error)) return false;
      throw error;
    }
  }

  /**
   * Read a JSON object.
   *
   * @param bounds what it may hold
   * @throws FleetError `IntegrityMismatch` when it is larger or no JSON
   */
  async getJson(key: string, bounds: JsonBounds = SMALL_JSON): Promise<StoredJson | undefined> {
    const found = await this.getText(key, bounds.bytes);
    return found && { ...found, body: parseJson(found.text, key, bounds.values) };
  }

  /**
   * Read an object as text, for callers who prove it before anything parses it.
   *
   * @param limit bytes that it may have
   * @throws FleetError `IntegrityMismatch` when it is larger
   */
  async getText(key: string, limit: number): Promise<StoredText | undefined> {
    try {
      return await this.#ask(`read ${key}`, () => this.#withSums((sums) => this.#readText(key, limit, sums)));
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  async #readText(key: string, limit: number, sums: boolean): Promise<StoredText> {
    let storeTime = Number.NaN;
    // They are written with a CRC32; what was altered on its way back is noticed by it.
    const command = new GetObjectCommand({ Bucket: this.bucket, Key: key, ...(sums && { ChecksumMode: 'ENABLED' }) });
    command.middlewareStack.add(
      (next) => async (args) => {
        const result = await next(args);
        const { headers } = result.response as { headers?: Record<string, string> };
        storeTime = Date.parse(headers?.['date'] ?? '');
        return result;
      },
      { step: 'deserialize', name: 'storeClock' },
    );
    const answer = await this.#client.send(command);
    const text = await textOf(answer.Body as AsyncIterable<Uint8Array> | undefined, key, limit);
    return { text, etag: answer.ETag ?? '', storeTime };
  }

  /** Write a JSON object, whatever was there. */
  async putJson(key: string, text: string): Promise<void> {
    await this.#call(`write ${key}`, () => this.#put(key, text));
  }

  /**
   * Write a JSON object under a condition.
   *
   * @returns `refused` when the condition did not hold: the key holds what somebody else wrote, or what an earlier try
   *   of this very write did, whose answer was lost. The caller has to look which.
   * @throws FleetError `StoreUnavailable` when other writes of the key never let this one through
   */
  async putIf(key: string, text: string, condition: WriteCondition): Promise<WriteOutcome> {
    try {
      await this.#decided(`write ${key}`, () => this.#put(key, text, condition));
      return 'written';
    } catch (error) {
      const isGone = 'etag' in condition && isMissing(error) && nameOf(error) !== 'NoSuchBucket';
      if (isPrecondition(error) || isGone) return 'refused';
      throw mapError(error, `write ${key}`, this.bucket);
    }
  }

  async #put(key: string, text: string, condition?: WriteCondition): Promise<void> {
    await this.#withSums((sums) =>
      this.#client.send(
        new PutObjectCommand({
          Bucket: this.bucket,
          Key: key,
          Body: text,
          ContentType: 'application/json',
          ...(sums ? { ChecksumAlgorithm: 'CRC32' as const } : { ContentMD5: md5(text) }),
          ...(condition !== undefined && ('etag' in condition ? { IfMatch: condition.etag } : { IfNoneMatch: '*' })),
        }),
      ),
    );
  }

  /** Write an object of some MiB at most; the store checks its CRC32. */
  async putBytes(key: string, body: Buffer): Promise<void> {
    await this.#call(`write ${key}`, () =>
      this.#withSums((sums) =>
        this.#client.send(
          new PutObjectCommand({
            Bucket: this.bucket,
            Key: key,
            Body: body,
            ...(sums ? { ChecksumAlgorithm: 'CRC32' as const } : { ContentMD5: md5(body) }),
          }),
        ),
      ),
    );
  }

  /** Objects below a prefix, all pages. */
  async *list(prefix: string): AsyncGenerator<{ key: string; size: number; modified: Date }> {
    for await (const { Contents } of this.#pages(prefix)) {
      for (const { Key, Size, LastModified } of Contents ?? []) {
        if (Key !== undefined) yield { key: Key, size: Size ?? 0, modified: LastModified ?? new Date(0) };
      }
    }
  }

  /** First-level "folders" below a prefix that ends in `/`. */
  async *folders(prefix: string): AsyncGenerator<string> {
    for await (const { CommonPrefixes } of this.#pages(prefix, '/')) {
      for (const { Prefix } of CommonPrefixes ?? []) {
        if (Prefix !== undefined) yield Prefix.slice(prefix.length).replace(/\/$/, '');
      }
    }
  }

  async *#pages(prefix: string, delimiter?: string) {
    let token: string | undefined;
    do {
      const page = await this.#call(`list ${prefix}`, () =>
        this.#client.send(
          new ListObjectsV2Command({
            Bucket: this.bucket,
            Prefix: prefix,
            ...(delimiter !== undefined && { Delimiter: delimiter }),
            ...(token !== undefined && { ContinuationToken: token }),
          }),
        ),
      );
      yield page;
      token = page.IsTruncated === true ? page.NextContinuationToken : undefined;
    } while (token !== undefined);
  }

  /**
   * Delete keys in order, 1,000 at a time, as S3 takes them; one at a time where the store takes no more.
   *
   * @throws FleetError when the store kept any of them
   */
  async deleteKeys(keys: readonly string[]): Promise<void> {
    for (let at = 0; at < keys.length; at += 1000) {
      const some = keys.slice(at, at + 1000);
      if (!this.#batches || !(await this.#deleteAtOnce(some))) await this.#deleteSingly(some);
    }
  }

  /** @returns false when the store knows no such request */
  async #deleteAtOnce(keys: readonly string[]): Promise<boolean> {
    const what = `delete ${keys.length} objects`;
    try {
      const answer = await this.#send(() =>
        this.#client.send(
          new DeleteObjectsCommand({
            Bucket: this.bucket,
            Delete: { Objects: keys.map((Key) => ({ Key })), Quiet: true },
            ChecksumAlgorithm: 'CRC32',
          }),
        ),
      );
      const [first] = answer.Errors ?? [];
      if (first === undefined) return true;
      throw new FleetError(
        first.Code !== undefined && PASSING.has(first.Code) ? 'StoreUnavailable' : 'StoreDenied',
        `The store kept ${answer.Errors?.length} of ${keys.length} objects, first ${first.Key}: ${first.Code}.`,
      );
    } catch (error) {
      if (!refusesBatches(error)) throw mapError(error, what, this.bucket);
      return false;
    }
  }

  async #deleteSingly(keys: readonly string[]): Promise<void> {
    const rest = [...keys].reverse();
    const lane = async (): Promise<void> => {
      for (let key = rest.pop(); key !== undefined; key = rest.pop()) await this.#deleteOne(key);
    };
    await Promise.all(Array.from({ length: DELETE_LANES }, lane));
    this.#batches = false;
  }

  async #deleteOne(key: string): Promise<void> {
    try {
      await this.#ask(`delete ${key}`, () =>
        this.#client.send(new DeleteObjectCommand({ Bucket: this.bucket, Key: key })),
      );
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
  }

  /** Size and, where the store has it, the CRC32 over the whole of an object; `undefined` when there is none. */
  async head(key: string): Promise<{ size: number; crc32: string | undefined } | undefined> {
    try {
      const answer = await this.#ask(`inspect ${key}`, () =>
        this.#withSums((sums) =>
          this.#client.send(
            new HeadObjectCommand({ Bucket: this.bucket, Key: key, ...(sums && { ChecksumMode: 'ENABLED' }) }),
          ),
        ),
      );
      return { size: answer.ContentLength ?? 0, crc32: wholeCrc32(answer) };
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  /** The bytes of an object, or `undefined` when there is none. */
  async read(key: string, signal: AbortSignal): Promise<AsyncIterable<Buffer> | undefined> {
    try {
      const { Body } = await this.#ask(`read ${key}`, () =>
        this.#client.send(new GetObjectCommand({ Bucket: this.bucket, Key: key }), abort(signal)),
      );
      return Body as unknown as AsyncIterable<Buffer>;
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  async createUpload(key: string): Promise<string> {
    const answer = await this.#call(`begin upload of ${key}`, () =>
      this.#withSums((sums) =>
        this.#client.send(
          new CreateMultipartUploadCommand({
            Bucket: this.bucket,
            Key: key,
            ...(sums && { ChecksumAlgorithm: 'CRC32', ChecksumType: 'FULL_OBJECT' }),
          }),
        ),
      ),
    );
    if (answer.UploadId === undefined) throw new FleetError('StoreUnavailable', `No upload id came back for ${key}.`);
    return answer.UploadId;
  }

  /** The store checks `crc32` (base64) before it accepts the part. */
  async uploadPart(
    upload: { key: string; uploadId: string },
    part: { partNumber: number; body: Buffer; crc32: string },
    signal?: AbortSignal,
  ): Promise<UploadedPart> {
    const { partNumber, body, crc32 } = part;
    const short = this.#sums && this.#refusals < 3 ? await this.#putPart(upload, part, signal) : undefined;
    if (typeof short === 'string') {
      this.#refusals = 0;
      return { partNumber, etag: short, size: body.length, crc32 };
    }
    const before = this.#client;
    const answer = await this.#call(`upload part ${partNumber} of ${upload.key}`, () =>
      this.#withSums((sums) =>
        this.#client.send(
          new UploadPartCommand({
            Bucket: this.bucket,
            Key: upload.key,
            UploadId: upload.uploadId,
            PartNumber: partNumber,
            Body: body,
            ContentLength: body.length,
            ...(sums ? { ChecksumCRC32: crc32 } : { ContentMD5: md5(body) }),
          }),
          abort(signal),
        ),
      ),
    );
    // 404: the upload is gone. From 500 on: a moment's trouble. Another client: other credentials.
    if (short !== undefined && short < 500 && short !== 404 && this.#client === before) this.#refusals += 1;
    return { partNumber, etag: answer.ETag ?? '', size: body.length, crc32 };
  }

  /** @returns the ETag, or for anything but success its status, if any: the SDK then sends the part and reads the error */
  async #putPart(
    upload: { key: string; uploadId: string },
    part: { partNumber: number; body: Buffer; crc32: string },
    signal: AbortSignal = new AbortController().signal,
  ): Promise<string | number | undefined> {
    try {
      const { bucket, signing } = await this.#shortWayOf();
      return await putPart({ bucket, ...upload, ...part, ca: this.ca }, signing, signal);
    } catch (error) {
      if (signal.aborted) throw error;
      return undefined;
    }
  }

  /** Authorities that are trusted with the store's name, for requests beside this client; default: Node's. */
  get ca(): readonly string[] | undefined {
    return this.#options.ca;
  }

  /** False once the store has refused a checksum behind the body; parts must then be held to be sent. */
  get takesTrailers(): boolean {
    return this.#trailers && this.#sums;
  }

  /**
   * Begin a part whose CRC32 comes behind it.
   *
   * @param part.chunkSize bytes of all chunks that will be written but the last
   * @param part.isRepeat it was refused before, by a store that was otherwise well: if it is now, trailers are
   * @returns `undefined` when the store takes none
   */
  async streamPart(
    upload: { key: string; uploadId: string },
    part: { partNumber: number; size: number; chunkSize: number; isRepeat?: boolean },
    signal: AbortSignal,
  ): Promise<StreamedPart | undefined> {
    if (!this.takesTrailers) return undefined;
    const { bucket, signing } = await this.#shortWayOf();
    signal.throwIfAborted();
    const stream = new PartStream({ bucket, ...upload, ...part, ca: this.ca }, signing, signal);
    const { partNumber, size, isRepeat = false } = part;
    return {
      write: (bytes, sent) => stream.write(bytes, sent),
      end: async (crc32) => {
        const outcome = await stream.end(crc32);
        if (typeof outcome === 'string') return { partNumber, etag: outcome, size, crc32 };
        if (isRepeat && outcome !== undefined && outcome < 500 && outcome !== 404) this.#trailers = false;
        return undefined;
      },
    };
  }

  /** What a request of our own needs: the bucket's address, and the credentials of the moment. */
  async #shortWayOf(): Promise<{ bucket: URL; signing: Signing }> {
    const { config } = this.#client;
    const { endpoint } = this.#options;
    const [region, credentials] = await Promise.all([config.region(), config.credentials()]);
    const { url } = config.endpointProvider({
      Bucket: this.bucket,
      Region: region,
      ForcePathStyle: config.forcePathStyle === true,
      ...(endpoint !== undefined && { Endpoint: endpoint }),
    });
    return { bucket: url, signing: { region, ...credentials } };
  }

  /** Parts that the store holds of an upload, or `undefined` when it knows no such upload. */
  async listParts({ key, uploadId }: { key: string; uploadId: string }): Promise<UploadedPart[] | undefined> {
    const parts: UploadedPart[] = [];
    let marker: string | undefined;
    try {
      do {
        const page = await this.#ask(`list parts of ${key}`, () =>
          this.#client.send(
            new ListPartsCommand({
              Bucket: this.bucket,
              Key: key,
              UploadId: uploadId,
              ...(marker !== undefined && { PartNumberMarker: marker }),
            }),
          ),
        );
        for (const { PartNumber, ETag, Size, ChecksumCRC32 } of page.Parts ?? []) {
          parts.push({ partNumber: PartNumber ?? 0, etag: ETag ?? '', size: Size ?? 0, crc32: ChecksumCRC32 ?? '' });
        }
        marker = page.IsTruncated === true ? page.NextPartNumberMarker : undefined;
      } while (marker !== undefined);
      return parts;
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  /**
   * Put the parts together.
   *
   * @returns the store's CRC32 over the whole, where it has one, or `undefined` when the key exists already
   * @throws FleetError `StoreUnavailable` when another write of the key kept this one out; the upload is gone then, and
   *   has to be begun anew
   */
  async completeUpload(
    { key, uploadId }: { key: string; uploadId: string },
    parts: readonly UploadedPart[],
    size: number,
  ): Promise<{ crc32: string | undefined } | undefined> {
    const send = (sums: boolean) =>
      this.#client.send(
        new CompleteMultipartUploadCommand({
          Bucket: this.bucket,
          Key: key,
          UploadId: uploadId,
          IfNoneMatch: '*',
          MpuObjectSize: size,
          ...(sums && { ChecksumType: 'FULL_OBJECT' }),
          MultipartUpload: {
            Parts: parts.map(({ partNumber, etag, crc32 }) => ({
              PartNumber: partNumber,
              ETag: etag,
              ...(sums && { ChecksumCRC32: crc32 }),
            })),
          },
        }),
      );
    try {
      return { crc32: wholeCrc32(await this.#decided(`complete upload of ${key}`, () => this.#withSums(send))) };
    } catch (error) {
      if (isPrecondition(error)) return undefined;
      // S3 wants a new upload after a conflict; one that would be taken up again could meet it for ever.
      if (FleetError.is(error) && isConflict(error.cause)) await this.abortUpload({ key, uploadId });
      // Completed, and the answer was lost, or aborted: who looks again sees which.
      throw mapError(error, `complete upload of ${key}`, this.bucket);
    }
  }

  /** Succeeds when the upload is gone already. */
  async abortUpload({ key, uploadId }: { key: string; uploadId: string }): Promise<void> {
    try {
      await this.#ask(`abort upload of ${key}`, () =>
        this.#client.send(new AbortMultipartUploadCommand({ Bucket: this.bucket, Key: key, UploadId: uploadId })),
      );
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
  }

  /** Uploads begun and neither completed nor aborted, below a prefix. */
  async openUploads(prefix: string): Promise<OpenUpload[]> {
    const uploads: OpenUpload[] = [];
    let keyMarker: string | undefined;
    let idMarker: string | undefined;
    do {
      const page = await this.#call(`list uploads below ${prefix}`, () =>
        this.#client.send(
          new ListMultipartUploadsCommand({
            Bucket: this.bucket,
            Prefix: prefix,
            ...(keyMarker !== undefined && { KeyMarker: keyMarker }),
            ...(idMarker !== undefined && { UploadIdMarker: idMarker }),
          }),
        ),
      );
      for (const { Key, UploadId, Initiated } of page.Uploads ?? []) {
        // Not every store filters by prefix.
        if (Key?.startsWith(prefix) === true && UploadId !== undefined) {
          uploads.push({ key: Key, uploadId: UploadId, initiated: Initiated ?? new Date(0) });
        }
      }
      keyMarker = page.IsTruncated === true ? page.NextKeyMarker : undefined;
      idMarker = page.IsTruncated === true ? page.NextUploadIdMarker : undefined;
    } while (keyMarker !== undefined);
    return uploads;
  }

  /** A URL by which a node reads one object. It is a secret while it lives: never log or return it. */
  presignRead(key: string, seconds: number): Promise<string> {
    return this.#presignRead(this.#signer, key, seconds);
  }

  /** The same for this process, which may know the store by another address than the nodes. */
  presignOwnRead(key: string, seconds: number): Promise<string> {
    return this.#presignRead(this.#client, key, seconds);
  }

  #presignRead(signer: S3Client, key: string, seconds: number): Promise<string> {
    return getSignedUrl(
      signer as Parameters<typeof getSignedUrl>[0],
      new GetObjectCommand({ Bucket: this.bucket, Key: key }) as unknown as Parameters<typeof getSignedUrl>[1],
      { expiresIn: seconds },
    );
  }

  close(): void {
    this.#client.destroy();
    this.#signer.destroy();
  }

  /** For callers to whom a missing key or a condition that does not hold is an answer. */
  async #ask<T>(what: string, send: () => Promise<T>): Promise<T> {
    try {
      return await this.#send(send);
    } catch (error) {
      const isAnswer =
        isPrecondition(error) || isConflict(error) || (isMissing(error) && nameOf(error) !== 'NoSuchBucket');
      throw isAnswer ? error : mapError(error, what, this.bucket);
    }
  }

  /** Send a conditional write until the store says whether its condition holds. */
  async #decided<T>(what: string, send: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#ask(what, send);
      } catch (error) {
        if (!isConflict(error)) throw error;
        if (attempt === CONFLICT_ATTEMPTS) {
          throw new FleetError(
            'StoreUnavailable',
            `The store answered ${attempt} times 409 ${nameOf(error)} when asked to ${what}: another write of the same key is under way. It is tried again.`,
            { cause: error },
          );
        }
        await delay(Math.min(2000, 50 * 2 ** attempt) * (0.5 + Math.random() / 2));
      }
    }
  }

  /** A request with checksums that the store verifies; without them where it takes none. */
  async #withSums<T>(send: (sums: boolean) => Promise<T>): Promise<T> {
    if (!this.#sums) return send(false);
    try {
      return await send(true);
    } catch (error) {
      if (!refusesChecksums(error)) throw error;
      try {
        const answer = await send(false);
        this.#sums = false;
        return answer;
      } catch (second) {
        if (isMissing(second) || isPrecondition(second)) this.#sums = false;
        // Without checksums it is refused in the same way: they were not the reason.
        throw refusesChecksums(second) ? error : second;
      }
    }
  }

  async #call<T>(what: string, send: () => Promise<T>): Promise<T> {
    try {
      return await this.#send(send);
    } catch (error) {
      throw mapError(error, what, this.bucket);
    }
  }

  /** Credentials that have expired are taken anew from where they come from, once. */
  async #send<T>(send: () => Promise<T>): Promise<T> {
    const used = this.#client;
    try {
      return await send();
    } catch (error) {
      if (!isStale(error)) throw error;
      // The SDK's own client keeps for good what has no date of expiry.
      if (this.#client === used) {
        this.#client = buildClient({ ...this.#options, before: used });
        this.#signer = this.#buildSigner();
      }
      return await send();
    }
  }

  #buildSigner(): S3Client {
    const { nodeEndpoint } = this.#options;
    return nodeEndpoint === undefined ? this.#client : buildClient({ ...this.#options, endpoint: nodeEndpoint });
  }
}

function abort(signal: AbortSignal | undefined) {
  return signal === undefined ? {} : { abortSignal: signal };
}

function md5(body: string | Buffer): string {
  return createHash('md5').update(body).digest('base64');
}

/** A checksum of checksums (`COMPOSITE`, written `<base64>-<parts>`) says nothing of the whole. */
function wholeCrc32(answer: {
  ChecksumCRC32?: string | undefined;
  ChecksumType?: string | undefined;
}): string | undefined {
  const { ChecksumCRC32: crc32, ChecksumType: type } = answer;
  return type === 'COMPOSITE' || crc32?.includes('-') === true ? undefined : crc32;
}

async function textOf(body: AsyncIterable<Uint8Array> | undefined, key: string, limit: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body ?? []) {
    size += chunk.length;
    if (size > limit)
      throw new FleetError('IntegrityMismatch', `${key} has more than the ${limit} bytes that it may have.`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** @throws FleetError `IntegrityMismatch` when it is no JSON, or has more values than it may */
export function parseJson(text: string, key: string, values: number): unknown {
  const problem = jsonProblem(text, values);
  if (problem !== undefined) throw new FleetError('IntegrityMismatch', `${key} ${problem}, and was not read.`);
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw new FleetError('IntegrityMismatch', `${key} is no JSON.`, { cause: error });
  }
}
