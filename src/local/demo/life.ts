/** The life of a cluster by HTTP, on real parts, while its users write and read: what fails, and how long each change takes. */
import type { RunningStack } from '../running-stack.ts';
import { ClusterAccess } from './cluster-access.ts';
import { DIMENSIONS, readDigits } from './digits.ts';
import { FleetApi } from './fleet-api.ts';
import { DemoFailedError, say } from './follow.ts';
import { Traffic } from './traffic.ts';

const CLUSTER = 'living';
const COLLECTION = 'documents';

interface Row {
  readonly what: string;
  readonly seconds: number;
  readonly sent?: number;
  readonly failed?: number;
  readonly acknowledged?: number;
  readonly lost?: number;
}

/**
 * Scale 3 -> 5 -> 3, upgrade over two minors, rotate the key, each under traffic; suspend and resume.
 *
 * @returns whether no request failed and nothing was lost
 */
export async function runLife({ env, links }: RunningStack): Promise<boolean> {
  const [tenant = '', token = ''] = (env['FLEET_API_TOKENS'] ?? '').split(',')[0]?.split('=') ?? [];
  const api = new FleetApi(links.api, token);
  const kubeconfig = env['KUBECONFIG'] ?? '';
  const ref = { tenant, cluster: CLUSTER };
  const rows: Row[] = [];
  let firstId = 1_000_000;

  say('qdrant-fleet: the life of a cluster');
  say(`  Temporal UI  ${links.temporalUi}/namespaces/default/workflows`);
  if (await api.clusterExists(CLUSTER)) await follow(await api.remove(CLUSTER));

  await timed('provision 3 nodes of v1.17.1, replication factor 2', async () => {
    const collections = [{ preset: COLLECTION, vectorSize: DIMENSIONS, shardNumber: 6 }];
    const wanted = { name: CLUSTER, nodes: 3, replicationFactor: 2, version: 'v1.17.1', storage: '1Gi', collections };
    await follow(await api.create(wanted));
  });
  const digits = readDigits().filter(({ id }) => id % 4 === 0);
  await timed(`load ${digits.length} handwritten digits`, async () => {
    await (await ClusterAccess.open(kubeconfig, ref)).load(COLLECTION, digits);
  });

  await underTraffic('scale 3 -> 5', () => api.update(CLUSTER, { nodes: 5 }));
  await underTraffic('scale 5 -> 3', () => api.update(CLUSTER, { nodes: 3 }));
  await underTraffic('upgrade v1.17.1 -> v1.18.3 -> v1.19.0, after a backup', () =>
    api.update(CLUSTER, { version: 'v1.19.0' }),
  );
  await underTraffic('rotate the API key', () => api.act(CLUSTER, 'rotate-key', { graceSeconds: 2 }));
  if (env['FLEET_QDRANT_TLS'] === 'true') {
    const input = { authority: true, graceSeconds: 2 };
    await underTraffic('a new authority', () => api.act(CLUSTER, 'rotate-certificates', input));
  }

  const before = await (await ClusterAccess.open(kubeconfig, ref)).digest(COLLECTION);
  await timed('suspend', async () => follow(await api.act(CLUSTER, 'suspend')));
  await timed('resume', async () => follow(await api.act(CLUSTER, 'resume')));
  const after = await (await ClusterAccess.open(kubeconfig, ref)).digest(COLLECTION);
  await timed('delete', async () => follow(await api.remove(CLUSTER)));

  const equal = before.sha256 === after.sha256;
  const failed = sum(rows.map((row) => row.failed));
  const lost = sum(rows.map((row) => row.lost));
  say('\n' + table(rows));
  say(`\n${after.points} points before and after the sleep: ${equal ? 'equal, bit by bit' : 'DIFFERENT'}.`);
  const good = equal && failed === 0 && lost === 0;
  say(
    good
      ? `VERDICT: ALIVE. ${sum(rows.map((row) => row.sent))} requests, none failed, no acknowledged write lost.`
      : `VERDICT: HURT. ${failed} requests failed, ${lost} acknowledged points lost.`,
  );
  return good;

  async function follow(id: string): Promise<void> {
    for await (const operation of api.watch(id)) {
      if (operation.done && operation.error !== undefined) {
        throw new DemoFailedError(`${id} failed: ${operation.error.code}: ${operation.error.detail}`);
      }
    }
  }

  async function timed(what: string, run: () => Promise<void>): Promise<void> {
    const begun = Date.now();
    await run();
    add({ what, seconds: (Date.now() - begun) / 1000 });
  }

  async function underTraffic(what: string, begin: () => Promise<string>): Promise<void> {
    firstId += 1_000_000;
    const options = {
      kubeconfig,
      ref,
      collection: COLLECTION,
      dimensions: DIMENSIONS,
      firstId,
      writers: 1,
      readers: 3,
    };
    const traffic = await Traffic.start(options);
    const begun = Date.now();
    try {
      await follow(await begin());
    } finally {
      await traffic.stop();
    }
    const seconds = (Date.now() - begun) / 1000;
    const { sent, failed, failures, acknowledged } = traffic.report;
    for (const failure of failures) say(`  failed: ${failure}`);
    add({ what, seconds, sent, failed, acknowledged, lost: (await traffic.lost()).length });
  }

  function add(row: Row): void {
    rows.push(row);
    const users = row.sent === undefined ? '' : `  ${row.sent} requests, ${row.failed} failed, ${row.lost} points lost`;
    say(`  ✔ ${row.what.padEnd(54)} ${row.seconds.toFixed(1).padStart(6)} s${users}`);
  }
}

function table(rows: readonly Row[]): string {
  const cells = rows.map(({ what, seconds, sent, failed, acknowledged, lost }) => [
    what,
    seconds.toFixed(1),
    ...[sent, failed, acknowledged, lost].map((value) => (value === undefined ? '' : String(value))),
  ]);
  const all = [
    ['change', 'seconds', 'requests', 'failed', 'points written', 'lost'],
    ['---', '---', '---', '---', '---', '---'],
    ...cells,
  ];
  return all.map((row) => `| ${row.join(' | ')} |`).join('\n');
}

function sum(values: readonly (number | undefined)[]): number {
  return values.reduce<number>((total, value) => total + (value ?? 0), 0);
}
