/** What the changes of a running cluster have in common: the chart and the catalogue in step, pods one by one. */
import { ApplicationFailure, CancellationScope, isCancellation, log } from '@temporalio/workflow';
import { canonicalJson } from '../../src/domain/canonical-json.ts';
import type { ClusterPhase, ClusterSpec } from '../../src/domain/cluster.ts';
import type { ClusterRef } from '../../src/domain/naming.ts';
import { control, described, persistent, polled } from './activity-proxies.ts';
import { hasCode, isFailure, reasonOf } from './failures.ts';
import type { Operation } from './operation.ts';

/** A cluster while it is being changed. */
export class Change {
  readonly ref: ClusterRef;
  /** As the chart was applied last, and as the catalogue has it. */
  spec: ClusterSpec;
  readonly #readyTimeout: number;
  #phase: ClusterPhase | undefined;

  constructor(ref: ClusterRef, spec: ClusterSpec, readyTimeoutSeconds = 900) {
    this.ref = ref;
    this.spec = spec;
    this.#readyTimeout = readyTimeoutSeconds;
  }

  async enter(phase: ClusterPhase): Promise<void> {
    if (this.#phase === phase) return;
    await control.setClusterPhase({ ...this.ref, phase });
    this.#phase = phase;
  }

  /** Apply the chart and write down with what; nothing comes between the two. */
  apply(change: Partial<ClusterSpec>): Promise<void> {
    return this.#apply({ ...this.spec, ...change });
  }

  async #apply(spec: ClusterSpec): Promise<void> {
    await CancellationScope.nonCancellable(async () => {
      await control.installRelease.executeWithOptions(described(`Helm chart, ${spec.nodes} nodes`), [
        { ...this.ref, spec },
      ]);
      await persistent.recordSpec({ ...this.ref, spec });
    });
    this.spec = spec;
  }

  /**
   * Apply the chart and restart the pods with it. When a pod does not come up with what is new, all pods are put back to
   * what was before, as long as that is safe: Qdrant has no downgrade, so a version that has run on one pod stays.
   *
   * @param version what all peers have to report in the end
   */
  async rollOut(
    change: Partial<ClusterSpec>,
    onRestart: (restarted: number, total: number) => void,
    version?: string,
  ): Promise<void> {
    const before = this.spec;
    await this.apply(change);
    try {
      await this.roll(onRestart, version);
    } catch (error) {
      const broken = hasCode(error, 'PodCannotStart') || hasCode(error, 'ClusterNotReady');
      if (!broken || CancellationScope.current().consideredCancelled) throw error;
      const what = await CancellationScope.nonCancellable(() => this.#putBack(before, change, version));
      if (what === undefined) throw error;
      const { code, message } = reasonOf(error);
      throw ApplicationFailure.create({ type: code, message: `${message} ${what}`, nonRetryable: true });
    }
  }

  /** @returns what became of the pods; nothing when none of those that were restarted is to blame */
  async #putBack(before: ClusterSpec, change: Partial<ClusterSpec>, version?: string): Promise<string | undefined> {
    try {
      const { started, failing } = await persistent.inspectRollout(this.ref);
      if (failing.length === 0) return undefined;
      const rest = `The cluster goes on without ${failing.join(', ')}`;
      if (version !== undefined && started.length > 0) {
        return (
          `${version} has run on ${started.join(', ')}, and Qdrant has no downgrade, so nothing was put back. ${rest}; ` +
          'what is missing starts by itself once it can. Repeat the update then.'
        );
      }
      if (sameFields(before, change)) {
        return `An earlier update brought this about, so there is nothing to put back. ${rest}; send what worked before.`;
      }
      await this.#apply(before);
      await this.roll(() => undefined);
      return 'All pods were put back and run what they ran before; nothing else was changed. Correct it and repeat the update.';
    } catch (error) {
      if (!isFailure(error)) throw error;
      return `Putting the pods back failed as well: ${reasonOf(error).message} Repeat the update with what worked before.`;
    }
  }

  /** Write down what is not the chart's. */
  async record(change: Partial<ClusterSpec>): Promise<void> {
    const spec = { ...this.spec, ...change };
    await CancellationScope.nonCancellable(() => persistent.recordSpec({ ...this.ref, spec }));
    this.spec = spec;
  }

