/** The EKS add-ons that a cluster gets. */

/** Some are needed before a node can become ready; some are pods themselves, and need nodes. */
export type AddonPhase = 'beforeNodes' | 'afterNodes';

export const ADDONS = [
  { name: 'vpc-cni', phase: 'beforeNodes' },
  { name: 'kube-proxy', phase: 'beforeNodes' },
  { name: 'eks-pod-identity-agent', phase: 'beforeNodes' },
  { name: 'coredns', phase: 'afterNodes' },
  { name: 'aws-ebs-csi-driver', phase: 'afterNodes' },
] as const satisfies readonly { name: string; phase: AddonPhase }[];

/** What an add-on is given besides its name. */
export function addonSettings(name: string, volumesRoleArn: string) {
  if (name !== 'aws-ebs-csi-driver' || volumesRoleArn === '') return {};
  return { podIdentityAssociations: [{ serviceAccount: 'ebs-csi-controller-sa', roleArn: volumesRoleArn }] };
}
