import { expect, test } from 'vitest';
import { resolveSpec } from '../../src/domain/cluster.ts';
import { parseProvisionInput } from '../../src/domain/input.ts';
import { outputsOf, surroundingObjects, type Surroundings } from '../../src/domain/kubernetes-objects.ts';
import { storeLocation } from '../../src/domain/network-policy.ts';

const REF = { tenant: 'acme', cluster: 'docs' };
const AROUND: Surroundings = {
  workerNamespace: 'fleet-system',
  workerCidrs: [],
  relayPort: 8090,
  store: storeLocation(undefined, { cidrs: [], podPorts: [], private: [] }),
  dnsNamespace: 'kube-system',
  dnsCidrs: [],
  serviceMonitors: false,
};

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
  [{ placement: { nodeSelector: { disk: 1 } } }, /placement.nodeSelector.disk: must be a string/],
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
