/** The control plane: an EKS cluster and its add-ons. */
import type { Cluster } from '@aws-sdk/client-eks';
import type { Aws } from '../src/clients/aws/clients.ts';
import { ifThere, unlessThere } from '../src/clients/aws/answers.ts';
import { awsErrorName, isExisting, isNotFound } from '../src/clients/aws/errors.ts';
import { ADDONS, addonSettings, type AddonPhase } from '../src/domain/aws-addons.ts';
import { issuesText, judge } from '../src/domain/aws-issues.ts';
import { carries, eksNameOf, type Tags } from '../src/domain/aws-names.ts';
import type { AwsPlan, NetworkIds } from '../src/domain/aws-plan.ts';
import { FleetError, messageOf } from '../src/domain/errors.ts';
import type { ClusterRef } from '../src/domain/naming.ts';
import type { RoleArns } from './aws-access.ts';
import { Ledger } from './aws-ledger.ts';
import { removing, type Removal } from './aws-removal.ts';
import type { ActivityDeps } from './deps.ts';

const KIND = 'eks-cluster';

const ADDON_TRIES = 3;

export function createAwsControlPlaneActivities(deps: ActivityDeps) {
  return {
    /** Have the EKS cluster, on its way or ready. */
    async ensureControlPlane(
      input: ClusterRef & { plan: AwsPlan; network: NetworkIds; roles: RoleArns },
    ): Promise<{ eksCluster: string }> {
      const { plan, network, roles, ...ref } = input;
      const { spec } = plan;
      const { aws, ledger } = await open(ref, plan.region);
      if (!spec.create.controlPlane) {
        const eksCluster = spec.eksCluster ?? '';
        if ((await describe(aws, eksCluster)) === undefined) {
          throw new FleetError(
            'InvalidInput',
            `aws.eksCluster: there is no EKS cluster "${eksCluster}" in ${plan.region}`,
          );
        }
        return { eksCluster };
      }
      const name = eksNameOf(ref);
      await ledger.obtainNamed({
        slot: KIND,
        kind: KIND,
        name,
        read: async () => (await describe(aws, name))?.tags ?? undefined,
        create: (tags, token) =>
          ledger.settling(() => aws.eks.createCluster(settings(name, tags, token, plan, network, roles))),
      });
      return { eksCluster: name };
    },

    /**
     * @throws FleetError `InfrastructureNotReady` until the cluster is active, `InfrastructureFailed` when it cannot be
     */
    async awaitControlPlane({ region, eksCluster }: ClusterRef & { region: string; eksCluster: string }) {
      const cluster = await describe(await deps.aws.of(region), eksCluster);
      if (cluster?.status === 'ACTIVE') return { endpoint: cluster.endpoint ?? '', version: cluster.version ?? '' };
      const issues = cluster?.health?.issues ?? [];
      const about = `EKS cluster "${eksCluster}" in ${region} is ${cluster?.status ?? 'not listed yet'}`;
      const said = issues.length === 0 ? '' : `: ${issuesText(issues)}`;
      if (cluster?.status === 'FAILED' || cluster?.status === 'DELETING') {
        const { code, remedy } = judge(issues);
        throw new FleetError(code, `${about}${said}. ${remedy}`);
      }
      throw new FleetError('InfrastructureNotReady', `${about}${said}.`);
    },

    /**
     * Have the add-ons of one phase: those that nodes need to become ready, or those that need nodes.
     *
     * @throws FleetError `InfrastructureNotReady` until all are active, `InfrastructureFailed` when one cannot be
     */
    async ensureAddons(
      input: ClusterRef & { plan: AwsPlan; eksCluster: string; phase: AddonPhase; roles: RoleArns },
    ): Promise<{ addons: readonly string[] }> {
      const { plan, eksCluster, phase, roles, ...ref } = input;
      const { aws, ledger } = await open(ref, plan.region);
      const waiting: string[] = [];
      for (const { name: addonName } of ADDONS.filter((addon) => addon.phase === phase)) {
        const state = await ensureAddon(aws, ledger, eksCluster, addonName, roles.volumes);
        if (state !== 'ACTIVE') waiting.push(`${addonName} is ${state}`);
      }
      if (waiting.length > 0)
        throw new FleetError('InfrastructureNotReady', `Add-ons of "${eksCluster}": ${waiting.join(', ')}.`);
      return { addons: ADDONS.filter((addon) => addon.phase === phase).map(({ name }) => name) };
    },

    /**
     * Remove the EKS cluster with its add-ons and access entries, if it is ours.
     *
     * @param input `onlyOwn`: leave it alone unless this very operation made it, or the `operation` that is named
     * @throws FleetError `InfrastructureNotReady` until it is gone
     */
    async deleteControlPlane(
      input: ClusterRef & { region: string; onlyOwn?: boolean; operation?: string },
    ): Promise<void> {
      const { aws, ledger } = await open(input, input.region, input.operation);
      const name = eksNameOf(input);
      const onlyOwn = input.onlyOwn === true;
      await removing(ledger, [KIND], onlyOwn, async (removal) => {
        const found = await describe(aws, name);
        if (found === undefined || !carries(found.tags ?? {}, ledger.scope(onlyOwn))) return [];
        await ledger.seen([KIND]);
        await deleteCluster(aws, name, found, removal);
        return [`${KIND} ${name}`];
      });
      if ((await ledger.unsettled([KIND])) !== undefined) {
        throw new FleetError('InfrastructureNotReady', `EKS cluster "${name}" may still appear; looking for it.`);
      }
      await ledger.forgetKinds([KIND, 'eks-addon'], onlyOwn);
    },
  };

  async function open(ref: ClusterRef, region: string, of?: string) {
    return { aws: await deps.aws.of(region), ledger: await Ledger.open(deps, ref, region, of) };
  }
}

