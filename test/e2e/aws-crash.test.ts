/**
 * A cluster on AWS under kill -9 of the worker and cancellation, at every activity that calls AWS: nothing is there
 * twice, nothing is left, nothing foreign is touched, and what is to serve serves. It takes most of an hour, and runs with
 * FLEET_TEST_AWS=all only: `FLEET_TEST_AWS=all npx vitest run --disable-console-intercept=true test/e2e/aws-crash.test.ts`.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Cloud, REQUEST } from '../aws/cloud.ts';
import {
  cancelEverywhere,
  cancellationsLine,
  crash,
  crashTable,
  tell,
  type Cancellation,
  type Crashes,
  type Kill,
} from '../support/crash-matrix.ts';

const ALL = process.env['FLEET_TEST_AWS'] === 'all';
const LONG = { timeout: 7_200_000 };

/** The activities that call AWS, in the order in which a workflow goes through them. */
const MAKE = [
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
  'ensureBackupBucket',
];
const UNDO = ['deleteBackupBucket', 'deleteNodeGroups', 'deleteControlPlane', 'deleteNetwork', 'deleteAccess'];
const REMOVE = [
  'controlPlaneExists',
  'drainVolumes',
  'deleteNodeGroups',
  'deleteControlPlane',
  'deleteNetwork',
  'deleteAccess',
  'deleteBackupBucket',
];
const ADD = ['configureMachines', 'awaitMachines', 'setMachines', 'awaitMachines'];
const RESIZE = ['setMachines', 'awaitMachines'];
const WAKE = ['machinesToWake', 'setMachines', 'awaitMachines'];

const kills: Kill[] = [];
const cancellations: Cancellation[] = [];
const violations: string[] = [];
let cloud: Cloud;

async function kill(crashes: Crashes): Promise<void> {
  const report = await crash(cloud.fleet, crashes);
  kills.push(...report.kills);
  violations.push(...report.violations);
  tell(`${crashes.name}, killed ${report.kills.length} times`, report.violations);
}

async function cancel(crashes: Crashes, settled: () => Promise<readonly string[]>): Promise<void> {
  const only = [...new Set(crashes.only)];
  const report = await cancelEverywhere(cloud.fleet, { ...crashes, only }, settled);
  cancellations.push(...report.cancellations);
  violations.push(...report.violations);
  tell(`${crashes.name}, cancelled ${report.cancellations.length} times`, report.violations);
}

describe.runIf(ALL)('a cluster on AWS under kill -9 and cancellation', () => {
  let canaries = 0;
  beforeAll(async () => {
    cloud = await Cloud.open();
    canaries = await cloud.survey();
  }, 300_000);
  afterAll(async () => {
    console.log(
      `${crashTable(kills, violations)}\n${cancellationsLine(cancellations)}\n` +
        `${canaries} canaries of other tags, alive to the end`,
    );
    await cloud.close();
  });

  test('made', LONG, async () => {
    const make = {
      name: 'provision on AWS',
      type: 'ProvisionCluster',
      only: MAKE,
      prepare: async () => {
        await cloud.goneButCanaries();
        return REQUEST;
      },
      check: () => cloud.wrongWhenMade(),
    };
    await kill(make);
    await cancel(make, () => cloud.wrongWhenGone());
  });

  test('taken back when its making is cancelled', LONG, async () => {
    await kill({
      name: 'provision on AWS, cancelled',
      type: 'ProvisionCluster',
      only: UNDO,
      cancelAt: 'ensureBackupBucket:after',
      prepare: async () => {
        await cloud.goneButCanaries();
        return REQUEST;
      },
      check: () => cloud.wrongWhenGone(),
    });
  });

  test('given more machines, and fewer', LONG, async () => {
    let wave = 0;
    const add = {
      name: 'more machines',
      type: 'UpdateCluster',
      only: ADD,
      prepare: async () => {
        await cloud.made(1);
        wave += 1;
        return { ...REQUEST_OF_UPDATE, aws: { nodeCount: 2, labels: { wave: String(wave) } } };
      },
      check: () => cloud.wrongWhenMade({ machines: 2 }),
    };
    await kill(add);
    await cancel(add, () => cloud.wrongWhenMade({ machines: 1 }));
    const remove = {
      name: 'fewer machines',
      type: 'UpdateCluster',
      only: RESIZE,
      prepare: async () => {
        await cloud.made(2);
        return { ...REQUEST_OF_UPDATE, aws: { nodeCount: 1 } };
      },
      check: () => cloud.wrongWhenMade({ machines: 1 }),
    };
    await kill(remove);
    await cancel(remove, () => cloud.wrongWhenServing());
  });

  test('asleep, and awake', LONG, async () => {
    const asleep = async (wanted: boolean) => {
      await cloud.made(1);
      if (wanted) await cloud.run('SuspendCluster');
      return REQUEST_OF_UPDATE;
    };
    await kill({
      name: 'machines that sleep',
      type: 'SuspendCluster',
      only: RESIZE,
      prepare: () => asleep(false),
      check: () => cloud.wrongWhenMade({ suspended: true }),
    });
    await kill({
      name: 'machines that wake',
      type: 'ResumeCluster',
      only: WAKE,
      prepare: () => asleep(true),
      check: () => cloud.wrongWhenMade(),
    });
  });

  test('removed', LONG, async () => {
    const remove = {
      name: 'delete on AWS',
      type: 'DeleteCluster',
      only: REMOVE,
      prepare: async () => {
        await cloud.made(1);
        return REQUEST_OF_UPDATE;
      },
      check: () => cloud.wrongWhenGone(),
    };
    await kill(remove);
    // What is being removed is not brought back: the same deletion, sent again, goes on.
    await cancel(remove, () => Promise.resolve([]));
  });

  test('nothing was wrong', () => {
    expect(violations).toEqual([]);
  });
});

const REQUEST_OF_UPDATE = { cluster: REQUEST.cluster };
