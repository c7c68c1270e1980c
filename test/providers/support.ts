/** AWS' rooms over an emulator: activities as a workflow would call them, and a look at everything that an account has. */
import { AwsClients, type Aws, type AwsCall } from '../../src/clients/aws/clients.ts';
import { paged } from '../../src/clients/aws/inventory.ts';
import type { EmulatorName } from '../../src/local/aws/emulators.ts';
import { inject } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import type { TenantPolicy } from '../../src/domain/tenant-policy.ts';
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
  static async open(
    endpoint: string,
    { graceSeconds = 0, policy }: { graceSeconds?: number; policy?: TenantPolicy } = {},
  ): Promise<Account> {
    const calls: AwsCall[] = [];
    const clients = new AwsClients({ endpoint, onCall: (call) => calls.push(call) });
    let account: Account | undefined;
    const interfering = new Interfering(clients, () => account?.interference ?? {});
    const config = {
      ...loadConfig(inject('localEnv')),
      FLEET_AWS_CONSISTENCY_SECONDS: graceSeconds,
      ...(policy !== undefined && { FLEET_TENANT_POLICY: policy }),
    };
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
