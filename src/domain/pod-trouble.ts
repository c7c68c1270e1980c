/** Pods that will not start, however long one waits, and why. Pure. */

/** The container that runs Qdrant, as its kubelet tells. */
export interface ContainerState {
  /** As the pod asks for it. */
  readonly image: string;
  readonly restarts: number;
  /** Whether a process of this pod has ever run, and so may have written to its volume. */
  readonly started: boolean;
  /** Of the pod. */
  readonly ageSeconds: number;
  /** Why it does not run, in the words of Kubernetes. */
  readonly waiting?: { readonly reason: string; readonly message: string };
  /** How its process ended last. */
  readonly ended?: { readonly exitCode: number; readonly reason: string };
}

/** A process that ended so often will end again. */
const MAX_RESTARTS = 3;
/** What may still pass, such as a registry that does not answer, gets so many seconds. */
const PATIENCE_SECONDS = 120;

const NOT_PULLED = new Set(['ErrImagePull', 'ImagePullBackOff', 'ImageInspectError', 'RegistryUnavailable']);
const NEVER = new Set(['InvalidImageName', 'ErrImageNeverPull']);
const NOT_MADE = new Set(['CreateContainerConfigError', 'CreateContainerError', 'RunContainerError']);
/** What registries say when trying again cannot help: no such image, no such platform, no access. */
const FINAL = /not found|manifest unknown|does not exist|no match(?:ing manifest)? for|unauthorized|denied|forbidden/i;

/**
 * Why a pod cannot start, with what to do about it; `undefined` while it still may.
 *
 * @param namespace for the command that shows the log
 */
export function whyNotStarting(
  namespace: string,
  { name, container }: { readonly name: string; readonly container?: ContainerState },
): string | undefined {
  if (container?.waiting === undefined) return undefined;
  const { image, restarts, ageSeconds, waiting, ended } = container;
  const { reason } = waiting;
  const told = waiting.message === '' ? reason : `${reason}: ${waiting.message.slice(0, 300)}`;
  if (NEVER.has(reason) || (NOT_PULLED.has(reason) && (FINAL.test(waiting.message) || ageSeconds > PATIENCE_SECONDS))) {
    return `${name} cannot start, because image ${image} cannot be pulled (${told}). Check the version, and that the nodes reach the registry and may read from it.`;
  }
  if (reason === 'CrashLoopBackOff' && restarts >= MAX_RESTARTS) {
    const how = ended === undefined ? '' : `, last with exit code ${ended.exitCode} (${ended.reason})`;
    return `${name} cannot start: its process ended ${restarts} times${how}. See kubectl -n ${namespace} logs ${name} --previous.`;
  }
  if (NOT_MADE.has(reason) && ageSeconds > PATIENCE_SECONDS) return `${name} cannot start (${told}).`;
  return undefined;
}
