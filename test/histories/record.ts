/**
 * Records the histories that `test/workflows/replay.test.ts` replays, from runs on real parts:
 * `node test/histories/record.ts`. Run it when a workflow changed in a way that running ones may not meet, with the new
 * version in package.json; files of older versions stay for as long as such runs may be open. With names of types it saves
 * only those: `node test/histories/record.ts UpdateCluster`; with a name as well, only that one: `UpdateCluster/refused`.
 */
import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { CoreV1Api, KubeConfig, PatchStrategy, setHeaderOptions } from '@kubernetes/client-node';
import { Client, Connection, type WorkflowHandle } from '@temporalio/client';
import { execa } from 'execa';
import { ClusterAccess } from '../../src/local/demo/cluster-access.ts';
import { startAwsEmulators } from '../../src/local/aws/emulators.ts';
import { startAwsFront } from '../../src/local/aws/front.ts';
import { nodegroupIssues } from '../../src/local/aws/proxy/pace.ts';
import { startInfrastructure, type Infrastructure } from '../../src/local/stack.ts';
import { namespaceOf } from '../../src/domain/naming.ts';
import type { Progress } from '../../src/domain/operation.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const TENANT = 'acme';
const DOCS = { tenant: TENANT, cluster: 'docs' };
const COLLECTIONS = [{ preset: 'documents', vectorSize: 4, shardNumber: 2, replicationFactor: 1 }];

const only = process.argv.slice(2);

const { version } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as { version: string };
const dataDir = await mkdtemp(join(tmpdir(), 'qdrant-fleet-record-'));
const stack = await startInfrastructure({ dataDir, ports: 'free', kubelet: true, log: console.log });
try {
  await record(stack);
} finally {
  await stack.stop();
  await rm(dataDir, { recursive: true, force: true });
}

