/** `npm run test:crash`: kill -9 of the worker before and after every activity of every operation. */
import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { crash, crashTable, LIFE_ACTIVITIES, type Crashes, type Kill } from '../support/crash-matrix.ts';
import { exited, Fleet, smallPoints } from '../support/fleet.ts';
import { scan } from '../support/scanner.ts';

const EVERYWHERE = process.env['FLEET_TEST_CRASHES'] === 'all';
/** Small parts, so that a small snapshot is several of them; and no packs, so that each shard has its activities. */
const SMALL_PARTS = { FLEET_TRANSFER_PART_BYTES: '5242880', FLEET_TRANSFER_LANES: '2', FLEET_SMALL_SHARD_BYTES: '0' };
const POINTS = 9500;
const COLLECTIONS = [{ preset: 'documents', vectorSize: 256, shardNumber: 1, replicationFactor: 1 }];
const HOURS_AGO = (hours: number) => new Date(Date.now() - hours * 3_600_000);

/** Not killed here: those of crash-life.test.ts, and those of AWS, which aws-crash.test.ts and test/providers kill. */
const ELSEWHERE: ReadonlySet<string> = new Set([
  ...LIFE_ACTIVITIES,
  // Repairs are killed in health.test.ts; a look leaves nothing behind that the next one does not write again.
  'replacePeers',
  'endLostOperations',
  'listClustersToObserve',
  'observeClusters',
  'planInfrastructure',
  'ensureRoles',
  'ensureClusterAccess',
  'deleteAccess',
  'ensureNetwork',
  'awaitNetwork',
  'deleteNetwork',
  'ensureControlPlane',
  'awaitControlPlane',
  'ensureAddons',
  'deleteControlPlane',
  'ensureNodeGroups',
  'awaitNodeGroups',
  'deleteNodeGroups',
  'ensureBackupBucket',
  'deleteBackupBucket',
  'ensureStorageClass',
  'controlPlaneExists',
  'drainVolumes',
  'surveyInfrastructure',
  'setMachines',
  'configureMachines',
  'awaitMachines',
  'machinesToWake',
]);

const kills: Kill[] = [];
const violations: string[] = [];

/** A fleet with its own names; the operations of one come one after the other, those of several side by side. */
class Chain {
  readonly fleet: Fleet;
  readonly #clusters: readonly string[];
  constructor(fleet: Fleet, clusters: readonly string[]) {
    this.fleet = fleet;
    this.#clusters = clusters;
  }

  static async open(...clusters: readonly string[]): Promise<Chain> {
    const fleet = await Fleet.open(SMALL_PARTS);
    const worker = await fleet.worker();
    const { tenant } = fleet;
    for (const cluster of clusters) {
      const collections = cluster === 'docs' ? COLLECTIONS : [];
      await fleet.run('ProvisionCluster', { tenant, cluster, nodes: 2, collections });
    }
    if (clusters.includes('docs')) {
      const docs = await fleet.access('docs');
      await docs.load('documents', smallPoints(POINTS, 256));
      await docs.call('POST', '/collections/aliases', {
        actions: [{ create_alias: { collection_name: 'documents', alias_name: 'live' } }],
      });
    }
    worker.kill('SIGTERM');
    await exited(worker);
    return new Chain(fleet, clusters);
  }

  /** One operation after the other without a kill. */
  async run(type: string, input: Record<string, unknown>): Promise<Record<string, unknown>> {
    const worker = await this.fleet.worker();
    const result = await this.fleet.run(type, { tenant: this.fleet.tenant, ...input });
    worker.kill('SIGTERM');
    await exited(worker);
    return result;
  }

  async crash(crashes: Crashes): Promise<void> {
    const report = await crash(this.fleet, crashes);
    kills.push(...report.kills);
    violations.push(...report.violations);
    expect(report.violations).toEqual([]);
  }

