import {
  ApplicationFailure,
  CancellationScope,
  executeChild,
  isCancellation,
  patched,
  workflowInfo,
} from '@temporalio/workflow';
import type { RestorePlan, RestorePreview } from '../activities/restore.ts';
import { requestOf } from '../src/domain/cluster.ts';
import { nameIn } from '../src/domain/compatibility.ts';
import { FleetError } from '../src/domain/errors.ts';
import { parseRestoreInput } from '../src/domain/input.ts';
import { BackupCluster } from './backup-cluster.ts';
import { DeleteCluster } from './delete-cluster.ts';
import { ProvisionCluster } from './provision-cluster.ts';
import { control, persistent, preflight } from './shared/activity-proxies.ts';
import { Change } from './shared/change.ts';
import { isFailure, reasonOf } from './shared/failures.ts';
import { PARALLEL_COLLECTIONS, proveBeside, Replaced } from './shared/in-place.ts';
import { checked } from './shared/input.ts';
import { leaveBackup } from './shared/leave-backup.ts';
import { runOperation, type Ended } from './shared/operation.ts';
import { dropWhenIdle, inParallel, restoreCollection, type RestoreWay } from './shared/restore-collection.ts';

const STEPS = {
  open: 'Open the backup',
  cluster: 'Create the cluster',
  fresh: 'Back up what is replaced',
  lease: 'Take the lease',
  gates: 'Check the gates',
  prove: 'Prove the backup beside the old collections',
  restore: 'Restore the collections',
  aliases: 'Switch the aliases',
} as const;

/**
 * Restore a backup into another cluster, which is made when it does not exist, with any number of nodes. Every replica
 * pulls its shard from the bucket; counts are proven on each; aliases come last. A failure removes what was made.
 *
 * With `"inPlace":true` the collections of an existing cluster are replaced: a fresh backup of them first, all gates,
 * where the disks allow it a proof of the backup beside them, and then each is dropped and restored. When something fails
 * or is cancelled after that, they are put back from the fresh backup. Writes after the fresh backup are lost, so stop
 * them before.
 *
 * Point of no return: every collection is proven and the aliases are switched. From then on the restore succeeds.
 *
 * Input: `{"tenant":"acme","source":"docs","backup":"<id>","cluster":"docs2","nodes":2}`; `"dryRun":true` only tells what
 * would happen, how many bytes would be pulled, and which gate would refuse. A backup that a verification found damaged
 * needs `"acceptDamaged":true`.
 */
