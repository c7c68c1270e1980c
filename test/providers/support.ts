/** AWS' rooms over an emulator: activities as a workflow would call them, and a look at everything that an account has. */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Activities } from '../../activities/index.ts';
import type { RoleArns } from '../../activities/aws-access.ts';
import { AwsClients, type Aws, type AwsCall } from '../../src/clients/aws/clients.ts';
import { isNotFound } from '../../src/clients/aws/errors.ts';
import { paged } from '../../src/clients/aws/inventory.ts';
import type { AwsPlan, NetworkIds } from '../../src/domain/aws-plan.ts';
import { resolveAws, type AwsRequest } from '../../src/domain/aws.ts';
import { FleetError, isRetryable } from '../../src/domain/errors.ts';
import type { EmulatorName } from '../../src/local/aws/emulators.ts';
import { inject } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import { Parts } from '../activities/support.ts';

export const REGION = 'us-east-1';

/** What an emulator does not have, and so cannot show. */
export const MISSING: Readonly<Record<EmulatorName | 'both', ReadonlySet<string>>> = {
  // EKS of the one, everything else of the other, behind the proxy.
  both: new Set(),
  // No add-ons, access entries, Pod Identity; any client token is ignored.
  moto: new Set(['add-ons', 'access entries', 'pod identity']),
  // No offerings of instance types; any CIDR and any role is taken.
  ministack: new Set(['conflicting CIDR', 'role of another kind', 'instance type offerings']),
};

/** Thrown in place of a process that dies; nothing catches it. */
export class Killed extends Error {
  override readonly name = 'Killed';
}

/** Decides what happens to a call: `before` it is sent it may throw, and `after` it was answered too. */
export interface Interference {
  before?(action: string, args: readonly unknown[]): void;
  after?(action: string, args: readonly unknown[]): void;
}

export class Account {
  readonly parts: Parts;
  readonly clients: AwsClients;
  /** Every call that was answered. */
  readonly calls: AwsCall[] = [];
  interference: Interference = {};
  readonly #config: { FLEET_AWS_CONSISTENCY_SECONDS: number };

  private constructor(
    parts: Parts,
    clients: AwsClients,
    calls: AwsCall[],
    config: { FLEET_AWS_CONSISTENCY_SECONDS: number },
  ) {
    this.#config = config;
    this.parts = parts;
    this.clients = clients;
    this.calls = calls;
  }

  /** @param graceSeconds how long what was made may stay unseen */
  static async open(endpoint: string, { graceSeconds = 0 } = {}): Promise<Account> {
    const calls: AwsCall[] = [];
    const clients = new AwsClients({ endpoint, onCall: (call) => calls.push(call) });
    let account: Account | undefined;
    const interfering = new Interfering(clients, () => account?.interference ?? {});
    const config = { ...loadConfig(inject('localEnv')), FLEET_AWS_CONSISTENCY_SECONDS: graceSeconds };
    const parts = await Parts.open({ aws: interfering as unknown as AwsClients, config });
    account = new Account(parts, clients, calls, config);
    return account;
  }

  /** How long what was made may stay unseen. */
  set graceSeconds(seconds: number) {
    this.#config.FLEET_AWS_CONSISTENCY_SECONDS = seconds;
  }

  aws(region = REGION): Promise<Aws> {
    return this.clients.of(region);
  }

