/** What the activities work with. One set per worker process. */
import type { AwsClients } from '../src/clients/aws/clients.ts';
import type { Catalog } from '../src/clients/catalog.ts';
import type { BackupStores } from '../src/clients/stores.ts';
import type { Config } from '../src/config.ts';
import type { Ending } from '../src/domain/abandoned.ts';
import type { ClusterRef } from '../src/domain/naming.ts';
import type { KubernetesAccess } from '../src/providers/provider.ts';

export interface ActivityDeps {
  readonly config: Config;
  readonly catalog: Catalog;
  readonly stores: BackupStores;
  readonly clusters: ClusterPort;
  readonly aws: AwsClients;
  readonly temporal: TemporalPort;
}

/** Finds the Kubernetes of each Qdrant cluster: all may share one, or each may have its own. */
export interface ClusterPort {
  of(ref: ClusterRef): Promise<KubernetesAccess>;
}

/** What activities ask Temporal itself. */
export interface TemporalPort {
  /** Whether the workflow run is still open. A run that Temporal has forgotten is closed. */
  isOpen(workflowId: string, runId: string): Promise<boolean>;
  /**
   * How the latest run of a workflow ended; `undefined` while it is open. One that Temporal does not know counts as ended
   * only when it began so long ago that Temporal may have forgotten it.
   */
  ending(workflowId: string, startedAt: Date): Promise<Ending | undefined>;
  /** Remove all backup schedules of a cluster; returns how many there were. */
  deleteSchedules(tenant: string, cluster: string): Promise<number>;
  /** Pause the schedules that run; returns how many there were. */
  pauseSchedules(tenant: string, cluster: string): Promise<number>;
  /** Let those run again that `pauseSchedules` paused, and no others. */
  unpauseSchedules(tenant: string, cluster: string): Promise<number>;
}
