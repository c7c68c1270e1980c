/** Clusters on AWS: the rooms in order, and out of them in reverse when one fails or the cluster is deleted. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { resolveSpec } from '../../src/domain/cluster.ts';
import { fails, REF, untilCancelled, Workflows, type ActivityName } from './support.ts';

let workflows: Workflows;
beforeAll(async () => {
  workflows = await Workflows.open();
});
afterAll(() => workflows.close());

const AWS = { ...REF, provider: 'aws', aws: { region: 'eu-west-1' } };
const ROOMS = [
  'planInfrastructure',
  'ensureRoles',
  'ensureNetwork',
  'ensureControlPlane',
  'awaitNetwork',
  'awaitControlPlane',
  'ensureAddons',
  'ensureNodeGroups',
  'awaitNodeGroups',
  'ensureAddons',
  'ensureStorageClass',
  'ensureClusterAccess',
];

/** What is undone when a step fails: last first, and only what was begun. */
const ROLES = ['deleteAccess'];
const NETWORK = ['deleteNetwork', ...ROLES];
const CONTROL_PLANE = ['deleteControlPlane', ...NETWORK];
const MACHINES = ['deleteNodeGroups', ...CONTROL_PLANE];
const BUCKET = ['deleteBackupBucket', ...MACHINES];
const UNDO = {
  planInfrastructure: [],
  ensureRoles: ROLES,
  ensureNetwork: NETWORK,
  ensureControlPlane: CONTROL_PLANE,
  awaitNetwork: CONTROL_PLANE,
  awaitControlPlane: CONTROL_PLANE,
  ensureAddons: CONTROL_PLANE,
  ensureNodeGroups: MACHINES,
  awaitNodeGroups: MACHINES,
  ensureStorageClass: MACHINES,
  ensureClusterAccess: MACHINES,
  ensureBackupBucket: BUCKET,
  ensureNamespace: ['removeNamespace', ...BUCKET],
} as const satisfies Partial<Record<ActivityName, readonly string[]>>;

const undone = (names: readonly string[]) => names.filter((name) => /^(?:delete|remove|drain)/.test(name));

describe.concurrent('ProvisionCluster on AWS', () => {
  test('goes through the rooms in order, then does in Kubernetes what it does anywhere', async () => {
    const run = await workflows.run('ProvisionCluster', AWS);
    expect(run.ended.status).toBe('COMPLETED');
    expect(run.names.slice(0, ROOMS.length + 2)).toEqual(['reserveCluster', ...ROOMS, 'ensureNamespace']);
    expect(undone(run.names)).toEqual([]);
    expect(run.of('ensureAddons').map(({ input }) => input.phase)).toEqual(['beforeNodes', 'afterNodes']);
    const { steps, percent } = await run.progress();
    expect(percent).toBe(100);
    expect(steps.map(({ name }) => name).slice(2, 9)).toEqual([
      'Plan the infrastructure',
      'Create the roles',
      'Create the network',
      'Create the control plane',
      'Create the machines',
      'Grant access',
      'Create the backup bucket',
    ]);
    expect(steps[8]).toMatchObject({ phase: 'skipped', message: 'not asked for' });
  });

  test.for([
    ['reserveCluster', ['reserveCluster', 'forgetCluster']],
    ['planInfrastructure', ['reserveCluster', 'planInfrastructure', 'forgetCluster']],
  ] as const)('what the operator does not allow ends it at %s, before anything is made', async ([step, names]) => {
    const run = await workflows.run('ProvisionCluster', AWS, { [step]: fails('NotAllowed', 'Not yours.') });
    expect(run.ended).toMatchObject({ status: 'FAILED' });
    expect(run.ends).toMatchObject([{ state: 'failed', error: { code: 'NotAllowed' } }]);
    expect(run.names).toEqual(names);
  });

  test.for(Object.entries(UNDO))('%s fails: what was begun is undone, last first', async ([step, undo]) => {
    const request = { ...AWS, aws: { ...AWS.aws, create: { backupBucket: true } } };
    const run = await workflows.run('ProvisionCluster', request, { [step]: fails('CloudQuotaReached', 'Too many.') });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'CloudQuotaReached' });
    expect(undone(run.names)).toEqual(undo);
    for (const name of undo as readonly ActivityName[]) expect(run.of(name)[0]?.input).toMatchObject({ onlyOwn: true });
    expect(run.names.at(-1)).toBe('forgetCluster');
  });

  test.for(['ensureNetwork', 'awaitControlPlane', 'awaitNodeGroups'] as const)(
    'cancelled during %s: undone, then CANCELLED',
    async (step) => {
      const run = await workflows.start('ProvisionCluster', AWS, { [step]: untilCancelled });
      await run.saw(step);
      await run.handle.cancel();
      expect(await run.outcome()).toEqual({ status: 'CANCELLED' });
      expect(undone(run.names)).toEqual(UNDO[step]);
    },
  );

  test('what is left to others is neither made nor removed', async () => {
    const aws = {
      vpcId: 'vpc-0a1b2c3d',
      subnetIds: ['subnet-0a1b2c3d', 'subnet-1a1b2c3d'],
      eksCluster: 'theirs',
      create: { nodeGroups: false },
    };
    const run = await workflows.run(
      'ProvisionCluster',
      { ...AWS, aws },
      { ensureNamespace: fails('KubernetesDenied') },
    );
    expect(run.names).not.toContain('ensureNodeGroups');
    expect(run.names).not.toContain('ensureAddons');
    expect(undone(run.names)).toEqual(['removeNamespace', 'drainVolumes', 'deleteAccess']);
    expect(run.of('deleteAccess')[0]?.input).toMatchObject({ eksCluster: 'theirs' });
  });
});

