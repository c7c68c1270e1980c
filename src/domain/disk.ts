/** How much disk a node needs to make a snapshot, and whether it has it. Sizes are bytes. */
import { FleetError } from './errors.ts';
import type { ShardTask } from './topology.ts';

/** A volume of a pod as the kubelet measures it. */
export interface Volume {
  readonly free: number;
  readonly used: number;
  readonly capacity: number;
}

/** The volumes that Qdrant writes to in one pod; the same one twice when it has only one. */
export interface PodVolumes {
  readonly storage: Volume;
  readonly snapshots: Volume;
}

/** Volumes by the name of the pod. A pod whose volumes nobody could tell is not among them. */
export type FreeDisk = Readonly<Record<string, PodVolumes>>;

/** A snapshot is built in Qdrant's temporary folder and moved: each place has to hold it, with a fifth to spare. */
const SPARE = 1.2;

/** One peer that gives shards: its pod, and its own shards with their weights. */
export interface SourcePeer {
  readonly pod: string;
  readonly peer: string;
  /** Sum of {@link ShardTask.bytes} over all shards that the peer holds, also those that it does not give. */
  readonly weight: number;
}

/**
 * The largest snapshot that a peer will have to make. Its data volume holds all its shards with their indexes and logs,
 * so a shard is taken for that part of the used bytes that it has of the peer's points, weighed by the bytes of their
 * vectors. That follows real payloads and index sizes, which no guess from the outside does.
 */
export function largestSnapshot(tasks: readonly ShardTask[], { peer, weight }: SourcePeer, used: number): number {
  const largest = Math.max(0, ...tasks.filter((task) => task.peer === peer).map(({ bytes = 0 }) => bytes));
  return weight === 0 ? 0 : Math.min(used, Math.ceil((used * largest) / weight));
}

/**
 * @returns the pods of which nobody knows how much is free
 * @throws FleetError `DiskFull` naming pod, volume, free and needed bytes of each that is too small
 */
export function checkSnapshotDisk(
  tasks: readonly ShardTask[],
  sources: readonly SourcePeer[],
  disks: FreeDisk,
): string[] {
  const unknown: string[] = [];
  const short: string[] = [];
  for (const source of sources) {
    const volumes = disks[source.pod];
    if (volumes === undefined) {
      unknown.push(source.pod);
      continue;
    }
    const needed = Math.ceil(SPARE * largestSnapshot(tasks, source, volumes.storage.used));
    for (const [name, { free }] of Object.entries(volumes) as [keyof PodVolumes, Volume][]) {
      if (free < needed) {
        short.push(
          `the ${name} volume of pod ${source.pod} has ${megabytes(free)} free and needs ${megabytes(needed)}`,
        );
      }
    }
  }
  if (short.length > 0) {
    throw new FleetError(
      'DiskFull',
      `No snapshot was made: ${short.join('; ')} for the largest shard and a fifth to spare. Enlarge it, or remove old snapshots.`,
    );
  }
  return unknown;
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
