import { describe, expect, test } from 'vitest';
import { whyNotStarting, type ContainerState } from '../../src/domain/pod-trouble.ts';

const IMAGE = 'docker.io/qdrant/qdrant:v1.19.9';

function why(change: Partial<ContainerState>): string | undefined {
  const container = { image: IMAGE, restarts: 0, started: false, ageSeconds: 5, ...change };
  return whyNotStarting('fleet-acme--docs', { name: 'qdrant-1', container });
}
const waiting = (reason: string, message = '') => ({ waiting: { reason, message } });

describe('a pod that waits', () => {
  test.each([
    ['for its volume', waiting('ContainerCreating')],
    ['for a registry that does not answer', waiting('ErrImagePull', 'dial tcp: i/o timeout')],
    ['after its second end', { ...waiting('CrashLoopBackOff'), restarts: 2 }],
    ['for a Secret that is being made', waiting('CreateContainerConfigError', 'secret "qdrant" not found')],
    ['no more', {}],
  ])('%s may still start', (_, state) => {
    expect(why(state)).toBeUndefined();
  });

  test.each([
    ['an image that is not there', waiting('ErrImagePull', `${IMAGE}: not found`), IMAGE],
    ['an image that it may not read', waiting('ImagePullBackOff', 'pull access denied'), 'may read from it'],
    ['no image for its machine', waiting('ErrImagePull', 'no match for platform in manifest'), 'platform'],
    ['a name that is none', waiting('InvalidImageName'), 'Check the version'],
    ['a registry that never answered', { ...waiting('ImagePullBackOff'), ageSeconds: 121 }, 'reach the registry'],
    ['a Secret that never came', { ...waiting('CreateContainerConfigError', 'no "key"'), ageSeconds: 121 }, 'no "key"'],
    [
      'a process that ends each time',
      { ...waiting('CrashLoopBackOff'), restarts: 3, started: true, ended: { exitCode: 137, reason: 'OOMKilled' } },
      'exit code 137 (OOMKilled). See kubectl -n fleet-acme--docs logs qdrant-1 --previous.',
    ],
  ])('with %s never will', (_, state, part) => {
    expect(why(state)).toContain('qdrant-1 cannot start');
    expect(why(state)).toContain(part);
  });

  test('of which no kubelet has told is waited for', () => {
    expect(whyNotStarting('n', { name: 'qdrant-1' })).toBeUndefined();
  });
});
