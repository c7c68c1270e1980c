/** What the activities work with. One set per worker process. */
import type { Catalog } from '../src/clients/catalog.ts';
import type { Helm } from '../src/clients/helm.ts';
import type { Kubernetes } from '../src/clients/kubernetes.ts';
import type { BackupStore } from '../src/clients/s3.ts';
import type { Config } from '../src/config.ts';

export interface ActivityDeps {
  readonly config: Config;
  readonly catalog: Catalog;
  readonly store: BackupStore;
  readonly kubernetes: Kubernetes;
  readonly helm: Helm;
  readonly temporal: TemporalPort;
}

/** What activities ask Temporal itself. */
export interface TemporalPort {
  /** Whether the workflow run is still open. A run that Temporal has forgotten is closed. */
  isOpen(workflowId: string, runId: string): Promise<boolean>;
  /** Remove all backup schedules of a cluster; returns how many there were. */
  deleteSchedules(tenant: string, cluster: string): Promise<number>;
}
