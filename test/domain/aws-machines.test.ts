/** How many machines a cluster on AWS has, and what of them can be changed. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { machinesToKeep, machinesToStart, planMachines } from '../../src/domain/aws-machines.ts';
import type { AwsRequest } from '../../src/domain/aws.ts';
import { resolveSpec, type ClusterRequest } from '../../src/domain/cluster.ts';

function plan(request: { nodes?: number; aws?: AwsRequest }, cluster: ClusterRequest = {}) {
  const refused: string[] = [];
  const spec = resolveSpec({ provider: 'aws', nodes: 3, collections: [], ...cluster }, {});
  const steps = planMachines(spec, request, (field, detail) => refused.push(`${field}: ${detail}`));
  return { ...steps, refused };
}

describe('machines of a change', () => {
  test('follow the nodes: there before they are, gone after they have left', () => {
    expect(plan({ nodes: 5 })).toEqual({
      before: [{ kind: 'add-machines', machines: 5, added: 2, follow: true }],
      after: [],
      refused: [],
    });
    expect(plan({ nodes: 2 })).toEqual({
      before: [],
      after: [{ kind: 'remove-machines', machines: 2, removed: 1, follow: true }],
      refused: [],
    });
    expect(plan({ nodes: 3 })).toEqual({ before: [], after: [], refused: [] });
  });

  test('a number of their own stays, whatever the nodes do', () => {
    const own = { aws: { nodeCount: 2 } };
    expect(plan({ nodes: 5 }, own)).toEqual({ before: [], after: [], refused: [] });
    expect(plan({ nodes: 5, aws: { nodeCount: 4 } }, own).before).toEqual([
      { kind: 'add-machines', machines: 4, added: 2, follow: false },
    ]);
    // Asked for, it is remembered, although nothing has to be done now.
    expect(plan({ nodes: 5, aws: { nodeCount: 3 } }).before).toEqual([
      { kind: 'add-machines', machines: 3, added: 0, follow: false },
    ]);
  });

  test('an interrupted shrinking goes on: the catalogue has the nodes already, and the machines not yet', () => {
    const spec = resolveSpec({ provider: 'aws', nodes: 5, collections: [] }, {});
    const half = { ...spec, nodes: 3 };
    expect(planMachines(half, { nodes: 3 }, () => undefined).after).toEqual([
      { kind: 'remove-machines', machines: 3, removed: 2, follow: true },
    ]);
  });

  test('labels and taints are replaced; what would leave the pods without a machine is refused', () => {
    const before = [{ kind: 'configure-machines', labels: { team: 'search' }, taints: [] }];
    expect(plan({ aws: { labels: { team: 'search' } } })).toEqual({ before, after: [], refused: [] });
    expect(plan({ aws: { labels: {}, taints: [] } })).toEqual({ before: [], after: [], refused: [] });
    const taints = [{ key: 'qdrant', value: 'only', effect: 'NO_EXECUTE' as const }];
    expect(plan({ aws: { taints } }).refused).toEqual([
      expect.stringMatching(/^aws\.taints\[0\]: no toleration .* matches qdrant/),
    ]);
    const tolerations = [{ key: 'qdrant', value: 'only', effect: 'NoExecute' as const }];
    expect(plan({ aws: { taints } }, { placement: { tolerations } }).refused).toEqual([]);
    const pinned = { aws: { labels: { pool: 'qdrant' } }, placement: { nodeSelector: { pool: 'qdrant' } } };
    expect(plan({ aws: { labels: {} } }, pinned).refused).toEqual([expect.stringMatching(/^aws\.labels\.pool: /)]);
  });

  test('everything else is for good, and may be said again', () => {
    const aws = { region: 'eu-west-1', instanceType: 'm6i.large', create: { backupBucket: true } };
    expect(plan({ aws }, { aws })).toEqual({ before: [], after: [], refused: [] });
    const { refused } = plan(
      { aws: { region: 'eu-west-2', instanceType: 'r6i.large', create: { backupBucket: false } } },
      { aws },
    );
    expect(refused.map((text) => text.split(':')[0])).toEqual(['aws.region', 'aws.instanceType', 'aws.create']);
    expect(refused[1]).toBe(
      'aws.instanceType: is "m6i.large" for good; make another cluster with it and restore a backup into that',
    );
    expect(
      plan({ aws: { nodeCount: 4 } }, { aws: { eksCluster: 'theirs', create: { nodeGroups: false } } }).refused,
    ).toEqual(['aws.nodeCount: is not ours to change: the cluster was made with "create.nodeGroups": false']);
    expect(plan({ aws: {} }, { provider: 'kubernetes' }).refused).toEqual([
      'aws: is for clusters with "provider": "aws" only',
    ]);
  });
});

test('machines that are started reach every volume, with as many in its zone as there were', () => {
  expect(machinesToStart(3, {}, 3)).toBe(3);
  expect(machinesToStart(3, { a: 1, b: 1, c: 1 }, 3)).toBe(3);
  expect(machinesToStart(5, { a: 2, b: 2, c: 1 }, 3)).toBe(6);
  expect(machinesToStart(3, { a: 3 }, 3)).toBe(9);
  expect(machinesToStart(2, { a: 3, b: 2 }, 3)).toBe(3);
  const zones = fc.integer({ min: 2, max: 6 });
  fc.assert(
    fc.property(
      zones,
      fc.array(fc.nat(5), { minLength: 1, maxLength: 6 }),
      fc.integer({ min: 1, max: 30 }),
      (z, each, count) => {
        const used = each.slice(0, z).filter((peers) => peers > 0);
        const volumes = Object.fromEntries(used.map((peers, index) => [`zone-${index}`, peers]));
        const started = machinesToStart(count, volumes, z);
        expect(started).toBeGreaterThanOrEqual(count);
        // Spread evenly, each zone gets at least this many, wherever the rest goes.
        const inEach = Math.floor(started / z);
        const total = used.reduce((sum, peers) => sum + peers, 0);
        if (used.length > 0) expect(inEach).toBeGreaterThanOrEqual(count >= total ? Math.max(...used) : 1);
      },
    ),
  );
});

test('a group shrinks no further than its peers allow, unless the cluster sleeps', () => {
  expect(machinesToKeep(3, 2)).toBe(3);
  expect(machinesToKeep(1, 2)).toBe(2);
  expect(machinesToKeep(0, 0)).toBe(0);
});
