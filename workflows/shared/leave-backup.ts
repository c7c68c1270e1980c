/** The lease that a restore or a verification has on its backup, and how it is let go of. */
import { workflowInfo } from '@temporalio/workflow';
import { persistent } from './activity-proxies.ts';
import { keepLease, type LeasedBackup } from './backup-lease.ts';
import type { Operation } from './operation.ts';

/**
 * Renew the lease as long as the operation runs, and let go of the backup when it ends, whatever way it ends. Call before the backup is opened: the lease is
 * written first of all. A lease that cannot be removed runs out by itself within an hour.
 */
export function leaveBackup({ tidying }: Operation, lease: LeasedBackup): void {
  const { tenant, source: cluster, backup } = lease;
  const what = { backup, holder: workflowInfo().workflowId };
  const renewal = keepLease(lease);
  tidying.add(
    `lease on backup ${backup} of ${cluster}`,
    { tenant, cluster, kind: 'backup-lease', what },
    async (options) => {
      await renewal.end();
      await persistent.closeBackup.executeWithOptions(options, [lease]);
    },
  );
}
