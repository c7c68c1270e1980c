/** Whose a network interface is, as far as EC2 tells. */

/** As much of EC2's description as tells it. */
export interface InterfaceFacts {
  readonly NetworkInterfaceId?: string | undefined;
  readonly SubnetId?: string | undefined;
  readonly Status?: string | undefined;
  readonly Description?: string | undefined;
  readonly RequesterId?: string | undefined;
  readonly OwnerId?: string | undefined;
  readonly Attachment?: { readonly InstanceId?: string | undefined } | undefined;
}

/**
 * Services of AWS describe their interfaces in words of their own; the one place that tells what an interface is to
 * whoever may not ask the other services. `$1` is the name in the description.
 */
const OWNERS: readonly (readonly [description: RegExp, owner: string, remedy: string])[] = [
  [
    /^ELB (?:app|net|gwy)\/([^/]+)\//,
    'the load balancer "$1"',
    'Delete the Service or Ingress that it was made for while its cluster is there, or the load balancer itself.',
  ],
  [
    /^ELB (\S+)/,
    'the classic load balancer "$1"',
    'Delete the Service that it was made for, or the load balancer itself.',
  ],
  [/^Interface for NAT Gateway (nat-\w+)/, 'the NAT gateway $1', 'Delete the NAT gateway.'],
  [/^Amazon EKS (.+)$/, 'the control plane of EKS cluster "$1"', 'It goes with that cluster.'],
  [/^aws-K8S-(i-\w+)/, 'the pods on machine $1', 'It goes with that machine.'],
  [/^VPC Endpoint Interface (vpce-\w+)/, 'the VPC endpoint $1', 'Delete the endpoint.'],
  [/^AWS Lambda VPC ENI-(.+?)(?:-[0-9a-f-]{36})?$/, 'the Lambda function "$1"', 'Take the function out of the VPC.'],
  [/^RDSNetworkInterface/, 'a database of RDS', 'Move or delete the database.'],
  [/^EFS mount target for (fs-\w+)/, 'a mount target of file system $1', 'Delete the mount target.'],
];

/** One sentence about what keeps a network: the interface, whose it is, what to do. */
export function describeInterface(facts: InterfaceFacts): string {
  const { NetworkInterfaceId, SubnetId, Status, Description = '', RequesterId, OwnerId, Attachment } = facts;
  const machine = Attachment?.InstanceId;
  const known = OWNERS.map(([pattern, owner, remedy]) => {
    const [match, name = ''] = pattern.exec(Description) ?? [];
    return match === undefined ? undefined : ([owner.replace('$1', name), remedy] as const);
  }).find((found) => found !== undefined);
  const [owner, remedy] =
    known ??
    (machine !== undefined
      ? [`machine ${machine}`, 'Terminate the machine, or detach the interface.']
      : ['somebody unknown', 'Ask its maker, then delete it.']);
  const said = Description === '' ? '' : `"${Description}", `;
  return (
    `Network interface ${NetworkInterfaceId} in ${SubnetId} is ${Status} and belongs to ${owner} ` +
    `(${said}made by ${RequesterId ?? OwnerId ?? 'unknown'}). ${remedy}`
  );
}