async function record({ env }: Infrastructure): Promise<void> {
  const connection = await Connection.connect({ address: env['TEMPORAL_ADDRESS'] ?? '' });
  const { workflow } = new Client({ connection });
  const start = (type: string, name: string, input: object) =>
    workflow.start(type, { taskQueue: 'fleet', workflowId: `${type}-${name}`, args: [input] });
  const run = async (type: string, name: string, input: object) => {
    const handle = await start(type, name, input);
    const result = (await handle.result()) as Record<string, unknown>;
    await save(type, name, handle.workflowId);
    return { id: handle.workflowId, result };
  };

  await withWorker(env, async () => {
    await run('ProvisionCluster', 'done', { ...DOCS, nodes: 2, collections: COLLECTIONS });
    const docs = await ClusterAccess.open(env['KUBECONFIG'] ?? '', DOCS);
    await docs.load('documents', points(100));
  });
  // Small shards with activities of their own, as large ones have them.
  await withWorker({ ...env, FLEET_SMALL_SHARD_BYTES: '0' }, async () => {
    const { id } = await run('BackupCluster', 'one-collection', { ...DOCS, collections: ['documents'] });
    await save('BackupPeer', 'large-shards', await childOf(id, '/peer-'));
  });

  await withWorker(env, async () => {
    const { id, result } = await run('BackupCluster', 'done', { ...DOCS, retention: { keepLast: 1, undoHours: 0 } });
    await save('BackupPeer', 'done', await childOf(id, '/peer-'));
    await run('VerifyBackup', 'done', { ...DOCS, backup: result['backup'] });

    const restore = { tenant: TENANT, source: 'docs', backup: result['backup'] };
    await run('RestoreCluster', 'new-cluster', { ...restore, cluster: 'again', nodes: 1 });
    await failed('RestoreCluster', 'refused', { ...restore, cluster: 'docs' });
    await run('RestoreCluster', 'dry-run', { ...restore, cluster: 'docs', dryRun: true });
    await run('UpdateCluster', 'more-nodes', { ...DOCS, nodes: 3, storage: '11Gi' });
    await run('UpdateCluster', 'upgrade', { ...DOCS, nodes: 2, version: 'v1.19.0', allowDowntime: true });
    await run('UpdateCluster', 'dry-run', { ...DOCS, nodes: 3, dryRun: true });
    await failed('UpdateCluster', 'refused', { ...DOCS, storage: '1Gi' });
    await run('RotateApiKey', 'done', { ...DOCS, graceSeconds: 1, allowDowntime: true });
    await run('SuspendCluster', 'done', DOCS);
    await run('ResumeCluster', 'done', DOCS);
    const deletion = await start('DeleteCluster', 'undone', { ...DOCS, finalBackup: true, undoHours: 1 });
    await phase(deletion, 'Suspended until the deletion can no longer be taken back');
    await deletion.signal('undelete');
    await deletion.result();
    await save('DeleteCluster', 'undone', deletion.workflowId);
    await (await start('RetentionSweep', 'marks', { ...DOCS, policy: { keepLast: 1 } })).result();
    await run('UndeleteBackup', 'done', { ...DOCS, backup: result['backup'] });
    await run('RetentionSweep', 'done', { ...DOCS, policy: { keepLast: 1, undoHours: 0 } });
    await run('RetentionSweep', 'dry-run', { ...DOCS, policy: { keepLast: 1 }, dryRun: true });
    await failed('BackupCluster', 'no-such-collection', { ...DOCS, collections: ['nothing'] });
    await run('ObserveClusters', 'done', {});
    await run('DeleteCluster', 'done', DOCS);

    await losePeer();
    const cancelled = await start('ProvisionCluster', 'cancelled', { tenant: TENANT, cluster: 'third' });
    await phase(cancelled, 'Wait for the peers');
    await cancelled.cancel();
    await ended(cancelled);
    await save('ProvisionCluster', 'cancelled', cancelled.workflowId);
  });
  await withWorker(env, recordTls);
  await recordAws();
  await withWorker({ ...env, FLEET_HELM_CHART: './no-such-chart' }, () =>
    failed('ProvisionCluster', 'chart-failed', { tenant: TENANT, cluster: 'fourth' }),
  );
  await connection.close();

  /** What a cluster with TLS has besides. */
  async function recordTls(): Promise<void> {
    const sealed = { tenant: TENANT, cluster: 'sealed' };
    await run('ProvisionCluster', 'tls', { ...sealed, nodes: 2, tls: true, collections: COLLECTIONS });
    await run('RotateCertificates', 'not-due', { ...sealed, onlyIfDue: true });
    await run('RotateCertificates', 'done', { ...sealed, allowDowntime: true });
    await run('RotateCertificates', 'authority', { ...sealed, authority: true, graceSeconds: 1, allowDowntime: true });
    await (await start('SuspendCluster', 'tls', sealed)).result();
    await run('ResumeCluster', 'tls', sealed);
  }

  /** A pod that is away while shards move to it, because its node takes none for a while. */
  async function losePeer(): Promise<void> {
    const ref = { tenant: TENANT, cluster: 'moving' };
    const [collection] = COLLECTIONS;
    const collections = [{ ...collection, shardNumber: 12 }];
    await (await start('ProvisionCluster', 'moving', { ...ref, nodes: 2, collections })).result();
    const config = new KubeConfig();
    config.loadFromFile(env['KUBECONFIG'] ?? '');
    const core = config.makeApiClient(CoreV1Api);
    const growing = await start('UpdateCluster', 'peer-away', { ...ref, nodes: 3 });
    await message(growing, /^1 of \d+ shards moved$/);
    const pod = { namespace: namespaceOf(ref), name: 'qdrant-2' };
    const node = (await core.readNamespacedPod(pod)).spec?.nodeName ?? '';
    const cordon = (unschedulable: boolean) =>
      core.patchNode(
        { name: node, body: { spec: { unschedulable } } },
        setHeaderOptions('Content-Type', PatchStrategy.MergePatch),
      );
    await cordon(true);
    await core.deleteNamespacedPod({ ...pod, gracePeriodSeconds: 0 });
    await message(growing, /waits until peer/);
    await cordon(false);
    await growing.result();
    await save('UpdateCluster', 'peer-away', growing.workflowId);
  }

  /** The life of a cluster on AWS, and what is undone where AWS has no machines. */
  async function recordAws(): Promise<void> {
    const credentials = {
      accessKeyId: env['AWS_ACCESS_KEY_ID'] ?? '',
      secretAccessKey: env['AWS_SECRET_ACCESS_KEY'] ?? '',
    };
    const emulators = await startAwsEmulators({ accessKeyId: credentials.accessKeyId });
    const { moto = '', ministack = '' } = emulators.urls;
    const front = await startAwsFront({
      ...{ moto, ministack, credentials, kubeconfig: env['KUBECONFIG'] ?? '' },
      webhookPort: Number(env['FLEET_LOCAL_TOKEN_WEBHOOK_PORT']),
    });
    const settings = { ...front.proxy.env, FLEET_AWS_ENDPOINT: front.proxy.url, FLEET_AWS_CONSISTENCY_SECONDS: '2' };
    await withWorker({ ...env, ...settings }, async () => {
      const cloud = { tenant: TENANT, cluster: 'cloud' };
      const aws = { availabilityZones: ['us-east-1a', 'us-east-1b'], create: { backupBucket: true } };
      // The stack has nodes of its own besides.
      const placement = { nodeSelector: { 'eks.amazonaws.com/nodegroup': 'workers' } };
      const wanted = { provider: 'aws', aws, placement, nodes: 1, collections: COLLECTIONS };
      const noRoom = [nodegroupIssues.insufficientCapacity()];
      front.proxy.hold({ kind: 'nodegroup', during: 'create', fails: noRoom });
      await failed('ProvisionCluster', 'aws-no-capacity', { tenant: TENANT, cluster: 'fifth', ...wanted });
      await run('ProvisionCluster', 'aws', { ...cloud, ...wanted });
      front.proxy.hold({ kind: 'nodegroup', during: 'update', fails: noRoom });
      await failed('UpdateCluster', 'aws-no-capacity', { ...cloud, nodes: 2 });
      await run('UpdateCluster', 'aws-more-machines', { ...cloud, nodes: 2, aws: { labels: { team: 'search' } } });
      await run('UpdateCluster', 'aws-fewer-machines', { ...cloud, nodes: 1 });
      await run('SuspendCluster', 'aws', cloud);
      await run('ResumeCluster', 'aws', cloud);
      await run('InfrastructureSweep', 'dry-run', { tenant: TENANT, region: 'us-east-1' });
      const deletion = await start('DeleteCluster', 'aws-undone', { ...cloud, undoHours: 1 });
      await phase(deletion, 'Suspended until the deletion can no longer be taken back');
      await deletion.signal('undelete');
      await deletion.result();
      await save('DeleteCluster', 'aws-undone', deletion.workflowId);
      await run('DeleteCluster', 'aws', cloud);
    });
    await front.close();
    await emulators.stop();
  }

  async function failed(type: string, name: string, input: object): Promise<void> {
    const handle = await start(type, name, input);
    await ended(handle);
    await save(type, name, handle.workflowId);
  }

  async function childOf(parent: string, part: string): Promise<string> {
    const { events } = await workflow.getHandle(parent).fetchHistory();
    const ids = (events ?? []).map(
      (event) => event.childWorkflowExecutionStartedEventAttributes?.workflowExecution?.workflowId,
    );
    const found = ids.find((id) => id?.includes(part) === true);
    if (found == null) throw new Error(`${parent} has no child ${part}.`);
    return found;
  }
}

