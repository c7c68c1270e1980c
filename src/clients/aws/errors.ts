/** AWS' errors, mapped once: which quota, which permission, which zone. */
import { FleetError, messageOf } from '../../domain/errors.ts';

/** Service Quotas by the error that their exhaustion answers with: name, service, code. */
const QUOTAS: Readonly<Record<string, readonly [name: string, service: string, code: string]>> = {
  VpcLimitExceeded: ['VPCs per Region', 'vpc', 'L-F678F1CE'],
  SubnetLimitExceeded: ['Subnets per VPC', 'vpc', 'L-407747CB'],
  InternetGatewayLimitExceeded: ['Internet gateways per Region', 'vpc', 'L-A4707A72'],
  NatGatewayLimitExceeded: ['NAT gateways per Availability Zone', 'vpc', 'L-FE5A380F'],
  RouteTableLimitExceeded: ['Route tables per VPC', 'vpc', 'L-589F43AA'],
  VpcEndpointLimitExceeded: ['Gateway VPC endpoints per Region', 'vpc', 'L-1B52E74A'],
  AddressLimitExceeded: ['EC2-VPC Elastic IPs', 'ec2', 'L-0263D0A3'],
  VcpuLimitExceeded: ['Running On-Demand Standard instances (vCPUs)', 'ec2', 'L-1216C47A'],
  'eks:CreateCluster': ['Clusters', 'eks', 'L-1194D53C'],
  'eks:CreateNodegroup': ['Managed node groups per cluster', 'eks', 'L-6D54EA21'],
  'iam:CreateRole': ['Roles per account', 'iam', 'L-FE177D64'],
  TooManyBuckets: ['General purpose buckets', 's3', 'L-DC2B2D3D'],
};

const QUOTA_ERRORS = /LimitExceeded(?:Exception|Fault)?$|^TooManyBuckets$/;
const DENIED = /^(?:AccessDenied|UnauthorizedOperation|AuthFailure|NotAuthorized)|^Forbidden$/;
const CREDENTIALS =
  /^(?:ExpiredToken|InvalidClientTokenId|UnrecognizedClient|CredentialsProviderError|SignatureDoesNotMatch)/;
const THROTTLED = /^(?:Throttling|ThrottledException|RequestLimitExceeded|TooManyRequests|SlowDown|RequestThrottled)/;
const CAPACITY =
  /^(?:InsufficientInstanceCapacity|InsufficientHostCapacity|UnsupportedAvailabilityZone|InsufficientFreeAddresses)/;
/** Passes with time: AWS' own words for "an earlier change has not settled yet". */
const UNSETTLED =
  /^(?:ConcurrentModification|OperationAborted|IncorrectState$|ServiceUnavailable|InternalError|InternalFailure|RequestTimeout)/;
const NOT_FOUND =
  /NotFound(?:Exception)?$|^NoSuch(?:Entity|Bucket|LifecycleConfiguration|TagSet)|\.NotFound$|^NotFound$/;
const EXISTS =
  /^(?:EntityAlreadyExists|ResourceInUse|ResourceAlreadyAssociated|Resource\.AlreadyAssociated|RouteAlreadyExists|BucketAlreadyOwnedByYou|BucketAlreadyExists|InvalidLaunchTemplateName\.AlreadyExists)|\.AlreadyExists/;

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
  const cause = FleetError.is(error) ? error.cause : error;
  const status = (cause as { $metadata?: { httpStatusCode?: number } } | undefined)?.$metadata?.httpStatusCode;
  return THROTTLED.test(awsErrorName(error)) || (status !== undefined && status >= 400 && status < 500);
}

/** A resource cannot go because another one uses it. */
export function isInUse(error: unknown): boolean {
  return /^(?:DependencyViolation|DeleteConflict|ResourceInUse|BucketNotEmpty|InvalidIPAddress\.InUse)/.test(
    awsErrorName(error),
  );
}

/** @param action in IAM's words, such as `ec2:CreateVpc` */
export function mapAwsError(error: unknown, action: string): FleetError {
  if (FleetError.is(error)) return error;
  const name = error instanceof Error ? error.name : 'Error';
  const status = (error as { $metadata?: { httpStatusCode?: number } } | undefined)?.$metadata?.httpStatusCode;
  const answer = `AWS answered ${name} to ${action}: ${clean(messageOf(error))}`;
  const as = (code: ConstructorParameters<typeof FleetError>[0], text = answer) =>
    new FleetError(code, text, { cause: error });
  if (DENIED.test(name)) {
    return as(
      'CloudDenied',
      `${answer} The role that the worker runs as lacks the permission ${action}; docs/iam has its whole policy.`,
    );
  }
  if (CREDENTIALS.test(name)) return as('CloudDenied', `${answer} Check the worker's AWS credentials.`);
  if (THROTTLED.test(name) || status === 429) return as('CloudUnavailable');
  if (QUOTA_ERRORS.test(name)) return as('QuotaReached', `${answer} ${quotaAdvice(name, action)}`);
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

function quotaAdvice(name: string, action: string): string {
  const quota = QUOTAS[name] ?? QUOTAS[action];
  if (quota === undefined)
    return 'A quota of the account is reached; Service Quotas shows which, and takes requests to raise it.';
  const [title, service, code] = quota;
  return `The quota "${title}" is reached. Remove what is not needed, or raise it: aws service-quotas request-service-quota-increase --service-code ${service} --quota-code ${code} --desired-value <n>.`;
}

/** Without the encoded context of a refusal, which is long and of use to nobody here, and without line breaks. */
function clean(message: string): string {
  return message
    .replace(/\s*Encoded authorization failure message:.*$/s, '')
    .replaceAll(/\s+/g, ' ')
    .slice(0, 500);
}
