/** Filling the replicas of a restored collection, by pull from the bucket or through this worker. */
import { readFile } from 'node:fs/promises';
import { Context } from '@temporalio/activity';
import { ShardRelay, type ServedShard, type ShardRelayOptions } from '../src/clients/shard-relay.ts';
import { watched } from '../src/clients/watched-call.ts';
import type { ShardEntry } from '../src/domain/backup.ts';
import { FleetError, messageOf } from '../src/domain/errors.ts';
import type { BackupLocation, ClusterRef } from '../src/domain/naming.ts';
import { locate } from './backup-buckets.ts';
import { requireRecord } from './backup-records.ts';
import { signal } from './context.ts';
import type { Config } from '../src/config.ts';
import type { ActivityDeps } from './deps.ts';
import { peerById, reachablePeers, type Peer } from './peers.ts';
import { packScope, readEntry, shardBytes, shardEntry, withLease } from './restore-source.ts';

/** One replica to fill. */
export interface ReplicaTask {
  readonly shard: number;
  readonly peer: string;
}

interface RecoveryInput extends ReplicaTask {
  readonly target: ClusterRef;
  readonly location: BackupLocation;
  /** Its name in the backup. */
  readonly collection: string;
  /** Its name in the target, where that is another one. */
  readonly as?: string;
}

interface MadeCollection {
  readonly target: ClusterRef;
  /** Its name in the target. */
  readonly collection: string;
}

/** Seconds that a node has to begin reading a shard. */
const URL_LIFETIME = 3600;
/** Bytes per millisecond. Qdrant does not count a recovery while it downloads: a slower download is taken for none. */
const SLOWEST_PULL = 4000;
/** Milliseconds between two heartbeats while no byte is expected to move. */
const BEAT = 3000;
/** Milliseconds without a byte in the middle of a body until the heartbeats stop, and with them the attempt. */
const PATIENCE = 60_000;

export function createRecoveryActivities(deps: ActivityDeps) {
  const { stores, config } = deps;
  const host = config.FLEET_RELAY_HOST;
  const relay =
    host === undefined ? undefined : new ShardRelay({ host, port: config.FLEET_RELAY_PORT, ...pairOf(config) });

  return {
    /**
     * Let one replica pull its shard from the bucket. Never repeated by itself: when two recoveries of one shard
     * overlap, the last one to finish wins.
     *
     * @throws FleetError `QdrantUnavailable` when the node does not answer: it may have recovered the shard, or not;
     *   `IntegrityMismatch` naming the object when other bytes arrived than were backed up
     */
    async recoverReplica(input: RecoveryInput): Promise<void> {
      const { peer, entry } = await prepare(input);
      const url = await stores.of(input.location).presignRead(entry.key, URL_LIFETIME);
      const watch = { unseen: 30_000 + entry.size / SLOWEST_PULL };
      try {
        await leased(input, () => recover(peer, input, { url, entry }, watch));
      } catch (error) {
        if (!cannotReach(error)) throw error;
        const remedy = `The node cannot reach the bucket at ${new URL(url).origin}: check FLEET_S3_NODE_ENDPOINT and the way from the nodes to it, or restore with "via": "worker".`;
        throw new FleetError('QdrantUnavailable', `${messageOf(error)}. ${remedy}`, { cause: error });
      }
    },

    /**
     * Serve one shard from this process to one replica, for nodes that cannot reach the bucket. The path exists for
     * this attempt only.
     *
     * Memory: FLEET_TRANSFER_LANES parts of FLEET_TRANSFER_PART_BYTES, within the budget of all streams.
     *
     * @returns bytes that went through this worker
     */
    async relayReplica(input: RecoveryInput): Promise<{ relayed: number }> {
      if (relay === undefined) throw relayNotConfigured();
      const context = Context.current();
      const { peer, entry } = await prepare(input);
      let reading = 0;
      let movedAt = Date.now();
      const scope = await packScope(stores.of(input.location), input.location);
      const served = await relay.serve(shardBytes(deps, input.location, entry, scope), {
        signal: signal(),
        onBytes: () => {
          movedAt = Date.now();
        },
        onReaders: (readers) => {
          reading = readers;
          movedAt = Date.now();
        },
      });
      // Before and after the body the node is busy by itself; in the middle of it bytes have to move.
      const moves = () => reading > 0 && Date.now() - movedAt < PATIENCE;
      const beat = setInterval(() => {
        if (reading === 0 || moves()) context.heartbeat({ relayed: served.sent, size: entry.size });
      }, BEAT);
      try {
        await leased(input, () => recover(peer, input, { url: served.url, entry }, { unseen: PATIENCE, moves }));
        return { relayed: served.sent };
      } catch (error) {
        throw toldOf(error, served);
      } finally {
        clearInterval(beat);
        served.close();
      }
    },

    /** @throws FleetError `ClusterNotReady` while any node still recovers a shard of the collection */
    async awaitRecoveriesIdle({ target, collection }: MadeCollection): Promise<void> {
      for (const { name, client } of await reachablePeers(deps, target, signal())) {
        if ((await client.gauge('snapshot_recovery_running', collection)) > 0) {
          throw new FleetError('ClusterNotReady', `${name} is still recovering a shard of "${collection}".`);
        }
      }
    },

    /**
     * Drop a collection that an in-place restore is about to make again.
     *
     * @param input `keptIn`: the fresh backup of the target
     * @throws FleetError `RestoreRefused` when that backup is not committed, or does not hold the collection
     */
    async dropReplacedCollection({ target, collection, keptIn }: MadeCollection & { keptIn: string }): Promise<void> {
      const kept = await locate(deps, { ...target, backup: keptIn });
      await requireRecord(stores.of(kept), kept, ['COMMITTED']);
      await readEntry(stores.of(kept), kept, collection);
      const [{ client }] = await reachablePeers(deps, target, signal());
      await client.deleteCollection(collection);
    },

    /** Remove a collection that this operation made. */
    async dropRestoredCollection({ target, collection }: MadeCollection): Promise<void> {
      const [{ client }] = await reachablePeers(deps, target, signal());
      await client.deleteCollection(collection);
    },
  };

  async function prepare(input: RecoveryInput): Promise<{ peer: Peer; entry: ShardEntry }> {
    const { target, location, collection, shard } = input;
    const store = stores.of(location);
    const entry = shardEntry(await readEntry(store, location, collection), shard);
    return { peer: await peerById(deps, target, input.peer, signal()), entry };
  }

  /** One shard may take half a day. */
  function leased(input: RecoveryInput, run: () => Promise<void>): Promise<void> {
    return withLease(stores.of(input.location), input.location, run);
  }
}

