/** All activities of a worker, over one set of dependencies. */
import { createAwsAccessActivities } from './aws-access.ts';
import { createAwsBackupBucketActivities } from './aws-backup-bucket.ts';
import { createAwsControlPlaneActivities } from './aws-control-plane.ts';
import { createAwsNetworkActivities } from './aws-network.ts';
import { createAwsNodeGroupActivities } from './aws-node-groups.ts';
import { createAwsPlanActivities } from './aws-plan.ts';
import { createAwsScalingActivities } from './aws-scaling.ts';
import { createAwsStorageActivities } from './aws-storage.ts';
import { createAwsSweepActivities } from './aws-sweep.ts';
import { createBackupLaneActivities } from './backup-lanes.ts';
import { createBackupStoreActivities } from './backup-store.ts';
import { createApiKeyActivities } from './api-key.ts';
import { createCertificateActivities } from './certificates.ts';
import { createCatalogActivities } from './catalog.ts';
import { createChoreActivities } from './chores.ts';
import { createClusterUpdateActivities } from './cluster-update.ts';
import type { ActivityDeps } from './deps.ts';
import { createHelmActivities } from './helm.ts';
import { createIncrementalTransferActivities } from './incremental-transfer.ts';
import { createKubernetesActivities } from './kubernetes.ts';
import { createObservationActivities } from './observation.ts';
import { createQdrantActivities } from './qdrant.ts';
import { createRecoveryActivities } from './recovery.ts';
import { createRestoreActivities } from './restore.ts';
import { createRetentionActivities } from './retention.ts';
import { createShardMoveActivities } from './shard-moves.ts';
import { createShardPackActivities } from './shard-packs.ts';
import { createSnapshotTransferActivities } from './snapshot-transfer.ts';
import { createSnapshotsLeftActivities } from './snapshots-left.ts';
import { createVerificationActivities } from './verification.ts';

export function createActivities(deps: ActivityDeps) {
  const single = {
    ...createQdrantActivities(deps),
    ...createSnapshotTransferActivities(deps),
    ...createIncrementalTransferActivities(deps),
    ...createVerificationActivities(deps),
    ...createSnapshotsLeftActivities(deps),
  };
  return {
    ...single,
    ...createShardPackActivities(single),
    ...createCatalogActivities(deps),
    ...createKubernetesActivities(deps),
    ...createHelmActivities(deps),
    ...createClusterUpdateActivities(deps),
    ...createShardMoveActivities(deps),
    ...createObservationActivities(deps),
    ...createApiKeyActivities(deps),
    ...createCertificateActivities(deps),
    ...createBackupLaneActivities(deps),
    ...createBackupStoreActivities(deps),
    ...createRecoveryActivities(deps),
    ...createRestoreActivities(deps),
    ...createRetentionActivities(deps),
    ...createChoreActivities(deps),
    ...createAwsPlanActivities(deps),
    ...createAwsNetworkActivities(deps),
    ...createAwsControlPlaneActivities(deps),
    ...createAwsNodeGroupActivities(deps),
    ...createAwsScalingActivities(deps),
    ...createAwsAccessActivities(deps),
    ...createAwsBackupBucketActivities(deps),
    ...createAwsStorageActivities(deps),
    ...createAwsSweepActivities(deps),
  };
}

/** What the workflows import, as a type only. */
export type Activities = ReturnType<typeof createActivities>;
