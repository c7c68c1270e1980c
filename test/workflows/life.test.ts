/** Suspend, resume, rotate, delete with a way back, over activities that a test holds. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BACKUP, fails, gate, gaveUp, REF, SPEC, Workflows, type Fakes } from './support.ts';

let workflows: Workflows;
beforeAll(async () => {
  workflows = await Workflows.open();
});
afterAll(() => workflows.close());

const ASLEEP: Fakes = {
  loadCluster: () => ({ spec: { ...SPEC, suspended: true }, phase: 'SUSPENDED', namespace: 'fleet-acme--docs' }),
};

/** The phases that a run went through. */
function phases(run: { of(name: 'setClusterPhase'): { input: { phase: string } }[] }): string[] {
  return run.of('setClusterPhase').map(({ input }) => input.phase);
}

describe('SuspendCluster and ResumeCluster', () => {
  test('pods go and schedules are paused; nothing else is touched', async () => {
    const run = await workflows.run('SuspendCluster', REF);
    expect(run.ended).toMatchObject({ status: 'COMPLETED', result: { schedules: 1 } });
    expect(run.names).toEqual([
      'loadCluster',
      'setClusterPhase',
      'installRelease',
      'recordSpec',
      'pauseSchedules',
      'awaitPodsGone',
      'setClusterPhase',
    ]);
    expect(run.of('recordSpec')[0]?.input.spec).toMatchObject({ nodes: SPEC.nodes, suspended: true });
    expect(phases(run)).toEqual(['SUSPENDING', 'SUSPENDED']);
  });

  test('a chart that cannot be applied leaves the cluster awake and its schedules running', async () => {
    const run = await workflows.run('SuspendCluster', REF, { installRelease: gaveUp('ChartFailed') });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'ChartFailed' });
    expect(run.names).not.toContain('pauseSchedules');
    expect(run.of('setClusterPhase').at(-1)?.input).toMatchObject({
      phase: 'HEALTHY',
      failure: { code: 'ChartFailed' },
    });
  });

  test('a resumed cluster is whole before its schedules run again', async () => {
    const run = await workflows.run('ResumeCluster', REF, ASLEEP);
    expect(run.ended.status).toBe('COMPLETED');
    const order = ['installRelease', 'recordSpec', 'awaitPeers', 'nextPodToRestart', 'unpauseSchedules'];
    expect(run.names.filter((name) => order.includes(name))).toEqual(order);
    expect(run.of('recordSpec')[0]?.input.spec.suspended).toBe(false);
    expect(phases(run)).toEqual(['RESUMING', 'HEALTHY']);
  });
});

describe('what cannot be changed now', () => {
  test.each([
    ['UpdateCluster', { nodes: 3 }],
    ['SuspendCluster', {}],
    ['ResumeCluster', {}],
    ['RotateApiKey', {}],
    ['RotateCertificates', {}],
    ['DeleteCluster', { finalBackup: true, undoHours: 1 }],
    ['RestoreCluster', { source: 'docs', backup: BACKUP }],
  ])('%s of a cluster that another operation holds', async (type, input) => {
    const run = await workflows.run(type, { ...REF, ...input }, { takeLease: fails('ClusterBusy') });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'ClusterBusy' });
    const harmless = ['openBackup', 'clusterExists', 'closeBackup'];
    expect(run.names.filter((name) => !harmless.includes(name))).toEqual([]);
    expect(run.of('takeLease').map(({ input: { mode } }) => mode)).toEqual(['exclusive']);
  });

  test('a cluster whose removal has begun is neither stopped nor started', async () => {
    const gone: Fakes = { loadCluster: () => ({ spec: SPEC, phase: 'DELETING', namespace: 'fleet-acme--docs' }) };
    for (const type of ['SuspendCluster', 'ResumeCluster']) {
      const run = await workflows.run(type, REF, gone);
      expect(run.ended).toMatchObject({ status: 'FAILED', type: 'UpdateRefused' });
      expect(run.names).toEqual(['loadCluster']);
    }
  });

  test('one that waits for its removal can be started again', async () => {
    const deleteAfter = new Date(Date.now() + 3_600_000).toISOString();
    const run = await workflows.run('ResumeCluster', REF, {
      loadCluster: () => ({
        ...{ spec: { ...SPEC, suspended: true }, namespace: 'fleet-acme--docs', deleteAfter },
        phase: 'DELETING',
      }),
    });
    expect(run.ended.status).toBe('COMPLETED');
  });
});

