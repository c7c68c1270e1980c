/**
 * Replacing collections without leaving less than there was. Qdrant cannot rename a collection, so the old one has to go
 * before the new one can have its name. Two things stand against that moment:
 *
 * 1. Where the disks allow it, the backup is restored beside the old collections first, under names of its own, proven,
 *    and dropped again: what cannot be loaded is found out before anything goes.
 * 2. The old collections are in a fresh backup. Whatever fails or is cancelled after one was dropped, they are put back
 *    from it by the operation itself.
 */
import { CancellationScope, workflowInfo } from '@temporalio/workflow';
import type { BackupLocation, ClusterRef } from '../../src/domain/naming.ts';
import { FleetError } from '../../src/domain/errors.ts';
import type { RestoreVia } from '../../src/domain/restore-via.ts';
import { control, patient, persistent, polled } from './activity-proxies.ts';
import { reasonOf } from './failures.ts';
import { leaveBackup } from './leave-backup.ts';
import type { Operation } from './operation.ts';
import { dropWhenIdle, inParallel, restoreCollection, type RestoreWay } from './restore-collection.ts';

/** Seconds that the store may be away when collections are put back: nobody has a better copy. */
const OPEN_SECONDS = 1800;
/** Seconds that the nodes may take to come to rest, or to answer again. */
const IDLE_SECONDS = 3600;
/** Collections that are restored side by side. */
export const PARALLEL_COLLECTIONS = 2;

export interface Proof {
  readonly target: ClusterRef;
  readonly location: BackupLocation;
  /** Names in the backup of what replaces something. */
  readonly collections: readonly string[];
  readonly replicationFactor?: number;
}

/** Restore collections under names of their own, prove them, and drop them again. @returns points that were proven */
export async function proveBeside(
  { saga }: Operation,
  { collections, ...input }: Proof,
  way: RestoreWay,
  onProven: (proven: number) => void,
): Promise<number> {
  const { target } = input;
  const run = workflowInfo().runId.slice(0, 8);
  let points = 0;
  let proven = 0;
  await inParallel([...collections.entries()], PARALLEL_COLLECTIONS, async ([index, collection]) => {
    const as = `fleet-proof-${run}-${index}`;
    let ours = true;
    saga.add(`collection "${as}"`, async () => {
      if (ours) await dropWhenIdle({ target, collection: as });
    });
    const onForeign = () => {
      ours = false;
    };
    const found = await restoreCollection({ ...input, collection, as }, { ...way, onForeign });
    await dropWhenIdle({ target, collection: as });
    ours = false;
    points += found.points;
    proven += 1;
    onProven(proven);
  });
  return points;
}

/** Collections that go, and the fresh backup that holds them. */
export class Replaced {
  readonly #operation: Operation;
  readonly #target: ClusterRef;
  /** Id of the fresh backup. */
  readonly backup: string;
  readonly #via: RestoreVia | undefined;
  /** What was told to be dropped, and whether it is known that it was. */
  readonly #dropped = new Map<string, boolean>();

  constructor(operation: Operation, target: ClusterRef, backup: string, via?: RestoreVia) {
    this.#operation = operation;
    this.#target = target;
    this.backup = backup;
    this.#via = via;
  }

  get isUntouched(): boolean {
    return this.#dropped.size === 0;
  }

  /** Drop one. It cannot be cancelled half-way: it is there, or it has gone. */
  async drop(collection: string, cancellable = false): Promise<void> {
    this.#dropped.set(collection, false);
    const drop = () => control.dropReplacedCollection({ target: this.#target, collection, keptIn: this.backup });
    await (cancellable ? drop() : CancellationScope.nonCancellable(drop));
    this.#dropped.set(collection, true);
  }

  /**
   * Put back what was dropped. Call when nothing of what was to replace it is left.
   *
   * @returns a sentence about it, or nothing when nothing was dropped
   * @throws FleetError `CleanupIncomplete` with the command that puts it back by hand
   */
  async putBack(): Promise<string | undefined> {
    if (this.isUntouched) return undefined;
    try {
      return await this.#restore();
    } catch (error) {
      throw new FleetError('CleanupIncomplete', `${reasonOf(error).message} ${this.howBack()}`);
    }
  }

  async #restore(): Promise<string> {
    const target = this.#target;
    const { tenant, cluster: source } = target;
    const { backup } = this;
    const lease = { tenant, source, backup };
    leaveBackup(this.#operation, lease);
    const collections = [...this.#dropped.keys()];
    const via = this.#via;
    const opened = await persistent.openBackup.executeWithOptions(
      patient(OPEN_SECONDS, `Open the fresh backup ${backup}`),
      [{ ...lease, collections, ...(via !== undefined && { via }) }],
    );
    const { location, transferQueue } = opened;
    const relayQueue = opened.via === 'worker' ? transferQueue : undefined;
    const way = {
      ...(relayQueue !== undefined && { relayQueue }),
      onForeign: () => undefined,
      onRelayed: () => undefined,
    };
    const kept = await this.#stillThere(location);
    const gone = collections.filter((name) => !kept.includes(name));
    await inParallel(gone, PARALLEL_COLLECTIONS, async (collection) => {
      const what = { target, collection };
      const options = polled(IDLE_SECONDS, `Nodes at rest before "${collection}" is put back`);
      await control.awaitRecoveriesIdle.executeWithOptions(options, [what]);
      await restoreCollection({ ...what, location }, way);
    });
    if (gone.length > 0) await persistent.restoreAliases({ target, location, collections: gone });
    return `What was replaced is back as it was before, from backup ${backup} of ${source}.`;
  }

  /** Of those that nobody knows to be dropped, the ones that are still there. */
  async #stillThere(location: BackupLocation): Promise<readonly string[]> {
    const unsure = [...this.#dropped].flatMap(([name, certain]) => (certain ? [] : [name]));
    if (unsure.length === 0) return [];
    const target = this.#target;
    const wish = { target, location, collections: unsure, inPlace: true, aliases: false };
    return (await persistent.previewRestore(wish)).replaced;
  }

  /** How to put back by hand what was dropped. */
  howBack(): string {
    const { tenant, cluster } = this.#target;
    const { backup } = this;
    if (this.isUntouched) return `Nothing was dropped; the backup ${backup} of ${cluster} was made before.`;
    const again = { tenant, source: cluster, backup, cluster, collections: [...this.#dropped.keys()] };
    const start = `temporal workflow start --type RestoreCluster --task-queue ${workflowInfo().taskQueue}`;
    return `What was dropped is in backup ${backup} of ${cluster}; this brings it back: ${start} --input '${JSON.stringify(again)}'`;
  }
}
