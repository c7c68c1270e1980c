/** A small backup as the fleet writes it, for tests that put one into a bucket by hand. */
import { createHash } from 'node:crypto';
import type { BackupStore } from '../../src/clients/s3.ts';
import {
  MANIFEST_FORMAT,
  type BackupManifest,
  type BackupState,
  type CommitRecord,
  type ShardEntry,
} from '../../src/domain/backup.ts';
import { resolveSpec } from '../../src/domain/cluster.ts';
import { backupKeys, type BackupLocation } from '../../src/domain/naming.ts';

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');

export const TIME = '2026-11-01T03:00:00.000Z';

/** One shard of a backup whose object holds this text. */
export function shardOf(location: BackupLocation, text: string, shard = 0, attempt = 'run'): ShardEntry {
  const digest = sha256(text);
  return {
    shard,
    key: backupKeys(location).shard(attempt, 'documents', shard, digest),
    size: Buffer.byteLength(text),
    sha256: digest,
    crc32: 'AAAAAA==',
    points: { before: 1, after: 1 },
    sourcePeer: '1',
    cutAt: TIME,
  };
}

export function manifestOf(location: BackupLocation, change: Partial<BackupManifest> = {}): BackupManifest {
  const { tenant, cluster, backup } = location;
  return {
    formatVersion: MANIFEST_FORMAT,
    ...{ tenant, cluster, backup },
    attempt: 'run',
    startedAt: TIME,
    completedAt: TIME,
    qdrantVersion: '1.18.3',
    spec: resolveSpec({ nodes: 1, collections: [] }, {}),
    peers: [{ id: '1', name: 'qdrant-0' }],
    collections: [],
    aliases: [],
    ...change,
  };
}

/** The record of a backup with this manifest. */
export function recordOf(
  { backup }: BackupLocation,
  state: BackupState,
  manifest: string,
  change: Partial<CommitRecord> = {},
): CommitRecord {
  return {
    formatVersion: MANIFEST_FORMAT,
    revision: 1,
    backup,
    state,
    attempt: 'run',
    changedAt: new Date().toISOString(),
    ...(state !== 'ABORTED' && { manifest: { sha256: sha256(manifest), size: Buffer.byteLength(manifest) } }),
    ...change,
  };
}

/** Put a signed backup into the bucket. @returns the text of its manifest */
export async function storeBackup(
  store: BackupStore,
  location: BackupLocation,
  state: BackupState = 'COMMITTED',
  change: Partial<BackupManifest> = {},
  ofRecord: Partial<CommitRecord> = {},
): Promise<string> {
  const keys = backupKeys(location);
  const text = JSON.stringify(store.mac.seal('manifest', location, manifestOf(location, change)));
  await store.putJson(keys.manifest, text);
  await store.putJson(keys.commit, sealedRecord(store, location, recordOf(location, state, text, ofRecord)));
  return text;
}

export function sealedRecord(store: BackupStore, location: BackupLocation, record: CommitRecord): string {
  return JSON.stringify(store.mac.seal('record', location, record));
}
