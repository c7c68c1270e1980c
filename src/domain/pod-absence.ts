/** Where a pod is that does not answer, what it waits for, and what brings it back. Pure. */

/** A pod that is not ready, or does not answer. */
export interface AbsentPod {
  readonly name: string;
  /** The node that it was bound to; absent while no node would have it. */
  readonly node?: string;
  /** Why no node has it, in the scheduler's words. */
  readonly unscheduled?: string;
}

export interface NodeState {
  readonly ready: boolean;
  /** Why it is not ready, in the words of Kubernetes. */
  readonly reason: string;
  /** Cordoned: no new pod may go there. */
  readonly cordoned: boolean;
}

/** A volume of a pod, and where it can be used: on one node, in one zone, or anywhere. */
export interface PlacedVolume {
  readonly volume: string;
  readonly claim: string;
  readonly node?: string;
  readonly zone?: string;
}

/** Nodes by their names; those that Kubernetes does not have are not among them. */
export type Nodes = Readonly<Record<string, NodeState>>;

/**
 * What keeps a pod away, where that is its machine or the place of its volumes, and what to do about it. A volume on the
 * disk of a node ties the pod to that node; a volume in a network can be used by every node of its zone.
 *
 * @param volumes those of the pod
 * @returns sentences; `undefined` when its machine is well, so that the reason is another one
 */
export function whyAbsent(
  namespace: string,
  pod: AbsentPod,
  nodes: Nodes,
  volumes: readonly PlacedVolume[],
): string | undefined {
  const { name, node, unscheduled } = pod;
  const tied = volumes.filter((volume) => volume.node !== undefined);
  if (node !== undefined) {
    const state = nodes[node];
    if (state?.ready === true) return undefined;
    const how = state === undefined ? 'which Kubernetes no longer has' : `which is not ready (${state.reason})`;
    const where = `Pod ${name} is on node ${node}, ${how}.`;
    if (tied.length > 0) return `${where} ${places(tied)} ${bringBack(namespace, name, node, tied)}`;
    const forGood = state === undefined ? '' : ` If it is gone for good, run kubectl delete node ${node}.`;
    return `${where}${forGood} ${elsewhere(volumes)}`;
  }
  if (unscheduled === undefined) return undefined;
  const home = tied[0]?.node;
  if (home !== undefined) {
    const state = nodes[home];
    if (state?.ready !== true || state.cordoned) {
      const how = state === undefined ? 'is not there' : state.ready ? 'is cordoned' : `is not ready (${state.reason})`;
      return `Pod ${name} waits for node ${home}, which ${how}. ${places(tied)} ${bringBack(namespace, name, home, tied, state)}`;
    }
  }
  const zoned = volumes.find(({ zone }) => zone !== undefined);
  const zone =
    zoned === undefined
      ? ''
      : ` Its volume ${zoned.volume} can be used in zone ${zoned.zone} only: a ready node with room is needed there.`;
  return `Pod ${name} has no node (${unscheduled.trim()}).${zone}`;
}

function places(volumes: readonly PlacedVolume[]): string {
  const names = volumes.map(({ volume, claim }) => `${volume} (claim ${claim})`).join(' and ');
  return `Its ${volumes.length === 1 ? 'volume' : 'volumes'} ${names} can be used on that node only.`;
}

function bringBack(
  namespace: string,
  pod: string,
  node: string,
  volumes: readonly PlacedVolume[],
  state?: NodeState,
): string {
  if (state?.ready === true) return `Run kubectl uncordon ${node}.`;
  const claims = volumes.map(({ claim }) => claim).join(' ');
  return (
    `Start that machine again under the same name. If its disk is lost for good: send an update with "repair": true, or remove its peer with DELETE /cluster/peer/{id}?force=true, ` +
    `run kubectl -n ${namespace} delete --wait=false pvc ${claims} and kubectl -n ${namespace} delete --force pod ${pod}, ` +
    'and send an update without changes, which makes its replicas again.'
  );
}

function elsewhere(volumes: readonly PlacedVolume[]): string {
  const zone = volumes.find((volume) => volume.zone !== undefined)?.zone;
  const where = zone === undefined ? 'another node' : `another node of zone ${zone}, where its volumes can be used`;
  return `Its pod then starts on ${where}, once Kubernetes has given the old one up.`;
}
