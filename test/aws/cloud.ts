/** A fleet on AWS as a whole: both emulators behind the proxy, machines in the stack's Kubernetes, real workers. */
import { CoreV1Api } from '@kubernetes/client-node';
import { inject } from 'vitest';
import { AwsClients, type Aws } from '../../src/clients/aws/clients.ts';
import { ifThere } from '../../src/clients/aws/answers.ts';
import { ownerTags, AWS_TAGS } from '../../src/domain/aws-names.ts';
import { namespaceOf } from '../../src/domain/naming.ts';
import { startAwsEmulators, type AwsEmulators } from '../../src/local/aws/emulators.ts';
import type { AwsFront } from '../../src/local/aws/front.ts';
import { listResources } from '../../src/local/aws/leftovers.ts';
import { looseCanaries, releaseCanaries } from '../providers/canaries.ts';
import { more } from '../providers/faulty.ts';
import { exited, Fleet, smallPoints, until } from '../support/fleet.ts';
import { unsettled } from '../support/whole-cluster.ts';
import { startFront } from './support.ts';

const CLUSTER = 'cloud';
const COLLECTION = 'documents';

/** Small, with a part of each kind. */
export const REQUEST = {
  cluster: CLUSTER,
  provider: 'aws',
  aws: {
    availabilityZones: ['us-east-1a', 'us-east-1b'],
    adminPrincipalArns: ['arn:aws:iam::123456789012:role/admins'],
    create: { backupBucket: true },
  },
  // The stack has nodes of its own besides.
  placement: { nodeSelector: { 'eks.amazonaws.com/nodegroup': 'workers' } },
  nodes: 1,
  collections: [{ preset: COLLECTION, vectorSize: 4, shardNumber: 2, replicationFactor: 1 }],
};

/** What one cluster consists of: how many of each kind, and the slots of its ledger. */
interface Whole {
  readonly counts: Record<string, number>;
  readonly slots: readonly string[];
}

export class Cloud {
  readonly fleet: Fleet;
  readonly front: AwsFront;
  readonly aws: Aws;
  readonly #emulators: AwsEmulators;
  /** Everything in the account that is not the cluster's, canaries among it. */
  before: readonly string[] = [];
  #whole: Whole = { counts: {}, slots: [] };
  #recall: (() => Promise<void>) | undefined;

  private constructor(fleet: Fleet, front: AwsFront, emulators: AwsEmulators, aws: Aws) {
    this.fleet = fleet;
    this.front = front;
    this.#emulators = emulators;
    this.aws = aws;
  }

  /** @param graceSeconds how long what was made may stay unseen */
  static async open({ graceSeconds = 2 } = {}): Promise<Cloud> {
    const { AWS_ACCESS_KEY_ID: accessKeyId = '', AWS_SECRET_ACCESS_KEY: secretAccessKey = '' } = inject('localEnv');
    const emulators = await startAwsEmulators({ accessKeyId });
    const front = await startFront(emulators, { accessKeyId, secretAccessKey });
    const { url, env } = front.proxy;
    const fleet = await Fleet.open({
      ...env,
      FLEET_AWS_ENDPOINT: url,
      FLEET_AWS_CONSISTENCY_SECONDS: String(graceSeconds),
    });
    return new Cloud(fleet, front, emulators, await new AwsClients({ endpoint: url }).of('us-east-1'));
  }

  get ref() {
    return { tenant: this.fleet.tenant, cluster: CLUSTER };
  }

  /** Put canaries beside, and learn from an undisturbed cluster what there has to be. @returns how many canaries */
  async survey(): Promise<number> {
    await this.fleet.catalog.migrate();
    const installation = await this.fleet.catalog.installation();
    const owner = { ...this.ref, installation, operation: 'an-operation' };
    const canaries = await releaseCanaries(this.aws, owner, false);
    this.before = await this.inventory();
    await this.run('ProvisionCluster', { ...REQUEST, tenant: this.fleet.tenant });
    this.#whole = { counts: more(this.before, await this.inventory()), slots: await this.#slots() };
    return canaries;
  }

  /** An operation that nothing disturbs, by a worker of its own. */
  async run(type: string, input: Record<string, unknown> = {}): Promise<void> {
    const worker = await this.fleet.worker();
    try {
      await this.fleet.run(type, { ...this.ref, ...input });
    } finally {
      worker.kill('SIGTERM');
      await exited(worker);
    }
  }

  /** There is no cluster, whatever there was. */
  async gone(): Promise<void> {
    await this.#recall?.();
    this.#recall = undefined;
    if ((await this.fleet.catalog.cluster(this.ref)) !== undefined) await this.run('DeleteCluster');
    this.before = await this.inventory();
  }

  /** As {@link gone}, with canaries that only an operation's tag tells from what the next operation makes. */
  async goneButCanaries(): Promise<void> {
    await this.gone();
    const installation = await this.fleet.catalog.installation();
    const own = ownerTags({ ...this.ref, installation, operation: 'another-operation' });
    const { [AWS_TAGS.operation]: _, ...without } = own;
    this.#recall = await looseCanaries(this.aws, [own, without]);
    this.before = await this.inventory();
  }