export async function RestoreCluster(input: unknown): Promise<Ended<Restored | (RestorePreview & { dryRun: true })>> {
  const parsed = checked(input, parseRestoreInput);
  const { tenant, source, backup, cluster, nodes, replicationFactor, collections, rename, via } = parsed;
  const {
    inPlace = false,
    aliases: withAliases = true,
    dryRun = false,
    acceptDamaged = false,
    acceptUnsigned = false,
  } = parsed;
  const target = { tenant, cluster };
  const steps = Object.values(STEPS).filter((step) => inPlace || (step !== STEPS.fresh && step !== STEPS.prove));
  return runOperation({ kind: 'restore', ref: target, steps }, async (operation) => {
    const { saga } = operation;
    // A dry run writes nothing, not even a lease.
    const leaseless = dryRun && patched('dry-run-without-lease');
    if (!leaseless) leaveBackup(operation, { tenant, source, backup });
    const plan = await operation.step(
      STEPS.open,
      () =>
        preflight.openBackup({
          ...{ tenant, source, backup },
          ...(collections !== undefined && { collections }),
          ...(rename !== undefined && { rename }),
          ...(via !== undefined && { via }),
          ...(acceptDamaged && { acceptDamaged }),
          ...(acceptUnsigned && { acceptUnsigned }),
          ...(leaseless && { dryRun }),
        }),
      opened,
    );
    const { location, transferQueue, unprotected } = plan;
    if (unprotected !== undefined) operation.warn(unprotected);
    const relayQueue = plan.via === 'worker' ? transferQueue : undefined;
    let relayed = 0;

    const names = plan.collections.map(({ name }) => name);
    const selection = { collections: names, ...(rename !== undefined && { rename }) };
    const replicas = replicationFactor === undefined ? {} : { replicationFactor };
    const wish = {
      ...{ target, location },
      ...selection,
      ...replicas,
      ...(inPlace && { inPlace }),
      ...(!withAliases && { aliases: withAliases }),
    };

    const existed = await control.clusterExists(target);
    const asMade = existed ? {} : { nodes: nodes ?? plan.spec.nodes };
    if (dryRun) {
      for (const step of steps.filter((name) => name !== STEPS.open && name !== STEPS.gates)) {
        operation.skip(step, 'dry run');
      }
      const preview = await operation.step(
        STEPS.gates,
        () => control.previewRestore({ ...wish, ...asMade }),
        ({ refusals }) => refusals.map(({ detail }) => detail).join('; ') || 'nothing is in the way',
      );
      operation.pointOfNoReturn();
      return { ...preview, dryRun };
    }
    if (existed) operation.skip(STEPS.cluster, 'it exists');
    else {
      await operation.step(STEPS.cluster, async () => {
        if (inPlace) {
          const problem = `inPlace replaces collections of a cluster that exists, and ${tenant}/${cluster} does not. Leave it out.`;
          throw new FleetError('RestoreRefused', problem);
        }
        // What can be known before there is a cluster should not cost one.
        await control.checkRestoreGates({ ...wish, ...asMade });
        await provision(plan);
      });
      saga.add(`cluster ${tenant}/${cluster}`, async () => {
        await persistent.releaseLease(target);
        await executeChild(DeleteCluster, { workflowId: `${workflowInfo().workflowId}/undo`, args: [target] });
      });
    }
    if (!inPlace) return restore();

    const fresh = await operation.step(
      STEPS.fresh,
      async () => {
        const { replaced } = await control.checkRestoreGates(wish);
        return replaced.length === 0 ? undefined : { kept: replaced, ...(await backUp(replaced)) };
      },
      (made) => (made === undefined ? 'nothing is replaced' : `${made.kept.length} collections in ${made.backup}`),
    );
    return fresh === undefined ? restore() : replace(fresh);

    /** Replace what the fresh backup holds. Whatever fails from here on, it is back in the end. */
    async function replace({ backup: keptIn, kept }: { backup: string; kept: readonly string[] }): Promise<Restored> {
      // Runs that began before told how to put it back, and left it at that.
      const puts = patched('in-place-puts-back');
      const old = new Replaced(operation, target, keptIn, via);
      const scope = CancellationScope.current();
      try {
        const result = await restore({
          known: (replaced) => {
            const news = replaced.filter((name) => !kept.includes(name));
            if (news.length === 0) return;
            const what = news.map((name) => `"${name}"`).join(', ');
            throw new FleetError('RestoreRefused', `${what} appeared in the target after its backup. Start again.`);
          },
          begin: async (notBeside) => {
            saga.add(`the collections that were replaced in ${tenant}/${cluster}`, async () => {
              if (puts) return old.putBack();
              if (!old.isUntouched && scope.consideredCancelled)
                throw new FleetError('CleanupIncomplete', old.howBack());
              return undefined;
            });
            if (!puts) return;
            if (notBeside !== undefined) operation.skip(STEPS.prove, `there is no room beside them: ${notBeside}`);
            else await prove(names.filter((name) => kept.includes(nameIn(rename, name))));
          },
          beforeMaking: async (collection) => {
            if (kept.includes(collection)) await old.drop(collection, !puts);
          },
        });
        return { ...result, freshBackup: keptIn };
      } catch (error) {
        if (isCancellation(error) || !isFailure(error) || (puts && !old.isUntouched)) throw error;
        const { code, message } = reasonOf(error);
        throw ApplicationFailure.nonRetryable(`${message} ${old.howBack()}`, code);
      }
    }

    /** What cannot be loaded is found out while everything that it is to replace is still there. */
    async function prove(proven: readonly string[]): Promise<void> {
      await operation.step(
        STEPS.prove,
        () =>
          proveBeside(operation, { target, location, collections: proven, ...replicas }, way(), (done) => {
            operation.advance(STEPS.prove, done, proven.length, 'collections');
          }),
        (points) => `${points} points`,
      );
    }

    function way(onForeign: () => void = () => undefined): RestoreWay {
      return {
        ...(relayQueue !== undefined && { relayQueue }),
        onForeign,
        onRelayed: (bytes) => {
          relayed += bytes;
        },
      };
    }

    async function restore(hooks: Hooks = {}): Promise<Restored> {
      await operation.step(STEPS.lease, () => control.takeLease({ ...target, mode: 'exclusive' }));
      const { notBeside } = await operation.step(
        STEPS.gates,
        async () => {
          const found = await control.checkRestoreGates(wish);
          hooks.known?.(found.replaced);
          return found;
        },
        ({ unknown }) => (unknown.length === 0 ? 'nothing is in the way' : `not known: ${unknown.join(', ')}`),
      );
      const change = await enterRestoring();
      await hooks.begin?.(notBeside);

      const { points } = await operation.step(
        STEPS.restore,
        async () => {
          const total = { points: 0, compared: 0, unsampled: 0 };
          let restored = 0;
          await inParallel(names, PARALLEL_COLLECTIONS, async (collection) => {
            const as = nameIn(rename, collection);
            await hooks.beforeMaking?.(as);
            let ours = true;
            // A cluster that we made goes as a whole.
            if (existed) {
              saga.add(`collection "${as}"`, async () => {
                if (ours) await dropWhenIdle({ target, collection: as });
              });
            }
            const proven = await restoreCollection(
              { ...{ target, location, collection }, ...(as !== collection && { as }), ...replicas },
              way(() => {
                ours = false;
              }),
            );
            total.points += proven.points;
            total.compared += proven.compared ?? 0;
            total.unsampled += proven.unsampled ?? 0;
            restored += 1;
            operation.advance(STEPS.restore, restored, names.length, 'collections');
          });
          return total;
        },
        ({ points: counted, compared, unsampled }) =>
          `${counted} points, counted on every replica; ${compared} of them compared${unsampled === 0 ? '' : `, ${unsampled} shards without a sample`}`,
      );

      let aliases = 0;
      if (withAliases) {
        const switched = await operation.step(
          STEPS.aliases,
          () => control.restoreAliases({ target, location, ...selection }),
          (done) => `${done.aliases} aliases`,
        );
        ({ aliases } = switched);
      } else operation.skip(STEPS.aliases, 'left out, as asked');
      operation.pointOfNoReturn();
      await change?.tellPhase(operation);
      const bytes = plan.collections.reduce((sum, collection) => sum + collection.bytes, 0);
      return { cluster, backup, collections: names.length, points, bytes, relayed, aliases };
    }

    /** The cluster says what happens to it, and in the end what is seen of it. */
    async function enterRestoring(): Promise<Change | undefined> {
      if (!patched('phase-restoring')) return undefined;
      const { spec, phase } = await control.loadCluster(target);
      // A removal that was interrupted is not forgotten.
      if (phase === 'DELETING') return undefined;
      const change = new Change(target, spec);
      // A cluster that we made goes as a whole.
      if (existed) saga.add(`phase of ${tenant}/${cluster}`, () => change.tellAsSeen());
      await change.enter('RESTORING');
      return change;
    }
  });

  /** The collections that go, as they are now. The backup stays whatever becomes of the restore. */
  function backUp(replaced: readonly string[]): Promise<{ backup: string }> {
    return executeChild(BackupCluster, {
      workflowId: `${workflowInfo().workflowId}/fresh-backup`,
      args: [{ ...target, collections: replaced }],
      staticSummary: `${replaced.length} collections of ${tenant}/${cluster}, before they are replaced`,
    });
  }

  /** A cluster like the one backed up, empty. It cleans up after itself when it fails. */
  function provision({ spec }: RestorePlan): Promise<unknown> {
    return executeChild(ProvisionCluster, {
      workflowId: `${workflowInfo().workflowId}/provision`,
      args: [{ ...requestOf(spec), ...target, ...(nodes !== undefined && { nodes }) }],
    });
  }
}

