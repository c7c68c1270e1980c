/** How the bytes of a backup get to the nodes of a restore. */

/** `bucket`: each node pulls by a presigned URL. `worker`: a worker reads the bucket and serves the nodes. */
export const RESTORE_VIA = ['bucket', 'worker'] as const;
export type RestoreVia = (typeof RESTORE_VIA)[number];