  /**
   * Everything in the account that a cluster could have left, as `kind id`.
   *
   * @param inside also what AWS itself puts into a network; moto alone does not take that away again
   */
  async inventory({ inside = false } = {}): Promise<string[]> {
    const { ec2, eks, iam, s3 } = await this.aws();
    const all: string[] = [];
    const add = (kind: string, ids: readonly (string | undefined)[]) => all.push(...ids.map((id) => `${kind} ${id}`));
    add(
      'vpc',
      ((await ec2.describeVpcs({})).Vpcs ?? []).map(({ VpcId }) => VpcId),
    );
    add(
      'subnet',
      ((await ec2.describeSubnets({})).Subnets ?? []).map(({ SubnetId }) => SubnetId),
    );
    add(
      'igw',
      ((await ec2.describeInternetGateways({})).InternetGateways ?? []).map((one) => one.InternetGatewayId),
    );
    add(
      'eip',
      ((await ec2.describeAddresses({})).Addresses ?? []).map(({ AllocationId }) => AllocationId),
    );
    const { NatGateways = [] } = await ec2.describeNatGateways({});
    add(
      'nat',
      NatGateways.filter(({ State }) => State !== 'deleted').map(({ NatGatewayId }) => NatGatewayId),
    );
    add(
      'rtb',
      ((await ec2.describeRouteTables({})).RouteTables ?? []).map(({ RouteTableId }) => RouteTableId),
    );
    const { VpcEndpoints = [] } = await ec2.describeVpcEndpoints({});
    add(
      'vpce',
      VpcEndpoints.filter(({ State }) => !/^deleted$/i.test(State ?? '')).map(({ VpcEndpointId }) => VpcEndpointId),
    );
    // moto's pages hold 15.
    const templates = await paged(async (token) => {
      const { LaunchTemplates = [], NextToken } = await ec2.describeLaunchTemplates({ MaxResults: 200, ...token });
      return [LaunchTemplates, NextToken];
    });
    add(
      'lt',
      templates.map(({ LaunchTemplateId }) => LaunchTemplateId),
    );
    add(
      'vol',
      ((await ec2.describeVolumes({})).Volumes ?? []).map(({ VolumeId }) => VolumeId),
    );
    for (const name of (await eks.listClusters({})).clusters ?? []) {
      add('eks', [name]);
      add(
        'group',
        (await eks.listNodegroups({ clusterName: name })).nodegroups?.map((group) => `${name}/${group}`) ?? [],
      );
    }
    add(
      'role',
      ((await iam.listRoles({})).Roles ?? []).map(({ RoleName }) => RoleName),
    );
    add(
      'bucket',
      ((await s3.listBuckets({})).Buckets ?? []).map(({ Name }) => Name),
    );
    if (!inside) return all.sort();
    add(
      'eni',
      ((await ec2.describeNetworkInterfaces({})).NetworkInterfaces ?? []).map((one) => one.NetworkInterfaceId),
    );
    const { SecurityGroups = [] } = await ec2.describeSecurityGroups({});
    add(
      'sg',
      SecurityGroups.filter(({ GroupName }) => GroupName !== 'default').map(({ GroupId }) => GroupId),
    );
    return all.sort();
  }

  close(): Promise<void> {
    return this.parts.close();
  }
}

/** Whether a call changes something: `ec2:createVpc`, and not `ec2:describeVpcs`. */
export function changes(action: string): boolean {
  return !/:(?:describe|list|get|head)/.test(action);
}

/** Dies at every change once: at the same change of the next attempt it lives on. */
export function killing(when: 'before' | 'after'): { interference: Interference; points: Set<string> } {
  const points = new Set<string>();
  const die = (action: string, args: readonly unknown[]) => {
    const point = `${action} ${JSON.stringify(args)}`;
    if (!changes(action) || points.has(point)) return;
    points.add(point);
    throw new Killed(point);
  };
  return { interference: { [when]: die }, points };
}

/** How many there are of each kind. */
export function countsOf(inventory: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const item of inventory) {
    const [kind = ''] = item.split(' ');
    counts[kind] = (counts[kind] ?? 0) + 1;
  }
  return counts;
}

/** The clients, with something in between. */
class Interfering {
  readonly #clients: AwsClients;
  readonly #interference: () => Interference;

  constructor(clients: AwsClients, interference: () => Interference) {
    this.#clients = clients;
    this.#interference = interference;
  }

  get endpoint(): string | undefined {
    return this.#clients.endpoint;
  }

  async of(region: string): Promise<Aws> {
    const aws = await this.#clients.of(region);
    const around = <C extends object>(service: string, client: C): C =>
      new Proxy(client, {
        get: (target, name) => {
          const method: unknown = Reflect.get(target, name);
          if (typeof method !== 'function' || typeof name !== 'string') return method;
          const action = `${service}:${name}`;
          return async (...args: unknown[]) => {
            this.#interference().before?.(action, args);
            const answer: unknown = await (method as (...args: unknown[]) => Promise<unknown>)(...args);
            this.#interference().after?.(action, args);
            return answer;
          };
        },
      });
    return {
      region,
      autoscaling: around('autoscaling', aws.autoscaling),
      ec2: around('ec2', aws.ec2),
      eks: around('eks', aws.eks),
      iam: around('iam', aws.iam),
      s3: around('s3', aws.s3),
      sts: around('sts', aws.sts),
    };
  }
}

let clusters = 0;

