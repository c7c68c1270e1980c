/**
 * The worker's policy held against the calls of a cluster's life on AWS, each with the resources and tags that it
 * carried: all of it is allowed, and none of what changes something would be on what is somebody else's.
 */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { PolicyDocument } from '../../src/domain/aws-policies.ts';
import { Authorization, ofSomebodyElse } from '../aws/authorization.ts';
import { isAllowed, type Access } from '../aws/iam.ts';
import { FaultyAccount, REQUEST } from './faulty.ts';

const read = (name: string) =>
  JSON.parse(readFileSync(join(import.meta.dirname, `../../docs/iam/${name}.json`), 'utf8')) as PolicyDocument;

/** Both, as one identity has them. */
const POLICY: PolicyDocument = {
  Version: '2012-10-17',
  Statement: [...read('worker').Statement, ...read('buckets').Statement],
};

describe("the worker's policy", () => {
  let faulty: FaultyAccount;
  /** Each different call once, with what AWS asks about it. */
  const calls = new Map<string, { name: string; asked: readonly Access[] }>();
  beforeAll(async () => {
    faulty = await FaultyAccount.open('ministack');
    const authorization = new Authorization();
    faulty.proxy.watch = (call, answer) => {
      const asked = authorization.ask(call, answer);
      const name = `${call.service}:${call.operation}`;
      calls.set(`${name} ${JSON.stringify(asked)}`, { name, asked });
    };
    const site = faulty.site();
    const { plan } = await site.provision(REQUEST);
    const where = { ...site.ref, aws: plan.spec };
    site.patience = 2;
    for (const machines of [4, 3, 0, 3]) {
      site.runId = randomUUID();
      const begun = await site.run((a) => a.setMachines({ ...where, machines }));
      // Nobody makes machines here: it asks, and they do not come.
      await site.run((a) => a.awaitMachines({ ...where, ...begun })).catch(() => undefined);
    }
    site.patience = 60;
    await site.run((a) => a.configureMachines({ ...where, labels: { team: 'search' }, taints: [] }));
    await site.run((a) => a.surveyInfrastructure({ tenant: site.ref.tenant, region: plan.region }));
    await site.run((a) => a.controlPlaneExists({ ...site.ref, region: plan.region }));
    await site.remove();
  }, 120_000);
  afterAll(() => faulty.close());

  test('allows all of it', () => {
    expect(calls.size).toBeGreaterThan(100);
    const refused = [...calls.values()].flatMap(({ name, asked }) => {
      expect(asked, name).not.toEqual([]);
      return asked
        .filter((access) => !isAllowed(POLICY, access))
        .map(({ action, resource, context }) => `${name}: ${action} on ${resource} ${JSON.stringify(context)}`);
    });
    expect([...new Set(refused)]).toEqual([]);
  });

  test("allows no change of what is somebody else's", () => {
    const changing = [...calls.values()].filter(({ name }) => !/:(?:Describe|List|Get|Head)/.test(name));
    expect(new Set(changing.map(({ name }) => name)).size).toBeGreaterThan(40);
    const allowed = changing.filter(({ asked }) => asked.every((one) => isAllowed(POLICY, ofSomebodyElse(one))));
    expect([...new Set(allowed.map(({ name }) => name))]).toEqual([]);
  });

  test('gives a role no rights outside of the boundary', () => {
    const all = [...calls.values()].flatMap(({ asked }) => asked);
    const grants = all.filter(({ action }) => /^iam:(?:CreateRole|PutRolePolicy|AttachRolePolicy)$/.test(action));
    expect(grants.length).toBeGreaterThan(8);
    for (const { action, resource, context } of grants) {
      const { 'iam:PermissionsBoundary': boundary, ...without } = context;
      expect(boundary, `${action} on ${resource}`).toMatch(/:policy\/qdrant-fleet-boundary$/);
      expect(isAllowed(POLICY, { action, resource, context: without }), `${action} on ${resource}`).toBe(false);
    }
  });

  test('has nothing that is never asked for', () => {
    const asked = new Set([...calls.values()].flatMap((call) => call.asked.map(({ action }) => action)));
    const allowed = POLICY.Statement.filter(({ Effect }) => Effect === 'Allow');
    const unused = allowed.flatMap(({ Action }) => [Action].flat()).filter((action) => !asked.has(action));
    expect([...new Set(unused)]).toEqual([
      // What Kubernetes and EKS left behind.
      'ec2:DeleteVolume',
      'ec2:DeleteSecurityGroup',
      'ec2:DeleteNetworkInterface',
      // A group that shrinks while peers run on its machines: test/e2e/aws-life.test.ts holds the policy against that.
      'autoscaling:SetInstanceProtection',
      // A control plane that has machines of others.
      'eks:ListNodegroups',
      // A compensation, or an EKS cluster that outlives the fleet's.
      'eks:ListAccessEntries',
      'eks:DescribePodIdentityAssociation',
      // An add-on that failed and is made again.
      'eks:DeleteAddon',
      'eks:DeleteAccessEntry',
      'eks:DeletePodIdentityAssociation',
    ]);
  });
});
