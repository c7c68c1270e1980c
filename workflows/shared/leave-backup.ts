/** The lease that a restore or a verification has on its backup, and how it is let go of. */
import { workflowInfo } from '@temporalio/workflow';
import { persistent } from './activity-proxies.ts';
import type { Operation } from './operation.ts';

interface BackupLease {
  readonly tenant: string;
  /** The cluster that was backed up. */
  readonly source: string;
  readonly backup: string;
}

/**
 * Let go of the backup when the operation ends, whatever way it ends. Call before the backup is opened: the lease is
 * written first of all. A lease that cannot be removed runs out by itself within an hour.
 */
export function leaveBackup({ tidying }: Operation, lease: BackupLease): void {
  const { tenant, source: cluster, backup } = lease;
  const what = { backup, holder: workflowInfo().workflowId };
  tidying.add(`lease on backup ${backup} of ${cluster}`, { tenant, cluster, kind: 'backup-lease', what }, (options) =>
    persistent.closeBackup.executeWithOptions(options, [lease]),
  );
}
