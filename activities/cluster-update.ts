/** Changing a running cluster: the plan, its pods one by one, their volumes, and how it is in the end. */
import type { QdrantClient } from '../src/clients/qdrant.ts';
import type { ClusterSpec } from '../src/domain/cluster.ts';
import { FleetError } from '../src/domain/errors.ts';
import { namespaceOf, RELEASE_NAME, type ClusterRef } from '../src/domain/naming.ts';
import { compareVersions, parseVersion, sameVersion } from '../src/domain/releases.ts';
import { bytesOf } from '../src/domain/quantities.ts';
import { ordinalOf } from '../src/domain/scaling-plan.ts';
import { planUpdate, type UpdatePlan, type UpdateRequest } from '../src/domain/update-plan.ts';
import { DEFAULT_POLICY, requireChangeAllowed } from '../src/domain/tenant-policy.ts';
import { whyNotStarting } from '../src/domain/pod-trouble.ts';
import type { Health } from '../src/domain/health.ts';
import { noMajority } from '../src/domain/repair-plan.ts';
import { explainAbsent, tellAbsent } from './absence.ts';
import { refuseFixedFields } from './chart.ts';
import { freeDisk } from './disk.ts';
import { signal } from './context.ts';
import type { ActivityDeps } from './deps.ts';
import { healthOrReason } from './look.ts';
import { observe, unrest, type Observation } from './observe.ts';
import { reserveGrowth } from './quota.ts';
import { POD_SELECTOR, requireAwake } from './peers.ts';

export interface PlannedUpdate extends UpdatePlan {
  /** As the catalogue has it, which is how the chart was applied last. */
  readonly spec: ClusterSpec;
  /** Version of the oldest peer. */
  readonly oldest: string;
}

