/**
 * Who may talk to a cluster's pods, and to whom they may talk. Everything else is denied, in both directions. Network
 * policies see the ports of pods, behind any Service, so every port here is a pod's.
 */
import { containsCidr, hostCidr } from './ip-network.ts';
import type { NetworkAccess } from './cluster.ts';
import { FleetError } from './errors.ts';
import { RELEASE_NAME } from './naming.ts';

/** What the configuration of this installation says about the network. */
export interface NetworkSurroundings {
  /** Namespace that the workers run in, when they run in the same Kubernetes cluster. */
  readonly workerNamespace?: string;
  /** Addresses of workers elsewhere. */
  readonly workerCidrs: readonly string[];
  /** Port on which every worker serves shards to nodes. */
  readonly relayPort: number;
  /** Where the nodes reach the backup store; they pull shards from it. */
  readonly store: StoreLocation;
  /** Namespace of the cluster's DNS, and addresses of DNS servers outside pods, such as a cache on each machine. */
  readonly dnsNamespace: string;
  readonly dnsCidrs: readonly string[];
  /** Pods that may read `/metrics`. */
  readonly scrape?: { readonly namespace: string; readonly labels: Readonly<Record<string, string>> };
}

/** The store's address as a policy can name it. */
export interface StoreLocation {
  /** Ports of the store's pods, or of its address where no Service is in between. */
  readonly ports: readonly number[];
  readonly namespace?: string;
  readonly cidrs: readonly string[];
  /** Networks that no pod may reach although `cidrs` contains them. */
  readonly except: readonly string[];
}

export const PORTS = { http: 6333, grpc: 6334, p2p: 6335 } as const;

/** The pods that the chart makes. */
export const POD_LABELS = {
  'app.kubernetes.io/name': 'qdrant',
  'app.kubernetes.io/instance': RELEASE_NAME,
} as const;

/**
 * Where clouds serve credentials and settings of a machine to whoever asks on it: link-local addresses, those of AWS, Azure
 * and Oracle, and all of IPv4 behind NAT64, which would lead to each of them.
 */
export const METADATA_CIDRS = [
  '169.254.0.0/16',
  '168.63.129.16/32',
  '192.0.0.192/32',
  'fd00:ec2::254/128',
  'fe80::/10',
  '64:ff9b::/96',
] as const;

/** Networks that are nobody's on the internet: of a company, a cloud network or a cluster. */
export const PRIVATE_CIDRS = ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', 'fc00::/7'] as const;

const WORLD = ['0.0.0.0/0', '::/0'] as const;

/**
 * Where the nodes find the store.
 *
 * @param endpoint as the nodes see it; none means Amazon S3
 * @param known what the operator says: networks of the store, ports of its pods, and networks that are off limits
 */
export function storeLocation(
  endpoint: string | undefined,
  known: {
    readonly cidrs: readonly string[];
    readonly podPorts: readonly number[];
    readonly private: readonly string[];
  },
): StoreLocation {
  const url = endpoint === undefined ? undefined : new URL(endpoint);
  const ports = known.podPorts.length > 0 ? known.podPorts : [portOf(url)];
  if (known.cidrs.length > 0) return { ports, cidrs: known.cidrs, except: METADATA_CIDRS };
  const address = hostCidr(url?.hostname ?? '');
  if (address !== undefined) return { ports, cidrs: [address], except: METADATA_CIDRS };
  const namespace = /^[^.]+\.([^.]+)\.svc(?:\.|$)/.exec(url?.hostname ?? '')?.[1];
  if (namespace !== undefined) return { ports, namespace, cidrs: [], except: METADATA_CIDRS };
  return { ports, cidrs: WORLD, except: [...METADATA_CIDRS, ...known.private] };
}

function portOf(url: URL | undefined): number {
  if (url === undefined) return 443;
  return url.port === '' ? (url.protocol === 'http:' ? 80 : 443) : Number(url.port);
}

/**
 * A policy that does not know the workers would be open to all, or lock the workers out.
 *
 * @throws FleetError `NotConfigured`
 */
