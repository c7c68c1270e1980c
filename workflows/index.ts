/** All workflow types. What is exported here is what a worker runs; a test lists the names. */
export { BackupCluster } from './backup-cluster.ts';
export { BackupPeer } from './backup-peer.ts';
export { DeleteCluster } from './delete-cluster.ts';
export { InfrastructureSweep } from './infrastructure-sweep.ts';
export { ObserveClusters } from './observe-clusters.ts';
export { ProvisionCluster } from './provision-cluster.ts';
export { RenewCertificates } from './renew-certificates.ts';
export { RotateCertificates } from './rotate-certificates.ts';
export { RotateApiKey } from './rotate-api-key.ts';
export { ResumeCluster, SuspendCluster } from './suspend-cluster.ts';
export { UpdateCluster } from './update-cluster.ts';
export { RestoreCluster } from './restore-cluster.ts';
export { RetentionSweep } from './retention-sweep.ts';
export { UndeleteBackup } from './undelete-backup.ts';
export { VerifyBackup } from './verify-backup.ts';
