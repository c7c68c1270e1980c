/** AWS' errors, mapped once: which quota, which permission, which zone. */
import { quotaAdvice } from '../../domain/aws-quotas.ts';
import { FleetError, messageOf } from '../../domain/errors.ts';

const QUOTA_ERRORS = /LimitExceeded(?:Exception|Fault)?$|^TooManyBuckets$/;
const DENIED = /^(?:AccessDenied|UnauthorizedOperation|NotAuthorized)|^Forbidden$/;
/** Also what a region answers that the account has not been opened for. */
const CREDENTIALS =
  /^(?:ExpiredToken|InvalidClientTokenId|UnrecognizedClient|CredentialsProviderError|SignatureDoesNotMatch|AuthFailure|OptInRequired)/;
const THROTTLED = /^(?:Throttling|ThrottledException|RequestLimitExceeded|TooManyRequests|SlowDown|RequestThrottled)/;
const CAPACITY =
  /^(?:InsufficientInstanceCapacity|InsufficientHostCapacity|InsufficientAddressCapacity|UnsupportedAvailabilityZone|InsufficientFreeAddresses)/;
/** Passes with time: AWS' own words for "an earlier change has not settled yet". */
const UNSETTLED =
  /^(?:ConcurrentModification|OperationAborted|IncorrectState$|ServiceUnavailable|InternalError|InternalFailure|RequestTimeout)/;
const NOT_FOUND =
  /NotFound(?:Exception)?$|^NoSuch(?:Entity|Bucket|LifecycleConfiguration|TagSet)|\.NotFound$|^NotFound$/;
const EXISTS =
  /^(?:EntityAlreadyExists|ResourceInUse|ResourceAlreadyAssociated|Resource\.AlreadyAssociated|RouteAlreadyExists|BucketAlreadyOwnedByYou|BucketAlreadyExists|InvalidLaunchTemplateName\.AlreadyExists|InvalidSubnet\.Conflict)|\.AlreadyExists/;

/** AWS' name of an error, such as `InvalidVpcID.NotFound`. */
export function awsErrorName(error: unknown): string {
  for (let at = error; at instanceof Error; at = at.cause) {
    if (at.name !== 'FleetError') return at.name;
  }
  return '';
}

export function isNotFound(error: unknown): boolean {
  return NOT_FOUND.test(awsErrorName(error));
}

/** Something of that name is there already, whoever made it. */
export function isExisting(error: unknown): boolean {
  return EXISTS.test(awsErrorName(error));
}

/** AWS answered that it did nothing. Without an answer, or after a fault of its own, nobody knows. */
export function isRefusal(error: unknown): boolean {
  const status = statusOf(FleetError.is(error) ? error.cause : error);
  return THROTTLED.test(awsErrorName(error)) || (status !== undefined && status >= 400 && status < 500);
}

function statusOf(error: unknown): number | undefined {
  return (error as { $metadata?: { httpStatusCode?: number } } | undefined)?.$metadata?.httpStatusCode;
}

/** Turned away unread, since there were too many calls: nothing has happened. */
export function isThrottled(error: unknown): boolean {
  return THROTTLED.test(awsErrorName(error)) || statusOf(error) === 429;
}

/** A resource cannot go because another one uses it. */
export function isInUse(error: unknown): boolean {
  return /^(?:DependencyViolation|DeleteConflict|ResourceInUse|BucketNotEmpty|InvalidIPAddress\.InUse|InvalidNetworkInterface\.InUse|InvalidGroup\.InUse|VolumeInUse)/.test(
    awsErrorName(error),
  );
}

/** EKS does not see yet what EC2 or IAM have just made, and takes it for a mistake of the caller's. */
export function isUnseen(error: unknown): boolean {
  return (
    /^(?:InvalidParameter|InvalidRequest|Client|ResourceNotFound)Exception$/.test(awsErrorName(error)) &&
    /do(?:es)?(?: no|n')t exist|not found|could not be assumed|role params|Managed Policies/i.test(messageOf(error))
  );
}

/** @param action in IAM's words, such as `ec2:CreateVpc` */
export function mapAwsError(error: unknown, action: string): FleetError {
  if (FleetError.is(error)) return error;
  const name = error instanceof Error ? error.name : 'Error';
  const status = statusOf(error);
  const answer = `AWS answered ${name} to ${action}: ${clean(messageOf(error))}`;
  const as = (code: ConstructorParameters<typeof FleetError>[0], text = answer) =>
    new FleetError(code, text, { cause: error });
  if (DENIED.test(name)) {
    return as(
      'CloudDenied',
      `${answer} The role that the worker runs as lacks the permission ${permissionOf(error, action)}; docs/iam has its whole policy.`,
    );
  }
  if (CREDENTIALS.test(name)) {
    return as(
      'CloudDenied',
      `${answer} Check the worker's AWS credentials, and whether the account has been opened for the region.`,
    );
  }
  if (isThrottled(error)) return as('CloudUnavailable');
  if (QUOTA_ERRORS.test(name)) return as('CloudQuotaReached', `${answer} ${quotaAdvice(name, action)}`);
  if (CAPACITY.test(name))
    return as('CapacityUnavailable', `${answer} Choose another instance type or other "aws.availabilityZones".`);
  if (UNSETTLED.test(name) || status === undefined || status >= 500) {
    return as(
      'CloudUnavailable',
      status === undefined && !UNSETTLED.test(name) ? `AWS did not answer ${action}: ${messageOf(error)}` : answer,
    );
  }
  return as('CloudRejected');
}

/** Where IAM calls an action otherwise than the API does (Service Authorization Reference, Amazon S3). */
export const PERMISSIONS: Readonly<Record<string, string>> = {
  's3:PutPublicAccessBlock': 's3:PutBucketPublicAccessBlock',
  's3:PutBucketEncryption': 's3:PutEncryptionConfiguration',
  's3:PutObjectLockConfiguration': 's3:PutBucketObjectLockConfiguration',
  's3:PutBucketLifecycleConfiguration': 's3:PutLifecycleConfiguration',
  's3:ListObjectVersions': 's3:ListBucketVersions',
};

/** The permission that a refusal is about: the call's own, or one that the call needs besides, such as iam:PassRole. */
function permissionOf(error: unknown, action: string): string {
  const [, told] = /not authorized to perform:? ([a-z0-9-]+:\w+)/.exec(messageOf(error)) ?? [];
  return told ?? PERMISSIONS[action] ?? action;
}

/** Without the encoded context of a refusal, which is long and of use to nobody here, and without line breaks. */
function clean(message: string): string {
  return message
    .replace(/\s*Encoded authorization failure message:.*$/s, '')
    .replaceAll(/\s+/g, ' ')
    .slice(0, 500);
}