export function requireWorkerLocation(around: Pick<NetworkSurroundings, 'workerNamespace' | 'workerCidrs'>): void {
  if (around.workerNamespace !== undefined || around.workerCidrs.length > 0) return;
  throw new FleetError(
    'NotConfigured',
    'The network policy of a cluster has to let the workers in, and their location is not configured. ' +
      "Set FLEET_WORKER_NAMESPACE to the workers' namespace in the Kubernetes cluster, or FLEET_WORKER_CIDRS to their networks.",
  );
}

/** The policy's `spec`: default deny in both directions, and the exceptions. */
export function networkPolicySpec(network: NetworkAccess | undefined, around: NetworkSurroundings): object {
  requireWorkerLocation(around);
  const workers = sources(around.workerNamespace === undefined ? [] : [around.workerNamespace], around.workerCidrs);
  const peers = [{ podSelector: { matchLabels: POD_LABELS } }];
  return {
    podSelector: {},
    policyTypes: ['Ingress', 'Egress'],
    ingress: [
      {
        ports: ports('TCP', PORTS.http, PORTS.grpc),
        from: [...peers, ...workers, ...sources(network?.allowNamespaces ?? [], network?.allowCidrs ?? [])],
      },
      { ports: ports('TCP', PORTS.p2p), from: peers },
      ...scrapeRule(around.scrape),
    ],
    egress: [
      {
        ports: [...ports('UDP', 53), ...ports('TCP', 53)],
        to: sources([around.dnsNamespace], around.dnsCidrs),
      },
      { ports: ports('TCP', PORTS.http, PORTS.p2p), to: peers },
      { ports: ports('TCP', ...around.store.ports), to: storeTargets(around.store) },
      { ports: ports('TCP', around.relayPort), to: workers },
    ],
  };
}

/** The policy in words, for the step that applies it. */
export function accessInWords(network: NetworkAccess | undefined, around: NetworkSurroundings): string {
  const { workerNamespace, workerCidrs, store, relayPort } = around;
  const from = [
    ...(workerNamespace === undefined ? [] : [workerNamespace]),
    ...(network?.allowNamespaces ?? []),
    ...workerCidrs,
    ...(network?.allowCidrs ?? []),
  ];
  const open = store.cidrs.some((cidr) => WORLD.some((world) => cidr === world));
  const to = open
    ? 'public addresses'
    : [...(store.namespace === undefined ? [] : [store.namespace]), ...store.cidrs].join(', ');
  return (
    `ports ${PORTS.http} and ${PORTS.grpc} open to ${from.join(', ')}; ` +
    `the nodes reach DNS, the store (${to}, port ${store.ports.join(', ')}) and the workers' port ${relayPort}`
  );
}

function sources(namespaces: readonly string[], cidrs: readonly string[]): object[] {
  return [
    ...namespaces.map((name) => ({ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': name } } })),
    ...cidrs.map((cidr) => ({ ipBlock: { cidr } })),
  ];
}

function scrapeRule(scrape: NetworkSurroundings['scrape']): object[] {
  if (scrape === undefined) return [];
  const from = {
    namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': scrape.namespace } },
    ...(Object.keys(scrape.labels).length > 0 && { podSelector: { matchLabels: scrape.labels } }),
  };
  return [{ ports: ports('TCP', PORTS.http), from: [from] }];
}

function storeTargets({ namespace, cidrs, except }: StoreLocation): object[] {
  const blocks = cidrs.map((cidr) => {
    // Kubernetes takes an exception only from a network that is larger than it.
    const inside = except.filter((other) => containsCidr(cidr, other) && !containsCidr(other, cidr));
    return { ipBlock: { cidr, ...(inside.length > 0 && { except: inside }) } };
  });
  return [...sources(namespace === undefined ? [] : [namespace], []), ...blocks];
}

function ports(protocol: 'TCP' | 'UDP', ...numbers: number[]): { protocol: string; port: number }[] {
  return numbers.map((port) => ({ protocol, port }));
}
