/** The control plane: an EKS cluster and its add-ons. */
import type { Cluster } from '@aws-sdk/client-eks';
import type { Aws } from '../src/clients/aws/clients.ts';
import { awsErrorName, isExisting, isNotFound } from '../src/clients/aws/errors.ts';
import { ADDONS, addonSettings, type AddonPhase } from '../src/domain/aws-addons.ts';
import { carries, eksNameOf, type Tags } from '../src/domain/aws-names.ts';
import type { AwsPlan, NetworkIds } from '../src/domain/aws-plan.ts';
import { FleetError } from '../src/domain/errors.ts';
import type { ClusterRef } from '../src/domain/naming.ts';
import type { RoleArns } from './aws-access.ts';
import { Ledger } from './aws-ledger.ts';
import type { ActivityDeps } from './deps.ts';

const KIND = 'eks-cluster';

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
        create: (tags, token) => aws.eks.createCluster(settings(name, tags, token, plan, network, roles)),
      });
      return { eksCluster: name };
    },

    /**
     * @throws FleetError `InfrastructureNotReady` until the cluster is active, `InfrastructureFailed` when it cannot be
     */
    async awaitControlPlane({ region, eksCluster }: ClusterRef & { region: string; eksCluster: string }) {
      const cluster = await describe(await deps.aws.of(region), eksCluster);
      if (cluster?.status === 'ACTIVE') return { endpoint: cluster.endpoint ?? '', version: cluster.version ?? '' };
      const issues = (cluster?.health?.issues ?? []).map(({ code, message }) => `${code}: ${message}`).join('; ');
      throw new FleetError(
        cluster?.status === 'FAILED' ? 'InfrastructureFailed' : 'InfrastructureNotReady',
        `EKS cluster "${eksCluster}" in ${region} is ${cluster?.status ?? 'not listed yet'}${issues === '' ? '' : `: ${issues}`}.`,
      );
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
        const slot = `addon/${addonName}`;
        const found = await describeAddon(aws, eksCluster, addonName);
        if (found === undefined) {
          const row = await ledger.intend(slot, 'eks-addon');
          const tags = ledger.tags(slot);
          await unlessThere(() =>
            aws.eks.createAddon({
              clusterName: eksCluster,
              addonName,
              clientRequestToken: row.token,
              // EKS may have put a self-managed copy there, which the add-on takes over.
              resolveConflicts: 'OVERWRITE',
              ...addonSettings(addonName, roles.volumes),
              tags: { ...tags },
            }),
          );
          await ledger.record(slot, addonName);
        }
        const status = found?.status ?? 'CREATING';
        if (status === 'CREATE_FAILED') {
          const issues = (found?.health?.issues ?? []).map(({ code, message }) => `${code}: ${message}`).join('; ');
          throw new FleetError(
            'InfrastructureFailed',
            `Add-on "${addonName}" of "${eksCluster}" failed: ${issues || status}.`,
          );
        }
        if (status !== 'ACTIVE') waiting.push(`${addonName} is ${status}`);
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
      const found = await describe(aws, name);
      const ours = found !== undefined && carries(found.tags ?? {}, ledger.scope(input.onlyOwn === true));
      if (!ours) {
        const pending = await ledger.unsettled([KIND]);
        if (found === undefined && pending !== undefined) {
          throw new FleetError('InfrastructureNotReady', `EKS cluster "${name}" may still appear; looking for it.`);
        }
        await ledger.forgetKinds([KIND, 'eks-addon'], input.onlyOwn === true);
        return;
      }
      if (found.status !== 'DELETING') {
        try {
          await aws.eks.deleteCluster({ name });
        } catch (error) {
          // While it is being made, or while node groups go: EKS takes the request later.
          if (!isExisting(error) && awsErrorName(error) !== 'InvalidRequestException' && !isNotFound(error))
            throw error;
        }
      }
      if ((await describe(aws, name)) === undefined)
        return ledger.forgetKinds([KIND, 'eks-addon'], input.onlyOwn === true);
      throw new FleetError('InfrastructureNotReady', `EKS cluster "${name}" in ${input.region} is being removed.`);
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
      endpointPublicAccess: endpointAccess.public,
      ...(endpointAccess.public && { publicAccessCidrs: [...endpointAccess.publicCidrs] }),
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

async function describe({ eks }: Aws, name: string): Promise<Cluster | undefined> {
  try {
    return (await eks.describeCluster({ name })).cluster;
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

async function describeAddon({ eks }: Aws, clusterName: string, addonName: string) {
  try {
    return (await eks.describeAddon({ clusterName, addonName })).addon;
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

async function unlessThere(send: () => Promise<unknown>): Promise<void> {
  try {
    await send();
  } catch (error) {
    if (!isExisting(error)) throw error;
  }
}
