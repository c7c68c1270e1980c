import { describe, expect, test } from 'vitest';
import fc from 'fast-check';
import type { FleetError } from '../../src/domain/errors.ts';
import { containsCidr, hostCidr, parseNetwork } from '../../src/domain/ip-network.ts';
import {
  accessInWords,
  METADATA_CIDRS,
  networkPolicySpec,
  PRIVATE_CIDRS,
  storeLocation,
  type NetworkSurroundings,
} from '../../src/domain/network-policy.ts';

interface Rule {
  readonly ports: readonly { readonly protocol: string; readonly port: number }[];
  readonly from?: readonly object[];
  readonly to?: readonly { readonly ipBlock?: { readonly cidr: string; readonly except?: readonly string[] } }[];
}

const AWS = storeLocation(undefined, { cidrs: [], podPorts: [], private: PRIVATE_CIDRS });
const AROUND: NetworkSurroundings = {
  workerNamespace: 'fleet-system',
  workerCidrs: ['10.1.2.3/32'],
  relayPort: 8090,
  store: AWS,
  dnsNamespace: 'kube-system',
  dnsCidrs: [],
};
const WORKERS = [
  { namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'fleet-system' } } },
  { ipBlock: { cidr: '10.1.2.3/32' } },
];
const PEERS = {
  podSelector: { matchLabels: expect.objectContaining({ 'app.kubernetes.io/name': 'qdrant' }) as object },
};

function rules(around: Partial<NetworkSurroundings> = {}, network = {}) {
  return networkPolicySpec(network, { ...AROUND, ...around }) as {
    policyTypes: string[];
    ingress: Rule[];
    egress: Rule[];
  };
}

const withPort = (list: readonly Rule[], port: number) =>
  list.filter(({ ports }) => ports.some((candidate) => candidate.port === port));

describe('in', () => {
  test('the workers, the peers, the named namespaces and networks reach the API ports, and nobody else', () => {
    const { policyTypes, ingress } = rules({}, { allowNamespaces: ['shop'], allowCidrs: ['10.20.0.0/16'] });
    expect(policyTypes).toEqual(['Ingress', 'Egress']);
    expect(ingress).toHaveLength(2);
    expect(ingress[0]?.ports.map(({ port }) => port)).toEqual([6333, 6334]);
    expect(ingress[0]?.from).toEqual([
      PEERS,
      ...WORKERS,
      { namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'shop' } } },
      { ipBlock: { cidr: '10.20.0.0/16' } },
    ]);
  });

  test('only peers reach the peer port', () => {
    expect(withPort(rules({}, { allowCidrs: ['0.0.0.0/0'] }).ingress, 6335).map(({ from }) => from)).toEqual([[PEERS]]);
  });

  test('metrics are read from where the configuration says, on the REST port only', () => {
    const labels = { 'app.kubernetes.io/name': 'prometheus' };
    const scraped = rules({ scrape: { namespace: 'monitoring', labels } }).ingress.at(-1);
    expect(scraped).toEqual({
      ports: [{ protocol: 'TCP', port: 6333 }],
      from: [
        {
          namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'monitoring' } },
          podSelector: { matchLabels: labels },
        },
      ],
    });
  });

  test.each([{ allowNamespaces: ['shop'] }, {}])(
    'without a location of the workers there is no policy, whatever else is allowed: %j',
    (network) => {
      const around = { ...AROUND, workerCidrs: [] };
      delete (around as { workerNamespace?: string }).workerNamespace;
      const attempt = () => networkPolicySpec(network, around);
      expect(attempt).toThrow(/FLEET_WORKER_NAMESPACE.*FLEET_WORKER_CIDRS/);
      expect(attempt).toThrow(expect.objectContaining({ code: 'NotConfigured' }) as FleetError);
    },
  );
});

describe('out', () => {
  test('every rule names where it goes: nothing is open to all addresses by omission', () => {
    for (const rule of rules().egress) expect(rule.to?.length).toBeGreaterThan(0);
    for (const rule of rules().ingress) expect(rule.from?.length).toBeGreaterThan(0);
  });

  test("the relay's port is open to the workers", () => {
    expect(withPort(rules({ relayPort: 9191 }).egress, 9191)).toEqual([
      { ports: [{ protocol: 'TCP', port: 9191 }], to: WORKERS },
    ]);
  });

  test('peers reach each other, also on the REST port, which snapshot transfers read from', () => {
    expect(withPort(rules().egress, 6335)).toEqual([
      { ports: [6333, 6335].map((port) => ({ protocol: 'TCP', port })), to: [PEERS] },
    ]);
  });

  test('DNS goes to its namespace and to the addresses that are configured', () => {
    const [dns] = withPort(rules({ dnsNamespace: 'dns', dnsCidrs: ['169.254.20.10/32'] }).egress, 53);
    expect(dns?.ports.map(({ protocol }) => protocol)).toEqual(['UDP', 'TCP']);
    expect(dns?.to).toEqual([
      { namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'dns' } } },
      { ipBlock: { cidr: '169.254.20.10/32' } },
    ]);
  });
});

