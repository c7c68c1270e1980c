/** A few points of every shard that the engine opened, kept beside its data and compared after a restore. */
import { pointDigest } from '../src/clients/point-digest.ts';
import type { QdrantClient } from '../src/clients/qdrant.ts';
import { parseJson, type BackupStore } from '../src/clients/s3.ts';
import type { SampledPoint } from '../src/clients/engine.ts';
import type { ShardEntry } from '../src/domain/backup.ts';
import { parseSample, type ShardSample } from '../src/domain/backup-parse.ts';
import { FleetError } from '../src/domain/errors.ts';
import { SMALL_JSON } from '../src/domain/json-bounds.ts';
import { sha256 } from './backup-records.ts';

/** Points of a sample, at most. */
export const SAMPLE_POINTS = 64;

export function sampleSeed(shard: Pick<ShardEntry, 'sha256'>): string {
  return shard.sha256.slice(0, 16);
}

export async function writeSample(
  store: BackupStore,
  shard: Pick<ShardEntry, 'key' | 'sha256'>,
  points: readonly SampledPoint[],
): Promise<NonNullable<ShardEntry['sample']>> {
  const sample: ShardSample = { formatVersion: 1, seed: sampleSeed(shard), points };
  const text = JSON.stringify(sample);
  const key = `${shard.key.replace(/\.snapshot$/, '')}.sample.json`;
  await store.putJson(key, text);
  return { key, sha256: sha256(text), points: points.length };
}

/**
 * The sample of a shard, proven to be the one that was committed; `undefined` where none was taken.
 *
 * @throws FleetError `IntegrityMismatch` when it is gone or was altered
 */
export async function readSample(store: BackupStore, { sample }: ShardEntry): Promise<ShardSample | undefined> {
  if (sample === undefined) return undefined;
  const found = await store.getText(sample.key, SMALL_JSON.bytes);
  if (found === undefined || sha256(found.text) !== sample.sha256) {
    throw new FleetError('IntegrityMismatch', `${sample.key} is not the sample that was committed.`);
  }
  return parseSample(parseJson(found.text, sample.key, SMALL_JSON.values), sample.key);
}

/**
 * Read the sampled points through one node, and compare them.
 *
 * @param what names collection, shard and node in a failure
 * @throws FleetError `IntegrityMismatch` naming the first point that is missing or differs
 */
export async function compareSample(
  client: QdrantClient,
  collection: string,
  { shardKey }: ShardEntry,
  { points }: ShardSample,
  what: string,
): Promise<void> {
  if (points.length === 0) return;
  const found = await client.points(
    collection,
    points.map(({ id }) => (/^\d+$/.test(id) ? Number(id) : id)),
    shardKey,
  );
  const byId = new Map(found.map((point) => [String(point.id), point]));
  for (const { id, sha256: wanted } of points) {
    const point = byId.get(id);
    if (point === undefined) throw new FleetError('IntegrityMismatch', `${what}: point ${id} is missing.`);
    if (pointDigest(point.payload, point.vector) !== wanted) {
      throw new FleetError('IntegrityMismatch', `${what}: point ${id} is not what was backed up.`);
    }
  }
}
