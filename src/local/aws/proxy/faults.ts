/** Faults by rule: which calls, after how many, how often, and what happens to them. */
import { setTimeout as sleep } from 'node:timers/promises';
import { errorAnswer } from './answers.ts';
import type { Answer, AwsCall, Layer } from './call.ts';

/** Which calls are meant; what is left out matches all. */
export interface CallFilter {
  readonly service?: string;
  readonly operation?: string | RegExp;
  readonly resource?: string | RegExp;
}

export type Fault =
  /** The emulator is not asked. */
  | { readonly kind: 'error'; readonly code: string; readonly status: number; readonly message?: string }
  /** Something in front of the service answers, in no protocol of AWS: a bare 502, or a page. */
  | { readonly kind: 'page'; readonly status: number }
  /** The connection is reset before the emulator is asked. */
  | { readonly kind: 'reset' }
  /** The emulator does it, and the connection is reset instead of the answer. */
  | { readonly kind: 'lose-reply' }
  /** The call waits first. */
  | { readonly kind: 'delay'; readonly ms: number };

export interface FaultRule extends CallFilter {
  readonly fault: Fault;
  /** Matching calls that pass unharmed first; default 0. */
  readonly skip?: number;
  /** Matching calls that are harmed then; default 1. */
  readonly times?: number;
  /** Count each different request by itself: with the defaults, all that match are harmed once and pass when repeated. */
  readonly perRequest?: boolean;
}

/** Thrown to have the client's connection reset. */
export class ConnectionLost extends Error {
  override name = 'ConnectionLost';
  /** The status that the emulator had answered, where it was asked. */
  readonly status: number | undefined;
  constructor(status?: number) {
    super('injected');
    this.status = status;
  }
}

/** Errors of AWS in its own words, to be injected. */
export const awsErrors = {
  /** Too many requests, as each service says it. Statuses and codes: the services' common errors. */
  throttling: (service: string): Fault => {
    if (service === 'ec2') return error(503, 'RequestLimitExceeded', 'Request limit exceeded.');
    if (service === 'eks') return error(429, 'ThrottlingException', 'Rate exceeded');
    return error(400, 'Throttling', 'Rate exceeded');
  },
  internal: (service: string): Fault =>
    service === 'eks'
      ? error(500, 'ServerException', 'An internal error has occurred')
      : error(500, service === 'ec2' ? 'InternalError' : 'ServiceFailure', 'An internal error has occurred'),
  unavailable: (service: string): Fault =>
    service === 'eks'
      ? error(503, 'ServiceUnavailableException', 'Service is temporarily unavailable')
      : error(503, service === 'ec2' ? 'Unavailable' : 'ServiceUnavailable', 'The service is unavailable'),
  accessDenied: (service: string, operation = 'the operation'): Fault => {
    const message = `User: arn:aws:iam::123456789012:user/fleet is not authorized to perform: ${service}:${operation}`;
    if (service === 'ec2') return error(403, 'UnauthorizedOperation', message);
    return error(403, service === 'eks' ? 'AccessDeniedException' : 'AccessDenied', message);
  },
  /** EC2's, such as `ec2Limit('Vpc')`: VpcLimitExceeded. */
  ec2Limit: (thing: string): Fault =>
    error(400, `${thing}LimitExceeded`, `The maximum number of things of the kind ${thing} has been reached.`),
  tooManyBuckets: error(400, 'TooManyBuckets', 'You have attempted to create more buckets than allowed'),
  /** EKS: clusters per region, node groups per cluster. */
  resourceLimit: error(400, 'ResourceLimitExceededException', 'Cluster limit exceeded for account.'),
  /** IAM: roles, policies, bytes of a policy. */
  limit: error(409, 'LimitExceeded', 'Cannot exceed quota for RolesPerAccount: 1000'),
  unsupportedZone: error(
    400,
    'UnsupportedAvailabilityZoneException',
    'Cannot create cluster because us-east-1e, the targeted availability zone, does not currently have sufficient capacity to support the cluster. Retry and choose from these availability zones: us-east-1a, us-east-1b, us-east-1c',
  ),
  dependencyViolation: (resource: string): Fault =>
    error(400, 'DependencyViolation', `The resource '${resource}' has dependencies and cannot be deleted.`),
} as const;

export class Faults implements Layer {
  /** Calls that matched, by request where a rule counts them so. */
  readonly #rules: { rule: FaultRule; seen: Map<string, number> }[] = [];

  add(...rules: readonly FaultRule[]): void {
    this.#rules.push(...rules.map((rule) => ({ rule, seen: new Map<string, number>() })));
  }

  clear(): void {
    this.#rules.length = 0;
  }

  async handle(call: AwsCall, next: () => Promise<Answer>): Promise<Answer> {
    const fault = this.#match(call);
    switch (fault?.kind) {
      case 'error':
        return errorAnswer(call, fault.status, fault.code, fault.message ?? 'injected');
      case 'page': {
        const headers = { 'content-type': 'text/html' };
        return { status: fault.status, headers, body: `<html><body>${fault.status}</body></html>` };
      }
      case 'reset':
        throw new ConnectionLost();
      case 'lose-reply':
        throw new ConnectionLost((await next()).status);
      case 'delay':
        await sleep(fault.ms);
        return next();
      default:
        return next();
    }
  }

  #match(call: AwsCall): Fault | undefined {
    for (const { rule, seen } of this.#rules) {
      if (!matches(rule, call)) continue;
      const { skip = 0, times = 1, perRequest = false, fault } = rule;
      const counted = perRequest
        ? `${call.service}:${call.operation} ${JSON.stringify(call.params)} ${call.resource}`
        : '';
      const count = (seen.get(counted) ?? 0) + 1;
      seen.set(counted, count);
      if (count > skip && count <= skip + times) return fault;
    }
    return undefined;
  }
}

function matches(filter: CallFilter, call: Pick<AwsCall, 'service' | 'operation' | 'resource'>): boolean {
  const { service, operation, resource } = filter;
  return (
    (service === undefined || service === call.service) &&
    (operation === undefined || fits(operation, call.operation)) &&
    (resource === undefined || (call.resource !== undefined && fits(resource, call.resource)))
  );
}

function fits(pattern: string | RegExp, text: string): boolean {
  return typeof pattern === 'string' ? pattern === text : pattern.test(text);
}

function error(status: number, code: string, message: string): Fault {
  return { kind: 'error', status, code, message };
}