describe.concurrent('DeleteCluster on AWS', () => {
  const spec = resolveSpec({ provider: 'aws', collections: [] }, {});
  const loadCluster = () => ({ spec, phase: 'HEALTHY' as const, namespace: 'fleet-acme--docs' });
  const REMOVAL = [
    'deleteNodeGroups',
    'deleteControlPlane',
    'deleteNetwork',
    'deleteAccess',
    'deleteBackupBucket',
    'forgetCluster',
  ];

  test('leaves Kubernetes, waits for the volumes, then takes the rooms down in reverse', async () => {
    const run = await workflows.run('DeleteCluster', REF, { loadCluster });
    expect(run.ended.status).toBe('COMPLETED');
    expect(run.names.slice(3)).toEqual([
      'uninstallRelease',
      'deleteVolumeClaims',
      'removeNamespace',
      'drainVolumes',
      ...REMOVAL,
    ]);
    for (const name of REMOVAL) expect(run.of(name as ActivityName)[0]?.input.onlyOwn).toBeUndefined();
  });

  test('a bucket that stays with the backups in it is told', async () => {
    const deleteBackupBucket = () => ({ kept: 'fleet-acme--docs-1' });
    const run = await workflows.run('DeleteCluster', REF, { loadCluster, deleteBackupBucket });
    expect(run.ended).toMatchObject({ status: 'COMPLETED', result: { bucket: 'fleet-acme--docs-1' } });
    const { steps } = await run.progress();
    expect(steps.find(({ name }) => name === 'Remove the backup bucket')?.message).toContain('it holds backups');
  });

  test('goes on where an interrupted removal ended: the control plane is gone', async () => {
    const run = await workflows.run('DeleteCluster', REF, { loadCluster, controlPlaneExists: () => false });
    expect(run.ended.status).toBe('COMPLETED');
    expect(run.names.slice(3)).toEqual(REMOVAL);
    const { steps } = await run.progress();
    expect(steps.filter(({ phase }) => phase === 'skipped')).toHaveLength(4);
  });

  test('a network that cannot go: the failure tells what is in the way, and the cluster stays known', async () => {
    const inTheWay = fails('CloudDenied', 'AWS answered AccessDenied to ec2:DeleteVpc.');
    const run = await workflows.run('DeleteCluster', REF, { loadCluster, deleteNetwork: inTheWay });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'CloudDenied' });
    expect(run.of('forgetCluster')).toEqual([]);
  });
});

describe.concurrent('InfrastructureSweep', () => {
  const orphans = ['one', 'two'].map((cluster) => ({
    cluster,
    operation: `provision-${cluster}`,
    reason: 'the catalogue has no such cluster',
    resources: [{ kind: 'vpc', id: `vpc-${cluster}` }],
  }));
  const surveyInfrastructure = ({ cluster }: { cluster?: string }) => ({
    found: 9,
    orphans: orphans.filter((orphan) => cluster === undefined || orphan.cluster === cluster),
  });
  const INPUT = { tenant: 'acme', region: 'eu-west-1' };

  test('lists, and removes nothing unless it is told to', async () => {
    const run = await workflows.run('InfrastructureSweep', INPUT, { surveyInfrastructure });
    expect(run.ended.result).toEqual({ found: 9, orphans, removed: 0, dryRun: true });
    expect(run.names).toEqual(['surveyInfrastructure']);
  });

  test('removes what each operation left, under the lease of the name it would be', async () => {
    const input = { ...INPUT, dryRun: false };
    const run = await workflows.run('InfrastructureSweep', input, { surveyInfrastructure });
    expect(run.ended.result).toMatchObject({ removed: 2, dryRun: false });
    const one = ['surveyInfrastructure', 'deleteNodeGroups', 'deleteControlPlane', 'deleteNetwork', 'deleteAccess'];
    expect(run.names).toEqual(['surveyInfrastructure', ...one, 'releaseLease', ...one, 'releaseLease']);
    expect(run.of('takeLease').map(({ input }) => [input.cluster, input.mode])).toEqual([
      ['one', 'exclusive'],
      ['two', 'exclusive'],
    ]);
    for (const { input } of run.of('deleteNetwork')) {
      expect(input).toMatchObject({ onlyOwn: true, operation: `provision-${input.cluster}` });
    }
  });

  test('a cluster that somebody works on is left alone', async () => {
    const input = { ...INPUT, dryRun: false };
    const run = await workflows.run('InfrastructureSweep', input, {
      surveyInfrastructure,
      takeLease: fails('ClusterBusy', 'Held.'),
    });
    expect(run.ended).toMatchObject({ status: 'FAILED', type: 'ClusterBusy' });
    expect(undone(run.names)).toEqual([]);
  });
});
