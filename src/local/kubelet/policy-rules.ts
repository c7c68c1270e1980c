/**
 * NetworkPolicies as rules of nftables. Pods are processes on loopback addresses: what they send comes from 127.0.0.1, so a
 * pod as a source is known by the group that its process runs as, and as a destination by its address.
 *
 * 1. A pod that no policy selects may do anything, in that direction; any other one only what some policy allows.
 * 2. A connection needs both: the egress of its source and the ingress of its destination.
 * 3. Whatever a policy says that has no rule here allows nothing.
 */
import { containsCidr, parseNetwork } from '../../domain/ip-network.ts';

export interface LabelSelector {
  readonly matchLabels?: Readonly<Record<string, string>>;
  readonly matchExpressions?: readonly {
    readonly key: string;
    readonly operator: string;
    readonly values?: readonly string[];
  }[];
}

interface Peer {
  readonly podSelector?: LabelSelector;
  readonly namespaceSelector?: LabelSelector;
  readonly ipBlock?: { readonly cidr: string; readonly except?: readonly string[] };
}

interface Port {
  readonly protocol?: string;
  readonly port?: number | string;
  readonly endPort?: number;
}

/** As the API server writes it. */
export interface PolicyObject {
  readonly metadata?: { readonly uid?: string; readonly name?: string; readonly namespace?: string };
  readonly spec?: {
    readonly podSelector?: LabelSelector;
    readonly policyTypes?: readonly string[];
    readonly ingress?: readonly { readonly from?: readonly Peer[]; readonly ports?: readonly Port[] }[];
    readonly egress?: readonly { readonly to?: readonly Peer[]; readonly ports?: readonly Port[] }[];
  };
}

export interface Endpoint {
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  /** IPv4. */
  readonly ip: string;
}

export interface PolicyWorld {
  readonly policies: readonly PolicyObject[];
  readonly pods: readonly Endpoint[];
  /** Labels by the namespace's name. */
  readonly namespaces: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** Group of the kubelet's own process, which may probe its pods whatever their policies say. */
  readonly kubelet: number;
}

/** The group that the process of a pod with this address runs as: the address as a number. */
export function groupOf(ip: string): number {
  return ip.split('.').reduce((sum, octet) => sum * 256 + Number(octet), 0);
}

/** A script for `nft -f` that puts the rules in force all at once, in place of those that were there. */
export function policyScript(table: string, world: PolicyWorld): string {
  const { pods, kubelet } = world;
  const chains: string[] = [];
  const jumps: Record<Direction, string[]> = { ingress: [], egress: [] };
  for (const pod of pods) {
    for (const direction of DIRECTIONS) {
      const lines = rulesFor(direction, pod, world);
      if (lines === undefined) continue;
      const chain = `${direction}_${groupOf(pod.ip)}`;
      jumps[direction].push(`${direction === 'egress' ? groupOf(pod.ip) : pod.ip} : jump ${chain}`);
      const own = direction === 'ingress' ? [`meta skgid ${kubelet} accept`] : [];
      chains.push(`chain ${chain} {`, ...[...own, ...lines, REFUSE].map((line) => `  ${line}`), '}');
    }
  }
  const groups = pods.map(({ ip }) => groupOf(ip));
  return [
    `add table inet ${table}`,
    `delete table inet ${table}`,
    `table inet ${table} {`,
    `set pods {`,
    `  type gid`,
    ...(groups.length === 0 ? [] : [`  elements = { ${groups.join(', ')} }`]),
    `}`,
    ...chains,
    'chain output {',
    '  type filter hook output priority filter; policy accept;',
    '  ct state established,related accept',
    ...(jumps.egress.length === 0 ? [] : [`  meta skgid vmap { ${jumps.egress.join(', ')} }`]),
    ...(jumps.ingress.length === 0 ? [] : [`  ip daddr vmap { ${jumps.ingress.join(', ')} }`]),
    '}',
    '}',
    '',
  ].join('\n');
}

const DIRECTIONS = ['ingress', 'egress'] as const;
type Direction = (typeof DIRECTIONS)[number];
/** At once, where a network would stay silent: nobody has to wait to learn that a way is closed. */
const REFUSE = 'reject with icmpx admin-prohibited';