/** What an in-place restore does besides. */
interface Hooks {
  /** Sees the collections that will be replaced, and throws when they are not the right ones. */
  readonly known?: (replaced: readonly string[]) => void;
  /** Called before anything is made; `notBeside` says why nothing can stand beside the old collections. */
  readonly begin?: (notBeside: string | undefined) => Promise<void>;
  /** Called with the collection's name in the target before it is made. */
  readonly beforeMaking?: (collection: string) => Promise<void>;
}

interface Restored extends Record<string, unknown> {
  readonly cluster: string;
  readonly backup: string;
  readonly collections: number;
  readonly points: number;
  /** Of one full copy. */
  readonly bytes: number;
  /** Bytes that went through workers; 0 where the nodes read the bucket. */
  readonly relayed: number;
  readonly aliases: number;
  /** In place: the backup of what was replaced, made right before. */
  readonly freshBackup?: string;
}

/** What was found in the backup. */
function opened(found: RestorePlan): string {
  const { bucket } = found.location;
  const where = bucket === undefined ? '' : `, in bucket ${bucket.name}`;
  return `${found.collections.length} collections, ${megabytes(found)} MB, Qdrant ${found.qdrantVersion}${where}`;
}

function megabytes({ collections }: RestorePlan): string {
  return (collections.reduce((sum, { bytes }) => sum + bytes, 0) / 1e6).toFixed(1);
}
