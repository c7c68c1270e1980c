/** The rights that deploy/rbac gives the worker, applied as an operator would, and the identity that has them. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { KubeConfig } from '@kubernetes/client-node';
import { parse, parseAllDocuments } from 'yaml';
import { ServerSideApply } from '../../clients/server-side-apply.ts';
import type { AppliedObject } from '../../domain/kubernetes-objects.ts';
import { REPOSITORY } from '../paths.ts';

const RBAC = join(REPOSITORY, 'deploy/rbac');
const NAMESPACE = 'fleet-system';

/** The worker's service account. There is no pod here to run it in, so its token is in the API server's token file. */
export const WORKER = {
  user: `system:serviceaccount:${NAMESPACE}:qdrant-fleet-worker`,
  groups: ['system:serviceaccounts', `system:serviceaccounts:${NAMESPACE}`],
} as const;

/** What the worker is told about its rights. */
export const RIGHTS_ENVIRONMENT = {
  FLEET_NAMESPACE_ROLE: 'qdrant-fleet-namespace',
  FLEET_STATS_SERVICE_ACCOUNT: `${NAMESPACE}/qdrant-fleet-stats`,
} as const;

/** Apply what the kustomization lists, in its order. */
export async function applyRights(kubeconfig: string): Promise<void> {
  const config = new KubeConfig();
  config.loadFromFile(kubeconfig);
  const objects = config.makeApiClient(ServerSideApply);
  const { resources } = parse(await readFile(join(RBAC, 'kustomization.yaml'), 'utf8')) as { resources: string[] };
  for (const file of resources) {
    for (const document of parseAllDocuments(await readFile(join(RBAC, file), 'utf8'))) {
      await objects.apply(document.toJS() as AppliedObject, 'qdrant-fleet-local');
    }
  }
}
