/** Stand-ins under the public type names: they do what the test's input asks for, so that every state can be seen. */
import { ApplicationFailure, CancellationScope, condition, defineQuery, setHandler } from '@temporalio/workflow';
import type { Progress } from '../../src/domain/operation.ts';

const progress = defineQuery<Progress>('progress');

/** `readyTimeoutSeconds: 1` completes, 2 fails with a known code, 3 with an unknown one; anything else waits. */
export async function ProvisionCluster(input: {
  tenant: string;
  cluster: string;
  readyTimeoutSeconds?: number;
}): Promise<unknown> {
  setHandler(progress, () => ({
    kind: 'provision',
    tenant: input.tenant,
    cluster: input.cluster,
    phase: 'namespace',
    steps: [
      { name: 'namespace', phase: 'running', startedAt: '2026-11-21T03:00:00.000Z' },
      { name: 'release', phase: 'pending' },
    ],
    percent: 25,
  }));
  switch (input.readyTimeoutSeconds) {
    case 1:
      return { endpoint: 'http://qdrant' };
    case 2:
      throw ApplicationFailure.create({
        type: 'SomethingOuter',
        nonRetryable: true,
        message: 'outer',
        cause: ApplicationFailure.create({
          type: 'ChartFailed',
          message: 'Helm said no. Left behind: a namespace.',
          cause: ApplicationFailure.nonRetryable('Kubernetes said no.', 'KubernetesDenied'),
        }),
      });
    case 3:
      throw ApplicationFailure.nonRetryable('password=hunter2', 'TypeError');
    default:
      await CancellationScope.cancellable(() => condition(() => false));
      return undefined;
  }
}

export async function BackupCluster(): Promise<unknown> {
  return { backup: '20261121T030000Z-1a2b3c4d' };
}
