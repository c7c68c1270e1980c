/** What an operation could not tidy: written down in the catalogue, and worked off by the next sweep of the cluster. */
import type { ClusterRef } from './naming.ts';

/**
 * - `backup-lease`: the lease of a restore or a verification on a backup. `what`: `backup`, `holder`.
 * - `backup-index`: a backup that is committed and not in the catalogue's list. `what`: `backup`.
 * - `backup-uploads`: uploads and copies that a committed backup does not need. `what`: `backup`, `attempt`.
 *
 * Snapshots that stay on the nodes have a table of their own, `snapshots_left`.
 */
export const CHORE_KINDS = ['backup-lease', 'backup-index', 'backup-uploads'] as const;

export type ChoreKind = (typeof CHORE_KINDS)[number];

/** Something to do that no user waits for. The cluster is the one whose sweep does it. */
export interface Chore extends ClusterRef {
  readonly kind: ChoreKind;
  readonly what: Readonly<Record<string, string>>;
}

/** A chore, and why the operation could not do it itself. */
export interface ChoreLeft extends Chore {
  readonly why: string;
}
