/** The SDK's client as every request to the store uses it. */
import { S3Client, S3ServiceException } from '@aws-sdk/client-s3';
import { deleteBy, type DeleteIdentity } from './delete-identity.ts';

export interface ClientOptions {
  readonly region: string;
  readonly endpoint?: string | undefined;
  readonly forcePathStyle: boolean;
  /** Certificates of the authorities that are trusted, in PEM; default: those that Node trusts. */
  readonly ca?: readonly string[] | undefined;
  /** Who deletes, where that is somebody else. */
  readonly deleteIdentity?: DeleteIdentity | undefined;
  /** Whose connections are used on. */
  readonly before?: S3Client;
}

/** Milliseconds without a byte after which a connection is given up; putting many parts together takes a while. */
const IDLE_TIMEOUT = 60_000;

export function buildClient({ deleteIdentity, ...options }: ClientOptions): S3Client {
  const client = buildOne(options);
  if (deleteIdentity !== undefined) deleteBy(client, buildOne({ ...options, before: client }, deleteIdentity));
  return client;
}

function buildOne(
  { region, endpoint, forcePathStyle, ca, before }: Omit<ClientOptions, 'deleteIdentity'>,
  credentials?: DeleteIdentity,
): S3Client {
  const client = new S3Client({
    region,
    ...(credentials !== undefined && { credentials }),
    forcePathStyle,
    ...(endpoint !== undefined && { endpoint }),
    maxAttempts: 3,
    // Several S3-compatible stores refuse checksums that the SDK adds unasked; ours are explicit.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler: before?.config.requestHandler ?? {
      // A store that never sends `100 Continue` costs seconds per part.
      expectContinue: false,
      connectionTimeout: 5000,
      // Of idling: the SDK's `requestTimeout` is of the whole request, however large, and by default only warns.
      socketTimeout: IDLE_TIMEOUT,
      ...(ca !== undefined && { httpsAgent: { ca: [...ca], keepAlive: true, maxSockets: 50 } }),
    },
  });
  // Otherwise the SDK hashes each part with SHA-256 to sign it, about 0.5 CPU seconds a gigabyte; the part's CRC32
  // is checked by the store and TLS or the loopback guards the way.
  client.middlewareStack.add(
    (next) => (args) => {
      const { request } = args as { request?: { headers?: Record<string, string>; query?: Record<string, unknown> } };
      if (request?.headers !== undefined && request.query?.['partNumber'] !== undefined) {
        request.headers['x-amz-content-sha256'] = 'UNSIGNED-PAYLOAD';
      }
      return next(args);
    },
    { step: 'build', name: 'unsignedPartPayload', priority: 'low' },
  );
  return client;
}

const STALE = new Set([
  'ExpiredToken',
  'ExpiredTokenException',
  'TokenRefreshRequired',
  'InvalidToken',
  'InvalidAccessKeyId',
  'SignatureDoesNotMatch',
]);

/** Whether credentials may have been exchanged since the client took them. An answer to HEAD has no name to tell by. */
export function isStale(error: unknown): boolean {
  if (!(error instanceof S3ServiceException)) return false;
  const status = error.$metadata.httpStatusCode ?? 0;
  const isNameless = /^(\d+|BadRequest|Forbidden|Unknown|UnknownError)$/.test(error.name);
  return STALE.has(error.name) || (isNameless && (status === 400 || status === 403));
}