/** Wait for a run that is meant to fail. */
async function ended(handle: WorkflowHandle): Promise<void> {
  const outcome = await handle.result().then(
    () => 'it succeeded',
    () => undefined,
  );
  if (outcome !== undefined) throw new Error(`${handle.workflowId} should have failed: ${outcome}.`);
}

async function phase(handle: WorkflowHandle, wanted: string): Promise<void> {
  for (;;) {
    const { phase: at } = await handle.query<Progress, []>('progress');
    if (at === wanted) return;
    await new Promise((wake) => setTimeout(wake, 50));
  }
}

async function message(handle: WorkflowHandle, wanted: RegExp): Promise<void> {
  for (;;) {
    const { steps } = await handle.query<Progress, []>('progress');
    if (steps.some(({ message: text = '' }) => wanted.test(text))) return;
    await new Promise((wake) => setTimeout(wake, 50));
  }
}

async function withWorker(env: Record<string, string>, work: () => Promise<void>): Promise<void> {
  const worker = spawn(process.execPath, [join(ROOT, 'src/worker.ts')], {
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...env, FLEET_OBSERVE_SECONDS: '0' },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const gone = new Promise((done) => worker.once('exit', done));
  try {
    await work();
  } finally {
    worker.kill('SIGTERM');
    await gone;
  }
}

/** Export a history as the CLI does, without what tells about this machine and replay does not need. */
async function save(type: string, name: string, workflowId: string): Promise<void> {
  if (only.length > 0 && !only.includes(type) && !only.includes(`${type}/${name}`)) return;
  const { stdout } = await execa(stack.tools.temporal, ['workflow', 'show', '-w', workflowId, '--output', 'json'], {
    env: { TEMPORAL_ADDRESS: stack.env['TEMPORAL_ADDRESS'] ?? '' },
  });
  const history = JSON.parse(stdout, (key, value: unknown) => {
    if (key === 'identity') return 'worker';
    // Frames name the files of this machine.
    return key === 'stackTrace' ? '' : value;
  }) as { events: { workflowTaskScheduledEventAttributes?: { taskQueue?: { name?: string } } }[] };
  for (const { workflowTaskScheduledEventAttributes: scheduled } of history.events) {
    // Sticky queues are named after the worker process.
    if (scheduled?.taskQueue?.name?.includes('@') === true) scheduled.taskQueue.name = 'worker';
  }
  const text = `${JSON.stringify(history)}\n`;
  for (const secret of [`@${hostname()}`, ROOT, dataDir, tmpdir(), process.env['HOME'] ?? ROOT, ...secrets()]) {
    if (reveals(text, secret)) throw new Error(`The history of ${workflowId} tells ${secret}.`);
  }
  const folder = join(import.meta.dirname, type);
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, `${version}-${name}.json`), text);
  console.log(`${type}/${version}-${name}.json: ${(text.length / 1024).toFixed(0)} KB`);
}

/** Payloads are base64 inside the JSON. */
function reveals(text: string, secret: string): boolean {
  if (text.includes(secret)) return true;
  return [...text.matchAll(/"data":"([^"]*)"/g)].some(([, data]) =>
    Buffer.from(data ?? '', 'base64')
      .toString()
      .includes(secret),
  );
}

function secrets(): string[] {
  const { AWS_SECRET_ACCESS_KEY, DATABASE_URL } = stack.env;
  return [AWS_SECRET_ACCESS_KEY, DATABASE_URL, 'X-Amz-Signature'].flatMap((text) => (text ? [text] : []));
}

function points(count: number) {
  return Array.from({ length: count }, (_, id) => ({
    id,
    vector: [1, 2, 3, 4].map((axis) => Math.sin(id * 7 + axis * 3)),
    payload: { document_id: `d${id}` },
  }));
}
