/** All activities of a worker, over one set of dependencies. */
import { createBackupStoreActivities } from './backup-store.ts';
import { createCatalogActivities } from './catalog.ts';
import type { ActivityDeps } from './deps.ts';
import { createHelmActivities } from './helm.ts';
import { createKubernetesActivities } from './kubernetes.ts';
import { createQdrantActivities } from './qdrant.ts';
import { createRecoveryActivities } from './recovery.ts';
import { createRestoreActivities } from './restore.ts';
import { createRetentionActivities } from './retention.ts';
import { createSnapshotTransferActivities } from './snapshot-transfer.ts';
import { createSnapshotsLeftActivities } from './snapshots-left.ts';
import { createVerificationActivities } from './verification.ts';

export function createActivities(deps: ActivityDeps) {
  return {
    ...createCatalogActivities(deps),
    ...createKubernetesActivities(deps),
    ...createHelmActivities(deps),
    ...createQdrantActivities(deps),
    ...createBackupStoreActivities(deps),
    ...createRecoveryActivities(deps),
    ...createRestoreActivities(deps),
    ...createRetentionActivities(deps),
    ...createSnapshotTransferActivities(deps),
    ...createSnapshotsLeftActivities(deps),
    ...createVerificationActivities(deps),
  };
}

/** What the workflows import, as a type only. */
export type Activities = ReturnType<typeof createActivities>;
