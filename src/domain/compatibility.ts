/** The gates of a restore: everything that can be known to go wrong before the first write. */
import type { BackupManifest, CollectionEntry } from './backup.ts';

/** What a restore finds at its target. */
export interface RestoreTarget {
  readonly qdrantVersion: string;
  readonly peers: number;
  readonly collections: readonly string[];
  readonly aliases: readonly string[];
}

/** A gate that does not let the restore through. */
export interface Refusal {
  readonly gate: 'version' | 'replication' | 'collections' | 'aliases' | 'existing' | 'shard-keys';
  readonly detail: string;
}

/**
 * Every reason against restoring `manifest` into `target`; empty when there is none.
 *
 * Qdrant itself checks almost nothing here: a shard of another vector size is accepted and the data is gone.
 */
export function restoreRefusals(
  manifest: BackupManifest,
  wanted: readonly CollectionEntry[],
  target: RestoreTarget,
  replicationFactor: number | undefined,
): Refusal[] {
  const refusals: Refusal[] = [];
  const version = versionRefusal(manifest.qdrantVersion, target.qdrantVersion);
  if (version !== undefined) refusals.push({ gate: 'version', detail: version });
  if (wanted.length === 0 && manifest.collections.length > 0) {
    refusals.push({ gate: 'collections', detail: 'none of the named collections is in the backup' });
  }
  for (const { name, shards } of wanted) {
    if (target.collections.includes(name)) {
      refusals.push({ gate: 'existing', detail: `the target already has a collection "${name}"` });
    }
    const problem = shardKeyProblem(shards.map(({ shard }) => shard));
    if (problem !== undefined) refusals.push({ gate: 'shard-keys', detail: `collection "${name}": ${problem}` });
  }
  if (replicationFactor !== undefined && replicationFactor > target.peers) {
    refusals.push({
      gate: 'replication',
      detail: `replicationFactor ${replicationFactor} needs as many peers, the target has ${target.peers}`,
    });
  }
  for (const { alias } of wantedAliases(manifest, wanted)) {
    if (target.aliases.includes(alias) || target.collections.includes(alias)) {
      refusals.push({ gate: 'aliases', detail: `the target already uses the name "${alias}"` });
    }
  }
  return refusals;
}

/** Aliases of the collections that are restored. */
export function wantedAliases(manifest: BackupManifest, wanted: readonly CollectionEntry[]) {
  const names = new Set(wanted.map(({ name }) => name));
  return manifest.aliases.filter(({ collection }) => names.has(collection));
}

/**
 * Snapshots load on the same or the next minor version, and never on an older patch
 * (Qdrant's documentation on snapshots, amended by landing_page#2610).
 */
function versionRefusal(source: string, target: string): string | undefined {
  const from = parseVersion(source);
  const to = parseVersion(target);
  if (from === undefined || to === undefined) {
    return `cannot compare versions "${source}" and "${target}"`;
  }
  const sameMajor = from.major === to.major;
  const older = to.minor < from.minor || (to.minor === from.minor && to.patch < from.patch);
  if (sameMajor && !older && to.minor <= from.minor + 1) return undefined;
  return `a backup of Qdrant ${source} restores into ${from.major}.${from.minor} (from patch ${from.patch}) or ${from.major}.${from.minor + 1}, the target runs ${target}`;
}

function parseVersion(text: string): { major: number; minor: number; patch: number } | undefined {
  const match = /^v?(\d+)\.(\d+)\.(\d+)/.exec(text);
  if (!match) return undefined;
  const [, major, minor, patch] = match;
  return { major: Number(major), minor: Number(minor), patch: Number(patch) };
}

/**
 * Shard ids are given out upwards without gaps, from 0 or, for custom shard keys, from 1 (seen on 1.18.3). A gap, left
 * by a dropped shard key, cannot be made again.
 */
function shardKeyProblem(ids: readonly number[]): string | undefined {
  const sorted = ids.toSorted((a, b) => a - b);
  const [first = 0] = sorted;
  const gap = first > 1 ? 0 : sorted.findIndex((id, index) => id !== first + index);
  return gap === -1 ? undefined : `shard ids have a gap at ${first > 1 ? 0 : first + gap}, left by a dropped shard key`;
}
