/** The operator's policy at the front door: refused before anything is started, where this process knows the file. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { DEFAULT_POLICY } from '../../src/domain/tenant-policy.ts';
import { startApi } from './support.ts';

let knowing: Awaited<ReturnType<typeof startApi>>;
let unknowing: Awaited<ReturnType<typeof startApi>>;
beforeAll(async () => {
  knowing = await startApi({ policy: DEFAULT_POLICY });
  unknowing = await startApi();
});
afterAll(async () => {
  await knowing.close();
  await unknowing.close();
});

const AWS = { name: 'docs', provider: 'aws', aws: { adminPrincipalArns: ['arn:aws:iam::123456789012:role/evil'] } };
const PLACED = { name: 'placed', placement: { tolerations: [{ operator: 'Exists' }] } };

test('a request that names what is not allowed answers 403 with the field, and starts nothing', async () => {
  for (const [body, field] of [
    [AWS, 'provider'],
    [PLACED, 'placement.tolerations[0]'],
  ] as const) {
    const answer = await knowing.send('POST', '/v1/clusters', { body });
    expect(answer.status).toBe(403);
    expect(answer.body.detail).toContain(`${field}: `);
    expect(answer.body.detail).toContain('FLEET_TENANT_POLICY');
  }
  const started = await knowing.deps.temporal.workflow.count(`FleetTenant = "${knowing.tenant}"`);
  expect(started.count).toBe(0);
});

test('an update that names nothing is started, also where the policy allows nothing more', async () => {
  await knowing.addCluster('there');
  const allowed = await knowing.send('PATCH', '/v1/clusters/there', { body: { nodes: 4, dryRun: true } });
  expect(allowed.status).toBe(202);
});

test('a process without the file leaves it to the workers', async () => {
  expect((await unknowing.send('POST', '/v1/clusters', { body: PLACED })).status).toBe(202);
});
