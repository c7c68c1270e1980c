/** The gates of a restore: everything that can be known to go wrong before the first write. */
import type { BackupManifest, CollectionEntry } from './backup.ts';
import { replicasOf, usesCustomSharding } from './collection-config.ts';
import { shardKeyPlan } from './shard-keys.ts';

/** Free bytes of one volume of one node. */
export interface VolumeSpace {
  readonly node: string;
  readonly volume: string;
  readonly free: number;
}

/** What a restore finds at its target. */
export interface RestoreTarget {
  readonly qdrantVersion: string;
  readonly peers: number;
  readonly collections: readonly string[];
  readonly aliases: readonly { readonly alias: string; readonly collection: string }[];
  /** Absent where nobody tells. */
  readonly space?: readonly VolumeSpace[];
}

/** Which collections of a backup are restored, and under which names. */
export interface RestoreSelection {
  readonly collections: readonly string[];
  readonly rename?: Readonly<Record<string, string>>;
}

/** One collection to restore. */
export interface RestoreItem {
  readonly entry: CollectionEntry;
  /** Its name in the target. */
  readonly as: string;
}

export interface RestoreWish {
  readonly items: readonly RestoreItem[];
  readonly replicationFactor?: number;
  /** Collections of the same names are replaced. */
  readonly inPlace?: boolean;
  /** `false` leaves the aliases out. */
  readonly aliases?: boolean;
}

export const GATES = [
  'cluster',
  'version',
  'collections',
  'names',
  'existing',
  'shard-keys',
  'replication',
  'aliases',
  'disk',
] as const;

/** A gate that does not let the restore through, why, and what to do about it. */
export interface Refusal {
  readonly gate: (typeof GATES)[number];
  readonly detail: string;
  readonly remedy: string;
}

export function restoreItems(manifest: BackupManifest, { collections, rename }: RestoreSelection): RestoreItem[] {
  const chosen = new Set(collections);
  return manifest.collections
    .filter(({ name }) => chosen.has(name))
    .map((entry) => ({ entry, as: nameIn(rename, entry.name) }));
}

/** The name that a collection gets. */
export function nameIn(rename: Readonly<Record<string, string>> | undefined, name: string): string {
  return rename !== undefined && Object.hasOwn(rename, name) ? (rename[name] ?? name) : name;
}

/**
 * Every reason against restoring `manifest` into `target`; empty when there is none.
 *
 * Qdrant itself checks almost nothing here: a shard of another vector size is accepted and the data is gone.
 */
export function restoreRefusals(manifest: BackupManifest, wish: RestoreWish, target: RestoreTarget): Refusal[] {
  const { items, replicationFactor } = wish;
  const refusals: Refusal[] = [];
  const refuse = (gate: Refusal['gate'], detail: string, remedy: string) => refusals.push({ gate, detail, remedy });

  const version = versionRefusal(manifest.qdrantVersion, target.qdrantVersion);
  if (version !== undefined) refuse('version', version, 'restore into a cluster of such a version');
  if (items.length === 0 && manifest.collections.length > 0) {
    refuse('collections', 'none of the named collections is in the backup', 'name collections that it holds');
  }
  for (const name of twice(items.map(({ as }) => as))) {
    refuse('names', `two collections would be called "${name}"`, 'give each a name of its own in "rename"');
  }
  const there = new Set(target.collections);
  const aliases = new Set(target.aliases.map(({ alias }) => alias));
  for (const { entry, as } of items) {
    refusals.push(...existingRefusals(as, wish, there, aliases));
    const problem = shardIdProblem(entry);
    if (problem !== undefined) {
      const remedy = 'restore the other collections by "collections", and copy this one point by point';
      refuse('shard-keys', `collection "${entry.name}": ${problem}`, remedy);
    }
  }
  if (replicationFactor !== undefined && replicationFactor > target.peers) {
    const detail = `replicationFactor ${replicationFactor} needs as many peers, the target has ${target.peers}`;
    refuse('replication', detail, `ask for ${target.peers} or fewer, or add nodes`);
  }
  if (wish.aliases !== false) refusals.push(...aliasRefusals(manifest, wish, target));
  refusals.push(...diskRefusals(wish, target));
  return refusals;
}

function existingRefusals(
  name: string,
  wish: RestoreWish,
  collections: ReadonlySet<string>,
  aliases: ReadonlySet<string>,
): Refusal[] {
  if (aliases.has(name)) {
    const detail = `the target uses "${name}" as an alias`;
    return [{ gate: 'existing', detail, remedy: 'restore under another name by "rename"' }];
  }
  if (wish.inPlace === true || !collections.has(name)) return [];
  const remedy = 'restore under another name by "rename", or replace it by "inPlace": true';
  return [{ gate: 'existing', detail: `the target already has a collection "${name}"`, remedy }];
}

/** Aliases of the collections that are restored, under the names that those get. */
export function wantedAliases(manifest: BackupManifest, items: readonly RestoreItem[]) {
  const names = new Map(items.map(({ entry, as }) => [entry.name, as]));
  return manifest.aliases.flatMap(({ alias, collection }) => {
    const as = names.get(collection);
    return as === undefined ? [] : [{ alias, collection: as }];
  });
}

/** Collections of the target that an in-place restore drops first. */
export function replacedCollections(wish: RestoreWish, target: Pick<RestoreTarget, 'collections'>): string[] {
  if (wish.inPlace !== true) return [];
  const there = new Set(target.collections);
  return wish.items.map(({ as }) => as).filter((name) => there.has(name));
}

