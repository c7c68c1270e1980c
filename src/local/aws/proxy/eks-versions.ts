/** Versions of Kubernetes and of add-ons that "EKS" offers here: a short list in EKS' shape, not AWS' own list of today. */
import { jsonAnswer } from './answers.ts';
import type { Answer } from './call.ts';

/** Newest first. Dates of the release at EKS and of the end of standard support: EKS user guide, Kubernetes versions. */
const VERSIONS: readonly (readonly [version: string, released: string, standardUntil: string])[] = [
  ['1.35', '2026-01-27', '2027-03-27'],
  ['1.34', '2025-10-02', '2026-12-02'],
  ['1.33', '2025-05-29', '2026-07-29'],
  ['1.32', '2025-01-23', '2026-03-23'],
];
export const DEFAULT_VERSION = '1.35';

const ADDONS: Readonly<Record<string, readonly string[]>> = {
  'aws-ebs-csi-driver': ['v1.53.0-eksbuild.1', 'v1.48.0-eksbuild.2'],
  'eks-pod-identity-agent': ['v1.3.10-eksbuild.2', 'v1.3.8-eksbuild.2'],
  'vpc-cni': ['v1.21.1-eksbuild.1', 'v1.20.4-eksbuild.2'],
  coredns: ['v1.13.1-eksbuild.1', 'v1.12.4-eksbuild.1'],
  'kube-proxy': ['v1.35.0-eksbuild.2', 'v1.34.1-eksbuild.2'],
  'snapshot-controller': ['v8.3.0-eksbuild.1'],
  'metrics-server': ['v0.8.0-eksbuild.5'],
};

/** Why EKS refuses to make a cluster of a version. */
export function versionProblem(version: string): string | undefined {
  return VERSIONS.some(([known]) => known === version) ? undefined : `unsupported Kubernetes version ${version}`;
}

export function describeClusterVersions(params: Readonly<Record<string, unknown>>): Answer {
  const wanted = typeof params['clusterVersions'] === 'string' ? params['clusterVersions'].split(',') : undefined;
  const clusterVersions = VERSIONS.filter(([version]) => wanted?.includes(version) ?? true)
    .filter(([version]) => params['defaultOnly'] !== 'true' || version === DEFAULT_VERSION)
    .map(([clusterVersion, released, standardUntil]) => {
      const extended = Date.parse(standardUntil) < Date.now();
      return {
        clusterVersion,
        clusterType: 'eks',
        defaultPlatformVersion: 'eks.9',
        defaultVersion: clusterVersion === DEFAULT_VERSION,
        releaseDate: Date.parse(released) / 1000,
        endOfStandardSupportDate: Date.parse(standardUntil) / 1000,
        status: extended ? 'extended-support' : 'standard-support',
        versionStatus: extended ? 'EXTENDED_SUPPORT' : 'STANDARD_SUPPORT',
        kubernetesPatchVersion: `${clusterVersion}.2`,
      };
    });
  return jsonAnswer({ clusterVersions });
}

export function describeAddonVersions(params: Readonly<Record<string, unknown>>): Answer {
  const { addonName, kubernetesVersion } = params;
  const compatibilities = VERSIONS.map(([version]) => version)
    .filter((version) => kubernetesVersion === undefined || version === kubernetesVersion)
    .map((clusterVersion) => ({ clusterVersion, platformVersions: ['*'] }));
  const addons = Object.entries(ADDONS)
    .filter(([name]) => (addonName === undefined || name === addonName) && compatibilities.length > 0)
    .map(([name, versions]) => ({
      addonName: name,
      type: 'infra-management',
      publisher: 'eks',
      owner: 'aws',
      addonVersions: versions.map((addonVersion, index) => ({
        addonVersion,
        architecture: ['amd64', 'arm64'],
        computeTypes: ['ec2'],
        // The newest is the default of every version.
        compatibilities: compatibilities.map((one) => ({ ...one, defaultVersion: index === 0 })),
        requiresConfiguration: false,
        requiresIamPermissions: name === 'aws-ebs-csi-driver' || name === 'vpc-cni',
      })),
    }));
  return jsonAnswer({ addons });
}

/** `next` is one minor version above `current`. */
export function isNextMinor(current: string, next: string): boolean {
  return versionProblem(next) === undefined && minorOf(next) === minorOf(current) + 1;
}

export function minorOf(version: string): number {
  return Number(version.split('.')[1]);
}
