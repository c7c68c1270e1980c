/** AWS: each Qdrant cluster lives in an EKS cluster, which is entered with a token made of the worker's own identity. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AwsClients } from '../clients/aws/clients.ts';
import { eksToken, TOKEN_LIFE_MS } from '../clients/aws/eks-token.ts';
import { Helm } from '../clients/helm.ts';
import { Kubernetes } from '../clients/kubernetes.ts';
import { eksNameOf, isOfAnother } from '../domain/aws-names.ts';
import { FleetError } from '../domain/errors.ts';
import { clusterKey, type ClusterRef } from '../domain/naming.ts';
import { capabilitiesOf } from '../domain/provider.ts';
import { notAllowed } from '../domain/tenant-policy.ts';
import type { KubernetesAccess, Provider } from './provider.ts';

interface Options {
  readonly aws: AwsClients;
  readonly helm: string;
  /** Whose clusters these are. */
  readonly installation: () => Promise<string>;
}

/** An activity that was given access may use it for this long; what is older is made anew. */
const FRESH_MS = TOKEN_LIFE_MS / 2;
/** Clusters whose access is kept; the oldest goes. */
const MOST_KNOWN = 256;

/**
 * 1. A token goes into a kubeconfig of mode 0600 inside a folder of mode 0700: never into arguments, which every
 *    process on the machine can read, and never into the environment of Helm's plugins.
 * 2. Nobody enters the EKS cluster that carries the tags of another one's, whatever the catalogue says.
 * 3. Access is kept for half of its token's life, so that whoever gets it has the other half to use it.
 */
export function awsProvider({ aws, helm, installation }: Options): Provider {
  const known = new Map<string, { readonly until: number; readonly access: Promise<KubernetesAccess> }>();
  let folder: Promise<string> | undefined;

  const open = async (ref: ClusterRef, name: string, region: string, file: string): Promise<KubernetesAccess> => {
    const clients = await aws.of(region);
    const { cluster } = await clients.eks.describeCluster({ name });
    const { tenant, cluster: of } = ref;
    if (isOfAnother(cluster?.tags ?? {}, { tenant, cluster: of, installation: await installation() })) {
      throw notAllowed(tenant, [{ field: 'aws.eksCluster', value: name }]);
    }
    if (cluster?.endpoint === undefined || cluster.endpoint === '') {
      throw new FleetError(
        'KubernetesUnavailable',
        `EKS cluster "${name}" in ${region} has no endpoint yet (${cluster?.status}).`,
      );
    }
    const token = await eksToken(clients, { eksCluster: name, endpoint: aws.endpoint });
    const config = kubeconfigOf(cluster.endpoint, cluster.certificateAuthority?.data, token);
    folder ??= mkdtemp(join(tmpdir(), 'qdrant-fleet-eks-'));
    const path = join(await folder, file);
    await writeFile(path, config, { mode: 0o600 });
    return { kubernetes: new Kubernetes(path), helm: new Helm({ binary: helm, kubeconfig: path }) };
  };

  return {
    name: 'aws',
    capabilities: capabilitiesOf('aws'),
    async access(ref, spec) {
      const region = spec?.aws?.region;
      if (region === undefined) throw new FleetError('Internal', `Cluster ${clusterKey(ref)} has no region.`);
      const name = spec?.aws?.eksCluster ?? eksNameOf(ref);
      const key = `${region}/${name}/${clusterKey(ref)}`;
      const found = known.get(key);
      if (found !== undefined && found.until > Date.now()) return found.access;
      const access = open(ref, name, region, `${region}-${name}-${clusterKey(ref)}.json`);
      known.delete(key);
      known.set(key, { until: Date.now() + FRESH_MS, access });
      for (const oldest of known.keys()) {
        if (known.size <= MOST_KNOWN) break;
        known.delete(oldest);
      }
      // A failure is not kept.
      access.catch(() => known.delete(key));
      return access;
    },
    async close() {
      if (folder !== undefined) await rm(await folder, { recursive: true, force: true });
    },
  };
}

/** JSON is YAML too. */
function kubeconfigOf(server: string, ca: string | undefined, token: string): string {
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'eks',
    clusters: [
      { name: 'eks', cluster: { server, ...(ca !== undefined && ca !== '' && { 'certificate-authority-data': ca }) } },
    ],
    contexts: [{ name: 'eks', context: { cluster: 'eks', user: 'worker' } }],
    users: [{ name: 'worker', user: { token } }],
  });
}
