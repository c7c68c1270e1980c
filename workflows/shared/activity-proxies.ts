/**
 * The activities as workflows call them. Every proxy names its timeouts and retries, and waits for a cancelled
 * activity to end: otherwise clean-up would run beside the very call it undoes.
 */
import {
  ActivityCancellationType,
  patched,
  proxyActivities,
  workflowInfo,
  type ActivityOptions,
} from '@temporalio/workflow';
import type { Activities } from '../../activities/index.ts';
import { waitingQueue } from '../../src/domain/task-queues.ts';

const COMMON = {
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
  heartbeatTimeout: '10s',
} as const satisfies ActivityOptions;

/** Short calls that change or read something. They are repeated for some minutes, and then the operation fails. */
const CONTROL = {
  ...COMMON,
  startToCloseTimeout: '5m',
  retry: { initialInterval: '500ms', backoffCoefficient: 2, maximumInterval: '20s', maximumAttempts: 8 },
} as const satisfies ActivityOptions;

/** Calls that must get through: the clean-up, and the record of how an operation ended. */
const PERSISTENT = {
  ...CONTROL,
  retry: { initialInterval: '500ms', backoffCoefficient: 2, maximumInterval: '30s', maximumAttempts: 20 },
} as const satisfies ActivityOptions;

/** First look at the outside world: a store or a cluster that is down should be told soon. */
const PREFLIGHT = { ...CONTROL, retry: { ...CONTROL.retry, maximumAttempts: 4 } } as const satisfies ActivityOptions;

/** A look at many clusters: what fails is looked at again by the next one, so it is not repeated for long. */
const LOOKING = {
  ...COMMON,
  startToCloseTimeout: '2m',
  retry: { maximumAttempts: 2 },
} as const satisfies ActivityOptions;

export const looking = summarised(proxyActivities<Activities>(LOOKING));
export const control = summarised(proxyActivities<Activities>(CONTROL));
export const persistent = summarised(proxyActivities<Activities>(PERSISTENT));
export const preflight = summarised(proxyActivities<Activities>(PREFLIGHT));

/** The options of one control activity, with what the Temporal UI shows beside it. */
export function described(summary: string): ActivityOptions {
  return { ...CONTROL, summary: summary.slice(0, 200) };
}

/** Poll by retry at a steady pace until it no longer fails with a `wait` code, for at most `seconds`. */
export function polled(seconds: number, summary: string): ActivityOptions {
  return {
    ...COMMON,
    startToCloseTimeout: '1m',
    scheduleToCloseTimeout: seconds * 1000,
    // Options given at a call are merged into the proxy's, so its number of attempts has to be lifted here.
    retry: { initialInterval: '500ms', backoffCoefficient: 1, maximumAttempts: Number.POSITIVE_INFINITY },
    summary: summary.slice(0, 200),
  };
}

/** As `polled`, for things that take minutes and answer for money: ask less and less often, for at most `seconds`. */
export function patient(seconds: number, summary: string): ActivityOptions {
  return {
    ...COMMON,
    startToCloseTimeout: '5m',
    scheduleToCloseTimeout: seconds * 1000,
    retry: {
      initialInterval: '1s',
      backoffCoefficient: 1.5,
      maximumInterval: '20s',
      maximumAttempts: Number.POSITIVE_INFINITY,
    },
    summary: summary.slice(0, 200),
  };
}

/** Tidying while the cluster is held: others wait for it, so there is no second try. */
export function tryOnce(summary: string): ActivityOptions {
  return {
    ...COMMON,
    startToCloseTimeout: '30s',
    scheduleToCloseTimeout: '1m',
    retry: { maximumAttempts: 1 },
    summary: summary.slice(0, 200),
  };
}

/** Tidying when the cluster is let go of: a minute, and then a sweep does it. */
export function briefly(summary: string): ActivityOptions {
  return {
    ...COMMON,
    startToCloseTimeout: '30s',
    scheduleToCloseTimeout: '1m',
    retry: { ...PERSISTENT.retry, maximumInterval: '10s', maximumAttempts: Number.POSITIVE_INFINITY },
    summary: summary.slice(0, 200),
  };
}

/** Records that somebody counts on, such as how an operation ended: they wait for the catalogue for hours. */
export function recorded(summary: string): ActivityOptions {
  return {
    ...COMMON,
    startToCloseTimeout: '1m',
    scheduleToCloseTimeout: '6h',
    retry: { ...PERSISTENT.retry, maximumAttempts: Number.POSITIVE_INFINITY },
    summary: summary.slice(0, 200),
  };
}

/** The commit of a complete copy: it waits for the store for hours, since the copy is worth more than they are. */
export function committing(summary: string): ActivityOptions {
  return { ...recorded(summary), startToCloseTimeout: '10m' };
}

