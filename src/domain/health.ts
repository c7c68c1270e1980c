/** How a cluster is, by what one look at it shows. Pure. */
import { tellLost, type LostDisk } from './lost-disk.ts';
import { missingPeers, noMajority, REPAIR, repairProblem } from './repair-plan.ts';
import type { CollectionPlacement } from './topology.ts';
import type { ObservedCluster } from './update-plan.ts';

/** What somebody saw who looked. */
export interface Look {
  /** Nodes that the cluster should have. */
  readonly nodes: number;
  /** The peers that answer. */
  readonly peers: readonly {
    readonly name: string;
    readonly id: string;
    /** Takes part in consensus. */
    readonly working: boolean;
    /** Ids of the peers that it has in consensus. */
    readonly known: readonly string[];
  }[];
  /** Of each pod that does not answer: why, and what helps. */
  readonly absent: readonly { readonly name: string; readonly text: string }[];
  readonly lost: readonly LostDisk[];
  readonly cluster: Pick<ObservedCluster, 'pods' | 'peers' | 'placements'>;
}

export interface Health {
  /** What is missing; absent when the cluster is whole. */
  readonly degraded?: string;
  /** Whether every shard has an Active replica on a peer that answers. */
  readonly serving: boolean;
  /** What is as good as it can be here, and yet not what was asked for. */
  readonly note?: string;
}

/** Sentences of a kind that are told one by one. */
const SHOWN = 3;

/**
 * A cluster is whole when all its pods answer as peers that agree on who they are, and every shard has as many Active
 * replicas on them as its collection asks for. More replicas than nodes cannot be, so a factor above the number of nodes
 * is met by a replica on each of them, with a note.
 *
 * What consensus says of a peer that does not answer does not count: Qdrant marks its replicas only when a write fails.
 */
export function healthOf(look: Look): Health {
  const { nodes, peers, absent, lost, cluster } = look;
  const answering = new Set(peers.map(({ id }) => id));
  const shards = cluster.placements.flatMap((placement) => shardsOf(placement, answering, nodes));
  const unserved = shards.filter(({ active }) => active.length === 0);
  const problems = [
    ...lost.map(tellLost),
    ...remedyOf(look),
    ...absent.filter(({ name }) => !lost.some(({ pod }) => pod === name)).map(({ text }) => sentence(text)),
    ...(peers.length + absent.length < nodes ? [`${peers.length} of ${nodes} peers answer.`] : []),
    ...consensus(look),
    ...some(
      unserved.map(({ name }) => name),
      (names) => `No replica of ${names} is Active on a peer that answers.`,
    ),
    ...some(
      shards.flatMap(({ name, healing }) => healing.map(({ peer, state }) => `${name} is ${state} on peer ${peer}`)),
      (texts) => `${texts}.`,
    ),
    ...some(
      shards
        .filter(({ active, wanted }) => active.length > 0 && active.length < wanted)
        .map(({ name, active, wanted }) => `${name} has ${active.length} of ${wanted} Active replicas`),
      (texts) => `${texts}.${copyable(look) ? ' An update without changes makes those that are missing.' : ''}`,
    ),
  ];
  const capped = cluster.placements.filter(({ replicationFactor = 1 }) => replicationFactor > nodes && nodes > 0);
  const note = capped
    .slice(0, SHOWN)
    .map(
      ({ collection, replicationFactor }) => `"${collection}" asks for ${replicationFactor} replicas on ${nodes} nodes`,
    )
    .join('; ');
  return {
    ...(problems.length > 0 && { degraded: problems.join(' ') }),
    serving: peers.length > 0 && unserved.length === 0,
    ...(note !== '' && { note: `${note}.` }),
  };
}

function shardsOf(
  { collection, shards, replicationFactor = 1 }: CollectionPlacement,
  answering: ReadonlySet<string>,
  nodes: number,
) {
  return shards.map(({ shard, replicas }) => {
    const here = replicas.filter(({ peer }) => answering.has(peer));
    return {
      name: `shard ${shard} of "${collection}"`,
      wanted: Math.min(replicationFactor, nodes),
      active: here.filter(({ state }) => state === 'Active'),
      healing: here.filter(({ state }) => state !== 'Active'),
    };
  });
}

/** What brings lost peers back, or what does where nothing can. */
function remedyOf({ lost, cluster }: Look): string[] {
  const problem = lost.length > 0 || noMajority(cluster) !== undefined ? repairProblem(cluster) : undefined;
  if (problem !== undefined) return [sentence(problem)];
  return lost.length > 0 ? [sentence(REPAIR)] : [];
}

function consensus({ peers, cluster, lost, absent }: Look): string[] {
  const away = new Set([...lost.map(({ peer }) => peer)]);
  // Each pod that does not answer may be one of them; what is left over belongs to no pod.
  const ghosts = missingPeers(cluster).filter((id) => !away.has(id));
  const left = ghosts.length > absent.length ? ghosts : [];
  const strange = peers.filter(({ id }) => !cluster.peers.includes(id));
  return [
    ...peers.filter(({ working }) => !working).map(({ name }) => `Consensus does not work on ${name}.`),
    ...(left.length === 0
      ? []
      : [`Consensus has peer ${left.join(', ')}, and no pod answers as it. An update with "repair": true removes it.`]),
    ...strange.map(({ name, id }) => `Pod ${name} answers as peer ${id}, which consensus does not have.`),
  ];
}

/** Whether nothing but replicas is missing. */
function copyable({ nodes, peers, cluster }: Look): boolean {
  return peers.length === nodes && missingPeers(cluster).length === 0;
}

/** The first few of many in one sentence. */
function some(items: readonly string[], tell: (text: string) => string): string[] {
  if (items.length === 0) return [];
  const more = items.length > SHOWN ? ` and ${items.length - SHOWN} more` : '';
  return [capital(tell(`${items.slice(0, SHOWN).join(', ')}${more}`))];
}

function sentence(text: string): string {
  return capital(text.endsWith('.') ? text : `${text}.`);
}

function capital(text: string): string {
  return `${text.slice(0, 1).toUpperCase()}${text.slice(1)}`;
}
