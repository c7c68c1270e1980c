/** The byte stream from a Qdrant node into the bucket. */
import type { ClusterRef, InBucket } from '../src/domain/naming.ts';
import type { ShardTask } from '../src/domain/topology.ts';
import { partSizeFor, relay } from '../src/clients/relay.ts';
import { heartbeats, signal } from './context.ts';
import type { ActivityDeps } from './deps.ts';
import { mismatch, openSnapshot } from './open-snapshot.ts';
import { transferBudget } from './transfer-budget.ts';

export interface TransferInput extends ClusterRef, InBucket {
  readonly task: ShardTask;
  readonly snapshot: { readonly name: string; readonly size: number; readonly sha256: string };
  /** S3 key to write. */
  readonly key: string;
}

export interface TransferResult {
  readonly size: number;
  readonly sha256: string;
  /** The store's full-object CRC32, base64. */
  readonly crc32: string;
  /** Bytes that this attempt sent; less than `size` when it took up what an earlier one had sent. */
  readonly sent: number;
}

export function createSnapshotTransferActivities(deps: ActivityDeps) {
  const { stores, config } = deps;
  const budget = transferBudget(config);

  return {
    /**
     * Copy one stored shard snapshot into the bucket and prove that the bytes are the ones Qdrant hashed.
     *
     * Memory: at most lanes x part size per stream, and all streams of the worker together stay within
     * FLEET_TRANSFER_BUFFER_BYTES, whatever the snapshot's or its parts' size. What an earlier attempt uploaded is
     * found by asking the store, compared with the source by CRC, and not sent again.
     *
     * @throws FleetError `SnapshotVanished` when the node no longer has the file, `IntegrityMismatch` when the bytes
     *   are not those that Qdrant announced
     */
    async transferShardSnapshot(input: TransferInput): Promise<TransferResult> {
      const { tenant, cluster, task, snapshot, key } = input;
      const ref = { tenant, cluster };
      const store = stores.of(input);
      const beat = heartbeats();
      const { source, where } = await openSnapshot(deps, ref, task, snapshot);
      const partSize = partSizeFor(snapshot.size, config.FLEET_TRANSFER_PART_BYTES, config.FLEET_S3_MAX_PARTS);
      let moved = 0;
      const result = await relay({
        source,
        store,
        key,
        partSize,
        lanes: config.FLEET_TRANSFER_LANES,
        ...budget,
        signal: signal(),
        // Heartbeats come from moved bytes: a stream that stands still is one that Temporal ends.
        onProgress: (bytes) => {
          moved += bytes;
          beat({ moved, size: snapshot.size });
        },
      });
      if (result.sha256 !== snapshot.sha256) {
        await store.deleteKeys([key]);
        throw mismatch(`${where} hashed to ${result.sha256}, Qdrant announced ${snapshot.sha256}`);
      }
      const stored = await store.head(key);
      if (stored?.size !== snapshot.size || (stored.crc32 !== undefined && stored.crc32 !== result.crc32)) {
        throw mismatch(
          `${key} is stored with ${stored?.size} bytes and CRC32 ${stored?.crc32}, sent were ${snapshot.size} bytes and ${result.crc32}`,
        );
      }
      return { size: snapshot.size, sha256: result.sha256, crc32: result.crc32, sent: result.sent };
    },
  };
}
