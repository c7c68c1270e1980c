/** Which of our resources belong to nobody any more. */
import { AWS_TAGS, type Tags } from './aws-names.ts';

export interface TaggedResource {
  readonly kind: string;
  readonly id: string;
  readonly tags: Tags;
}

/** What is known about the cluster that a resource names. */
export interface ClusterFacts {
  /** Operation tag of what made the cluster, if the catalogue has it. */
  readonly createdBy?: string;
  /** Ids that its ledger knows. */
  readonly ledger: ReadonlySet<string>;
}

/** What one operation left of one cluster. */
export interface Orphans {
  readonly cluster: string;
  readonly operation: string;
  readonly resources: readonly { readonly kind: string; readonly id: string }[];
  readonly reason: string;
}

/**
 * A resource is an orphan when the operation that made it is over, and
 * 1. the catalogue has no such cluster, or
 * 2. another operation made the cluster that has its name now, and the cluster's ledger does not know the resource.
 *
 * @param isOver whether the operation of this tag has ended, however
 */
export function findOrphans(
  resources: readonly TaggedResource[],
  clusters: ReadonlyMap<string, ClusterFacts>,
  isOver: (operation: string) => boolean,
): Orphans[] {
  const groups = new Map<string, TaggedResource[]>();
  for (const resource of resources) {
    const cluster = resource.tags[AWS_TAGS.cluster];
    const operation = resource.tags[AWS_TAGS.operation];
    // What tells no cluster or no operation was not made by us, whoever put the other tags on it.
    if (cluster === undefined || operation === undefined || !isOver(operation)) continue;
    const facts = clusters.get(cluster);
    if (facts !== undefined && (facts.createdBy === operation || facts.ledger.has(resource.id))) continue;
    const key = JSON.stringify([cluster, operation]);
    groups.set(key, [...(groups.get(key) ?? []), resource]);
  }
  return [...groups].map(([key, found]) => {
    const [cluster, operation] = JSON.parse(key) as [string, string];
    const reason = clusters.has(cluster)
      ? 'another operation made the cluster of this name that there is now'
      : 'the catalogue has no such cluster';
    return { cluster, operation, reason, resources: found.map(({ kind, id }) => ({ kind, id })) };
  });
}
