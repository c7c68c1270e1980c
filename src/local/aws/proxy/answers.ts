/** Answers in the words of each of AWS' protocols. */
import { randomUUID } from 'node:crypto';
import type { Answer, AwsCall } from './call.ts';

/** An error in the protocol of the call's service, as the SDKs read it. */
export function errorAnswer(call: AwsCall, status: number, code: string, message: string): Answer {
  const id = randomUUID();
  if (call.service === 'eks') {
    return {
      status,
      headers: { 'content-type': 'application/x-amz-json-1.1', 'x-amzn-errortype': code, 'x-amzn-requestid': id },
      body: JSON.stringify({ __type: code, message }),
    };
  }
  const error = `<Code>${code}</Code><Message>${escape(message)}</Message>`;
  const body =
    call.service === 'ec2'
      ? `<Response><Errors><Error>${error}</Error></Errors><RequestID>${id}</RequestID></Response>`
      : call.service === 's3'
        ? `<Error>${error}</Error>`
        : `<ErrorResponse><Error><Type>Sender</Type>${error}</Error><RequestId>${id}</RequestId></ErrorResponse>`;
  return { status, headers: { 'content-type': 'text/xml' }, body: `<?xml version="1.0" encoding="UTF-8"?>\n${body}` };
}

export function jsonAnswer(value: unknown): Answer {
  return { status: 200, headers: { 'content-type': 'application/json' }, body: JSON.stringify(value) };
}

/** A 200 of EC2's query protocol; `content` is what stands in the response element. */
export function ec2Answer(operation: string, content: string): Answer {
  const body = `<${operation}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>${randomUUID()}</requestId>${content}</${operation}Response>`;
  return { status: 200, headers: { 'content-type': 'text/xml' }, body };
}

/** The same answer with another JSON body. */
export function withJson(answer: Answer, value: unknown): Answer {
  return { ...answer, body: JSON.stringify(value) };
}

/** The error's code, as far as an answer holds one. */
export function errorCodeOf({ status, headers, body }: Answer): string | undefined {
  if (status < 400) return undefined;
  const named = headers['x-amzn-errortype'];
  if (typeof named === 'string') return named.split(':')[0];
  return /<Code>([^<]+)</.exec(body)?.[1] ?? /"__type":\s*"(?:[^"#]*#)?([^":]+)/.exec(body)?.[1];
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