/** Wait for others to end their work on the cluster, for at most six hours. */
export function queued(summary: string): ActivityOptions {
  const retry = { initialInterval: '500ms', backoffCoefficient: 1.5, maximumInterval: '5s' } as const;
  return { ...polled(6 * 3600, summary), retry: { ...retry, maximumAttempts: Number.POSITIVE_INFINITY } };
}

/**
 * For calls that wait hours for a node: they have slots of their own, so that the waiting of one tenant does not keep the
 * control work of all others from its turn. Runs replay on their old queue.
 */
function waiting(): Pick<ActivityOptions, 'taskQueue'> {
  return patched('waiting-has-its-own-queue') ? { taskQueue: waitingQueue(workflowInfo().taskQueue) } : {};
}

/** Making a snapshot takes as long as the node's disk needs. */
export function snapshotting(summary: string): ActivityOptions {
  return {
    ...COMMON,
    ...waiting(),
    startToCloseTimeout: '12h',
    retry: { initialInterval: '500ms', backoffCoefficient: 1.5, maximumInterval: '10s', maximumAttempts: 20 },
    summary: summary.slice(0, 200),
  };
}

/** A byte stream: long, on the queue near the cluster, given up when no byte moves. */
export function streaming(taskQueue: string, summary: string): ActivityOptions {
  return {
    ...COMMON,
    taskQueue,
    startToCloseTimeout: '24h',
    // A stream that is silent for this long is taken up by another attempt, which sends only what is missing.
    heartbeatTimeout: '15s',
    retry: {
      initialInterval: '500ms',
      maximumInterval: '10s',
      maximumAttempts: 10,
      // A new snapshot is needed then, not another try.
      nonRetryableErrorTypes: ['SnapshotVanished'],
    },
    summary: summary.slice(0, 200),
  };
}

/** Recoveries of one shard must not overlap, so none is ever repeated by Temporal. */
const ONCE = {
  ...COMMON,
  startToCloseTimeout: '12h',
  retry: { maximumAttempts: 1 },
} as const satisfies ActivityOptions;

/** A recovery whose bytes the node fetches itself. */
export function pulling(summary: string): ActivityOptions {
  return { ...ONCE, ...waiting(), summary: summary.slice(0, 200) };
}

/** A recovery whose bytes come through the worker that runs the activity: never repeated either. */
export function relaying(taskQueue: string, summary: string): ActivityOptions {
  return { ...ONCE, taskQueue, heartbeatTimeout: '15s', summary: summary.slice(0, 200) };
}

