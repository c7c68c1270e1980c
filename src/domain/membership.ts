/** Which of the peers that answer belong to the cluster. Pure. */

interface PeerView {
  readonly id: string;
  /** What this peer says about consensus. */
  readonly view: { readonly peers: Readonly<Record<string, unknown>>; readonly working: boolean };
}

/**
 * Peers that run a cluster of their own: the first pod of a StatefulSet that starts on an empty disk does, because
 * nobody tells it whom to join. They and the others do not know each other.
 *
 * The cluster is where most peers are known; a peer that takes part in consensus speaks for it before one that does not.
 */
export function strangers<P extends PeerView>(peers: readonly P[]): P[] {
  const sizeOf = ({ view }: P) => Object.keys(view.peers).length;
  const [main] = peers.toSorted((a, b) => sizeOf(b) - sizeOf(a) || Number(b.view.working) - Number(a.view.working));
  if (main === undefined) return [];
  return peers.filter(({ id, view }) => main.view.peers[id] === undefined && view.peers[main.id] === undefined);
}