describe('the store', () => {
  const blocks = (store: NetworkSurroundings['store']) =>
    rules({ store })
      .egress.at(2)
      ?.to?.flatMap(({ ipBlock }) => ipBlock ?? []);

  test('of Amazon is every public address on port 443, without metadata and private networks', () => {
    expect(AWS.ports).toEqual([443]);
    expect(blocks(AWS)).toEqual([
      {
        cidr: '0.0.0.0/0',
        except: [
          '169.254.0.0/16',
          '168.63.129.16/32',
          '192.0.0.192/32',
          '10.0.0.0/8',
          '172.16.0.0/12',
          '192.168.0.0/16',
          '100.64.0.0/10',
        ],
      },
      { cidr: '::/0', except: ['fd00:ec2::254/128', 'fe80::/10', '64:ff9b::/96', 'fc00::/7'] },
    ]);
  });

  test('with an address is that address', () => {
    const store = storeLocation('http://172.30.77.10:7070', { cidrs: [], podPorts: [], private: PRIVATE_CIDRS });
    expect(store.ports).toEqual([7070]);
    expect(blocks(store)).toEqual([{ cidr: '172.30.77.10/32' }]);
  });

  test('behind a Service is its namespace, and its pods may listen on another port', () => {
    const endpoint = 'http://minio.storage.svc.cluster.local';
    const store = storeLocation(endpoint, { cidrs: [], podPorts: [9000], private: PRIVATE_CIDRS });
    expect(rules({ store }).egress.at(2)).toEqual({
      ports: [{ protocol: 'TCP', port: 9000 }],
      to: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'storage' } } }],
    });
  });

  test('in the networks of the operator never includes metadata', () => {
    const store = storeLocation('https://s3.corp', { cidrs: ['0.0.0.0/0', '10.9.0.0/16'], podPorts: [], private: [] });
    expect(blocks(store)).toEqual([
      { cidr: '0.0.0.0/0', except: ['169.254.0.0/16', '168.63.129.16/32', '192.0.0.192/32'] },
      { cidr: '10.9.0.0/16' },
    ]);
  });
});

test('the words say who may come in and where the nodes may go', () => {
  expect(accessInWords({ allowNamespaces: ['shop'] }, AROUND)).toBe(
    "ports 6333 and 6334 open to fleet-system, shop, 10.1.2.3/32; the nodes reach DNS, the store (public addresses, port 443) and the workers' port 8090",
  );
});

describe('networks', () => {
  test.each(['10.0.0.0/8', '0.0.0.0/0', '::/0', 'fd00:ec2::254/128', '1:2:3:4:5:6:7:8/128', '2001:db8::/32'])(
    '%s is one',
    (text) => expect(parseNetwork(text)).toBeDefined(),
  );

  test.each([
    '10.0.0.0',
    '10.0.0.999/8',
    '10.0.0.0/33',
    '1::2::3/64',
    ':::/0',
    '1:2:3/64',
    'fe80::%eth0/64',
    '010.0.0.0/8',
    '/0',
    '',
  ])('"%s" is none', (text) => expect(parseNetwork(text)).toBeUndefined());

  test('one contains another exactly when it contains its first and its last address', () => {
    const octet = fc.nat(255);
    const network = fc.tuple(octet, octet, octet, octet, fc.nat(32));
    const value = ([a, b, c, d]: readonly number[]) => (((a ?? 0) * 256 + (b ?? 0)) * 256 + (c ?? 0)) * 256 + (d ?? 0);
    fc.assert(
      fc.property(network, network, (one, other) => {
        const range = (of: readonly number[]) => {
          const size = 2 ** (32 - (of[4] ?? 0));
          const first = Math.floor(value(of) / size) * size;
          return [first, first + size - 1] as const;
        };
        const text = (of: readonly number[]) => `${of.slice(0, 4).join('.')}/${of[4]}`;
        const [[from, to], [low, high]] = [range(one), range(other)];
        expect(containsCidr(text(one), text(other))).toBe(from <= low && high <= to);
      }),
    );
  });

  test('families are never inside each other', () => {
    expect(containsCidr('0.0.0.0/0', 'fd00:ec2::254/128')).toBe(false);
    for (const cidr of METADATA_CIDRS) {
      expect(containsCidr(cidr.includes(':') ? '::/0' : '0.0.0.0/0', cidr), cidr).toBe(true);
    }
  });

  test.each([
    ['127.0.0.1', '127.0.0.1/32'],
    ['[::1]', '::1/128'],
    ['s3.eu-west-1.amazonaws.com', undefined],
  ])('the host %s is %s', (host, expected) => expect(hostCidr(host)).toBe(expected));
});