interface Watch {
  /** Milliseconds that nothing may be seen of the recovery. */
  readonly unseen: number;
  /** Whether the node is seen to read the shard, which its gauge does not tell. */
  readonly moves?: () => boolean;
}

/** Have the node recover the shard from a URL, for as long as it is seen to work on it. */
async function recover(
  { client, name: pod }: Peer,
  { collection, as: name = collection, shard }: RecoveryInput,
  { url, entry }: { url: string; entry: ShardEntry },
  { unseen, moves = () => false }: Watch,
): Promise<void> {
  const call = (ending: AbortSignal) =>
    client
      .until(ending)
      .recoverShard(name, shard, url, entry.sha256)
      .catch((error: unknown) => {
        // What arrived is not what was backed up: altered on its way, which another try may mend, or in the bucket.
        if (!FleetError.is(error, 'QdrantRejected') || !/checksum/i.test(error.message)) throw error;
        const told = `${pod} got other bytes than were backed up for "${name}" shard ${shard}, object ${entry.key}`;
        throw new FleetError('IntegrityMismatch', `${told}: ${error.message}`, { cause: error });
      });
  const outcome = await watched(call, {
    running: async (ending) => moves() || (await client.until(ending).gauge('snapshot_recovery_running', name)) > 0,
    signal: signal(),
    unseen,
  });
  if ('lost' in outcome) {
    throw new FleetError(
      'QdrantUnavailable',
      `${pod} was told to recover "${name}" shard ${shard}; ${outcome.lost}. Whether it did is not known.`,
    );
  }
}

/** For a restore through a worker that has no address to serve at. */
export function relayNotConfigured(isIncremental = false): FleetError {
  const what = isIncremental ? 'The backup is incremental, and a restore of it' : '"via": "worker"';
  const remedy = `set it, on the workers of the transfer queue, to the address by which the Qdrant nodes reach them, such as the pod's IP address.`;
  const other = isIncremental ? '' : ' Or restore with "via": "bucket".';
  return new FleetError('RestoreRefused', `${what} needs FLEET_RELAY_HOST: ${remedy}${other}`);
}

/** Qdrant's words for a URL that it got no answer from. */
function cannotReach(error: unknown): error is FleetError {
  return FleetError.is(error, 'QdrantUnavailable') && error.message.includes('error sending request');
}

/** Why a recovery through the worker failed, without the secret path, which Qdrant repeats. */
function toldOf(error: unknown, served: ServedShard): unknown {
  // What the source ran into says more than the node, which saw a body that was cut.
  if (FleetError.is(served.failure)) return served.failure;
  if (!FleetError.is(error)) return error;
  const { origin, pathname } = new URL(served.url);
  const message = error.message.replaceAll(pathname, '/…');
  const remedy = cannotReach(error)
    ? ` The node cannot reach this worker at ${origin}: check FLEET_RELAY_HOST, FLEET_RELAY_PORT and the way from the nodes to it.`
    : '';
  return new FleetError(error.code, `${message}${remedy}`);
}

/** Certificate and key of the relay, read anew each time, so that a renewed one is taken up. */
function pairOf({ FLEET_RELAY_CERT_FILE: cert, FLEET_RELAY_KEY_FILE: key }: Config): Pick<ShardRelayOptions, 'pair'> {
  if (cert === undefined || key === undefined) return {};
  return {
    pair: async () => ({ cert: await readFile(cert, 'utf8'), key: await readFile(key, 'utf8') }),
  };
}
