/** Every failure as `application/problem+json` (RFC 9457). */
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import { ERROR_CODES, FleetError, type ErrorCode, type FieldError } from '../src/domain/errors.ts';
import { shown } from '../src/domain/input/echo.ts';
import { ANSWERS } from '../src/domain/input/limits.ts';
import { joined } from '../src/domain/input/problems.ts';
import { withoutAddresses } from '../src/domain/public-failure.ts';
import type { ApiContext } from './context.ts';

/** Failures that only HTTP knows, besides the domain's closed set. */
const HTTP_CODES = {
  MethodNotAllowed: { status: 405, title: 'The method is not allowed here' },
  PayloadTooLarge: { status: 413, title: 'The request body is too large' },
} as const;

const UNPROCESSABLE = 422;
/** Characters of a path that are repeated. */
const MAX_INSTANCE = 300;

type ProblemCode = ErrorCode | keyof typeof HTTP_CODES;

/** One bad part of a request: a place in the body (`#/collections/0/name`), a query parameter or a header. */
export interface ProblemDetail {
  readonly pointer?: string;
  readonly parameter?: string;
  readonly header?: string;
  readonly detail: string;
}

/** A refusal that the API itself decides, complete with what the answer says. */
export class RequestError extends Error {
  override readonly name = 'RequestError';
  readonly code: ProblemCode;
  readonly errors: readonly ProblemDetail[];
  readonly headers: Readonly<Record<string, string>>;
  /** Where it is another than the code's. */
  readonly status: number | undefined;

  constructor(
    code: ProblemCode,
    detail: string,
    more: { errors?: readonly ProblemDetail[]; headers?: Readonly<Record<string, string>>; status?: number } = {},
  ) {
    super(detail);
    this.code = code;
    this.errors = more.errors ?? [];
    this.headers = more.headers ?? {};
    this.status = more.status;
  }
}

/**
 * `InvalidInput` over all bad parts at once, as many as an answer lists. The status is 400 for what the OpenAPI document
 * rules out, and 422 for what is well-formed and cannot be done as it is (RFC 9110, 15.5.21).
 *
 * @param more.count how many there are; default: all that are given
 */
export function invalidRequest(
  errors: readonly ProblemDetail[],
  { count = errors.length, wellFormed = false }: { count?: number; wellFormed?: boolean } = {},
): RequestError {
  const listed = errors.slice(0, ANSWERS.errors);
  const places = listed.map(
    ({ pointer, parameter, header, detail }) => `${pointer?.slice(2) || parameter || header || 'body'}: ${detail}`,
  );
  return new RequestError('InvalidInput', joined(places, count), {
    errors: listed,
    ...(wellFormed && { status: UNPROCESSABLE }),
  });
}

/** The answer to anything thrown. What the client cannot act on stays in the log, under the same request id. */
export function problemOf(error: unknown, c: ApiContext): Response {
  if (error instanceof RequestError) {
    return problem(c, error.code, error.message, error.errors, error.headers, error.status);
  }
  if (FleetError.is(error)) {
    const { status, title } = ERROR_CODES[error.code];
    const errors = error.fields.map(({ field, detail }) => ({ pointer: pointerTo(field), detail }));
    // The message of an outage may name hosts and accounts.
    const detail =
      status < 500
        ? withoutAddresses(error.message)
        : status === 503
          ? `${title}. Try again in a while; GET /readyz tells what is missing.`
          : `${title}. The server has logged the details under the request id.`;
    return problem(c, error.code, detail, errors, status === 503 ? { 'Retry-After': '5' } : {});
  }
  return problem(c, 'Internal', 'The request failed for a reason that the server has logged under the request id.');
}

export function problem(
  c: ApiContext,
  code: ProblemCode,
  detail: string,
  errors: readonly ProblemDetail[] = [],
  headers: Readonly<Record<string, string>> = {},
  otherStatus?: number,
): Response {
  const { status: usual, title } =
    code in HTTP_CODES ? HTTP_CODES[code as keyof typeof HTTP_CODES] : ERROR_CODES[code as ErrorCode];
  const status = otherStatus ?? usual;
  c.set('problem', code);
  const body = {
    type: 'about:blank',
    title,
    status,
    detail,
    instance: shown(c.req.path, MAX_INSTANCE),
    code,
    requestId: c.get('requestId'),
    ...(errors.length > 0 && { errors }),
  };
  return c.body(JSON.stringify(body), status as ContentfulStatusCode, {
    'Content-Type': 'application/problem+json',
    ...headers,
  });
}

/** `collections[0].name` of the domain's guards as the JSON pointer `#/collections/0/name`. */
export function pointerTo(field: FieldError['field']): string {
  const parts = [...field.matchAll(PATH_PART)].map(([, quoted, plain]) => plain ?? unquoted(quoted ?? ''));
  return `#${parts.map((part) => `/${escapeSegment(part)}`).join('')}`;
}

/** `["any name"]`, or a name or an index by itself. A path that was cut may lack its end. */
const PATH_PART = /\["((?:[^"\\]|\\.)*)(?:"\])?|([^.[\]]+)/g;

function unquoted(text: string): string {
  return text.replaceAll(/\\(["\\])/g, '$1');
}

function escapeSegment(segment: string): string {
  return segment.replaceAll('~', '~0').replaceAll('/', '~1');
}