function aliasRefusals(manifest: BackupManifest, wish: RestoreWish, target: RestoreTarget): Refusal[] {
  const replaced = new Set(replacedCollections(wish, target));
  const wanted = wantedAliases(manifest, wish.items);
  const newNames = new Set(wish.items.map(({ as }) => as));
  const remedy = 'leave the aliases out by "aliases": false, or remove it from the target first';
  const there = new Set(target.collections);
  const owners = new Map(target.aliases.map(({ alias, collection }) => [alias, collection]));
  const comeBack = new Set(wanted.map(({ alias }) => alias));
  const taken = wanted
    .filter(({ alias }) => {
      const standing = owners.get(alias);
      // It goes with its collection, and comes back.
      const frees = standing !== undefined && replaced.has(standing);
      return (standing !== undefined && !frees) || there.has(alias) || newNames.has(alias);
    })
    .map(({ alias }): Refusal => ({ gate: 'aliases', detail: `the target already uses the name "${alias}"`, remedy }));
  const lost = target.aliases
    .filter(({ alias, collection }) => replaced.has(collection) && !comeBack.has(alias))
    .map(({ alias, collection }): Refusal => {
      const detail = `the alias "${alias}" of "${collection}" is not in the backup and would be lost with it`;
      return { gate: 'aliases', detail, remedy: 'remove it or point it elsewhere first' };
    });
  return [...taken, ...lost];
}

/**
 * Bytes that land on the node that gets most of them. Qdrant puts each replica on a peer that holds few of the
 * collection; nobody knows in advance on which one.
 */
function mostBytesPerNode({ items, replicationFactor }: RestoreWish, peers: number): number {
  const loads = Array.from({ length: peers }, () => 0);
  for (const { entry } of items) {
    const replicas = replicasOf(entry.config, peers, replicationFactor);
    // The largest first, each to the emptiest: the least that the fullest node can get.
    for (const { size } of entry.shards.toSorted((a, b) => b.size - a.size)) {
      loads.sort((a, b) => a - b);
      for (let index = 0; index < Math.min(replicas, peers); index += 1) loads[index] = (loads[index] ?? 0) + size;
    }
  }
  return Math.max(0, ...loads);
}

/** A node holds a shard twice while it unpacks it. Where a collection is replaced, its old data has gone by then. */
export function neededSpace(wish: RestoreWish, target: Pick<RestoreTarget, 'collections' | 'peers'>): number {
  const replaced = new Set(replacedCollections(wish, target));
  const freed = { ...wish, items: wish.items.filter(({ as }) => replaced.has(as)) };
  return 2 * mostBytesPerNode(wish, target.peers) - mostBytesPerNode(freed, target.peers);
}

/** Collections that an in-place restore proves beside the old ones at a time. */
const PROVEN_AT_A_TIME = 2;

/**
 * Why the disks do not allow to restore what replaces something a first time beside it, to prove that it loads. Memory
 * and disk of the nodes belong to live collections, so what is not known to fit is not tried.
 *
 * @returns `undefined` where they do, or nothing is replaced
 */
export function besideProblem(wish: RestoreWish, target: RestoreTarget): string | undefined {
  const replaced = new Set(replacedCollections(wish, target));
  if (replaced.size === 0) return undefined;
  const bytesOf = ({ entry }: RestoreItem) => entry.shards.reduce((sum, { size }) => sum + size, 0);
  const largest = wish.items.filter(({ as }) => replaced.has(as)).toSorted((a, b) => bytesOf(b) - bytesOf(a));
  const needed = 2 * mostBytesPerNode({ ...wish, items: largest.slice(0, PROVEN_AT_A_TIME) }, target.peers);
  const { space = [] } = target;
  if (new Set(space.map(({ node }) => node)).size < target.peers) return 'it is not known how much disk is free';
  const small = space.find(({ free }) => free < needed);
  return (
    small &&
    `volume "${small.volume}" of ${small.node} has ${megabytes(small.free)} MB free, needed are ${megabytes(needed)} MB`
  );
}

function diskRefusals(wish: RestoreWish, target: RestoreTarget): Refusal[] {
  const needed = neededSpace(wish, target);
  return (target.space ?? [])
    .filter(({ free }) => free < needed)
    .map(({ node, volume, free }) => ({
      gate: 'disk',
      detail: `volume "${volume}" of ${node} has ${megabytes(free)} MB free, needed are ${megabytes(needed)} MB`,
      remedy: 'enlarge the volumes, add nodes, lower "replicationFactor", or restore fewer "collections" at a time',
    }));
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}

function twice(names: readonly string[]): string[] {
  const seen = new Set<string>();
  return [...new Set(names.filter((name) => seen.has(name) || !seen.add(name)))];
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

/** Shards without keys are numbered from 0 without gaps; those with keys can be brought back to their ids, mostly. */
function shardIdProblem({ config, shards }: CollectionEntry): string | undefined {
  if (usesCustomSharding(config)) {
    const plan = shardKeyPlan(shards);
    return 'problem' in plan ? plan.problem : undefined;
  }
  const gap = shards
    .map(({ shard }) => shard)
    .toSorted((a, b) => a - b)
    .findIndex((id, index) => id !== index);
  return gap === -1 ? undefined : `shard ids have a gap at ${gap}, which cannot be made again`;
}
