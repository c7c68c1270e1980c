import type { V1Pod } from '@kubernetes/client-node';
import { type Api, describe, ignoring, type Log } from './api.ts';

/** Writes a Kubernetes Event about the pod. Best effort: an event that can't be written is only logged. */
export async function recordWarning(api: Api, log: Log, pod: V1Pod, reason: string, message: string): Promise<void> {
  const { namespace = '', name = '', uid = '' } = pod.metadata ?? {};
  log(`${namespace}/${name} ${reason}: ${message}`);
  const now = new Date();
  const body = {
    metadata: { namespace, generateName: `${name}.` },
    involvedObject: { apiVersion: 'v1', kind: 'Pod', namespace, name, uid },
    type: 'Warning',
    reason,
    message: message.slice(0, 1000),
    source: { component: 'fleet-kubelet', host: pod.spec?.nodeName ?? '' },
    firstTimestamp: now,
    lastTimestamp: now,
    count: 1,
  };
  try {
    // 403 and 404: the namespace is being deleted.
    await ignoring([403, 404], api.core.createNamespacedEvent({ namespace, body }));
  } catch (error) {
    log(`event ${reason} for ${namespace}/${name}: ${describe(error)}`);
  }
}
