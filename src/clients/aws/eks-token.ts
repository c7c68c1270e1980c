/** Tokens for EKS' Kubernetes API: a presigned question to STS who its signer is. Made here, without the aws binary. */
import { createHash, createHmac, type Hash, type Hmac } from 'node:crypto';
import { SignatureV4 } from '@smithy/signature-v4';
import type { Aws } from './clients.ts';

/** Kubernetes accepts a token for 15 minutes after its signature. */
export const TOKEN_LIFE_MS = 14 * 60_000;

/** Seconds for which the URL inside is valid at STS; the webhook asks at once. */
const URL_SECONDS = 60;

interface TokenOptions {
  readonly eksCluster: string;
  /** Address of another STS than Amazon's. */
  readonly endpoint?: string | undefined;
  readonly now?: Date;
}

/** `k8s-aws-v1.` and the URL in base64url, as EKS' webhook reads it. Never log it. */
export async function eksToken({ region, sts }: Aws, { eksCluster, endpoint, now = new Date() }: TokenOptions) {
  const url = new URL(endpoint ?? `https://sts.${region}.amazonaws.com`);
  const signer = new SignatureV4({
    service: 'sts',
    region,
    credentials: sts.config.credentials,
    sha256: Sha256,
    applyChecksum: false,
  });
  const signed = await signer.presign(
    {
      method: 'GET',
      protocol: url.protocol,
      hostname: url.hostname,
      ...(url.port !== '' && { port: Number(url.port) }),
      path: '/',
      query: { Action: 'GetCallerIdentity', Version: '2011-06-15' },
      // Binds the token to one cluster.
      headers: { host: url.host, 'x-k8s-aws-id': eksCluster },
    },
    { expiresIn: URL_SECONDS, signingDate: now, unhoistableHeaders: new Set(['x-k8s-aws-id']) },
  );
  const query = Object.entries(signed.query ?? {}).map(
    ([key, value]) => `${encodeURIComponent(key)}=${encodeURIComponent(String(value))}`,
  );
  const presigned = `${url.protocol}//${url.host}/?${query.join('&')}`;
  return `k8s-aws-v1.${Buffer.from(presigned).toString('base64url')}`;
}

/** Node's SHA-256 in the shape that the signer takes. */
class Sha256 {
  #hash: Hash | Hmac;
  readonly #secret: Uint8Array | string | undefined;

  constructor(secret?: ArrayBuffer | ArrayBufferView | string) {
    this.#secret = secret === undefined || typeof secret === 'string' ? secret : bytesOf(secret);
    this.#hash = this.#open();
  }

  update(chunk: Uint8Array): void {
    this.#hash.update(chunk);
  }

  digest(): Promise<Uint8Array> {
    return Promise.resolve(this.#hash.digest());
  }

  reset(): void {
    this.#hash = this.#open();
  }

  #open(): Hash | Hmac {
    return this.#secret === undefined ? createHash('sha256') : createHmac('sha256', this.#secret);
  }
}

function bytesOf(data: ArrayBuffer | ArrayBufferView): Uint8Array {
  return ArrayBuffer.isView(data)
    ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    : new Uint8Array(data);
}