describe('RotateApiKey', () => {
  const rotate = (fakes: Fakes = {}, input: object = {}) => {
    let revision = 0;
    return workflows.run(
      'RotateApiKey',
      { ...REF, graceSeconds: 0, ...input },
      {
        stageApiKey: () => ({ revision: ++revision }),
        ...fakes,
      },
    );
  };

  test('each stage reaches every pod before the next begins', async () => {
    const run = await rotate();
    expect(run.ended.status).toBe('COMPLETED');
    const order = ['stageApiKey', 'installRelease', 'nextPodToRestart'];
    expect(run.names.filter((name) => order.includes(name))).toEqual([...order, ...order, ...order]);
    expect(run.of('stageApiKey').map(({ input }) => input.stage)).toEqual(['added', 'switched', 'settled']);
    expect(run.of('recordSpec').map(({ input }) => input.spec.keyRevision)).toEqual([1, 2, 3]);
    expect(run.of('planClusterUpdate')[0]?.input.request).toEqual({ restart: true });
  });

  test('a version that knows one key only is refused before anything is changed', async () => {
    const run = await rotate({ planClusterUpdate: () => ({ spec: SPEC, steps: [], downtime: [], oldest: '1.16.3' }) });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'UpdateRefused' });
    expect(run.names).toEqual(['planClusterUpdate']);
  });

  test('pods that do not come back stop it while both keys are good', async () => {
    const run = await rotate({ nextPodToRestart: gaveUp('ClusterNotReady') });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'ClusterNotReady' });
    expect(run.of('stageApiKey').map(({ input }) => input.stage)).toEqual(['added']);
  });
});

describe('RotateCertificates', () => {
  const NOT_AFTER = '2027-11-27T00:00:00.000Z';
  const found = { due: false, authorityDue: false, expired: false, stage: 'settled', notAfter: NOT_AFTER };
  const rotate = (input: object = {}, fakes: Fakes = {}) => {
    let revision = 0;
    return workflows.run(
      'RotateCertificates',
      { ...REF, graceSeconds: 0, ...input },
      {
        inspectCertificates: () => found,
        stageCertificates: () => ({ issuedBy: 'fleet', revision: ++revision, notAfter: NOT_AFTER }),
        ...fakes,
      },
    );
  };
  const stages = (run: Awaited<ReturnType<typeof rotate>>) =>
    run.of('stageCertificates').map(({ input }) => input.stage);

  test('one that is not due is left alone by a schedule, before anything else is asked', async () => {
    const run = await rotate({ onlyIfDue: true });
    expect(run.ended.status).toBe('COMPLETED');
    expect(run.names).toEqual(['inspectCertificates']);
    const due = await rotate({ onlyIfDue: true }, { inspectCertificates: () => ({ ...found, due: true }) });
    // Before the plan, which may refuse restarts, and again with the roll; the second time nothing is issued any more.
    const order = ['ensureCertificates', 'planClusterUpdate'];
    expect(due.names.filter((name) => order.includes(name))).toEqual([...order, 'ensureCertificates']);
  });

  test('each stage reaches every pod before the next begins', async () => {
    const run = await rotate({ authority: true, newKey: true });
    expect(run.ended.status).toBe('COMPLETED');
    const order = ['stageCertificates', 'installRelease', 'nextPodToRestart'];
    expect(run.names.filter((name) => order.includes(name))).toEqual([...order, ...order, ...order]);
    expect(stages(run)).toEqual(['trusted', 'issued', 'settled']);
    expect(run.of('stageCertificates').map(({ input }) => input.newKey)).toEqual([undefined, true, undefined]);
    expect(run.of('recordSpec').map(({ input }) => input.spec.certificateRevision)).toEqual([1, 2, 3]);
  });

  test('a change of the authority that was interrupted goes on without being told', async () => {
    for (const stage of ['trusted', 'issued']) {
      expect(stages(await rotate({ onlyIfDue: true }, { inspectCertificates: () => ({ ...found, stage }) }))).toEqual([
        ...['trusted', 'issued', 'settled'],
      ]);
    }
  });

  test('a certificate that has expired is renewed before anybody looks at the cluster', async () => {
    const run = await rotate({}, { inspectCertificates: () => ({ ...found, due: true, expired: true }) });
    expect(run.names.slice(0, 3)).toEqual(['inspectCertificates', 'ensureCertificates', 'planClusterUpdate']);
  });

  test('pods that do not come back stop it while both authorities are trusted', async () => {
    const run = await rotate({ authority: true }, { nextPodToRestart: gaveUp('ClusterNotReady') });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'ClusterNotReady' });
    expect(stages(run)).toEqual(['trusted']);
  });
});

