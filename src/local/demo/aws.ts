/** The demo on AWS: from no network to a running Qdrant on EKS and back to nothing, with every call that it took. */
import { CoreV1Api, KubeConfig } from '@kubernetes/client-node';
import { namespaceOf } from '../../domain/naming.ts';
import { listResources } from '../aws/leftovers.ts';
import { CALLS_PATH } from '../aws/proxy/proxy.ts';
import type { RunningStack } from '../running-stack.ts';
import { ClusterAccess } from './cluster-access.ts';
import { DIMENSIONS, readDigits } from './digits.ts';
import { FleetApi } from './fleet-api.ts';
import { DemoFailedError, follow, say, timed } from './follow.ts';

const NAME = 'digits-aws';
const POINTS = 10_000;
const ZONES = ['us-east-1a', 'us-east-1b', 'us-east-1c'];

/**
 * Provision on AWS, fill, delete. With a bucket of its own: back up into it before, and restore from it after.
 *
 * @returns whether the data could be read and AWS holds nothing more at the end than at the beginning, but that bucket
 */
export async function runAwsDemo({ env, links }: RunningStack, ownBucket: boolean): Promise<boolean> {
  const endpoint = env['FLEET_AWS_ENDPOINT'];
  if (endpoint === undefined) {
    throw new DemoFailedError('The stack that runs has no AWS. Stop it, or start it by: npm start -- --aws');
  }
  const [tenant = '', token = ''] = (env['FLEET_API_TOKENS'] ?? '').split(',')[0]?.split('=') ?? [];
  const api = new FleetApi(links.api, token);
  const kubeconfig = env['KUBECONFIG'] ?? '';
  const credentials = {
    accessKeyId: env['AWS_ACCESS_KEY_ID'] ?? '',
    secretAccessKey: env['AWS_SECRET_ACCESS_KEY'] ?? '',
  };
  say('qdrant-fleet demo on AWS: moto and ministack behind a proxy, EKS as the local Kubernetes');
  say(`  Temporal UI  ${links.temporalUi}/namespaces/default/workflows`);
  if (await api.clusterExists(NAME)) {
    say(`\nAn earlier demo left the cluster ${tenant}/${NAME}; it goes first.`);
    await follow(api, await api.remove(NAME), links.temporalUi);
  }
  const before = await listResources({ endpoint, credentials });
  const earlier = await calls(endpoint);
  let life: Life;
  try {
    life = await lifeOfACluster({ api, links, kubeconfig, tenant, ownBucket });
  } finally {
    showCalls(earlier, await calls(endpoint));
  }
  const { points, bucket, backup } = life;
  const after = await listResources({ endpoint, credentials });
  const left = after.filter((one) => !before.includes(one) && one !== `bucket ${bucket}`);
  const stays =
    bucket === undefined ? '' : ` but bucket ${bucket} with backup ${backup}, from which it came back whole`;
  for (const one of left) say(`  LEFT  ${one}`);
  const complete = points === POINTS;
  say(
    complete && left.length === 0
      ? `\nVERDICT: NOTHING LEFT. ${points} points were on AWS, which holds nothing of the cluster any more${stays}.`
      : `\nVERDICT: FAILED. ${points} of ${POINTS} points read, ${left.length} resources left.`,
  );
  return complete && left.length === 0;
}

interface Parts extends Pick<RunningStack, 'links'> {
  readonly api: FleetApi;
  readonly kubeconfig: string;
  readonly tenant: string;
  readonly ownBucket: boolean;
}

interface Life {
  /** Read back last. */
  readonly points: number;
  /** What stays of the cluster, where it had a bucket of its own. */
  readonly bucket?: string;
  readonly backup?: string;
}

