import { describe, expect, test } from 'vitest';
import { fixedFieldChanges, type FixedShape } from '../../src/domain/stateful-set.ts';

const claim = (name: string, spec: object = {}) => ({
  metadata: { name },
  spec: {
    accessModes: ['ReadWriteOnce'],
    storageClassName: 'gp3',
    resources: { requests: { storage: '1Gi' } },
    ...spec,
  },
});
const LIVE: FixedShape = {
  serviceName: 'qdrant-headless',
  podManagementPolicy: 'Parallel',
  selector: { matchLabels: { b: '2', a: '1' } },
  volumeClaimTemplates: [claim('qdrant-storage', { volumeMode: 'Filesystem' }), claim('qdrant-snapshots')],
};

describe('fields of a StatefulSet that cannot be changed', () => {
  test('defaults, the order of labels and the size of volumes are no change', () => {
    const wanted = {
      ...LIVE,
      selector: { matchLabels: { a: '1', b: '2' } },
      volumeClaimTemplates: [
        claim('qdrant-snapshots'),
        claim('qdrant-storage', { resources: { requests: { storage: '9Gi' } } }),
      ],
    };
    expect(fixedFieldChanges(LIVE, wanted)).toEqual([]);
  });

  test.each([
    [{ serviceName: 'other' }, 'spec.serviceName from "qdrant-headless" to "other"'],
    [{ podManagementPolicy: undefined }, 'spec.podManagementPolicy from "Parallel" to "OrderedReady"'],
    [{ selector: { matchLabels: { a: '1' } } }, 'spec.selector.matchLabels from {"a":"1","b":"2"} to {"a":"1"}'],
    [
      { volumeClaimTemplates: [claim('qdrant-storage', { storageClassName: 'io2' }), claim('qdrant-snapshots')] },
      'spec.volumeClaimTemplates[qdrant-storage].spec.storageClassName from "gp3" to "io2"',
    ],
    [
      { volumeClaimTemplates: [claim('qdrant-storage')] },
      'spec.volumeClaimTemplates[qdrant-snapshots], which would be gone',
    ],
    [
      { volumeClaimTemplates: [...(LIVE.volumeClaimTemplates ?? []), claim('more')] },
      'spec.volumeClaimTemplates[more], which would be new',
    ],
  ])('%j', (change, told) => {
    expect(fixedFieldChanges(LIVE, { ...LIVE, ...change } as FixedShape)).toEqual([told]);
  });
});