/** @returns what is allowed; nothing at all when no policy speaks about the pod */
function rulesFor(direction: Direction, pod: Endpoint, world: PolicyWorld): string[] | undefined {
  const selecting = world.policies.filter(
    ({ metadata, spec }) =>
      metadata?.namespace === pod.namespace && typesOf(spec).has(direction) && selects(spec?.podSelector, pod.labels),
  );
  if (selecting.length === 0) return undefined;
  return selecting.flatMap(({ spec }) => {
    const rules =
      direction === 'ingress'
        ? (spec?.ingress ?? []).map(({ from, ports }) => ({ peers: from, ports }))
        : (spec?.egress ?? []).map(({ to, ports }) => ({ peers: to, ports }));
    return rules.flatMap(({ peers, ports }) =>
      peersOf(direction, peers, pod.namespace, world).flatMap((peer) =>
        portsOf(ports).map((port) => [peer, port, ALLOW[direction]].filter((part) => part !== '').join(' ')),
      ),
    );
  });
}

/** What leaves a pod may still be refused where it arrives. */
const ALLOW = { ingress: 'accept', egress: 'return' } as const;

function typesOf(spec: PolicyObject['spec']): ReadonlySet<Direction> {
  const types = spec?.policyTypes?.map((type) => type.toLowerCase()) ?? [
    'ingress',
    ...(spec?.egress === undefined ? [] : ['egress']),
  ];
  return new Set(DIRECTIONS.filter((direction) => types.includes(direction)));
}

function peersOf(
  direction: Direction,
  peers: readonly Peer[] | undefined,
  namespace: string,
  world: PolicyWorld,
): string[] {
  if (peers === undefined || peers.length === 0) return [''];
  return peers.flatMap(({ ipBlock, podSelector, namespaceSelector }) => {
    if (ipBlock !== undefined) return blockOf(direction, ipBlock.cidr, ipBlock.except ?? [], world);
    const pods = world.pods.filter((pod) => {
      const inside =
        namespaceSelector === undefined
          ? pod.namespace === namespace
          : selects(namespaceSelector, world.namespaces[pod.namespace] ?? {});
      return inside && (podSelector === undefined || selects(podSelector, pod.labels));
    });
    return podsOf(direction, pods);
  });
}

function podsOf(direction: Direction, pods: readonly Endpoint[]): string[] {
  if (pods.length === 0) return [];
  return direction === 'ingress'
    ? [`meta skgid { ${pods.map(({ ip }) => groupOf(ip)).join(', ')} }`]
    : [`ip daddr { ${pods.map(({ ip }) => ip).join(', ')} }`];
}

function blockOf(direction: Direction, cidr: string, except: readonly string[], world: PolicyWorld): string[] {
  const network = parseNetwork(cidr);
  // Nothing that is no network gets into the script.
  if (network === undefined || except.some((other) => parseNetwork(other) === undefined)) return [];
  const field = `${network.family === 4 ? 'ip' : 'ip6'} ${direction === 'ingress' ? 'saddr' : 'daddr'}`;
  const block = [`${field} ${cidr}`, ...except.map((other) => `${field} != ${other}`)].join(' ');
  if (direction === 'egress') return [block];
  const inside = world.pods.filter(
    ({ ip }) => containsCidr(cidr, `${ip}/32`) && !except.some((other) => containsCidr(other, `${ip}/32`)),
  );
  // The address that a pod's packets carry is not the pod's.
  return [`meta skgid != @pods ${block}`, ...podsOf(direction, inside)];
}

function portsOf(ports: readonly Port[] | undefined): string[] {
  if (ports === undefined || ports.length === 0) return [''];
  return ports.flatMap(({ protocol = 'TCP', port, endPort }) => {
    const name = protocol.toLowerCase();
    if (name !== 'tcp' && name !== 'udp') return [];
    if (port === undefined) return [`meta l4proto ${name}`];
    // The names of ports are the container's; the fleet's policies have numbers.
    if (!isPort(port) || (endPort !== undefined && !isPort(endPort))) return [];
    return [`${name} dport ${port}${endPort === undefined ? '' : `-${endPort}`}`];
  });
}

function isPort(value: unknown): value is number {
  return Number.isInteger(value) && Number(value) >= 1 && Number(value) <= 65_535;
}

/** Whether a selector matches; one without conditions matches everything. */
export function selects(selector: LabelSelector | undefined, labels: Readonly<Record<string, string>>): boolean {
  const { matchLabels = {}, matchExpressions = [] } = selector ?? {};
  return (
    Object.entries(matchLabels).every(([key, value]) => labels[key] === value) &&
    matchExpressions.every(({ key, operator, values = [] }) => {
      const value = labels[key];
      switch (operator) {
        case 'In':
          return value !== undefined && values.includes(value);
        case 'NotIn':
          return value === undefined || !values.includes(value);
        case 'Exists':
          return value !== undefined;
        case 'DoesNotExist':
          return value === undefined;
        default:
          return false;
      }
    })
  );
}