/** What the Temporal UI shows beside an activity whose call says nothing more exact. */
const SUMMARIES: Readonly<Record<keyof Activities, string>> = {
  registerOperation: 'Make the operation known',
  takeLease: "Take the cluster's operation lease",
  releaseLease: 'Let go of the lease',
  endOperation: 'Record the end, let go of the leases',
  reserveCluster: 'Reserve the name, resolve the presets',
  loadCluster: 'Read the cluster from the catalogue',
  clusterExists: 'Look whether the cluster exists',
  setClusterPhase: "Set the cluster's phase",
  recordSpec: 'Record the specification',
  pauseSchedules: 'Pause the backup schedules',
  unpauseSchedules: 'Let the backup schedules run again',
  planClusterUpdate: 'Look at the cluster, plan the change',
  inspectCluster: 'Look whether the cluster is whole',
  endLostOperations: 'End the operations whose workflow is gone',
  listClustersToObserve: 'List the clusters, page by page',
  observeClusters: 'Look at the clusters of a page',
  planShardMoves: 'Choose the shards to move',
  moveShard: 'Move a shard',
  abortShardMoves: 'Stop what is on its way',
  replacePeers: 'Remove lost peers, empty their volumes',
  removePeers: 'Take empty peers out of consensus',
  awaitPodsGone: 'Wait until the pods are gone',
  removeSurplusClaims: 'Remove the volume claims of pods that are gone',
  nextPodToRestart: 'Wait until the cluster is whole, choose the next pod',
  restartPod: 'Restart a pod',
  inspectRollout: 'Look which pods run the new template',
  stageApiKey: 'Change the keys in the Secret',
  ensureCertificates: 'Authority and certificate of the cluster',
  listDueCertificates: 'Certificates that are due, of a page of clusters',
  inspectCertificates: 'How long the certificate is good',
  stageCertificates: 'Change the certificates in the Secrets',
  growVolumeClaims: 'Grow the volume claims',
  awaitVolumesGrown: 'Wait until the volumes have grown',
  releaseStatefulSet: 'Remove the StatefulSet, keep its pods',
  forgetCluster: 'Forget the cluster and its schedules',
  indexBackup: 'Bring the index of backups up to date',
  ensureNamespace: 'Namespace',
  ensureApiKey: 'API key in a Secret, generated once',
  applySurroundings: 'Network policy, service account, load balancer',
  deleteVolumeClaims: 'Remove the volume claims',
  removeNamespace: 'Remove the namespace',
  installRelease: 'Apply the Helm chart',
  uninstallRelease: 'Uninstall the Helm release',
  awaitPeers: 'All peers up and in consensus',
  ensureCollection: 'Collection with its payload indexes',
  nextShards: 'Which shards come next, and their snapshots on the node',
  storeCopied: 'Lay down the list of copied shards',
  copyShardPack: 'Copy small shards',
  createShardSnapshot: 'Snapshot of a shard',
  deleteShardSnapshot: "Remove the node's copy",
  sweepShardSnapshots: 'Remove what is left on the node',
  noteSnapshotsLeft: 'Note what is left on the node, for a later removal',
  workOffChores: 'Do what earlier operations could not tidy',
  removeSnapshotsLeft: 'Remove what earlier backups left on the nodes',
  planBackup: 'Look at the cluster, choose a source for each shard',
  replanShards: 'Choose other sources for shards whose replica was not Active',
  commitBackup: 'Check the topology again, write manifest and record',
  abandonBackup: 'Claim the record as ABORTED, remove the data',
  openBackup: 'Take a lease on the backup, read what is in it',
  renewBackupLease: 'Renew the lease on the backup',
  closeBackup: 'Let go of the backup',
  previewRestore: 'What would happen, and what is in the way',
  checkRestoreGates: 'Everything that can be known to go wrong',
  createRestoredCollection: 'Collection like the one backed up',
  placeReplicas: 'Replicas in place',
  recoverReplica: 'A replica pulls its shard',
  relayReplica: 'A replica gets its shard through a worker',
  awaitRecoveriesIdle: 'Recoveries have ended',
  dropReplacedCollection: 'Drop what is in the fresh backup',
  dropRestoredCollection: 'Drop what this operation made',
  verifyRestoredCollection: 'Count on every replica',
  restoreAliases: 'Switch the aliases, all at once',
  surveyBackups: 'Read all records in the bucket',
  markBackupDeleting: 'COMMITTED or CORRUPT -> DELETING',
  undeleteBackup: 'DELETING -> what it was',
  purgeBackup: 'DELETING -> PURGING, remove the data, -> DELETED',
  collectUnfinished: 'Claim as ABORTED, remove the data',
  transferShardSnapshot: 'Copy a snapshot into the bucket',
  transferIncrementalShard: 'Copy what no earlier backup holds into the bucket',
  openCopiedShard: "Open and count the copy by Qdrant's engine",
  leaseBackup: 'Take a lease on the backup',
  listBackupShards: 'Shards of the backup',
  verifyShard: 'Read a shard again',
  attestBackup: 'Write down the outcome, in the record too',
  planInfrastructure: 'Ask AWS whether it can be done, choose the zones',
  ensureRoles: 'IAM roles',
  ensureClusterAccess: 'Administrators, backup role for its service account',
  deleteAccess: 'Remove the roles',
  ensureNetwork: 'VPC, subnets, gateways, routes',
  awaitNetwork: 'NAT gateways available, routes to them',
  deleteNetwork: 'Remove the network',
  ensureControlPlane: 'EKS cluster',
  awaitControlPlane: 'EKS cluster active',
  ensureAddons: 'Add-ons of EKS',
  deleteControlPlane: 'Remove the EKS cluster',
  ensureNodeGroups: 'Launch template and node group',
  awaitNodeGroups: 'Machines running',
  deleteNodeGroups: 'Remove the machines and their volumes',
  setMachines: 'Set the number of machines, keep those with peers',
  configureMachines: 'Labels and taints of the machines',
  awaitMachines: 'Machines joined, or gone',
  machinesToWake: 'How many machines the volumes need',
  ensureBackupBucket: 'Bucket for backups',
  deleteBackupBucket: 'Remove the bucket if it is empty',
  ensureStorageClass: 'Storage class, encrypted gp3',
  controlPlaneExists: 'Look whether the EKS cluster is there',
  drainVolumes: 'Volumes removed by Kubernetes',
  surveyInfrastructure: "What the account has of ours, and what is nobody's",
};

type Proxies = ReturnType<typeof proxyActivities<Activities>>;

/** The proxies with a summary for every plain call; a call with options of its own brings its own. */
function summarised(proxies: Proxies): Proxies {
  return new Proxy(proxies, {
    get(target, name: keyof Activities) {
      const activity = target[name] as unknown as Summarisable;
      const call = (...args: unknown[]) => activity.executeWithOptions({ summary: SUMMARIES[name] }, args);
      return Object.assign(call, { executeWithOptions: activity.executeWithOptions });
    },
  });
}

interface Summarisable {
  readonly executeWithOptions: (options: ActivityOptions, args: unknown[]) => Promise<unknown>;
}