describe('RenewCertificates', () => {
  test('each cluster that is due gets a rotation of its own, once, whatever becomes of the others', async () => {
    const pages = [
      { looked: 200, unseen: 1, due: [REF, { tenant: 'acme', cluster: 'other' }], next: REF },
      { looked: 3, unseen: 0, due: [REF] },
    ];
    const held = gate();
    // The rotations are operations of their own, not parts of this one: they are answered under their own name.
    workflows.expect('renew-certificates', {
      inspectCertificates: async () => {
        await held.promise;
        return { due: false, authorityDue: false, expired: false, stage: 'settled' };
      },
    });
    const run = await workflows.run(
      'RenewCertificates',
      {},
      { listDueCertificates: ({ after }) => pages[after === undefined ? 0 : 1] ?? { looked: 0, unseen: 0, due: [] } },
    );
    expect(run.ended).toMatchObject({ status: 'COMPLETED', result: { looked: 203, started: 2, unseen: 1 } });
    held.resolve();
  });
});

describe('DeleteCluster', () => {
  test('a last backup that fails keeps the cluster', async () => {
    const run = await workflows.run(
      'DeleteCluster',
      { ...REF, finalBackup: true },
      { commitBackup: gaveUp('StoreDenied') },
    );
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'StoreDenied' });
    expect(run.names).not.toContain('uninstallRelease');
    expect(run.names).not.toContain('setClusterPhase');
  });

  test('the backup is committed before anything goes', async () => {
    const run = await workflows.run('DeleteCluster', { ...REF, finalBackup: true });
    expect(run.ended).toMatchObject({ status: 'COMPLETED', result: { backup: expect.stringMatching(/^2026/) } });
    expect(run.names.indexOf('commitBackup')).toBeLessThan(run.names.indexOf('uninstallRelease'));
  });

  test('a cluster that sleeps cannot be backed up', async () => {
    const run = await workflows.run('DeleteCluster', { ...REF, finalBackup: true }, ASLEEP);
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'ClusterSuspended' });
  });

  test('taken back in time, it wakes up, and nothing was removed', async () => {
    const run = await workflows.start('DeleteCluster', { ...REF, undoHours: 1 });
    await run.saw('pauseSchedules ended');
    await run.handle.signal('undelete');
    expect(await run.outcome()).toMatchObject({ status: 'COMPLETED', result: { undone: true } });
    expect(run.names).not.toContain('uninstallRelease');
    expect(run.of('recordSpec').map(({ input }) => input.spec.suspended)).toEqual([true, false]);
    expect(run.of('setClusterPhase')[0]?.input.deleteAfter).toMatch(/^\d{4}-/);
    expect(phases(run)).toEqual(['DELETING', 'RESUMING', 'HEALTHY']);
    expect(run.of('unpauseSchedules')).toHaveLength(1);
  });

  test('cancelled while it can be taken back, it wakes up too', async () => {
    const run = await workflows.start('DeleteCluster', { ...REF, undoHours: 1 });
    await run.saw('pauseSchedules ended');
    await run.handle.cancel();
    expect(await run.outcome()).toMatchObject({ status: 'CANCELLED' });
    expect(run.names).not.toContain('uninstallRelease');
    expect(phases(run).at(-1)).toBe('HEALTHY');
  });

  test('it goes for good when the time is up', async () => {
    const run = await workflows.run('DeleteCluster', { ...REF, undoHours: 0.0003 });
    expect(run.ended.status).toBe('COMPLETED');
    expect(run.names.indexOf('pauseSchedules')).toBeLessThan(run.names.indexOf('uninstallRelease'));
    expect(run.names).toContain('forgetCluster');
  });
});