async function lifeOfACluster({ api, links, kubeconfig, tenant, ownBucket }: Parts): Promise<Life> {
  const steps = ownBucket ? 6 : 3;
  say(`\n[1/${steps}] Provision ${tenant}/${NAME}: network, EKS, node group, access, Qdrant with 3 nodes`);
  const collections = [{ preset: 'documents', vectorSize: DIMENSIONS }];
  const aws = { region: 'us-east-1', availabilityZones: ZONES, ...(ownBucket && { create: { backupBucket: true } }) };
  const wanted = { name: NAME, provider: 'aws', aws, nodes: 3, replicationFactor: 2, storage: '1Gi', collections };
  await follow(api, await api.create(wanted), links.temporalUi);
  await showPods(kubeconfig, namespaceOf({ tenant, cluster: NAME }));

  say(`\n[2/${steps}] Load and read back`);
  const digits = readDigits().slice(0, POINTS);
  const cluster = await ClusterAccess.open(kubeconfig, { tenant, cluster: NAME });
  await timed(`documents: ${digits.length} points`, () => cluster.load('documents', digits));
  const before = await timed('digest', () => cluster.digest('documents'));

  if (!ownBucket) {
    say(`\n[3/${steps}] Delete ${tenant}/${NAME} to the last resource`);
    await follow(api, await api.remove(NAME), links.temporalUi);
    return { points: before.points };
  }

  say(`\n[3/${steps}] Back up into the cluster's own bucket`);
  const backup = String((await follow(api, await api.backUp(NAME), links.temporalUi)).result?.['backup']);

  say(`\n[4/${steps}] Delete ${tenant}/${NAME} to the last resource but that bucket`);
  const removed = await follow(api, await api.remove(NAME), links.temporalUi);
  const bucket = String(removed.result?.['bucket']);

  say(`\n[5/${steps}] Restore it from ${bucket}, under its own name: network, EKS, node group, access, Qdrant, data`);
  await follow(api, await api.restore(backup, { cluster: NAME }), links.temporalUi);
  const again = await ClusterAccess.open(kubeconfig, { tenant, cluster: NAME });
  const after = await timed('digest', () => again.digest('documents'));
  const same = after.sha256 === before.sha256;
  say(
    `  ${same ? 'EQUAL' : 'DIFFERENT'}: sha256 ${before.sha256.slice(0, 16)}… before, ${after.sha256.slice(0, 16)}… after`,
  );

  say(`\n[6/${steps}] Delete ${tenant}/${NAME} again`);
  await follow(api, await api.remove(NAME), links.temporalUi);
  return { points: same ? after.points : 0, bucket, backup };
}

function showCalls(before: Record<string, number>, after: Record<string, number>): void {
  say('\nAWS was called:');
  let total = 0;
  for (const [operation, count] of Object.entries(after)) {
    const times = count - (before[operation] ?? 0);
    if (times <= 0) continue;
    total += times;
    say(`  ${String(times).padStart(5)}  ${operation}`);
  }
  say(`  ${String(total).padStart(5)}  in all`);
}

/** How often each operation was called since the proxy started. */
async function calls(endpoint: string): Promise<Record<string, number>> {
  return (await (await fetch(endpoint + CALLS_PATH)).json()) as Record<string, number>;
}

/** Which machine, of which zone and node group, each pod runs on. */
async function showPods(kubeconfig: string, namespace: string): Promise<void> {
  const config = new KubeConfig();
  config.loadFromFile(kubeconfig);
  const core = config.makeApiClient(CoreV1Api);
  const { items: nodes } = await core.listNode();
  const { items: pods } = await core.listNamespacedPod({ namespace });
  for (const { metadata, spec } of pods) {
    const labels = nodes.find((node) => node.metadata?.name === spec?.nodeName)?.metadata?.labels ?? {};
    const zone = labels['topology.kubernetes.io/zone'] ?? '?';
    say(
      `  ${metadata?.name}  on ${spec?.nodeName}  ${zone}  ${labels['eks.amazonaws.com/nodegroup'] ?? 'no node group'}`,
    );
  }
}
