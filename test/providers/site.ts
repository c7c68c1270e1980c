/** One cluster, made and removed room by room. */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Activities } from '../../activities/index.ts';
import type { RoleArns } from '../../activities/aws-access.ts';
import { eksNameOf } from '../../src/domain/aws-names.ts';
import type { AwsPlan, NetworkIds } from '../../src/domain/aws-plan.ts';
import { resolveAws, type AwsRequest } from '../../src/domain/aws.ts';
import { FleetError, isRetryable } from '../../src/domain/errors.ts';
import type { EmulatorName } from '../../src/local/aws/emulators.ts';
import { ifThere } from '../../src/clients/aws/answers.ts';
import { Killed, MISSING, REGION, type Account } from './support.ts';

let clusters = 0;

/** One cluster, made and removed room by room as the workflow does. */
export class Site {
  readonly account: Account;
  readonly ref: { tenant: string; cluster: string };
  readonly operation: string;
  readonly has: (feature: string) => boolean;
  /** Attempts that an activity needed. */
  attempts = 0;

  /** What went wrong and was tried again. */
  readonly failures: Error[] = [];
  /** Attempts after which an activity is given up, as its time would be over. */
  patience = 60;
  /** Milliseconds until the second attempt; later ones wait longer. */
  pauseMs = 0;

  /** Another run of the same workflow id, where one is meant. */
  runId?: string;

  /** Do everything again although it succeeded. */
  twice = false;

  constructor(
    account: Account,
    emulator: EmulatorName | 'both',
    operation = `provision-${randomBytes(4).toString('hex')}`,
    ref?: { tenant: string; cluster: string },
  ) {
    clusters += 1;
    this.account = account;
    this.ref = ref ?? { tenant: account.parts.tenant, cluster: `c${clusters}` };
    this.operation = operation;
    this.has = (feature) => !MISSING[emulator].has(feature);
  }

  /** One activity as Temporal runs it: repeated while it fails with a code that is worth it, or its process dies. */
  async run<T>(activity: (activities: Activities) => Promise<T>, operation = this.operation): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      this.attempts += 1;
      try {
        const result = await this.account.parts.as(operation, activity, attempt, this.runId);
        if (this.twice && attempt === 1) continue;
        return result;
      } catch (error) {
        const again = error instanceof Killed || (FleetError.is(error) && isRetryable(error.code));
        if (!again || attempt >= this.patience) throw error;
        this.failures.push(error);
        // As Temporal backs off, in quick motion.
        if (this.pauseMs > 0) await sleep(Math.min(this.pauseMs * 1.5 ** attempt, 10 * this.pauseMs));
      }
    }
  }

  plan(request: AwsRequest = {}): Promise<AwsPlan> {
    return this.run((a) => a.planInfrastructure({ ...this.ref, spec: resolveAws(request, 3) }));
  }

  /** All rooms, in the workflow's order. */
  async provision(
    request: AwsRequest = {},
  ): Promise<{ plan: AwsPlan; network: NetworkIds; roles: RoleArns; eksCluster: string }> {
    const { ref } = this;
    const plan = await this.plan(request);
    const roles = await this.run((a) => a.ensureRoles({ ...ref, plan }));
    const network = await this.run((a) => a.ensureNetwork({ ...ref, plan }));
    const { eksCluster } = await this.run((a) => a.ensureControlPlane({ ...ref, plan, network, roles }));
    await this.run((a) => a.awaitNetwork({ ...ref, plan, network }));
    await this.run((a) => a.awaitControlPlane({ ...ref, region: REGION, eksCluster }));
    const addons = async (phase: 'beforeNodes' | 'afterNodes') => {
      if (this.has('add-ons')) await this.run((a) => a.ensureAddons({ ...ref, plan, eksCluster, phase, roles }));
    };
    await addons('beforeNodes');
    if (plan.spec.create.nodeGroups) {
      await this.run((a) => a.ensureNodeGroups({ ...ref, plan, network, roles, eksCluster }));
      await this.run((a) => a.awaitNodeGroups({ ...ref, plan, eksCluster }));
    }
    await addons('afterNodes');
    if (this.has('access entries')) {
      await this.run((a) => a.ensureClusterAccess({ ...ref, plan, eksCluster, roles }));
    }
    if (plan.spec.create.backupBucket) await this.run((a) => a.ensureBackupBucket({ ...ref, plan }));
    return { plan, network, roles, eksCluster };
  }

  /** Everything out again: by another operation, as a deletion does, or by this one, as a compensation does. */
  async remove({ onlyOwn = false }: { onlyOwn?: boolean } = {}): Promise<void> {
    const operation = onlyOwn ? this.operation : 'delete-1';
    const where = { ...this.ref, region: REGION, onlyOwn };
    await this.run((a) => a.deleteBackupBucket(where), operation);
    await this.run((a) => a.deleteNodeGroups(where), operation);
    await this.run((a) => a.deleteControlPlane(where), operation);
    await this.run((a) => a.deleteNetwork(where), operation);
    await this.run((a) => a.deleteAccess(where), operation);
  }

  /**
   * Take out of the EKS cluster what goes with it on AWS. ministack keeps it, and the next cluster of that name would
   * have it.
   */
  async dropContents(): Promise<void> {
    if (!this.has('add-ons')) return;
    const { eks } = await this.account.aws();
    const clusterName = eksNameOf(this.ref);
    const { addons = [] } = (await ifThere(() => eks.listAddons({ clusterName }))) ?? {};
    for (const addonName of addons) await eks.deleteAddon({ clusterName, addonName });
    const { associations = [] } = (await ifThere(() => eks.listPodIdentityAssociations({ clusterName }))) ?? {};
    for (const { associationId } of associations)
      await eks.deletePodIdentityAssociation({ clusterName, associationId });
  }

  /**
   * What the workflow does when a step failed: every room is undone, last first, also when one of them cannot be.
   *
   * @returns what could not be undone, in the failures' words
   */
  async compensate(): Promise<string[]> {
    const where = { ...this.ref, region: REGION, onlyOwn: true };
    const said: string[] = [];
    for (const undo of [
      (a: Activities) => a.deleteBackupBucket(where),
      (a: Activities) => a.deleteNodeGroups(where),
      (a: Activities) => a.deleteControlPlane(where),
      (a: Activities) => a.deleteNetwork(where),
      (a: Activities) => a.deleteAccess(where),
    ]) {
      await this.run<unknown>(undo).catch((error: Error) => said.push(error.message));
    }
    return said;
  }

  async ledger(): Promise<string[]> {
    const rows = await this.account.parts.catalog.resources(this.ref);
    return rows.map(({ slot }) => slot).sort();
  }
}
