/** A pack of small shards whose worker dies: the next attempt goes on. The steps of one shard are the test's own. */
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { describe, expect, test } from 'vitest';
import { createShardPackActivities } from '../../activities/shard-packs.ts';
import type { CopiedShard } from '../../activities/backup-store.ts';
import { FleetError } from '../../src/domain/errors.ts';

const LOCATION = { tenant: 'acme', cluster: 'docs', prefix: '', backup: '20261121T030000Z-1a2b3c4d' };
const TASKS = [0, 1, 2].map((shard) => ({ collection: 'docs', shard, peer: '1', bytes: 100 }));
const SHA = 'a'.repeat(64);
const PACK = { location: LOCATION, attempt: 'run-1', tasks: TASKS, known: ['old'] };

/** The steps of a node that answers at once, and the order in which they were taken. */
function steps(change: { transfer?: (shard: number) => void; remove?: () => void } = {}) {
  const taken: string[] = [];
  const activities = createShardPackActivities({
    createShardSnapshot: ({ task }) => {
      taken.push(`make ${task.shard}`);
      const points = { before: 3, after: 3 };
      return Promise.resolve({ name: `s${task.shard}`, size: 5, sha256: SHA, points, cutAt: '2026-11-21T03:00:00Z' });
    },
    transferShardSnapshot: ({ task, key }) => {
      change.transfer?.(task.shard);
      taken.push(`copy ${key.split('/').at(-1)}`);
      return Promise.resolve({ size: 5, sha256: 'aa', crc32: 'AAAAAA==', sent: 5 });
    },
    transferIncrementalShard: ({ task }) => {
      taken.push(`copy blocks of ${task.shard}`);
      const incremental = { recipeBytes: 7, recipeSha256: 'bb', written: 9 };
      return Promise.resolve({ key: 'recipe', size: 5, sha256: 'aa', crc32: 'AAAAAA==', incremental, sent: 2 });
    },
    deleteShardSnapshot: ({ name }) => {
      taken.push(`delete ${name}`);
      change.remove?.();
      return Promise.resolve();
    },
    noteSnapshotsLeft: ({ peer, tasks, known }) => {
      taken.push(`note ${tasks.map(({ shard }) => shard).join()} on ${peer} but ${known.join()}`);
      return Promise.resolve();
    },
    openCopiedShard: () => Promise.resolve({ points: 4, sample: { key: 'sample', sha256: 'cc', points: 4 } }),
    sweepShardSnapshots: ({ known }) => {
      taken.push(`sweep but ${known.join()}`);
      return Promise.resolve();
    },
  });
  return { taken, activities };
}

function environment(info: ConstructorParameters<typeof MockActivityEnvironment>[0] = {}) {
  const env = new MockActivityEnvironment(info, { logger: new DefaultLogger('ERROR', () => undefined) });
  const beats: { copied?: CopiedShard[] }[] = [];
  env.on('heartbeat', (details: { copied?: CopiedShard[] }) => beats.push({ ...details }));
  return { env, beats };
}

const each = (shard: number) => [`make ${shard}`, `copy shard-${shard}.${'a'.repeat(16)}.snapshot`, `delete s${shard}`];

describe('a pack', () => {
  test('a node that keeps its snapshot does not fail the copy: the snapshot is noted for a later removal', async () => {
    const { taken, activities } = steps({
      remove: () => {
        throw new FleetError('QdrantUnavailable', 'Nobody answers.');
      },
    });
    const { env } = environment();
    const copied: CopiedShard[] = await env.run(() => activities.copyShardPack({ ...PACK, tasks: TASKS.slice(0, 1) }));
    expect(copied).toHaveLength(1);
    expect(taken.slice(-2)).toEqual(['delete s0', 'note 0 on 1 but old']);
  });

  test('is copied one shard after the other, each removed from its node before the next is made', async () => {
    const { taken, activities } = steps();
    const { env, beats } = environment();
    const copied: CopiedShard[] = await env.run(() => activities.copyShardPack(PACK));
    expect(taken).toEqual([0, 1, 2].flatMap(each));
    expect(copied.map(({ shard, points, sourcePeer }) => [shard, points, sourcePeer])).toEqual(
      [0, 1, 2].map((shard) => [shard, { before: 3, after: 3 }, '1']),
    );
    expect(beats.at(-1)?.copied).toEqual(copied);
  });

  test('small copies are opened and counted where that is wanted', async () => {
    const { env } = environment();
    const [first]: CopiedShard[] = await env.run(() =>
      steps().activities.copyShardPack({ ...PACK, engineMaxBytes: 5 }),
    );
    expect(first?.points).toEqual({ before: 3, after: 3, exact: 4 });
    expect(first?.sample).toEqual({ key: 'sample', sha256: 'cc', points: 4 });
  });

  test('an incremental one is copied as blocks', async () => {
    const { taken, activities } = steps();
    const pack = { ...PACK, tasks: TASKS.slice(0, 1), format: 'incremental' as const };
    const [first]: CopiedShard[] = await environment().env.run(() => activities.copyShardPack(pack));
    expect(taken).toEqual(['make 0', 'copy blocks of 0', 'delete s0']);
    expect(first).toMatchObject({ key: 'recipe', size: 5, incremental: { written: 9 } });
    expect(first).not.toHaveProperty('sent');
  });

  test('the attempt after a dead worker goes on behind its last heartbeat, and sweeps at the end', async () => {
    const { env, beats } = environment();
    const dies = steps({
      transfer: (shard) => {
        if (shard === 1) throw new Error('the worker is gone');
      },
    });
    await expect(env.run(() => dies.activities.copyShardPack(PACK))).rejects.toThrow('the worker is gone');
    const heartbeatDetails = structuredClone(beats.at(-1));
    expect(heartbeatDetails?.copied).toHaveLength(1);

    const { taken, activities } = steps();
    const again = environment({ attempt: 2, heartbeatDetails });
    const copied: CopiedShard[] = await again.env.run(() => activities.copyShardPack(PACK));
    expect(taken).toEqual([...each(1), ...each(2), 'sweep but old']);
    expect(copied.map(({ shard }) => shard)).toEqual([0, 1, 2]);
  });

  test('a snapshot that vanishes is made anew, three times at most', async () => {
    let vanished = 0;
    const twice = steps({
      transfer: () => {
        vanished += 1;
        if (vanished <= 2) throw new FleetError('SnapshotVanished', 'gone');
      },
    });
    await environment().env.run(() => twice.activities.copyShardPack(PACK));
    expect(twice.taken.filter((step) => step === 'make 0')).toHaveLength(3);
    const always = steps({
      transfer: () => {
        throw new FleetError('SnapshotVanished', 'gone');
      },
    });
    await expect(environment().env.run(() => always.activities.copyShardPack(PACK))).rejects.toMatchObject({
      code: 'SnapshotVanished',
    });
    expect(always.taken).toEqual(['make 0', 'make 0', 'make 0']);
  });
});
