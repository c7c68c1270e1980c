/** EKS' REST paths. https://docs.aws.amazon.com/eks/latest/APIReference/API_Operations.html */

/** Operation, method, path; below `/clusters` where it does not begin with a slash. */
export const ROUTES: readonly (readonly [string, string, string])[] = [
  ['CreateCluster', 'POST', ''],
  ['ListClusters', 'GET', ''],
  ['DescribeCluster', 'GET', '{name}'],
  ['DeleteCluster', 'DELETE', '{name}'],
  ['UpdateClusterConfig', 'POST', '{name}/update-config'],
  ['UpdateClusterVersion', 'POST', '{name}/updates'],
  ['ListUpdates', 'GET', '{name}/updates'],
  ['DescribeUpdate', 'GET', '{name}/updates/{updateId}'],
  ['CreateNodegroup', 'POST', '{name}/node-groups'],
  ['ListNodegroups', 'GET', '{name}/node-groups'],
  ['DescribeNodegroup', 'GET', '{name}/node-groups/{nodegroupName}'],
  ['DeleteNodegroup', 'DELETE', '{name}/node-groups/{nodegroupName}'],
  ['UpdateNodegroupConfig', 'POST', '{name}/node-groups/{nodegroupName}/update-config'],
  ['UpdateNodegroupVersion', 'POST', '{name}/node-groups/{nodegroupName}/update-version'],
  ['CreateAddon', 'POST', '{name}/addons'],
  ['ListAddons', 'GET', '{name}/addons'],
  ['DescribeAddon', 'GET', '{name}/addons/{addonName}'],
  ['DeleteAddon', 'DELETE', '{name}/addons/{addonName}'],
  ['UpdateAddon', 'POST', '{name}/addons/{addonName}/update'],
  ['CreateAccessEntry', 'POST', '{name}/access-entries'],
  ['ListAccessEntries', 'GET', '{name}/access-entries'],
  ['DescribeAccessEntry', 'GET', '{name}/access-entries/{principalArn}'],
  ['UpdateAccessEntry', 'POST', '{name}/access-entries/{principalArn}'],
  ['DeleteAccessEntry', 'DELETE', '{name}/access-entries/{principalArn}'],
  ['AssociateAccessPolicy', 'POST', '{name}/access-entries/{principalArn}/access-policies'],
  ['ListAssociatedAccessPolicies', 'GET', '{name}/access-entries/{principalArn}/access-policies'],
  ['DisassociateAccessPolicy', 'DELETE', '{name}/access-entries/{principalArn}/access-policies/{policyArn}'],
  ['CreatePodIdentityAssociation', 'POST', '{name}/pod-identity-associations'],
  ['ListPodIdentityAssociations', 'GET', '{name}/pod-identity-associations'],
  ['DescribePodIdentityAssociation', 'GET', '{name}/pod-identity-associations/{associationId}'],
  ['UpdatePodIdentityAssociation', 'POST', '{name}/pod-identity-associations/{associationId}'],
  ['DeletePodIdentityAssociation', 'DELETE', '{name}/pod-identity-associations/{associationId}'],
  ['AssociateEncryptionConfig', 'POST', '{name}/encryption-config/associate'],
  ['DescribeClusterVersions', 'GET', '/cluster-versions'],
  ['DescribeAddonVersions', 'GET', '/addons/supported-versions'],
  ['ListAccessPolicies', 'GET', '/access-policies'],
  ['TagResource', 'POST', '/tags/{resourceArn}'],
  ['UntagResource', 'DELETE', '/tags/{resourceArn}'],
  ['ListTagsForResource', 'GET', '/tags/{resourceArn}'],
];

const PATTERNS = ROUTES.map(([operation, method, path]) => {
  const pattern = routePath(path).replaceAll(/\{(\w+)\}/g, '(?<$1>[^/]+)');
  return { operation, method, pattern: new RegExp(`^${pattern}$`) };
});

/** The whole of a route's path. */
export function routePath(path: string): string {
  return path.startsWith('/') ? path : `/clusters/${path}`.replace(/\/$/, '');
}

/** The operation that a request to EKS asks for, with what path, query and body say. */
export function eksOperation(
  method: string,
  url: URL,
  body: string,
): { operation: string; params: Record<string, unknown> } {
  const query = Object.fromEntries(url.searchParams);
  for (const route of PATTERNS) {
    const found = route.method === method ? route.pattern.exec(url.pathname) : null;
    if (found === null) continue;
    const path = Object.fromEntries(
      Object.entries(found.groups ?? {}).map(([name, value]) => [name, decodeURIComponent(value)]),
    );
    const members = body === '' ? {} : (JSON.parse(body) as Record<string, unknown>);
    return { operation: route.operation, params: { ...query, ...members, ...path } };
  }
  return { operation: `${method} ${url.pathname}`, params: query };
}
