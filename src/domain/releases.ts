/** Versions of Qdrant, and the way from one to another: one minor at a time, the latest patch of each. */

export interface Version {
  readonly major: number;
  readonly minor: number;
  readonly patch: number;
}

/** What upgrades pass through when the configuration names no other list: the latest patch of each minor. */
export const DEFAULT_RELEASES = ['v1.16.3', 'v1.17.1', 'v1.18.3', 'v1.19.0'] as const;

/** `v1.18.3`, `1.18.3` or an image tag that begins so; `undefined` for anything else, such as `latest`. */
export function parseVersion(text: string): Version | undefined {
  const match = /^v?(\d+)\.(\d+)\.(\d+)(?:-unprivileged|-gpu-[a-z]+)?$/.exec(text);
  if (match === null) return undefined;
  const [major = 0, minor = 0, patch = 0] = match.slice(1).map(Number);
  return { major, minor, patch };
}

/** Negative when `a` is older. */
export function compareVersions(a: Version, b: Version): number {
  return a.major - b.major || a.minor - b.minor || a.patch - b.patch;
}

export function sameVersion(a: string | undefined, b: string | undefined): boolean {
  const [left, right] = [parseVersion(a ?? ''), parseVersion(b ?? '')];
  return left !== undefined && right !== undefined && compareVersions(left, right) === 0;
}

/**
 * The image tags that an upgrade runs through, the wanted one last; empty when it runs already.
 *
 * @param oldest version of the oldest peer, @param newest of the newest: they differ when an upgrade was interrupted
 * @returns the tags, or why there is no way
 */
export function upgradePath(
  oldest: string,
  newest: string,
  wanted: string,
  releases: readonly string[],
): { readonly tags: readonly string[] } | { readonly problem: string } {
  const [from, at, to] = [parseVersion(oldest), parseVersion(newest), parseVersion(wanted)];
  if (to === undefined) return { problem: `"${wanted}" is no version such as "v1.19.0"` };
  if (from === undefined || at === undefined) {
    return { problem: `the peers report "${oldest}", which is no version, so there is no telling what comes next` };
  }
  if (compareVersions(to, at) < 0) {
    return {
      problem: `the cluster runs ${newest}; Qdrant has no downgrade. Restore a backup into a new cluster of ${wanted}`,
    };
  }
  if (to.major !== from.major) return { problem: `an upgrade from ${oldest} to another major version is not known` };
  const tags: string[] = [];
  for (let minor = from.minor + 1; minor < to.minor; minor += 1) {
    const latest = latestOf(releases, to.major, minor);
    if (latest === undefined) {
      return {
        problem: `the way from ${oldest} to ${wanted} leads through ${to.major}.${minor}, of which no release is configured (FLEET_QDRANT_RELEASES)`,
      };
    }
    tags.push(latest);
  }
  if (compareVersions(to, from) > 0) tags.push(wanted);
  return { tags };
}

function latestOf(releases: readonly string[], major: number, minor: number): string | undefined {
  const known = releases.flatMap((tag) => {
    const version = parseVersion(tag);
    return version?.major === major && version.minor === minor ? [{ tag, version }] : [];
  });
  return known.sort((a, b) => compareVersions(a.version, b.version)).at(-1)?.tag;
}
