/** The EKS add-ons that a cluster gets. */
import type { Enforcement } from './conditions.ts';

/** Some are needed before a node can become ready; some are pods themselves, and need nodes. */
export type AddonPhase = 'beforeNodes' | 'afterNodes';

/** The VPC CNI, which also enforces network policies where it is told to. */
export const CNI = 'vpc-cni';

export const ADDONS = [
  { name: CNI, phase: 'beforeNodes' },
  { name: 'kube-proxy', phase: 'beforeNodes' },
  { name: 'eks-pod-identity-agent', phase: 'beforeNodes' },
  { name: 'coredns', phase: 'afterNodes' },
  { name: 'aws-ebs-csi-driver', phase: 'afterNodes' },
] as const satisfies readonly { name: string; phase: AddonPhase }[];

/** Without this the VPC CNI enforces no network policy (Amazon EKS User Guide, "Limit Pod traffic"). */
const ENFORCE = { enableNetworkPolicy: 'true' };

/** What an add-on is given besides its name. */
export function addonSettings(name: string, volumesRoleArn: string) {
  if (name === CNI) return { configurationValues: JSON.stringify(ENFORCE) };
  if (name !== 'aws-ebs-csi-driver' || volumesRoleArn === '') return {};
  return { podIdentityAssociations: [{ serviceAccount: 'ebs-csi-controller-sa', roleArn: volumesRoleArn }] };
}

/** The add-on as far as it tells about network policies. */
export interface CniFacts {
  readonly status?: string | undefined;
  /** JSON or YAML, as it was given. */
  readonly configurationValues?: string | undefined;
}

/**
 * Whether network policies are enforced in an EKS cluster. One that is not the fleet's may enforce them by other means,
 * or change its mind later.
 *
 * @param cni the add-on; undefined where there is none, or it may not be looked at
 */
export function enforcementOf(eksCluster: string, cni: CniFacts | undefined): Enforcement {
  const remedy = `Until then every pod of "${eksCluster}" reaches this cluster's ports, behind the API key.`;
  if (cni === undefined) {
    return {
      status: 'Unknown',
      reason: 'NoAddon',
      message: `EKS cluster "${eksCluster}" has no add-on "${CNI}" that the worker can look at, so that nothing tells whether network policies are enforced. Have its owner see to it. ${remedy}`,
    };
  }
  if (/["']?enableNetworkPolicy["']?\s*:\s*["']?true\b/.test(cni.configurationValues ?? '')) {
    return { status: 'True', reason: 'VpcCni', message: '' };
  }
  return {
    status: 'False',
    reason: 'NotConfigured',
    message: `The add-on "${CNI}" of EKS cluster "${eksCluster}" does not enforce network policies. Set its configuration to ${JSON.stringify(ENFORCE)}. ${remedy}`,
  };
}