/** One cluster, made and removed room by room as the workflow does. */
export class Site {
  readonly account: Account;
  readonly ref: { tenant: string; cluster: string };
  readonly operation: string;
  readonly has: (feature: string) => boolean;
  /** Attempts that an activity needed. */
  attempts = 0;

  /** What went wrong and was tried again. */
  readonly failures: Error[] = [];
  /** Attempts after which an activity is given up, as its time would be over. */
  patience = 60;
  /** Milliseconds until the second attempt; later ones wait longer. */
  pauseMs = 0;

  /** Do everything again although it succeeded. */
  twice = false;

  constructor(
    account: Account,
    emulator: EmulatorName | 'both',
    operation = `provision-${randomBytes(4).toString('hex')}`,
    ref?: { tenant: string; cluster: string },
  ) {
    clusters += 1;
    this.account = account;
    this.ref = ref ?? { tenant: account.parts.tenant, cluster: `c${clusters}` };
    this.operation = operation;
    this.has = (feature) => !MISSING[emulator].has(feature);
  }

  /** One activity as Temporal runs it: repeated while it fails with a code that is worth it, or its process dies. */
  async run<T>(activity: (activities: Activities) => Promise<T>, operation = this.operation): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      this.attempts += 1;
      try {
        const result = await this.account.parts.as(operation, activity, attempt);
        if (this.twice && attempt === 1) continue;
        return result;
      } catch (error) {
        const again = error instanceof Killed || (FleetError.is(error) && isRetryable(error.code));
        if (!again || attempt >= this.patience) throw error;
        this.failures.push(error);
        // As Temporal backs off, in quick motion.
        if (this.pauseMs > 0) await sleep(Math.min(this.pauseMs * 1.5 ** attempt, 10 * this.pauseMs));
      }
    }
  }

  plan(request: AwsRequest = {}): Promise<AwsPlan> {
    return this.run((a) => a.planInfrastructure({ ...this.ref, spec: resolveAws(request, 3) }));
  }

  /** All rooms, in the workflow's order. */
  async provision(
    request: AwsRequest = {},
  ): Promise<{ plan: AwsPlan; network: NetworkIds; roles: RoleArns; eksCluster: string }> {
    const { ref } = this;
    const plan = await this.plan(request);
    const roles = await this.run((a) => a.ensureRoles({ ...ref, plan }));
    const network = await this.run((a) => a.ensureNetwork({ ...ref, plan }));
    const { eksCluster } = await this.run((a) => a.ensureControlPlane({ ...ref, plan, network, roles }));
    await this.run((a) => a.awaitNetwork({ ...ref, plan, network }));
    await this.run((a) => a.awaitControlPlane({ ...ref, region: REGION, eksCluster }));
    const addons = async (phase: 'beforeNodes' | 'afterNodes') => {
      if (this.has('add-ons')) await this.run((a) => a.ensureAddons({ ...ref, plan, eksCluster, phase, roles }));
    };
    await addons('beforeNodes');
    if (plan.spec.create.nodeGroups) {
      await this.run((a) => a.ensureNodeGroups({ ...ref, plan, network, roles, eksCluster }));
      await this.run((a) => a.awaitNodeGroups({ ...ref, plan, eksCluster }));
    }
    await addons('afterNodes');
    if (this.has('access entries')) {
      await this.run((a) => a.ensureClusterAccess({ ...ref, plan, eksCluster, roles }));
    }
    if (plan.spec.create.backupBucket) await this.run((a) => a.ensureBackupBucket({ ...ref, plan }));
    return { plan, network, roles, eksCluster };
  }

  /** Everything out again: by another operation, as a deletion does, or by this one, as a compensation does. */
  async remove({ onlyOwn = false }: { onlyOwn?: boolean } = {}): Promise<void> {
    const operation = onlyOwn ? this.operation : 'delete-1';
    const where = { ...this.ref, region: REGION, onlyOwn };
    await this.run((a) => a.deleteBackupBucket(where), operation);
    await this.run((a) => a.deleteNodeGroups(where), operation);
    await this.run((a) => a.deleteControlPlane(where), operation);
    await this.run((a) => a.deleteNetwork(where), operation);
    await this.run((a) => a.deleteAccess(where), operation);
  }

  async ledger(): Promise<string[]> {
    const rows = await this.account.parts.catalog.resources(this.ref);
    return rows.map(({ slot }) => slot).sort();
  }
}

/** The answer, or undefined where the emulator says that there is no such thing. */
export async function found<T>(ask: () => Promise<T>): Promise<T | undefined> {
  try {
    return await ask();
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}
