/** What is sent again to AWS, and what never is. */
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { AwsClients, type AwsCall } from '../../src/clients/aws/clients.ts';

let server: Server;
let clients: AwsClients;
/** Answers in turn; when there are no more, the call succeeds. */
let refusals: { status: number; code: string }[] = [];
let sent = 0;
const calls: AwsCall[] = [];

beforeAll(async () => {
  process.env['AWS_ACCESS_KEY_ID'] ??= 'test';
  process.env['AWS_SECRET_ACCESS_KEY'] ??= 'not-a-secret';
  server = createServer((request, response) => {
    request.resume();
    sent += 1;
    const refusal = refusals.shift();
    const body =
      refusal === undefined
        ? '<CreateInternetGatewayResponse><internetGateway><internetGatewayId>igw-1</internetGatewayId></internetGateway></CreateInternetGatewayResponse>'
        : `<Response><Errors><Error><Code>${refusal.code}</Code><Message>No.</Message></Error></Errors><RequestID>1</RequestID></Response>`;
    response.writeHead(refusal?.status ?? 200, { 'content-type': 'text/xml' }).end(body);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  clients = new AwsClients({ endpoint, onCall: (call) => calls.push(call) });
});
afterAll(() => server.close());
beforeEach(() => {
  sent = 0;
  calls.length = 0;
});

async function change(...answers: { status: number; code: string }[]): Promise<string | undefined> {
  refusals = answers;
  const { ec2 } = await clients.of('us-east-1');
  const { InternetGateway } = await ec2.createInternetGateway({});
  return InternetGateway?.InternetGatewayId;
}
const throttled = { status: 503, code: 'RequestLimitExceeded' };

test('a change that was throttled is sent again, and counts as one call', async () => {
  expect(await change(throttled, { status: 400, code: 'Throttling' }, throttled)).toBe('igw-1');
  expect(sent).toBe(4);
  expect(calls).toEqual([{ action: 'ec2:CreateInternetGateway', region: 'us-east-1', outcome: 'ok' }]);
});

test('one that is throttled for long fails as something that may be tried later', async () => {
  await expect(change(...Array.from({ length: 9 }, () => throttled))).rejects.toMatchObject({
    code: 'CloudUnavailable',
  });
  expect(sent).toBe(6);
}, 20_000);

test.each([
  { status: 500, code: 'InternalError' },
  { status: 400, code: 'VpcLimitExceeded' },
])('one that may have happened, or was refused, is sent once: $code', async (answer) => {
  await expect(change(answer)).rejects.toThrow('No.');
  expect(sent).toBe(1);
});