  /** What the independent scanner finds. */
  async scan(): Promise<readonly string[]> {
    const { env, tenant } = this.fleet;
    const clusters = await Promise.all(this.#clusters.map((name) => this.fleet.access(name)));
    return (await scan({ env, tenant, clusters })).violations;
  }

  async backups(): Promise<string[]> {
    const listed = await this.fleet.catalog.backups({ tenant: this.fleet.tenant, cluster: 'docs' }, { limit: 100 });
    return listed.map(({ backup }) => backup);
  }
}

describe.runIf(EVERYWHERE)('kill -9 before and after each activity', () => {
  afterAll(() => console.log(crashTable(kills, violations)));
  const LONG = { timeout: 3_600_000 };

  describe.concurrent('of several fleets side by side', () => {
    test('provision, delete, a provision that is cancelled', LONG, async () => {
      const chain = await Chain.open();
      const { fleet } = chain;
      const { tenant } = fleet;
      const namespaces = async () =>
        (await fleet.kubectlNamespaces()).filter((name) => name.startsWith(`fleet-${tenant}--`));
      let made = 0;
      await chain.crash({
        name: 'provision',
        type: 'ProvisionCluster',
        prepare: () => {
          made += 1;
          return Promise.resolve({ cluster: `docs${made}`, nodes: 2, collections: COLLECTIONS });
        },
        check: async () => {
          const wrong = [];
          if ((await namespaces()).length !== made) wrong.push(`${(await namespaces()).length} namespaces`);
          const cluster = await fleet.access(`docs${made}`);
          if (cluster.peers.length !== 2) wrong.push(`${cluster.peers.length} peers`);
          if (Object.keys(await cluster.indexes('documents')).length !== 6) wrong.push('payload indexes are missing');
          return wrong;
        },
      });
      let gone = 0;
      await chain.crash({
        name: 'delete',
        type: 'DeleteCluster',
        prepare: () => {
          gone += 1;
          return Promise.resolve({ cluster: `docs${gone}` });
        },
        check: async () => {
          const left = await namespaces();
          return left.length === made - gone ? [] : [`namespaces left: ${left.join(', ')}`];
        },
      });
      await chain.crash({
        name: 'provision, cancelled',
        type: 'ProvisionCluster',
        only: ['uninstallRelease', 'deleteVolumeClaims', 'removeNamespace', 'forgetCluster', 'endOperation'],
        cancelAt: 'ensureCollection:after',
        prepare: () => Promise.resolve({ cluster: 'never', nodes: 1, collections: COLLECTIONS }),
        check: async () => {
          const left = await namespaces();
          const known = await fleet.catalog.cluster({ tenant, cluster: 'never' });
          return [...left.map((name) => `namespace left: ${name}`), ...(known ? ['the catalogue still has it'] : [])];
        },
      });
      await fleet.close();
    });

    test('backup, verification, retention, a backup that is cancelled', LONG, async () => {
      const chain = await Chain.open('docs');
      const { fleet } = chain;
      const { tenant } = fleet;
      let before = 0;
      const counted = (expected: number) => async () => {
        const listed = await chain.backups();
        const wrong = listed.length === before + expected ? [] : [`${listed.length} backups, before ${before}`];
        return [...wrong, ...(await chain.scan())];
      };
      const backup = async () => {
        before = (await chain.backups()).length;
        return { cluster: 'docs' };
      };
      await chain.crash({
        name: 'backup',
        type: 'BackupCluster',
        prepare: backup,
        check: counted(1),
        // What was sent before the first is not sent again.
        more: ['uploadPart:1', 'uploadPart:1'],
      });
      await chain.crash({
        name: 'backup of packed shards',
        type: 'BackupCluster',
        only: ['copyShardPack'],
        prepare: () => {
          fleet.env['FLEET_SMALL_SHARD_BYTES'] = '1000000000';
          return backup();
        },
        check: counted(1),
        more: ['uploadPart:1'],
      });
      fleet.env['FLEET_SMALL_SHARD_BYTES'] = '0';
      await chain.crash({
        name: 'backup, incremental',
        type: 'BackupCluster',
        only: ['planBackup', 'transferIncrementalShard', 'openCopiedShard', 'commitBackup'],
        prepare: async () => ({ ...(await backup()), format: 'incremental' }),
        check: counted(1),
      });
      await chain.crash({
        name: 'backup, cancelled',
        type: 'BackupCluster',
        only: ['sweepShardSnapshots', 'abandonBackup', 'endOperation'],
        cancelAt: 'transferShardSnapshot:before',
        prepare: backup,
        check: counted(0),
      });
      await chain.crash({
        name: 'verification',
        type: 'VerifyBackup',
        prepare: async () => ({ cluster: 'docs', backup: (await chain.backups())[0] }),
        check: async ({ shards }) => [...(shards === 1 ? [] : [`${String(shards)} shards`]), ...(await chain.scan())],
      });
      await chain.crash({
        name: 'retention',
        type: 'RetentionSweep',
        prepare: async () => {
          await chain.run('BackupCluster', { cluster: 'docs' });
          // Begun two days ago by nobody who is still there: to be collected.
          const started = HOURS_AGO(48);
          const id = `${started.toISOString().replace(/[-:]|\.\d+/g, '')}-00000000`;
          const intent = { formatVersion: 1, backup: id, startedAt: started, workflowId: 'gone', runId: randomUUID() };
          await fleet.store.putJson(`${tenant}/docs/${id}/intent.json`, JSON.stringify(intent));
          await fleet.store.putJson(`${tenant}/docs/${id}/data/${tenant}/plan.json`, '{}');
          return { cluster: 'docs', policy: { keepLast: 1, undoHours: 0 } };
        },
        check: async () => {
          const { env } = fleet;
          const { violations: wrong, backups } = await scan({ env, tenant, clusters: [] });
          const kept = backups['COMMITTED'] ?? [];
          const more = kept.length === 1 ? [] : [`${kept.length} backups kept, one was to stay`];
          return [...wrong, ...more];
        },
      });
      await fleet.close();
    });

    test('restore, by the bucket and by a worker, planned only, cancelled', LONG, async () => {
      const chain = await Chain.open('docs', 'target');
      const { fleet } = chain;
      const docs = await fleet.access('docs');
      const target = await fleet.access('target');
      const digest = await docs.digest('documents');
      const { backup } = await chain.run('BackupCluster', { cluster: 'docs' });
      const empty = async () => {
        const { collections } = await target.call<{ collections: { name: string }[] }>('GET', '/collections');
        for (const { name } of collections) await target.call('DELETE', `/collections/${name}`);
        return collections.length;
      };
      const common = {
        type: 'RestoreCluster',
        prepare: async () => {
          await empty();
          return { source: 'docs', backup, cluster: 'target' };
        },
        check: async () => {
          const found = await target.digest('documents');
          const wrong = found.sha256 === digest.sha256 ? [] : [`${found.points} points, another digest`];
          if ((await target.aliases())['live'] !== 'documents') wrong.push('the alias did not come back');
          return [...wrong, ...(await chain.scan())];
        },
      };
      await chain.crash({ name: 'restore', ...common });
      await chain.crash({
        ...common,
        name: 'restore, through a worker',
        only: ['relayReplica'],
        prepare: async () => ({ ...(await common.prepare()), via: 'worker' }),
      });
      await chain.crash({
        ...common,
        name: 'restore, planned only',
        only: ['previewRestore'],
        prepare: async () => ({ ...(await common.prepare()), dryRun: true }),
        check: async () => ((await empty()) === 0 ? chain.scan() : ['a plan wrote something']),
      });
      await chain.crash({
        ...common,
        name: 'restore, in place',
        only: ['dropReplacedCollection'],
        prepare: async () => {
          const input = await common.prepare();
          await chain.run('RestoreCluster', input);
          return { ...input, inPlace: true };
        },
      });
      await chain.crash({
        ...common,
        name: 'restore, cancelled',
        only: ['awaitRecoveriesIdle', 'dropRestoredCollection', 'closeBackup', 'endOperation'],
        cancelAt: 'recoverReplica:after',
        check: async () => ((await empty()) === 0 ? chain.scan() : ['a cancelled restore left its collection']),
      });
      await fleet.close();
    });
  });

  let activities: readonly string[] = [];
  beforeAll(async () => {
    const source = await readFile(resolve(import.meta.dirname, '../../workflows/shared/activity-proxies.ts'), 'utf8');
    const table = /const SUMMARIES[^{]*\{([\s\S]*?)\n\};/.exec(source)?.[1] ?? '';
    activities = [...table.matchAll(/^ {2}(\w+):/gm)].map(([, name]) => name ?? '');
  });

  test('no activity is left out, but those with a reason', () => {
    const killed = new Set(kills.map(({ place }) => place.split(':')[0]));
    expect(activities.length).toBeGreaterThan(30);
    expect(activities.filter((name) => !killed.has(name) && !ELSEWHERE.has(name))).toEqual([
      // Only when a restore into a cluster of its own is undone; it lets go of a lease, as endOperation does.
      'releaseLease',
      // Only when a cluster has more than a few hundred shards; one object, written once.
      'storeCopied',
      // Only when a node does not let its snapshot be removed for minutes; one row, written once.
      'noteSnapshotsLeft',
    ]);
  });
});
