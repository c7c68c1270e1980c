/** What EKS says in the `health` of a cluster, a node group or an add-on, and what to do about it. */
import { quotaAdviceIn } from './aws-quotas.ts';
import type { ErrorCode } from './errors.ts';

/** A member of `health.issues`. */
export interface HealthIssue {
  readonly code?: string | undefined;
  readonly message?: string | undefined;
  readonly resourceIds?: readonly string[] | undefined;
}

/** In one line, `code: message (resources)`; empty when there are none. */
export function issuesText(issues: readonly HealthIssue[] = []): string {
  return issues
    .map(({ code = 'Unknown', message = '', resourceIds = [] }) => {
      const about = resourceIds.length === 0 ? '' : ` (${resourceIds.slice(0, 5).join(', ')})`;
      return `${code}: ${message.replaceAll(/\s+/g, ' ').slice(0, 400)}${about}`;
    })
    .join('; ');
}

const CAPACITY = /Insufficient\w*Capacity|UnsupportedAvailabilityZone|not currently have sufficient/;
const NO_ADDRESSES = /InsufficientFreeAddresses|IpNotAvailable/;

/** Remedies by the issue's code. Codes: EKS API Reference, `Issue`, `ClusterIssue`, `AddonIssue` and `ErrorDetail`. */
const REMEDIES: readonly (readonly [codes: RegExp, remedy: string])[] = [
  [
    /NodeCreationFailure/,
    'The machines run but cannot reach the control plane: see that their subnets have a route out, and that the role in "aws.roles.node", where one is given, has the policies of EKS nodes.',
  ],
  [
    /AccessDenied|OperationNotPermitted|Iam|PermissionFailure/,
    'See that the roles are there and allow what docs/iam says, also within the permissions boundary.',
  ],
  [/Kms/, 'See that the key in "aws.secretsEncryptionKeyArn" is there, is enabled, and may be used.'],
  [/SecurityGroup/, 'See what else uses the security group, and remove that.'],
  [/Subnet|Vpc/, 'See that the network is as it was made, or as "aws.subnetIds" says.'],
  [/NodeTerminationFailure|PodEvictionFailure/, 'See which pods keep the machines from going, and remove them.'],
  [
    /InternalFailure|InternalError|Unreachable|Throttling|Unknown|Other/,
    'AWS calls this a fault of its own: try again.',
  ],
];

/** Why it failed, as a code of ours, and what to do next. */
export function judge(issues: readonly HealthIssue[] = []): { code: ErrorCode; remedy: string } {
  const text = issuesText(issues);
  const quota = quotaAdviceIn(text);
  if (quota !== undefined) return { code: 'CloudQuotaReached', remedy: quota };
  if (CAPACITY.test(text)) {
    const remedy = 'Choose another "aws.instanceType" or other "aws.availabilityZones", or try again later.';
    return { code: 'CapacityUnavailable', remedy };
  }
  if (NO_ADDRESSES.test(text)) {
    const remedy = 'The subnets have no addresses left: ask for a larger "aws.cidr", or other "aws.subnetIds".';
    return { code: 'CapacityUnavailable', remedy };
  }
  const codes = issues.map(({ code = 'Unknown' }) => code).join(' ');
  const [, remedy] = REMEDIES.find(([pattern]) => pattern.test(codes)) ?? [
    undefined,
    'Mend what AWS names, then try again.',
  ];
  return { code: 'InfrastructureFailed', remedy };
}

/** The same for machines of a cluster that runs, whose type and network are as they were made. */
export function judgeRunning(
  issues: readonly HealthIssue[],
  instanceType: string,
): { code: ErrorCode; remedy: string } {
  const { code, remedy } = judge(issues);
  if (code !== 'CapacityUnavailable') return { code, remedy };
  const text = issuesText(issues);
  const [first, other] = CAPACITY.test(text)
    ? ['Try again later', `another "aws.instanceType" than ${instanceType}`]
    : ['Free addresses in the subnets', 'a larger "aws.cidr"'];
  return { code, remedy: `${first}, or make a cluster with ${other} and restore a backup into that.` };
}
