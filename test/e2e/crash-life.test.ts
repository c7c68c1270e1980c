/** `npm run test:crash`: the changes of a running cluster, killed before and after and cancelled during every activity. */
import { appendFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import {
  cancelEverywhere,
  cancellationsLine,
  crash,
  crashTable,
  LIFE_ACTIVITIES,
  tell,
  type Cancellation,
  type Crashes,
  type Kill,
} from '../support/crash-matrix.ts';
import { exited, Fleet, smallPoints } from '../support/fleet.ts';
import { notServing, notWhole, unsettled, type Expected } from '../support/whole-cluster.ts';

const EVERYWHERE = process.env['FLEET_TEST_CRASHES'] === 'all';
const COLLECTIONS = [{ preset: 'documents', vectorSize: 4, shardNumber: 4, replicationFactor: 2 }];
const CLUSTER = 'living';

const kills: Kill[] = [];
const cancellations: Cancellation[] = [];
const violations: string[] = [];

/** A fleet with a cluster of its own, whose changes are killed and cancelled one after the other. */
class Life {
  readonly fleet: Fleet;
  expected: Expected;

  private constructor(fleet: Fleet, expected: Expected) {
    this.fleet = fleet;
    this.expected = expected;
  }

  static async open(nodes = 2): Promise<Life> {
    const fleet = await Fleet.open();
    const worker = await fleet.worker();
    const input = { nodes, version: 'v1.18.3', storage: '1Gi', collections: COLLECTIONS };
    await fleet.run('ProvisionCluster', { tenant: fleet.tenant, cluster: CLUSTER, ...input });
    const access = await fleet.access(CLUSTER);
    await access.load('documents', smallPoints(400));
    worker.kill('SIGTERM');
    await exited(worker);
    const digest = await access.digest('documents');
    return new Life(fleet, { nodes, digest, collection: 'documents', replicas: 2 });
  }

  /** An operation without a kill. */
  async run(type: string, input: Record<string, unknown> = {}): Promise<void> {
    const worker = await this.fleet.worker();
    await this.fleet.run(type, { tenant: this.fleet.tenant, cluster: CLUSTER, ...input });
    worker.kill('SIGTERM');
    await exited(worker);
  }

  /** The cluster with so many nodes, whatever it has. */
  async size(nodes: number): Promise<void> {
    const row = await this.fleet.catalog.cluster({ tenant: this.fleet.tenant, cluster: CLUSTER });
    if (row?.spec.nodes !== nodes || row.phase !== 'HEALTHY') await this.run('UpdateCluster', { nodes });
  }

  /** What is wrong at the end of a change. */
  whole(change: Partial<Expected> = {}): () => Promise<string[]> {
    return () => notWhole(this.fleet, CLUSTER, { ...this.expected, ...change });
  }

  /** Kill the worker before and after each activity, then cancel during each. */
  async suffer(crashes: Crashes, cancelled?: readonly string[]): Promise<void> {
    await this.kill(crashes);
    const report = await cancelEverywhere(
      this.fleet,
      { ...crashes, ...(cancelled !== undefined && { only: cancelled }) },
      () => notServing(this.fleet, CLUSTER, this.expected),
    );
    cancellations.push(...report.cancellations);
    violations.push(...report.violations);
    tell(`${crashes.name}, cancelled ${report.cancellations.length} times`, report.violations);
  }

  async kill(crashes: Crashes): Promise<void> {
    const report = await crash(this.fleet, crashes);
    kills.push(...report.kills);
    violations.push(...report.violations);
    tell(`${crashes.name}, killed ${report.kills.length} times`, report.violations);
  }
}

describe.runIf(EVERYWHERE)('the life of a cluster under kill -9 and cancellation', () => {
  afterAll(() => {
    console.log(`${crashTable(kills, violations)}\n${cancellationsLine(cancellations)}`);
  });
  const LONG = { timeout: 7_200_000 };

  describe.concurrent('of several fleets side by side', () => {
    test('more nodes, fewer nodes', LONG, async () => {
      const life = await Life.open();
      await life.suffer({
        name: 'scale out 2 -> 3',
        type: 'UpdateCluster',
        prepare: async () => {
          await life.size(2);
          return { cluster: CLUSTER, nodes: 3 };
        },
        check: life.whole({ nodes: 3 }),
      });
      await life.suffer(
        {
          name: 'scale in 3 -> 2',
          type: 'UpdateCluster',
          only: [
            'planShardMoves',
            'moveShard',
            'removePeers',
            'installRelease',
            'recordSpec',
            'awaitPodsGone',
            'removeSurplusClaims',
            'awaitPeers',
          ],
          prepare: async () => {
            await life.size(3);
            return { cluster: CLUSTER, nodes: 2 };
          },
          check: life.whole({ nodes: 2 }),
        },
        ['moveShard', 'removePeers', 'installRelease', 'awaitPodsGone', 'removeSurplusClaims', 'awaitPeers'],
      );
      await life.kill({
        name: 'scale out, cancelled',
        type: 'UpdateCluster',
        only: ['abortShardMoves', 'inspectCluster', 'endOperation'],
        cancelAt: 'moveShard:before',
        prepare: async () => {
          await life.size(2);
          return { cluster: CLUSTER, nodes: 3 };
        },
        check: async () => {
          const wrong = await notServing(life.fleet, CLUSTER, life.expected);
          await life.run('UpdateCluster', { nodes: 3 });
          return [...wrong, ...(await life.whole({ nodes: 3 })())];
        },
      });
      await life.fleet.close();
    });

    test('a newer version, larger volumes, another configuration, another key', LONG, async () => {
      const life = await Life.open();
      const { fleet } = life;
      let minor = 18;
      let version = 'v1.18.3';
      // One that was cancelled leaves peers of two versions, and has to be finished before the next.
      const upgraded = async () => {
        if ((await life.whole({ version })()).length > 0) await life.run('UpdateCluster', { version });
      };
      // The stand-in for Qdrant is whatever version the tag of its image says.
      await life.suffer(
        {
          name: 'upgrade by a minor',
          type: 'UpdateCluster',
          only: ['planClusterUpdate', 'commitBackup', 'installRelease', 'recordSpec', 'nextPodToRestart', 'restartPod'],
          prepare: async () => {
            await upgraded();
            minor += 1;
            version = `v1.${minor}.0`;
            return { cluster: CLUSTER, version };
          },
          check: () => life.whole({ version })(),
        },
        ['planBackup', 'installRelease', 'nextPodToRestart', 'restartPod'],
      );
      await upgraded();
      let gibibytes = 1;
      await life.suffer(
        {
          name: 'larger volumes',
          type: 'UpdateCluster',
          only: ['growVolumeClaims', 'releaseStatefulSet', 'installRelease', 'recordSpec', 'awaitVolumesGrown'],
          prepare: () => {
            gibibytes += 1;
            return Promise.resolve({ cluster: CLUSTER, storage: `${gibibytes}Gi` });
          },
          check: () => life.whole({ storage: `${gibibytes}Gi` })(),
        },
        ['growVolumeClaims', 'releaseStatefulSet', 'awaitVolumesGrown'],
      );
      let threads = 0;
      await life.suffer(
        {
          name: 'another configuration',
          type: 'UpdateCluster',
          only: ['setClusterPhase', 'installRelease', 'recordSpec', 'nextPodToRestart', 'restartPod', 'inspectCluster'],
          prepare: () => {
            threads += 1;
            return Promise.resolve({ cluster: CLUSTER, config: { 'storage.performance.max_search_threads': threads } });
          },
          check: life.whole(),
        },
        ['installRelease', 'nextPodToRestart', 'restartPod'],
      );
      let attempt = 0;
      await life.kill({
        name: 'an image that does not pull',
        type: 'UpdateCluster',
        only: ['inspectRollout', 'inspectCluster', 'endOperation'],
        fails: 'PodCannotStart',
        prepare: async () => {
          attempt += 1;
          const tag = `v1.${minor}.${70 + attempt}`;
          await appendFile(join(dirname(fleet.env['KUBECONFIG'] ?? ''), 'kubelet/missing-images'), `${tag}\n`);
          return { cluster: CLUSTER, version: tag };
        },
        check: async () => {
          // The phase is that of a cluster whose last change failed, and nothing else differs.
          const wrong = await life.whole({ version })();
          return wrong.filter((what) => what !== 'condition Failed: PodCannotStart');
        },
      });
      await life.suffer(
        {
          name: 'another key',
          type: 'RotateApiKey',
          only: ['planClusterUpdate', 'stageApiKey', 'installRelease', 'recordSpec', 'nextPodToRestart', 'restartPod'],
          prepare: () => Promise.resolve({ cluster: CLUSTER, graceSeconds: 0 }),
          check: life.whole(),
        },
        ['stageApiKey', 'installRelease', 'restartPod'],
      );
      await fleet.close();
    });

    test('asleep and awake, and a deletion that is taken back', LONG, async () => {
      const life = await Life.open();
      const { fleet } = life;
      const { tenant } = fleet;
      const asleep = async (wanted: boolean) => {
        const row = await fleet.catalog.cluster({ tenant, cluster: CLUSTER });
        const settled = wanted ? row?.phase === 'SUSPENDED' : row?.phase === 'HEALTHY';
        if (!settled) await life.run(wanted ? 'SuspendCluster' : 'ResumeCluster');
        return { cluster: CLUSTER };
      };
      const suspend = { name: 'suspend', type: 'SuspendCluster', prepare: () => asleep(false) };
      await life.suffer({ ...suspend, check: life.whole({ suspended: true }) });
      const resume = { name: 'resume', type: 'ResumeCluster', prepare: () => asleep(true) };
      await life.suffer({ ...resume, check: life.whole() });
      await life.kill({
        name: 'a deletion that is taken back',
        type: 'DeleteCluster',
        prepare: async () => ({ ...(await asleep(false)), undoHours: 1 }),
        started: (handle) => handle.signal('undelete'),
        check: life.whole(),
      });
      await life.kill({
        name: 'a deletion that is cancelled in time',
        type: 'DeleteCluster',
        only: ['unpauseSchedules', 'inspectCluster', 'endOperation'],
        cancelAt: 'pauseSchedules:after',
        prepare: async () => ({ ...(await asleep(false)), undoHours: 1 }),
        check: async () => {
          const row = await fleet.catalog.cluster({ tenant, cluster: CLUSTER });
          const wrong = await life.whole()();
          const told = row?.delete_after === null ? [] : [`it is to be deleted after ${String(row?.delete_after)}`];
          return [...told, ...wrong.filter((what) => what !== 'condition Failed: Cancelled')];
        },
      });
      await life.kill({
        name: 'delete after a last backup',
        type: 'DeleteCluster',
        only: ['commitBackup', 'uninstallRelease', 'deleteVolumeClaims', 'removeNamespace', 'forgetCluster'],
        prepare: async () => {
          if ((await fleet.catalog.cluster({ tenant, cluster: CLUSTER })) === undefined) {
            await life.run('ProvisionCluster', { nodes: 1, storage: '1Gi', collections: [] });
          }
          return { cluster: CLUSTER, finalBackup: true };
        },
        check: async ({ backup }) => {
          const left = (await fleet.kubectlNamespaces()).filter((name) => name.startsWith(`fleet-${tenant}--`));
          const backups = await fleet.catalog.backups({ tenant, cluster: CLUSTER }, { limit: 100 });
          const kept = backups.some((row) => row.backup === backup && row.state === 'COMMITTED');
          return [
            ...(await unsettled(fleet, CLUSTER)),
            ...left.map((name) => `namespace left: ${name}`),
            ...(kept ? [] : [`backup ${String(backup)} is not committed`]),
          ];
        },
      });
      await fleet.close();
    });
  });

  test('no activity of a change is left out, and nothing was wrong', () => {
    const killed = new Set(kills.map(({ place }) => place.split(':')[0]));
    expect(LIFE_ACTIVITIES.filter((name) => !killed.has(name))).toEqual([]);
    expect(violations).toEqual([]);
  });
});
