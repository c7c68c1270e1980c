/** Peers that are gone for good: what replaces them, or why nothing can. Pure. */
import type { ObservedCluster, Refuse, UpdateRequest, UpdateStep } from './update-plan.ts';

type Seen = Pick<ObservedCluster, 'pods' | 'peers' | 'placements'>;

const ELSEWHERE = 'Restore the latest backup into another cluster (RestoreCluster), then delete this one';

/** What brings a lost peer back. */
export const REPAIR =
  'Send an update with "repair": true: it removes the old peer, empties the volumes of its pod and makes its replicas again from the others';

/** Ids of the peers in consensus that no pod answers as. */
export function missingPeers({ pods, peers }: Pick<Seen, 'pods' | 'peers'>): string[] {
  return peers.filter((id) => !pods.some(({ peer }) => peer === id));
}

/** Why consensus can decide nothing; `undefined` when most of its peers answer. */
export function noMajority({ pods, peers }: Pick<Seen, 'pods' | 'peers'>): string | undefined {
  const answering = peers.length - missingPeers({ pods, peers }).length;
  if (answering * 2 > peers.length) return undefined;
  return `${answering} of ${peers.length} peers answer, which is no majority, so no peer can be added, removed or given shards`;
}

/** Why the missing peers cannot be replaced, with what helps instead; `undefined` when they can. */
export function repairProblem(seen: Seen): string | undefined {
  const dead = new Set(missingPeers(seen));
  const stuck = noMajority(seen);
  if (stuck !== undefined) return `${stuck}. ${ELSEWHERE}`;
  for (const { collection, shards } of seen.placements) {
    for (const { shard, replicas } of shards) {
      if (!replicas.some(({ peer, state }) => state === 'Active' && !dead.has(peer))) {
        return `shard ${shard} of "${collection}" has no Active replica on the peers that answer. ${ELSEWHERE}`;
      }
    }
  }
  // The chart starts it without anybody to join.
  const first = seen.pods.find(({ name, peer }) => peer === undefined && name.endsWith('-0'));
  return first && `${first.name} is the first pod, which starts a cluster of its own on an empty disk. ${ELSEWHERE}`;
}

/**
 * The steps that replace the peers that do not answer, and the cluster as it is after them.
 *
 * @param refuse told why it cannot be, by the field `repair`
 */
export function planRepair(
  { repair }: UpdateRequest,
  observed: ObservedCluster,
  refuse: Refuse,
): { steps: UpdateStep[]; after: ObservedCluster } {
  const dead = missingPeers(observed);
  const away = observed.pods.filter(({ peer }) => peer === undefined);
  if (repair !== true || (dead.length === 0 && away.length === 0)) return { steps: [], after: observed };
  const problem = repairProblem(observed);
  if (problem !== undefined) {
    refuse('repair', problem);
    return { steps: [], after: observed };
  }
  const replaced = away.map(({ name, uid = '' }) => ({
    name,
    uid,
    claims: observed.claims
      .filter((claim) => claim.name.endsWith(`-${name}`))
      .map((claim) => ({ name: claim.name, uid: claim.uid ?? '' })),
  }));
  const fresh = (name: string) => `new-${name}`;
  const after: ObservedCluster = {
    ...observed,
    pods: observed.pods.map((pod) => (pod.peer === undefined ? { ...pod, peer: fresh(pod.name) } : pod)),
    peers: [...observed.peers.filter((id) => !dead.includes(id)), ...away.map(({ name }) => fresh(name))],
    placements: observed.placements.map((placement) => ({
      ...placement,
      shards: placement.shards.map((shard) => ({
        ...shard,
        replicas: shard.replicas.filter(({ peer }) => !dead.includes(peer)),
      })),
    })),
    lost: [],
  };
  return { steps: [{ kind: 'replace-peers', peers: dead, pods: replaced }], after };
}