  /** A wait that is bounded by the time that a pod may take. */
  wait(summary: string) {
    return polled(this.#readyTimeout, summary);
  }

  awaitPeers(): Promise<{ qdrantVersion: string }> {
    const { nodes } = this.spec;
    return control.awaitPeers.executeWithOptions(this.wait(`${nodes} peers up and in consensus`), [
      { ...this.ref, nodes },
    ]);
  }

  awaitPodsGone(nodes: number): Promise<void> {
    return control.awaitPodsGone.executeWithOptions(this.wait('Wait until the pods are gone'), [
      { ...this.ref, nodes },
    ]);
  }

  /** All peers up, all replicas Active; pods of an older template are restarted. */
  async awaitWhole(): Promise<void> {
    await this.awaitPeers();
    await this.roll(() => undefined);
  }

  /**
   * Restart every pod that runs an older template, one by one, each only when the cluster is whole.
   *
   * @param version what all peers have to report in the end
   */
  async roll(onRestart: (restarted: number, total: number) => void, version?: string): Promise<number> {
    const { nodes } = this.spec;
    for (let restarted = 0; ; restarted += 1) {
      const { pod, left } = await control.nextPodToRestart.executeWithOptions(
        this.wait(restarted === 0 ? 'Cluster whole before the first restart' : 'Cluster whole after the restart'),
        [{ ...this.ref, nodes, ...(version !== undefined && { version }) }],
      );
      onRestart(restarted, restarted + left);
      if (pod === undefined) return restarted;
      await control.restartPod.executeWithOptions(described(`Restart ${pod.name}`), [{ ...this.ref, pod }]);
    }
  }

  /**
   * Run a change, and leave a true phase behind whatever way it ends: nothing is undone, because each step leaves the
   * cluster working, and the same change repeated goes on from there.
   *
   * @param operation the operation that is done with `body`, which is its point of no return
   */
  async settle<T>(body: () => Promise<T>, operation?: Operation): Promise<T> {
    try {
      const result = await body();
      operation?.pointOfNoReturn();
      if (operation?.isPastReturn === true) await this.tellPhase(operation);
      else await this.#tellPhase();
      return result;
    } catch (error) {
      if (!isFailure(error)) throw error;
      const cancelled = isCancellation(error) || CancellationScope.current().consideredCancelled;
      const failure = cancelled
        ? { code: 'Cancelled', message: 'The last change was cancelled; repeat it to go on.' }
        : reasonOf(error);
      await CancellationScope.nonCancellable(() => this.#tellPhase(failure));
      throw error;
    }
  }

  /** Record the phase as it is seen, after the operation's point of no return. */
  async tellPhase(operation: Operation): Promise<void> {
    const what = `The phase of ${this.ref.tenant}/${this.ref.cluster} is not up to date`;
    await operation.afterwards(what, () => this.#recordPhase());
  }

  /** Record the phase as it is seen, where an operation was given up. What the operation failed with says more. */
  tellAsSeen(): Promise<void> {
    return this.#tellPhase();
  }

  async #tellPhase(failure?: { code: string; message: string }): Promise<void> {
    try {
      await this.#recordPhase(failure);
    } catch (error) {
      if (!isFailure(error) || isCancellation(error)) throw error;
      log.error('could not record the phase', { ...reasonOf(error) });
    }
  }

  async #recordPhase(failure?: { code: string; message: string }): Promise<void> {
    const state = await this.#look();
    await persistent.setClusterPhase({ ...this.ref, ...state, ...(failure !== undefined && { failure }) });
  }

  async #look(): Promise<{ phase: ClusterPhase; degraded?: string; serving?: boolean }> {
    if (this.spec.suspended === true) return { phase: 'SUSPENDED' };
    const seen = await persistent.inspectCluster({ ...this.ref, nodes: this.spec.nodes });
    return { phase: seen.degraded === undefined ? 'HEALTHY' : 'NOT_READY', ...seen };
  }
}

/** The catalogue keeps the fields of an object in an order of its own. */
function sameFields(spec: ClusterSpec, change: Partial<ClusterSpec>): boolean {
  return Object.entries(change).every(
    ([field, value]) => canonicalJson(value) === canonicalJson(spec[field as keyof ClusterSpec]),
  );
}
