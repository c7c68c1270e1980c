/** AWS requests as what they mean: service, operation, parameters, resource. */
import type { IncomingHttpHeaders } from 'node:http';
import { eksOperation } from './eks-routes.ts';
import { s3Operation } from './s3-routes.ts';

/** A request as it came, its body complete. */
export interface RawRequest {
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

export interface AwsCall {
  /** As in the credential scope of the signature: `ec2`, `eks`, `iam`, `sts`, `s3`. */
  readonly service: string;
  readonly operation: string;
  readonly region: string;
  readonly accessKeyId: string;
  /**
   * Query protocol (EC2, IAM, STS): the form as it was sent, such as `{'SubnetId.1': 'subnet-0a'}`. EKS: the members of
   * the request, those of path and query among them.
   */
  readonly params: Readonly<Record<string, unknown>>;
  /** What it is about, such as `vpc-0a1b` or `cluster/node-group`. */
  readonly resource: string | undefined;
  readonly request: RawRequest;
}

/** An answer that is complete before any of it is sent. */
export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | readonly string[]>>;
  readonly body: string;
}

/** One step between the client and the emulator: it may answer by itself, or change what `next` answers. */
export interface Layer {
  handle(call: AwsCall, next: () => Promise<Answer>): Promise<Answer>;
}

/** Reads a request. What it does not know it calls by method and path, so that it shows up in the log as it is. */
export function readCall(request: RawRequest): AwsCall {
  const url = new URL(request.path, 'http://aws.invalid');
  const scope = credentialScope(request, url.searchParams);
  const body = request.body.toString('utf8');
  if (scope.service === 'eks') {
    const { operation, params } = eksOperation(request.method, url, body);
    return { ...scope, operation, params, resource: eksResource(params), request };
  }
  if (scope.service === 's3') {
    return { ...scope, ...s3Operation(request.method, url), params: Object.fromEntries(url.searchParams), request };
  }
  const form = request.method === 'POST' ? new URLSearchParams(body) : url.searchParams;
  const params = Object.fromEntries(form);
  const operation = params['Action'] ?? `${request.method} ${url.pathname}`;
  return { ...scope, operation, params, resource: queryResource(operation, params), request };
}

/** From the signature, in the header or in a presigned URL. Only its scope is read; nobody checks it here. */
function credentialScope({ headers }: RawRequest, query: URLSearchParams) {
  const credential =
    /Credential=([^,\s]+)/.exec(headers.authorization ?? '')?.[1] ?? query.get('X-Amz-Credential') ?? '';
  const [accessKeyId = '', , region = '', service = 'unknown'] = credential.split('/');
  return { service, region, accessKeyId };
}

/** `cluster`, or `cluster/what is in it`. */
function eksResource(params: Readonly<Record<string, unknown>>): string | undefined {
  const inner = ['nodegroupName', 'addonName', 'principalArn', 'associationId', 'updateId', 'serviceAccount'];
  const names = [params['name'], ...inner.map((name) => params[name])];
  const found = names.filter((name): name is string => typeof name === 'string');
  return found.length === 0 ? undefined : found.slice(0, 2).join('/');
}

/** The id or name that an EC2, IAM or STS operation is about. That of something new is only in the answer. */
function queryResource(operation: string, params: Readonly<Record<string, string>>): string | undefined {
  const names = Object.keys(params);
  const own = names.find((name) => {
    const [, noun] = /^(\w+?)(?:Id|Name|Arn)(?:\.1)?$/.exec(name) ?? [];
    return noun !== undefined && operation.endsWith(noun);
  });
  const any = own ?? names.find((name) => /^\w+(?:Id|Name|Arn)(?:\.1)?$/.test(name));
  return any === undefined ? undefined : params[any];
}
