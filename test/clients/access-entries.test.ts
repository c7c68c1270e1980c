/** Who is let into an EKS cluster, by what the SDK sends: an access entry of somebody else's gets no policy. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { letIn } from '../../activities/aws-access.ts';
import { AwsClients } from '../../src/clients/aws/clients.ts';
import { clusterTags, ownerTags, type Tags } from '../../src/domain/aws-names.ts';
import { adminAccess } from '../../src/domain/aws-policies.ts';

const REF = { tenant: 'acme', cluster: 'docs' };
const OWNER = { ...REF, installation: 'here', operation: 'provision-1' };
const CREDENTIALS = { AWS_ACCESS_KEY_ID: 'key', AWS_SECRET_ACCESS_KEY: 'not-a-secret' };
const ARN = 'arn:aws:iam::123456789012:role/admins';

/** The one entry, by its tags; `undefined` while there is none. */
let entry: Tags | undefined;
/** What was associated with it. */
const associated: unknown[] = [];
let server: Server;
let clients: AwsClients;
const before = { ...process.env };

beforeAll(async () => {
  Object.assign(process.env, CREDENTIALS);
  server = createServer((request, response) => {
    const body: Buffer[] = [];
    request.on('data', (chunk: Buffer) => body.push(chunk));
    request.on('end', () => {
      const text = Buffer.concat(body).toString();
      const sent = (text === '' ? {} : JSON.parse(text)) as { tags?: Tags };
      const answer = (status: number, value: object, type?: string) =>
        response
          .writeHead(status, {
            'content-type': 'application/json',
            ...(type !== undefined && { 'x-amzn-errortype': type }),
          })
          .end(JSON.stringify(value));
      if (request.method === 'GET') answer(200, { accessEntry: { tags: entry } });
      else if (request.url?.endsWith('/access-policies') === true) {
        associated.push(sent);
        answer(200, {});
      } else if (entry !== undefined) answer(409, { message: 'in use' }, 'ResourceInUseException');
      else {
        entry = sent.tags;
        answer(200, { accessEntry: { tags: entry } });
      }
    });
  });
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  clients = new AwsClients({ endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
});
afterAll(() => {
  for (const name of Object.keys(CREDENTIALS)) delete process.env[name];
  Object.assign(process.env, before);
  server.closeAllConnections();
  server.close();
});

async function enter(found: Tags | undefined): Promise<void> {
  entry = found;
  associated.length = 0;
  await letIn(await clients.of('us-east-1'), {
    ...{ clusterName: 'shared', principalArn: ARN, clientRequestToken: 'token' },
    ...{ tags: ownerTags(OWNER), ours: clusterTags(OWNER), policy: adminAccess(REF, 'aws', false) },
  });
}

const NAMESPACE_ADMIN = {
  policyArn: 'arn:aws:eks::aws:cluster-access-policy/AmazonEKSAdminPolicy',
  accessScope: { type: 'namespace', namespaces: ['fleet-acme--docs'] },
};

test.each([
  ['nobody yet', undefined],
  ['an earlier attempt', ownerTags(OWNER)],
  ['an earlier operation on the cluster', ownerTags({ ...OWNER, operation: 'provision-0' })],
])('an entry of %s gets the policy', async (_whose, found) => {
  await enter(found);
  expect(associated).toEqual([NAMESPACE_ADMIN]);
  expect(entry).toMatchObject(clusterTags(OWNER));
});

test.each([
  ['somebody outside of the fleet', { team: 'search' }],
  ['nobody who tags', {}],
  ['another cluster', ownerTags({ ...OWNER, cluster: 'other' })],
  ['another installation', ownerTags({ ...OWNER, installation: 'there' })],
])('an entry of %s is left as it is', async (_whose, found) => {
  await expect(enter(found)).rejects.toMatchObject({ code: 'ResourceNotOurs' });
  expect(associated).toEqual([]);
  expect(entry).toEqual(found);
});
