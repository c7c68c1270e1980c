import { ApplicationFailure, patched } from '@temporalio/workflow';
import type { ShardRef, ShardVerdict } from '../activities/verification.ts';
import { parseVerifyInput } from '../src/domain/input.ts';
import { backupTimeOf, inBucket, placeOf, type BackupLocation } from '../src/domain/naming.ts';
import { control, preflight, streaming } from './shared/activity-proxies.ts';
import { leaveBackup } from './shared/leave-backup.ts';
import { checked } from './shared/input.ts';
import { runOperation, type Ended } from './shared/operation.ts';

const STEPS = {
  open: 'Open the backup',
  read: 'Read every shard again',
  attest: 'Write down the outcome',
} as const;

/** Shards that are read side by side; how many streams really run is the workers' affair. */
const PARALLEL_SHARDS = 4;

/**
 * Prove that a backup is still what was committed: every object re-read and re-hashed and, below a size that the
 * configuration sets, opened and counted by Qdrant's own engine, without any cluster. The outcome is written beside the
 * backup and into its record: one that is damaged is CORRUPT from then on, until a later verification finds it whole. A
 * store that does not answer proves no damage.
 *
 * Point of no return: the outcome is written down.
 *
 * Input: `{"tenant":"acme","cluster":"docs","backup":"<id>"}`.
 */
export async function VerifyBackup(
  input: unknown,
): Promise<Ended<{ backup: string; shards: number; bytes: number; opened: number; signature?: string }>> {
  const { tenant, cluster, backup } = checked(input, parseVerifyInput);
  const ref = { tenant, cluster };
  return runOperation({ kind: 'verify', ref, steps: Object.values(STEPS) }, async (operation) => {
    const lease = { tenant, source: cluster, backup };
    leaveBackup(operation, lease);
    const found = await operation.step(
      STEPS.open,
      async () => {
        const { location } = patched('verify-damaged-manifests')
          ? await preflight.leaseBackup({ ...ref, backup })
          : await preflight.openBackup(lease);
        return { location, ...(await control.listBackupShards({ location })) };
      },
      ({ location, shards }) => `${shards.length} shards of ${placeOf(location)}`,
    );
    const { location, shards, transferQueue, problem, seal } = found;
    if (seal !== undefined && seal !== 'valid') {
      operation.warn(`Nothing proves that the fleet wrote this backup: its MAC is ${seal}. See docs/backup-trust.md.`);
    }

    const verdicts: ShardVerdict[] = [];
    const problems: string[] = problem === undefined ? [] : [problem];
    const damagedIn = new Set<string>();
    await operation.step(STEPS.read, async () => {
      const queue = [...shards];
      const lane = async (): Promise<void> => {
        for (let shard = queue.shift(); shard !== undefined; shard = queue.shift()) {
          const verdict = await verify(location, transferQueue, shard);
          verdicts.push(verdict);
          if (verdict.problem !== undefined) {
            problems.push(`"${shard.collection}" shard ${shard.shard} ${verdict.problem}`);
          }
          if (verdict.damagedIn !== undefined) damagedIn.add(verdict.damagedIn);
          operation.advance(STEPS.read, verdicts.length, shards.length, 'shards');
        }
      };
      const lanes = await Promise.allSettled(Array.from({ length: PARALLEL_SHARDS }, lane));
      const failed = lanes.find((outcome) => outcome.status === 'rejected');
      if (failed !== undefined) throw failed.reason;
    });

    const bytes = verdicts.reduce((sum, verdict) => sum + verdict.bytes, 0);
    const opened = verdicts.filter((verdict) => verdict.opened).length;
    await operation.step(STEPS.attest, async () => {
      const kind = problems.length === 0 ? ('verified' as const) : ('corrupt' as const);
      const attested = await control.attestBackup({
        location,
        attestation: {
          ...{ kind, shards: shards.length, bytes, opened, problems: problems.slice(0, 100) },
          ...(damagedIn.size > 0 && { damagedIn: [...damagedIn] }),
        },
      });
      operation.pointOfNoReturn();
      for (const { backup: of, state } of recordsOf(attested)) {
        const entry = { ...ref, ...inBucket(location), backup: of, state, createdAt: backupTimeOf(of).toISOString() };
        const chore = { ...ref, kind: 'backup-index', what: { backup: of } } as const;
        await operation.tidying.now(`entry of backup ${of} in the list`, chore, (options) =>
          control.indexBackup.executeWithOptions(options, [entry]),
        );
      }
    });
    if (problems.length > 0) {
      const also = damagedIn.size === 0 ? '' : ` So is ${[...damagedIn].join(', ')}, whose blocks it refers to.`;
      throw ApplicationFailure.nonRetryable(
        `Backup ${backup} is damaged and marked CORRUPT: ${problems.slice(0, 10).join('; ')}.${also} Restore from another one.`,
        'IntegrityMismatch',
      );
    }
    return { backup, shards: shards.length, bytes, opened, ...(seal !== undefined && { signature: seal }) };
  });
}

/** Earlier versions answered nothing, and left the records alone. */
function recordsOf(attested: Awaited<ReturnType<typeof control.attestBackup>> | null | undefined) {
  return attested?.records ?? [];
}

function verify(location: BackupLocation, transferQueue: string, shard: ShardRef): Promise<ShardVerdict> {
  const summary = `Read "${shard.collection}" shard ${shard.shard}, ${(shard.size / 1e6).toFixed(1)} MB`;
  return control.verifyShard.executeWithOptions(streaming(transferQueue, summary), [
    { location, collection: shard.collection, shard: shard.shard },
  ]);
}
