/** The lease that keeps a backup's data while an operation reads it: renewed for as long as the operation runs. */
import { CancellationScope, isCancellation, log, patched, sleep } from '@temporalio/workflow';
import { persistent } from './activity-proxies.ts';
import { isFailure, reasonOf } from './failures.ts';

/** A backup that is read. */
export interface LeasedBackup {
  readonly tenant: string;
  /** The cluster that was backed up. */
  readonly source: string;
  readonly backup: string;
}

export interface Renewal {
  /** Renew no more. Called before the lease is let go of: a late renewal would bring it back. */
  end(): Promise<void>;
}

/** A lease counts for an hour; three renewals may fail before it runs out. */
const EVERY = '15m';

/**
 * Renew the lease on a backup in the background, whatever the operation waits for meanwhile: a cluster that is made, a
 * fresh backup, a node that recovers a large shard. A renewal that fails is made good by the next one.
 */
export function keepLease(backup: LeasedBackup): Renewal {
  if (!patched('renew-lease-while-reading')) return { end: () => Promise.resolve() };
  const scope = new CancellationScope();
  const renewing = scope.run(async () => {
    for (;;) {
      await sleep(EVERY);
      await renew(backup);
    }
  });
  const ended = renewing.catch((error: unknown) => {
    if (!isCancellation(error)) throw error;
  });
  return {
    end: async () => {
      scope.cancel();
      await ended;
    },
  };
}

async function renew(backup: LeasedBackup): Promise<void> {
  try {
    await persistent.renewBackupLease(backup);
  } catch (error) {
    if (isCancellation(error) || !isFailure(error)) throw error;
    log.warn(`could not renew the lease on backup ${backup.backup}`, { ...reasonOf(error) });
  }
}
