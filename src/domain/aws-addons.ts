/** The EKS add-ons that a cluster gets. */
import type { Tags } from './aws-names.ts';

/** Some are needed before a node can become ready; some are pods themselves, and need nodes. */
export type AddonPhase = 'beforeNodes' | 'afterNodes';

export const ADDONS = [
  { name: 'vpc-cni', phase: 'beforeNodes' },
  { name: 'kube-proxy', phase: 'beforeNodes' },
  { name: 'eks-pod-identity-agent', phase: 'beforeNodes' },
  { name: 'coredns', phase: 'afterNodes' },
  { name: 'aws-ebs-csi-driver', phase: 'afterNodes' },
] as const satisfies readonly { name: string; phase: AddonPhase }[];

/** What an add-on is given besides its name. Volumes carry the cluster's tags, so that none is left behind unseen. */
export function addonSettings(name: string, tags: Tags, volumesRoleArn: string) {
  if (name !== 'aws-ebs-csi-driver') return {};
  return {
    configurationValues: JSON.stringify({ controller: { extraVolumeTags: tags } }),
    podIdentityAssociations: [{ serviceAccount: 'ebs-csi-controller-sa', roleArn: volumesRoleArn }],
  };
}
