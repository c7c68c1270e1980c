/** What is said about a pod whose machine is away, by the places of its volumes. */
import { describe, expect, test } from 'vitest';
import { whyAbsent, type AbsentPod, type NodeState, type PlacedVolume } from '../../src/domain/pod-absence.ts';

const LOCAL: PlacedVolume = { volume: 'pvc-1', claim: 'qdrant-storage-qdrant-2', node: 'n1' };
const ZONAL: PlacedVolume = { volume: 'pvc-2', claim: 'qdrant-storage-qdrant-2', zone: 'eu-1a' };
const READY: NodeState = { ready: true, reason: 'kubelet is posting ready status', cordoned: false };
const SILENT: NodeState = { ready: false, reason: 'Kubelet stopped posting node status.', cordoned: false };
const NOWHERE = '0/3 nodes are available: 1 node(s) were unschedulable.';

function why(pod: Omit<AbsentPod, 'name'>, volume: PlacedVolume, node?: NodeState): string | undefined {
  return whyAbsent('fleet-acme--docs', { name: 'qdrant-2', ...pod }, node === undefined ? {} : { n1: node }, [volume]);
}

describe('a pod that is bound to a node', () => {
  test('which is well has another reason', () => {
    expect(why({ node: 'n1' }, LOCAL, READY)).toBeUndefined();
  });

  test('which is not: a local volume needs that machine again', () => {
    const text = why({ node: 'n1' }, LOCAL, SILENT);
    expect(text).toContain('Pod qdrant-2 is on node n1, which is not ready (Kubelet stopped posting node status.).');
    expect(text).toContain(
      'volume pvc-1 (claim qdrant-storage-qdrant-2) can be used on that node only. Start that machine',
    );
    expect(text).toContain('kubectl -n fleet-acme--docs delete --wait=false pvc qdrant-storage-qdrant-2');
    expect(why({ node: 'n1' }, LOCAL)).toContain('which Kubernetes no longer has. Its volume');
  });

  test('which is not: a volume in a network needs another machine in its zone', () => {
    const text = why({ node: 'n1' }, ZONAL, SILENT);
    expect(text).toContain('kubectl delete node n1.');
    expect(text).toContain('Its pod then starts on another node of zone eu-1a');
    // The node is given up already.
    expect(why({ node: 'n1' }, ZONAL)).not.toContain('kubectl delete node');
  });
});

describe('a pod that no node has', () => {
  test.each([
    ['is not there', undefined, 'Start that machine again'],
    ['is not ready (Kubelet stopped posting node status.)', SILENT, 'Start that machine again'],
    ['is cordoned', { ...READY, cordoned: true }, 'kubectl uncordon n1.'],
  ])('waits for the node of its volume, which %s', (how, node, remedy) => {
    const text = why({ unscheduled: NOWHERE }, LOCAL, node);
    expect(text).toContain(`Pod qdrant-2 waits for node n1, which ${how}. Its volume pvc-1`);
    expect(text).toContain(remedy);
  });

  test('for another reason tells what the scheduler says, and the zone', () => {
    expect(why({ unscheduled: NOWHERE }, LOCAL, READY)).toBe(`Pod qdrant-2 has no node (${NOWHERE}).`);
    expect(why({ unscheduled: NOWHERE }, ZONAL)).toContain(
      'pvc-2 can be used in zone eu-1a only: a ready node with room',
    );
    expect(why({}, LOCAL)).toBeUndefined();
  });
});
