import { log, ParentClosePolicy, startChild } from '@temporalio/workflow';
import type { ClusterRef } from '../src/domain/naming.ts';
import { looking } from './shared/activity-proxies.ts';
import { isFailure, reasonOf } from './shared/failures.ts';
import { RotateCertificates } from './rotate-certificates.ts';

interface Renewals {
  /** Clusters with TLS that were looked at. */
  readonly looked: number;
  /** Rotations that were started. */
  readonly started: number;
  /** Clusters that could not be looked at; the next run does. */
  readonly unseen: number;
}

/** Rotations that one run starts: what is left has months, and the next run has a day. */
const MOST = 500;

/**
 * Start `RotateCertificates` for each cluster whose certificate has less than a third of its life left, or whose pods were
 * not restarted since it changed. The rotations are operations of their own and outlive this run. A schedule of the
 * worker's starts this every `FLEET_RENEW_HOURS`.
 *
 * Input: `{}`.
 */
export async function RenewCertificates(): Promise<Renewals> {
  let [looked, started, unseen] = [0, 0, 0];
  let after: ClusterRef | undefined;
  do {
    const page = await looking.listDueCertificates(after === undefined ? {} : { after });
    looked += page.looked;
    unseen += page.unseen;
    for (const ref of page.due) if (await begin(ref)) started += 1;
    after = page.next;
  } while (after !== undefined && started < MOST);
  return { looked, started, unseen };
}

/** @returns false when its rotation runs already, or could not be started */
async function begin({ tenant, cluster }: ClusterRef): Promise<boolean> {
  try {
    await startChild(RotateCertificates, {
      workflowId: `renew-certificates/${tenant}--${cluster}`,
      args: [{ tenant, cluster, onlyIfDue: true }],
      parentClosePolicy: ParentClosePolicy.ABANDON,
      staticSummary: `Renew the certificate of ${tenant}/${cluster}`,
    });
    return true;
  } catch (error) {
    if (!isFailure(error)) throw error;
    if (error instanceof Error && error.name === 'WorkflowExecutionAlreadyStartedError') return false;
    log.warn('could not start a rotation', { tenant, cluster, ...reasonOf(error) });
    return false;
  }
}