  /** The cluster works, with so many machines. */
  async made(machines = 1): Promise<void> {
    const row = await this.fleet.catalog.cluster(this.ref);
    if (row === undefined) {
      await this.gone();
      await this.run('ProvisionCluster', REQUEST);
    } else if (row.phase === 'SUSPENDED') await this.run('ResumeCluster');
    const now = await this.fleet.catalog.cluster(this.ref);
    if (now?.spec.aws?.nodeCount !== machines || now.phase !== 'HEALTHY') {
      await this.run('UpdateCluster', { aws: { nodeCount: machines } });
    }
  }

  /** What is wrong with a cluster that has to be there. */
  async wrongWhenMade({ machines = 1, suspended = false } = {}): Promise<string[]> {
    const wrong = await unsettled(this.fleet, CLUSTER);
    const now = await this.inventory();
    wrong.push(...this.before.filter((one) => !now.includes(one)).map((one) => `gone that is not ours: ${one}`));
    const [is, wanted] = [canonical(more(this.before, now)), canonical(this.#whole.counts)];
    if (is !== wanted) wrong.push(`there is ${is} instead of ${wanted}`);
    const slots = await this.#slots();
    if (slots.join() !== this.#whole.slots.join()) wrong.push(`the ledger has ${slots.join()}`);
    const row = await this.fleet.catalog.cluster(this.ref);
    const phase = suspended ? 'SUSPENDED' : 'HEALTHY';
    if (row?.phase !== phase) wrong.push(`phase ${row?.phase}, not ${phase}: ${row?.reason}`);
    if (row?.spec.aws?.nodeCount !== machines) wrong.push(`the catalogue says ${row?.spec.aws?.nodeCount} machines`);
    const running = await this.machines();
    if (running !== (suspended ? 0 : machines)) wrong.push(`${running} machines`);
    return suspended ? wrong : [...wrong, ...(await this.wrongWhenServing())];
  }

  /** Whether Qdrant takes points and gives them back. */
  async wrongWhenServing(): Promise<string[]> {
    const access = await this.fleet.access(CLUSTER);
    await access.load(COLLECTION, smallPoints(50));
    const { points } = await access.digest(COLLECTION);
    return points === 50 ? [] : [`${points} points of 50`];
  }

  /** What is wrong where there must be nothing of a cluster. */
  async wrongWhenGone(): Promise<string[]> {
    const wrong = await unsettled(this.fleet, CLUSTER);
    const now = await this.inventory();
    wrong.push(...this.before.filter((one) => !now.includes(one)).map((one) => `gone that is not ours: ${one}`));
    wrong.push(...now.filter((one) => !this.before.includes(one)).map((one) => `left: ${one}`));
    wrong.push(...(await this.#slots()).map((slot) => `left in the ledger: ${slot}`));
    if ((await this.fleet.catalog.cluster(this.ref)) !== undefined) wrong.push('left in the catalogue');
    if ((await this.fleet.kubectlNamespaces()).includes(namespaceOf(this.ref))) wrong.push('the namespace is left');
    const left = await until('no machine is left', async () => (await this.machines()) === 0, 20).catch(() => false);
    if (!left) wrong.push(`${await this.machines()} machines left`);
    return wrong;
  }

  /** Machines that have joined. */
  async machines(): Promise<number> {
    const nodes = await this.fleet.kubernetes(CoreV1Api).listNode({ labelSelector: 'eks.amazonaws.com/nodegroup' });
    return nodes.items.length;
  }

  /** Everything that the account has, and what is in its EKS clusters, as `kind id`, without any fault in the way. */
  async inventory(): Promise<string[]> {
    this.front.proxy.lift();
    const { AWS_ACCESS_KEY_ID: accessKeyId = '', AWS_SECRET_ACCESS_KEY: secretAccessKey = '' } = this.fleet.env;
    const { url: endpoint } = this.front.proxy;
    const all = await listResources({ endpoint, credentials: { accessKeyId, secretAccessKey } });
    const { eks } = this.aws;
    for (const clusterName of (await eks.listClusters({})).clusters ?? []) {
      const add = (kind: string, names: readonly (string | undefined)[] = []) =>
        all.push(...names.map((name) => `${kind} ${clusterName}/${name}`));
      add('node-group', (await ifThere(() => eks.listNodegroups({ clusterName })))?.nodegroups);
      add('addon', (await ifThere(() => eks.listAddons({ clusterName })))?.addons);
      add('access-entry', (await ifThere(() => eks.listAccessEntries({ clusterName })))?.accessEntries);
      const bound = await ifThere(() => eks.listPodIdentityAssociations({ clusterName }));
      add(
        'pod-identity',
        bound?.associations?.map(({ associationId }) => associationId),
      );
    }
    return all.sort();
  }

  async #slots(): Promise<string[]> {
    const rows = await this.fleet.catalog.resources(this.ref);
    return rows.map(({ slot, resource_id: id }) => (id === null ? `${slot} (not made)` : slot)).sort();
  }

  async close(): Promise<void> {
    await this.fleet.close();
    await this.front.close();
    await this.#emulators.stop();
  }
}

function canonical(counts: Record<string, number>): string {
  return Object.entries(counts)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([kind, count]) => `${count} ${kind}`)
    .join(', ');
}
