import type { V1Container, V1ContainerState, V1Pod, V1PodCondition, V1PodStatus } from '@kubernetes/client-node';

/** What the kubelet knows of the one container it runs. */
export interface ContainerView {
  state: V1ContainerState;
  lastState?: V1ContainerState;
  ready: boolean;
  restartCount: number;
}

/** The status a kubelet would report for the pod, given the state of its Qdrant container. */
export function podStatus(
  pod: V1Pod,
  container: V1Container | undefined,
  view: ContainerView,
  ip?: string,
): V1PodStatus {
  const now = new Date();
  const started = view.state.running !== undefined || view.restartCount > 0;
  const containers = pod.spec?.containers ?? [];
  return {
    phase: started ? 'Running' : 'Pending',
    ...(ip ? { podIP: ip, podIPs: [{ ip }] } : {}),
    hostIP: '127.0.0.1',
    hostIPs: [{ ip: '127.0.0.1' }],
    startTime: pod.status?.startTime ?? now,
    conditions: [
      condition(pod, now, 'PodScheduled', true),
      condition(pod, now, 'Initialized', true),
      condition(pod, now, 'ContainersReady', view.ready),
      condition(pod, now, 'Ready', view.ready),
    ],
    // Nothing runs but Qdrant: init containers prepare an image's file system, which a process doesn't have.
    initContainerStatuses: (pod.spec?.initContainers ?? []).map((init) => ({
      ...imageOf(init),
      ready: true,
      restartCount: 0,
      state: { terminated: { exitCode: 0, reason: 'Completed', startedAt: now, finishedAt: now } },
    })),
    containerStatuses: containers.map((each) =>
      container === undefined || each.name === container.name
        ? {
            ...imageOf(each),
            ready: view.ready,
            started: view.state.running !== undefined,
            restartCount: view.restartCount,
            state: view.state,
            lastState: view.lastState ?? {},
          }
        : // A sidecar isn't run; it must not hold back the pod either.
          {
            ...imageOf(each),
            ready: view.ready,
            started: true,
            restartCount: 0,
            state: { running: { startedAt: now } },
          },
    ),
  };
}

function imageOf(container: V1Container): { name: string; image: string; imageID: string } {
  return { name: container.name, image: container.image ?? '', imageID: '' };
}

function condition(pod: V1Pod, now: Date, type: string, value: boolean): V1PodCondition {
  const status = value ? 'True' : 'False';
  const before = pod.status?.conditions?.find((candidate) => candidate.type === type);
  const since = before?.status === status ? (before.lastTransitionTime ?? now) : now;
  return { type, status, lastTransitionTime: since, ...(value ? {} : { reason: 'ContainersNotReady' }) };
}
