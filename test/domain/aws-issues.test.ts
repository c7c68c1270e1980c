import { expect, test } from 'vitest';
import { issuesText, judge, judgeRunning } from '../../src/domain/aws-issues.ts';

const CAPACITY = {
  code: 'AsgInstanceLaunchFailures',
  message: 'Could not launch.\n  InsufficientInstanceCapacity - none left.',
  resourceIds: ['asg-1'],
};

test('issues are told in one line, with what they are about', () => {
  expect(issuesText([CAPACITY, { code: 'Other' }])).toBe(
    'AsgInstanceLaunchFailures: Could not launch. InsufficientInstanceCapacity - none left. (asg-1); Other: ',
  );
  expect(issuesText()).toBe('');
});

test('a quota counts for more than the capacity that its message speaks of', () => {
  const quota = { code: 'AsgInstanceLaunchFailures', message: 'VcpuLimitExceeded - more vCPU capacity than allowed.' };
  expect(judge([CAPACITY, quota])).toMatchObject({ code: 'CloudQuotaReached' });
  expect(judgeRunning([quota], 'm6i.large')).toEqual(judge([quota]));
});

test('what cannot be chosen again is no remedy for a cluster that runs', () => {
  expect(judge([CAPACITY]).remedy).toMatch(/Choose another "aws.instanceType"/);
  expect(judgeRunning([CAPACITY], 'm6i.large')).toEqual({
    code: 'CapacityUnavailable',
    remedy:
      'Try again later, or make a cluster with another "aws.instanceType" than m6i.large and restore a backup into that.',
  });
  const addresses = [{ code: 'IpNotAvailable', message: 'none' }];
  expect(judgeRunning(addresses, 'm6i.large').remedy).toMatch(/^Free addresses in the subnets, .* larger "aws.cidr"/);
});
