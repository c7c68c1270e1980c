/** From where an EKS endpoint is reachable: never from everywhere unasked, and never without the workers. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { planEndpoint, type WorkerPlace } from '../../src/domain/aws-endpoint.ts';
import { resolveAws, type AwsRequest } from '../../src/domain/aws.ts';

const NOWHERE: WorkerPlace = { cidrs: [], vpcIds: [] };
const OUTSIDE: WorkerPlace = { cidrs: ['203.0.113.7/32'], vpcIds: [] };
const INSIDE: WorkerPlace = { cidrs: [], vpcIds: ['vpc-0a1b2c3d'] };
const THEIRS = { vpcId: 'vpc-0a1b2c3d', subnetIds: ['subnet-0a1b2c3d', 'subnet-0a1b2c3e'] };

const plan = (request: AwsRequest, workers: WorkerPlace) => planEndpoint(resolveAws(request, 3), workers);

test.each([
  ['the workers alone', {}, OUTSIDE, { public: true, publicCidrs: ['203.0.113.7/32'] }],
  [
    'those who are named, and the workers',
    { endpointAccess: { publicCidrs: ['198.51.100.0/24'] } },
    OUTSIDE,
    { public: true, publicCidrs: ['198.51.100.0/24', '203.0.113.7/32'] },
  ],
  ['nobody outside, where the workers are inside', THEIRS, INSIDE, { public: false, publicCidrs: [] }],
  [
    'those who are named, where the workers are inside',
    { ...THEIRS, endpointAccess: { publicCidrs: ['198.51.100.0/24'] } },
    INSIDE,
    { public: true, publicCidrs: ['198.51.100.0/24'] },
  ],
  [
    'everybody, where somebody says so',
    { endpointAccess: { publicCidrs: ['0.0.0.0/0'] } },
    NOWHERE,
    { public: true, publicCidrs: ['0.0.0.0/0'] },
  ],
] as const)('open to %s', (_who, request, workers, access) => {
  expect(plan(request, workers)).toEqual(access);
});

test.each([
  [
    'nobody has said where the workers are',
    {},
    NOWHERE,
    /only the private endpoint.*operator of the fleet sets FLEET_AWS_WORKER_CIDRS/,
  ],
  [
    'the workers are not in a VPC that is made',
    { endpointAccess: { public: false } },
    OUTSIDE,
    /in a VPC that is made/,
  ],
  [
    'the workers are in another VPC',
    { ...THEIRS, vpcId: 'vpc-0b1b2c3d' },
    INSIDE,
    /FLEET_AWS_WORKER_VPCS.*"vpc-0b1b2c3d"/,
  ],
  [
    'others are named, and nothing tells whether the workers are among them',
    { endpointAccess: { publicCidrs: ['198.51.100.0/24'] } },
    NOWHERE,
    /aws\.endpointAccess\.publicCidrs.*FLEET_AWS_WORKER_CIDRS/,
  ],
  ['it is to be public for nobody', { ...THEIRS, endpointAccess: { public: true } }, INSIDE, /publicCidrs.*is needed/],
] as const)('refused where %s', (_why, request, workers, says) => {
  expect(() => plan(request, workers)).toThrow(says);
});

test('whatever is asked for: the workers get in, and everybody only where somebody named everybody', () => {
  const cidr = fc.constantFrom('198.51.100.0/24', '203.0.113.0/24', '0.0.0.0/0');
  const request = fc.record(
    {
      vpc: fc.constantFrom(undefined, 'vpc-0a1b2c3d', 'vpc-0b1b2c3d'),
      public: fc.option(fc.boolean(), { nil: undefined }),
      publicCidrs: fc.option(fc.array(cidr, { minLength: 1, maxLength: 3 }), { nil: undefined }),
    },
    { requiredKeys: ['vpc'] },
  );
  fc.assert(
    fc.property(request, fc.constantFrom(NOWHERE, OUTSIDE, INSIDE), ({ vpc, public: open, publicCidrs }, workers) => {
      const endpointAccess = {
        ...(open !== undefined && { public: open }),
        ...(publicCidrs !== undefined && { publicCidrs }),
      };
      let access;
      try {
        access = plan({ ...(vpc !== undefined && { ...THEIRS, vpcId: vpc }), endpointAccess }, workers);
      } catch {
        return;
      }
      const inside = vpc !== undefined && workers.vpcIds.includes(vpc);
      const all = access.publicCidrs.includes('0.0.0.0/0');
      expect(all).toBe(access.public && (publicCidrs ?? []).includes('0.0.0.0/0'));
      expect(
        inside ||
          all ||
          (workers.cidrs.length > 0 && access.public && workers.cidrs.every((one) => access.publicCidrs.includes(one))),
      ).toBe(true);
    }),
  );
});
