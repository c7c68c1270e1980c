/** What a store's refusal means: another try, an answer to a question, or the end. */
import { S3ServiceException } from '@aws-sdk/client-s3';
import { FleetError, messageOf } from '../domain/errors.ts';

const DENIED = new Set([
  'AccessDenied',
  'InvalidAccessKeyId',
  'SignatureDoesNotMatch',
  'ExpiredToken',
  'InvalidToken',
  'NoSuchBucket',
  'PermanentRedirect',
  'CredentialsProviderError',
  'Forbidden',
]);

/** The error of a request, as a FleetError. */
export function mapError(error: unknown, what: string, bucket: string): unknown {
  if (FleetError.is(error) || (error instanceof Error && error.name === 'AbortError')) return error;
  const status = statusOf(error);
  const name = nameOf(error);
  // A bucket that is asked for by HEAD is missing without a name.
  const noBucket = status === 404 && what.startsWith('use bucket');
  if (DENIED.has(name) || status === 401 || status === 403 || noBucket) {
    const text = `The store did not let us ${what}: ${name} (bucket "${bucket}"). Check the bucket's name, the credentials and their policy.`;
    return new FleetError('StoreDenied', text, { cause: error });
  }
  const text = `The store did not answer when asked to ${what}: ${status ?? ''} ${name}: ${messageOf(error)}`;
  return new FleetError('StoreUnavailable', text.replaceAll(/\s+/g, ' '), { cause: error });
}

function statusOf(error: unknown): number | undefined {
  return error instanceof S3ServiceException ? error.$metadata.httpStatusCode : undefined;
}

export function nameOf(error: unknown): string {
  return error instanceof Error ? error.name : 'unknown error';
}

export function isMissing(error: unknown): boolean {
  return statusOf(error) === 404 || ['NoSuchKey', 'NotFound', 'NoSuchUpload'].includes(nameOf(error));
}

/** The condition of a write does not hold: somebody else has written the key. */
export function isPrecondition(error: unknown): boolean {
  return statusOf(error) === 412 || nameOf(error) === 'PreconditionFailed';
}

/**
 * Another write of the same key was under way. It decides nothing: the write has to be tried again.
 *
 * Source: Amazon S3 API reference, `ConditionalRequestConflict` (409) and `OperationAborted` (409).
 */
export function isConflict(error: unknown): boolean {
  return statusOf(error) === 409 && ['ConditionalRequestConflict', 'OperationAborted'].includes(nameOf(error));
}

const NO_VERDICT = new Set(['RequestTimeout', 'IncompleteBody', 'BadDigest', 'SlowDown', 'XAmzContentSHA256Mismatch']);

/** Whether a store cannot delete many objects in one request, or wants another guard of the body than ours. */
export function refusesBatches(error: unknown): boolean {
  const status = statusOf(error) ?? 0;
  const name = nameOf(error);
  if (DENIED.has(name) || NO_VERDICT.has(name)) return false;
  return [400, 405, 411, 415, 422, 501].includes(status);
}

/** Whether a store may have refused a request for its checksum headers. */
export function refusesChecksums(error: unknown): boolean {
  const status = statusOf(error);
  const name = nameOf(error);
  if (status === 501) return true;
  // The answer to a HEAD has no name.
  return (
    status === 400 && ['InvalidArgument', 'InvalidRequest', 'NotImplemented', 'Unknown', 'UnknownError'].includes(name)
  );
}
