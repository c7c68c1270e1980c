/** Pods whose peer lost its disk: consensus keeps the old peer under their address and refuses the new one. Pure. */

/** Which peer ran in a pod when somebody last looked, and the uid of the claim that held its data. */
export interface Identity {
  readonly peer: string;
  readonly claim: string;
}

/** By pod name. */
export type Identities = Readonly<Record<string, Identity>>;

export interface LostDisk {
  readonly pod: string;
  /** In consensus, and never to come back. */
  readonly peer: string;
  /** False: the pod never comes up and consensus has its old peer, but nobody knows whether its claim is another one. */
  readonly certain: boolean;
  /** Why the pod never comes up, where that is known. */
  readonly trouble?: string;
}

interface Seen {
  readonly pods: readonly { readonly name: string; readonly peer?: string; readonly trouble?: string }[];
  /** Pods by the ids of the peers that consensus has under their address. */
  readonly members: Readonly<Record<string, string>>;
  /** Uid of the claim with the data, by pod. */
  readonly claims: Readonly<Record<string, string>>;
  readonly remembered: Identities;
}

/**
 * Qdrant 1.18 refuses a peer whose address another peer with shards has ("peer URI ... already used by peer ... which
 * still has shards"), so a pod that starts on an empty volume ends again and again.
 */
export function lostDisks({ pods, members, claims, remembered }: Seen): LostDisk[] {
  return pods.flatMap(({ name, peer: answers, trouble }) => {
    if (answers !== undefined) return [];
    const known = remembered[name];
    const peer =
      known !== undefined && Object.hasOwn(members, known.peer)
        ? known.peer
        : Object.keys(members).find((id) => members[id] === name);
    if (peer === undefined) return [];
    const claim = claims[name];
    const certain = known?.peer === peer && claim !== undefined && claim !== known.claim;
    return certain || trouble !== undefined
      ? [{ pod: name, peer, certain, ...(trouble !== undefined && { trouble }) }]
      : [];
  });
}

/** What to remember after a look: who answers now, and of those who do not what was known, as long as they have a pod. */
export function rememberedAfter({ pods, claims, remembered }: Omit<Seen, 'members'>): Identities {
  const entries = pods.flatMap(({ name, peer }): [string, Identity][] => {
    const claim = claims[name];
    if (peer !== undefined && claim !== undefined) return [[name, { peer, claim }]];
    const known = remembered[name];
    return known === undefined ? [] : [[name, known]];
  });
  return Object.fromEntries(entries.sort(([a], [b]) => a.localeCompare(b)));
}

/** What is the case with one, without the remedy. */
export function tellLost({ pod, peer, certain, trouble }: LostDisk): string {
  if (certain) {
    return `The disk of ${pod} was lost: its volume is a new one, and consensus still has its old peer ${peer}, so the new one is refused.`;
  }
  const told = trouble === undefined ? `${pod} cannot start.` : trouble;
  return `${told} Consensus still has its peer ${peer}; where the log of ${pod} says "already used by peer ${peer}", its disk was lost.`;
}
