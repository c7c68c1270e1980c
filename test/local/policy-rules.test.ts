/** NetworkPolicies as rules of the packet filter: what the fleet's own policy comes to, and the cases of the API. */
import { describe, expect, test } from 'vitest';
import { networkPolicySpec, storeLocation } from '../../src/domain/network-policy.ts';
import {
  groupOf,
  policyScript,
  selects,
  type Endpoint,
  type PolicyWorld,
} from '../../src/local/kubelet/policy-rules.ts';

const QDRANT = { 'app.kubernetes.io/name': 'qdrant', 'app.kubernetes.io/instance': 'qdrant' };
const MINE: Endpoint = { namespace: 'fleet-a--docs', labels: QDRANT, ip: '127.70.0.1' };
const PEER: Endpoint = { ...MINE, ip: '127.70.0.2' };
const OTHER: Endpoint = { namespace: 'fleet-b--docs', labels: QDRANT, ip: '127.70.0.3' };

function world(spec: object, change: Partial<PolicyWorld> = {}): PolicyWorld {
  return {
    policies: [{ metadata: { namespace: MINE.namespace, name: 'p' }, spec }],
    pods: [MINE, PEER, OTHER],
    namespaces: { 'fleet-a--docs': { team: 'a' }, 'fleet-b--docs': { team: 'b' } },
    kubelet: 1,
    ...change,
  };
}

/** The rules of one pod in one direction; nothing when no policy speaks about it. */
function chain(script: string, direction: 'ingress' | 'egress', { ip }: Endpoint): string[] | undefined {
  const body = new RegExp(`chain ${direction}_${groupOf(ip)} \\{\n([^}]*(?:\\{[^}]*\\}[^}]*)*?)\n\\}`).exec(
    script,
  )?.[1];
  return body?.split('\n').map((line) => line.trim());
}
const REFUSE = 'reject with icmpx admin-prohibited';
const [mine, peer, other] = [MINE, PEER, OTHER].map(({ ip }) => groupOf(ip));

test('the fleet’s own policy: each way in and out, and nothing else', () => {
  const spec = networkPolicySpec(undefined, {
    workerCidrs: ['127.0.0.1/32'],
    relayPort: 8090,
    store: storeLocation('http://127.0.0.1:7070', { cidrs: [], podPorts: [], private: [] }),
    dnsNamespace: 'kube-system',
    dnsCidrs: [],
  });
  const script = policyScript('t', world(spec));
  expect(chain(script, 'ingress', MINE)).toEqual([
    'meta skgid 1 accept',
    `meta skgid { ${mine}, ${peer} } tcp dport 6333 accept`,
    `meta skgid { ${mine}, ${peer} } tcp dport 6334 accept`,
    'meta skgid != @pods ip saddr 127.0.0.1/32 tcp dport 6333 accept',
    'meta skgid != @pods ip saddr 127.0.0.1/32 tcp dport 6334 accept',
    `meta skgid { ${mine}, ${peer} } tcp dport 6335 accept`,
    REFUSE,
  ]);
  expect(chain(script, 'egress', MINE)).toEqual([
    `ip daddr { ${MINE.ip}, ${PEER.ip} } tcp dport 6333 return`,
    `ip daddr { ${MINE.ip}, ${PEER.ip} } tcp dport 6335 return`,
    'ip daddr 127.0.0.1/32 tcp dport 7070 return',
    'ip daddr 127.0.0.1/32 tcp dport 8090 return',
    REFUSE,
  ]);
  expect(chain(script, 'ingress', OTHER)).toBeUndefined();
});

describe('cases of the API', () => {
  const ingress = (from: object[] | undefined, ports?: object[]) =>
    chain(policyScript('t', world({ ingress: [{ from, ports }] })), 'ingress', MINE)?.slice(1, -1);

  test('no source means all, no port means all', () => {
    expect(ingress(undefined)).toEqual(['accept']);
    expect(ingress([])).toEqual(['accept']);
  });

  test('no rule means none, and a policy without egress says nothing about it', () => {
    const script = policyScript('t', world({ podSelector: {} }));
    expect(chain(script, 'ingress', MINE)).toEqual(['meta skgid 1 accept', REFUSE]);
    expect(chain(script, 'egress', MINE)).toBeUndefined();
  });

  test('a namespace selector reaches other namespaces, together with a pod selector both have to match', () => {
    expect(ingress([{ namespaceSelector: { matchLabels: { team: 'b' } } }])).toEqual([
      `meta skgid { ${other} } accept`,
    ]);
    const both = { namespaceSelector: {}, podSelector: { matchLabels: { app: 'else' } } };
    expect(ingress([both])).toEqual([]);
  });

  test('a block holds the pods whose address is in it, although their packets carry another', () => {
    expect(ingress([{ ipBlock: { cidr: '127.70.0.0/30', except: ['127.70.0.2/32'] } }])).toEqual([
      'meta skgid != @pods ip saddr 127.70.0.0/30 ip saddr != 127.70.0.2/32 accept',
      `meta skgid { ${mine}, ${other} } accept`,
    ]);
  });

  test('ranges of ports, all ports of a protocol, and what has no rule here', () => {
    expect(
      ingress([], [{ port: 6000, endPort: 6010 }, { protocol: 'UDP' }, { port: 'http' }, { protocol: 'SCTP' }]),
    ).toEqual(['tcp dport 6000-6010 accept', 'meta l4proto udp accept']);
  });

  test('text that is no network gets into no script', () => {
    const hostile = '0.0.0.0/0 accept; flush ruleset';
    for (const block of [{ cidr: hostile }, { cidr: '0.0.0.0/0', except: [hostile] }]) {
      expect(policyScript('t', world({ ingress: [{ from: [{ ipBlock: block }] }] }))).not.toContain('flush');
    }
  });
});

test.each([
  [{}, true],
  [{ matchExpressions: [{ key: 'a', operator: 'In', values: ['1', '2'] }] }, true],
  [{ matchExpressions: [{ key: 'a', operator: 'NotIn', values: ['1'] }] }, false],
  [{ matchExpressions: [{ key: 'b', operator: 'NotIn', values: ['1'] }] }, true],
  [{ matchExpressions: [{ key: 'a', operator: 'Exists' }] }, true],
  [{ matchExpressions: [{ key: 'a', operator: 'DoesNotExist' }] }, false],
  [{ matchExpressions: [{ key: 'a', operator: 'Sometimes' }] }, false],
  [{ matchLabels: { a: '1', b: '2' } }, false],
])('the selector %j on a=1: %s', (selector, matches) => expect(selects(selector, { a: '1' })).toBe(matches));
