import { describe, expect, test } from 'vitest';
import { DEFAULT_PRESETS, resolveSpec } from '../../src/domain/cluster.ts';
import { parseProvisionInput } from '../../src/domain/input.ts';
import {
  accessInWords,
  outputsOf,
  surroundingObjects,
  type Surroundings,
} from '../../src/domain/kubernetes-objects.ts';

const REF = { tenant: 'acme', cluster: 'docs' };
const AROUND: Surroundings = {
  workerNamespace: 'fleet-system',
  workerCidrs: [],
  storePort: 443,
  serviceMonitors: false,
};

function policyOf(network: object | undefined, around: Surroundings = AROUND) {
  const spec = resolveSpec({ ...(network !== undefined && { network }) }, DEFAULT_PRESETS);
  const policy = surroundingObjects(REF, spec, around).find(({ kind }) => kind === 'NetworkPolicy');
  return policy?.['spec'] as {
    policyTypes: string[];
    ingress: { ports: { port: number }[]; from?: object[] }[];
    egress: { ports: { port: number }[]; to?: object[] }[];
  };
}

describe('network policy', () => {
  test('denies both directions unless something allows it', () => {
    expect(policyOf(undefined).policyTypes).toEqual(['Ingress', 'Egress']);
  });

  test('lets the API ports be reached by the workers, the named namespaces and networks, and nobody else', () => {
    const [api] = policyOf({ allowNamespaces: ['shop'], allowCidrs: ['10.20.0.0/16'] }).ingress;
    expect(api?.ports.map(({ port }) => port)).toEqual([6333, 6334]);
    expect(api?.from).toEqual([
      { podSelector: { matchLabels: expect.objectContaining({ 'app.kubernetes.io/name': 'qdrant' }) as object } },
      { namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'fleet-system' } } },
      { namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'shop' } } },
      { ipBlock: { cidr: '10.20.0.0/16' } },
    ]);
  });

  test('keeps the peer port among peers, in both directions', () => {
    const { ingress, egress } = policyOf({ allowCidrs: ['0.0.0.0/0'] });
    const peers = [{ podSelector: { matchLabels: expect.anything() as object } }];
    expect(ingress.filter(({ ports }) => ports.some(({ port }) => port === 6335)).map(({ from }) => from)).toEqual([
      peers,
    ]);
    expect(egress.filter(({ ports }) => ports.some(({ port }) => port === 6335)).map(({ to }) => to)).toEqual([peers]);
  });

  test('leaves the way to the store open, on its port', () => {
    expect(policyOf(undefined, { ...AROUND, storePort: 9000 }).egress.flatMap(({ ports }) => ports)).toContainEqual({
      protocol: 'TCP',
      port: 9000,
    });
  });

  test('does not lock out workers whose place is unknown, and says so', () => {
    const unknown = { workerCidrs: [], storePort: 443, serviceMonitors: false };
    expect(policyOf({ allowNamespaces: ['shop'] }, unknown).ingress[0]).not.toHaveProperty('from');
    expect(accessInWords(resolveSpec({}, {}), unknown)).toMatch(/open to all.*FLEET_WORKER_NAMESPACE/);
  });
});

test('objects on request: load balancer and ServiceMonitor', () => {
  const spec = resolveSpec({ network: { internalLoadBalancer: true } }, {});
  const kinds = (around: Surroundings) => surroundingObjects(REF, spec, around).map(({ kind }) => kind);
  expect(kinds(AROUND)).toEqual(['ServiceAccount', 'NetworkPolicy', 'Service']);
  expect(kinds({ ...AROUND, serviceMonitors: true })).toContain('ServiceMonitor');
  expect(outputsOf(REF, spec)).toMatchObject({
    namespace: 'fleet-acme--docs',
    httpUrl: 'http://qdrant.fleet-acme--docs.svc.cluster.local:6333',
    internalLoadBalancer: 'qdrant-internal',
  });
});

test('no object holds a secret', () => {
  const spec = resolveSpec({ network: { internalLoadBalancer: true } }, {});
  const text = JSON.stringify(surroundingObjects(REF, spec, { ...AROUND, serviceMonitors: true }));
  expect(text).not.toMatch(/"(?:password|token|data|stringData)"/);
});

test.each([
  [{ network: { allowCidrs: ['10.0.0.0'] } }, /network.allowCidrs\[0\]: must be a network/],
  [{ network: { allowCidrs: ['10.0.0.999/8'] } }, /network.allowCidrs\[0\]/],
  [{ network: { allowCidrs: ['10.0.0.0/33'] } }, /network.allowCidrs\[0\]/],
  [{ network: { allowNamespaces: ['Not A Name'] } }, /network.allowNamespaces\[0\]: must be the name/],
  [{ network: { open: true } }, /network.open: is not known/],
  [{ placement: { nodeSelector: { disk: 1 } } }, /placement.nodeSelector: must be an object of strings/],
  [{ placement: { tolerations: [{ effect: 'Never' }] } }, /placement.tolerations\[0\].effect: must be one of/],
])('%j is refused', (change, message) => {
  expect(() => parseProvisionInput({ ...REF, ...change })).toThrow(message);
});

test('legal networks and placements are taken as they are', () => {
  const wanted = {
    placement: { nodeSelector: { disk: 'nvme' }, tolerations: [{ key: 'qdrant', operator: 'Exists' }] },
    network: { allowCidrs: ['10.0.0.0/8', '2001:db8::/32'], allowNamespaces: ['shop'] },
  };
  expect(parseProvisionInput({ ...REF, ...wanted })).toMatchObject(wanted);
});