function settings(name: string, tags: Tags, token: string, plan: AwsPlan, network: NetworkIds, roles: RoleArns) {
  const { spec } = plan;
  const { endpointAccess, secretsEncryptionKeyArn } = spec;
  return {
    name,
    version: spec.kubernetesVersion,
    roleArn: roles.cluster,
    clientRequestToken: token,
    tags: { ...tags },
    resourcesVpcConfig: {
      subnetIds: [...network.privateSubnetIds],
      endpointPrivateAccess: true,
      endpointPublicAccess: endpointAccess.public === true,
      ...(endpointAccess.public === true && { publicAccessCidrs: [...endpointAccess.publicCidrs] }),
    },
    accessConfig: { authenticationMode: 'API' as const, bootstrapClusterCreatorAdminPermissions: true },
    // Ours are installed as add-ons.
    bootstrapSelfManagedAddons: false,
    upgradePolicy: { supportType: 'STANDARD' as const },
    ...(secretsEncryptionKeyArn !== undefined && {
      encryptionConfig: [{ resources: ['secrets'], provider: { keyArn: secretsEncryptionKeyArn } }],
    }),
    ...(spec.logging.length > 0 && {
      logging: { clusterLogging: [{ types: [...spec.logging], enabled: true }] },
    }),
  };
}

/**
 * One add-on. One that could not be made is made again twice: what it fails for (a control plane that does not answer,
 * a webhook) often passes, and starting the whole cluster over costs half an hour.
 *
 * @returns its state
 */
async function ensureAddon(
  aws: Aws,
  ledger: Ledger,
  clusterName: string,
  addonName: string,
  volumesRole: string,
): Promise<string> {
  const base = `addon/${addonName}`;
  const tries = Math.max(1, await ledger.tries(base));
  const slot = tries === 1 ? base : `${base}#${tries}`;
  const found = await describeAddon(aws, clusterName, addonName);
  if (found === undefined) {
    const row = await ledger.intend(slot, 'eks-addon');
    const request = {
      clusterName,
      addonName,
      clientRequestToken: row.token,
      // EKS may have put a self-managed copy there, which the add-on takes over.
      resolveConflicts: 'OVERWRITE' as const,
      ...addonSettings(addonName, volumesRole),
      tags: { ...ledger.tags(slot) },
    };
    await unlessThere(() => ledger.settling(() => aws.eks.createAddon(request)));
    await ledger.record(slot, addonName);
    return 'CREATING';
  }
  const { status = 'CREATING', health } = found;
  const said = issuesText(health?.issues);
  if (status !== 'CREATE_FAILED') return said === '' ? status : `${status} (${said})`;
  if (tries >= ADDON_TRIES) {
    const { code, remedy } = judge(health?.issues);
    throw new FleetError(
      code,
      `Add-on "${addonName}" of "${clusterName}" failed ${tries} times: ${said || status}. ${remedy}`,
    );
  }
  await ledger.intend(`${base}#${tries + 1}`, 'eks-addon');
  await ifThere(() => aws.eks.deleteAddon({ clusterName, addonName }));
  return `made again, having failed: ${said || status}`;
}

/** @throws FleetError `InfrastructureNotReady` or `InfrastructureBlocked` until it is gone */
async function deleteCluster(aws: Aws, name: string, found: Cluster, removal: Removal): Promise<void> {
  let refusal = '';
  if (found.status !== 'DELETING') {
    try {
      await aws.eks.deleteCluster({ name });
    } catch (error) {
      if (isExisting(error) || awsErrorName(error) === 'InvalidRequestException') refusal = messageOf(error);
      else if (!isNotFound(error)) return removal.refuse(error, `EKS cluster "${name}" could not be removed. `);
    }
  }
  const now = await describe(aws, name);
  if (now === undefined) return;
  const issues = found.health?.issues ?? [];
  const failed = found.status === 'FAILED' && issues.length > 0 ? ` It failed before: ${issuesText(issues)}.` : '';
  const onItsWay = /^(?:CREATING|UPDATING|PENDING|DELETING)$/.test(now.status ?? '');
  if (refusal === '' || onItsWay) {
    throw new FleetError('InfrastructureNotReady', `EKS cluster "${name}" is ${now.status}, to be removed.${failed}`);
  }
  const { nodegroups = [] } = await aws.eks.listNodegroups({ clusterName: name });
  const groups =
    nodegroups.length === 0
      ? ''
      : ` It has the node groups ${nodegroups.join(', ')}; remove those that are not of this fleet.`;
  throw new FleetError(
    'InfrastructureBlocked',
    `EKS cluster "${name}" in ${aws.region} cannot be removed: ${refusal}.${groups}${failed}`,
  );
}

async function describe({ eks }: Aws, name: string): Promise<Cluster | undefined> {
  return (await ifThere(() => eks.describeCluster({ name })))?.cluster;
}

async function describeAddon({ eks }: Aws, clusterName: string, addonName: string) {
  return (await ifThere(() => eks.describeAddon({ clusterName, addonName })))?.addon;
}