export function createClusterUpdateActivities(deps: ActivityDeps) {
  const { catalog, config, clusters } = deps;

  /**
   * Whether a peer is lost is known only when its pod cannot come back: one that is starting may be there in a moment.
   *
   * @throws FleetError `ClusterNotReady` while the plan depends on a pod that may still come
   */
  async function awaitStarting(
    { nodes, repair = false, ...ref }: ClusterRef & UpdateRequest,
    { cluster, unreachable }: Observation,
  ): Promise<void> {
    const scales = nodes !== undefined && nodes !== cluster.replicas;
    const undecided = scales && noMajority(cluster) !== undefined;
    if (!repair && !undecided) return;
    const lost = new Set((cluster.lost ?? []).map(({ pod }) => pod));
    const unsure = unreachable.filter(({ name, trouble }) => trouble === undefined && !lost.has(name));
    const starting = (await explainAbsent(deps, ref, unsure)).filter(({ homeless }) => !homeless);
    if (starting.length === 0) return;
    const why = starting.map(({ text }) => text).join('; ');
    throw new FleetError('ClusterNotReady', `A pod that is needed may still come up (${why}).`);
  }

  return {
    /**
     * Look at the cluster and work out what a change comes to. Nothing is changed; what it will take is held against the
     * tenant's quotas, and reserved for the operation that holds the cluster.
     *
     * @throws FleetError `UpdateRefused`, `NotAllowed`, `QuotaReached`, `ClusterSuspended`, `ClusterNotFound`; `ClusterNotReady` while
     *   shards are on their way or heal
     */
    async planClusterUpdate({ request, ...ref }: ClusterRef & { request: UpdateRequest }): Promise<PlannedUpdate> {
      const row = await catalog.cluster(ref);
      const name = `${ref.tenant}/${ref.cluster}`;
      if (row === undefined) {
        throw new FleetError('ClusterNotFound', `Tenant "${ref.tenant}" has no cluster "${ref.cluster}".`);
      }
      if (row.phase === 'DELETING') {
        throw new FleetError('UpdateRefused', `${name} is being deleted; delete it again to bring that to its end.`);
      }
      requireChangeAllowed(config.FLEET_TENANT_POLICY ?? DEFAULT_POLICY, ref.tenant, row.spec, request);
      await requireAwake(deps, ref);
      const observed = await observe(deps, ref, signal());
      const answering = new Set(observed.peers.map(({ id }) => id));
      for (const { collection, shards, transfers, resharding } of observed.cluster.placements) {
        if (transfers > 0 || resharding > 0) {
          throw new FleetError('ClusterNotReady', `Shards of "${collection}" in ${name} are on their way.`);
        }
        for (const { shard, replicas } of shards) {
          const healing = replicas.find(({ peer, state }) => state !== 'Active' && answering.has(peer));
          if (healing !== undefined) {
            throw new FleetError(
              'ClusterNotReady',
              `Shard ${shard} of "${collection}" in ${name} is ${healing.state} on peer ${healing.peer}.`,
            );
          }
        }
      }
      await awaitStarting({ ...ref, ...request }, observed);
      const { replicas = row.spec.nodes } = observed.cluster;
      const shrinks = (request.nodes ?? row.spec.nodes) < replicas;
      const { disks } = shrinks ? await freeDisk(deps, ref) : { disks: {} };
      const seen = { ...observed.cluster, disks };
      const plan = planUpdate(row.spec, request, seen, config.FLEET_QDRANT_RELEASES);
      // Before a backup is taken or a shard moved for a change that could not be made.
      if (plan.steps.length > 0) await refuseFixedFields(deps, ref, row.spec, signal());
      await reserveGrowth(deps, ref, row.spec, request);
      const versions = observed.cluster.pods.flatMap(({ version }) => parseVersion(version ?? '') ?? []);
      const [oldest] = versions.sort(compareVersions);
      return {
        ...plan,
        spec: row.spec,
        oldest: oldest === undefined ? '' : `${oldest.major}.${oldest.minor}.${oldest.patch}`,
      };
    },

    /** @throws FleetError `ClusterNotReady` while pods from ordinal `nodes` up are there */
    async awaitPodsGone({ nodes, ...ref }: ClusterRef & { nodes: number }): Promise<void> {
      const { kubernetes } = await clusters.of(ref);
      const pods = await kubernetes.pods(namespaceOf(ref), POD_SELECTOR);
      const left = pods.filter(({ name }) => ordinalOf(name) >= nodes);
      if (left.length === 0) return;
      const why = await tellAbsent(
        deps,
        ref,
        left.map((pod) => ({ ...pod, reason: 'stopping' })),
      );
      throw new FleetError('ClusterNotReady', `${left.map(({ name }) => name).join(', ')} still there (${why}).`);
    },

    /** Remove the volume claims of pods from ordinal `nodes` up, with what is on them. */
    async removeSurplusClaims({ nodes, ...ref }: ClusterRef & { nodes: number }): Promise<{ removed: number }> {
      const { kubernetes } = await clusters.of(ref);
      const namespace = namespaceOf(ref);
      const names = (await kubernetes.volumeClaims(namespace)).filter((name) => ordinalOf(name) >= nodes);
      for (const name of names) await kubernetes.deleteVolumeClaim(namespace, name);
      return { removed: names.length };
    },

    /**
     * The pod that has to be restarted next, once the cluster is whole: those that run an older template, the highest
     * ordinal first. A pod that is out of date and not ready goes before all others.
     *
     * @param input `version`: what all peers have to report in the end
     * @throws FleetError `ClusterNotReady` while the cluster is not whole; `PodCannotStart` when a pod that was restarted
     *   never will be ready; `QdrantRejected` when another version runs than the image's tag says
     */
    async nextPodToRestart({ nodes, version, ...ref }: ClusterRef & { nodes: number; version?: string }): Promise<{
      pod?: { name: string; uid: string };
      left: number;
    }> {
      const { kubernetes } = await clusters.of(ref);
      const namespace = namespaceOf(ref);
      const set = await kubernetes.statefulSet(namespace, RELEASE_NAME);
      if (set?.revision === undefined) throw new FleetError('ClusterNotReady', 'The StatefulSet is not up to date.');
      const pods = await kubernetes.pods(namespace, POD_SELECTOR);
      const gone = pods.find(({ terminating }) => terminating);
      if (gone !== undefined) throw new FleetError('ClusterNotReady', `${gone.name} is stopping.`);
      // Of the present template only: pods that an older one keeps from starting are about to be replaced.
      const stuck = pods.flatMap((pod) =>
        pod.ready || pod.revision !== set.revision ? [] : (whyNotStarting(namespace, pod) ?? []),
      );
      if (stuck.length > 0) throw new FleetError('PodCannotStart', stuck.join(' '));
      const outdated = pods
        .filter(({ revision }) => revision !== set.revision)
        .sort((a, b) => ordinalOf(b.name) - ordinalOf(a.name));
      const next = outdated.find(({ ready }) => !ready) ?? outdated[0];
      if (next === undefined || next.ready || nodes > 1) {
        const observed = await observe(deps, ref, signal());
        const problem = unrest(observed, nodes, next?.ready === false ? next.name : '');
        if (problem !== undefined) throw new FleetError('ClusterNotReady', `${problem}.`);
        await requireGreen(
          observed.peers[0].client,
          observed.cluster.placements.map(({ collection }) => collection),
        );
        const other = observed.cluster.pods.find((pod) => !sameVersion(pod.version, version));
        if (next === undefined && version !== undefined && other !== undefined) {
          throw new FleetError(
            'QdrantRejected',
            `${other.name} runs image ${version} and reports version ${other.version ?? 'none'}.`,
          );
        }
      }
      if (next === undefined) return { left: 0 };
      return { pod: { name: next.name, uid: next.uid }, left: outdated.length };
    },

    /**
     * How far the present template has come, of pods that were made from it: those whose process has ever run, and
     * those that are not ready.
     */
    async inspectRollout(ref: ClusterRef): Promise<{ started: string[]; failing: string[] }> {
      const { kubernetes } = await clusters.of(ref);
      const namespace = namespaceOf(ref);
      const set = await kubernetes.statefulSet(namespace, RELEASE_NAME);
      if (set?.revision === undefined) throw new FleetError('ClusterNotReady', 'The StatefulSet is not up to date.');
      const pods = (await kubernetes.pods(namespace, POD_SELECTOR)).filter(({ revision }) => revision === set.revision);
      const namesOf = (of: typeof pods) => of.map(({ name }) => name).sort();
      return {
        started: namesOf(pods.filter(({ container }) => container?.started === true)),
        failing: namesOf(pods.filter(({ ready }) => !ready)),
      };
    },

    /** Delete one incarnation of a pod; its StatefulSet makes it anew from the present template. */
    async restartPod({ pod, ...ref }: ClusterRef & { pod: { name: string; uid: string } }): Promise<void> {
      const { kubernetes } = await clusters.of(ref);
      await kubernetes.deletePod(namespaceOf(ref), pod.name, pod.uid);
    },

    /** Ask for more on every claim that has less. */
    async growVolumeClaims({ storage, ...ref }: ClusterRef & { storage: string }): Promise<{ grown: number }> {
      const { kubernetes } = await clusters.of(ref);
      const namespace = namespaceOf(ref);
      const { claims } = (await observe(deps, ref, signal())).cluster;
      const smaller = claims.filter(({ bytes }) => bytes < bytesOf(storage));
      for (const { name } of smaller) await kubernetes.growClaim(namespace, name, storage);
      return { grown: smaller.length };
    },

    /** @throws FleetError `ClusterNotReady` while a claim has less than it asks for */
    async awaitVolumesGrown(ref: ClusterRef): Promise<void> {
      const { kubernetes } = await clusters.of(ref);
      for (const { name, requested, capacity, conditions } of await kubernetes.claims(namespaceOf(ref))) {
        if (bytesOf(capacity) >= bytesOf(requested)) continue;
        const why = conditions.length === 0 ? '' : ` (${conditions.join('; ')})`;
        throw new FleetError('ClusterNotReady', `Claim ${name} has ${capacity} of ${requested}${why}.`);
      }
    },

    /**
     * Remove the StatefulSet and keep its pods, when its claim templates ask for something else: they cannot be
     * changed. The chart makes it anew and it takes its pods back.
     */
    async releaseStatefulSet({ storage, ...ref }: ClusterRef & { storage: string }): Promise<void> {
      const { kubernetes } = await clusters.of(ref);
      const namespace = namespaceOf(ref);
      const set = await kubernetes.statefulSet(namespace, RELEASE_NAME);
      if (set?.storage.some((size) => size !== storage) === true) {
        await kubernetes.orphanStatefulSet(namespace, RELEASE_NAME);
      }
    },

    /** How the cluster is now, for the catalogue: whole, or what is missing and whether it still answers for all shards. */
    async inspectCluster({ nodes, ...ref }: ClusterRef & { nodes: number }): Promise<Health> {
      const row = await catalog.cluster(ref);
      const sight = await healthOrReason(deps, ref, { nodes }, { remembered: row?.identities ?? {} }, signal());
      return 'health' in sight ? sight.health : { degraded: sight.unseen, serving: false };
    },
  };
}

/** Every collection is optimised as far as it is going to be. */
async function requireGreen(client: QdrantClient, names: readonly string[]): Promise<void> {
  for (const name of names) {
    const { status } = await client.collection(name);
    if (status !== 'green' && status !== 'grey') {
      throw new FleetError('ClusterNotReady', `Collection "${name}" is ${status}.`);
    }
  }
}
