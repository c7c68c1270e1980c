/**
 * What exists already, and which tenant may name it. A worker acts with its own rights on whatever a request names, so
 * only the operator decides: nothing is allowed that the policy does not list.
 */
import { DEFAULT_REGION } from './aws.ts';
import type { NetworkAccess, Placement, ProviderName, Toleration } from './cluster.ts';
import { FleetError, type FieldError } from './errors.ts';

/** Infrastructure on AWS that a tenant may name. `*` in a list stands for every name. */
export interface AwsRules {
  /** Default: all. */
  readonly regions?: readonly string[] | undefined;
  /** As `<region>/<name>`. */
  readonly eksClusters: readonly string[];
  readonly vpcIds: readonly string[];
  readonly subnetIds: readonly string[];
  readonly roleArns: readonly string[];
  readonly kmsKeyArns: readonly string[];
  readonly adminPrincipalArns: readonly string[];
  /** The operator runs the AWS Load Balancer Controller in the EKS clusters of this tenant. */
  readonly internalLoadBalancer: boolean;
}

/** Nodes of a shared Kubernetes cluster that a tenant may choose. */
export interface PlacementRules {
  /** Values by label; `*` stands for every label, or for every value. */
  readonly nodeSelector: Readonly<Record<string, readonly string[]>>;
  /** What an entry leaves out may be anything. */
  readonly tolerations: readonly {
    readonly key?: string | undefined;
    readonly value?: string | undefined;
    readonly effect?: Toleration['effect'] | undefined;
  }[];
}

export interface TenantRules {
  readonly providers: readonly ProviderName[];
  readonly aws: AwsRules;
  readonly placement: PlacementRules;
}

/** Rules by tenant. A tenant without an entry of its own has that of `*`; the two are not added up. */
export type TenantPolicy = ReadonlyMap<string, TenantRules>;

const NO_AWS: AwsRules = {
  eksClusters: [],
  vpcIds: [],
  subnetIds: [],
  roleArns: [],
  kmsKeyArns: [],
  adminPrincipalArns: [],
  internalLoadBalancer: false,
};

const NOTHING: TenantRules = { providers: [], aws: NO_AWS, placement: { nodeSelector: {}, tolerations: [] } };

/** Without a file: the Kubernetes cluster of the workers for everybody, and nothing else. */
export const DEFAULT_POLICY: TenantPolicy = new Map([['*', { ...NOTHING, providers: ['kubernetes'] }]]);

/** What a request names. A {@link ClusterRequest}, a resolved specification and a change all have this shape. */
export interface Wanted {
  readonly provider?: ProviderName | undefined;
  readonly aws?: NamedOnAws | undefined;
  readonly placement?: Placement | undefined;
  readonly network?: NetworkAccess | undefined;
}

/** The fields of `aws` that name what exists. */
export interface NamedOnAws {
  readonly region?: string | undefined;
  readonly eksCluster?: string | undefined;
  readonly vpcId?: string | undefined;
  readonly subnetIds?: readonly string[] | undefined;
  readonly roles?: { readonly cluster?: string; readonly node?: string } | undefined;
  readonly secretsEncryptionKeyArn?: string | undefined;
  readonly adminPrincipalArns?: readonly string[] | undefined;
}

/** The rules of one tenant. */
function allowedFor(policy: TenantPolicy, tenant: string): TenantRules {
  return policy.get(tenant) ?? policy.get('*') ?? NOTHING;
}

/**
 * Refuse what the policy does not allow to the tenant. Nothing is looked up: what does not exist is refused in the same
 * words.
 *
 * @throws FleetError `NotAllowed` that names each field and value
 */
export function requireAllowed(policy: TenantPolicy, tenant: string, wanted: Wanted): void {
  const refused = refusedFields(allowedFor(policy, tenant), wanted);
  if (refused.length > 0) throw notAllowed(tenant, refused);
}

/**
 * The same for a change of a cluster that exists. What it has already it keeps, also where the policy allows it no more.
 *
 * @throws FleetError `NotAllowed`
 */
export function requireChangeAllowed(policy: TenantPolicy, tenant: string, has: Wanted, change: Wanted): void {
  const provider = has.provider ?? 'kubernetes';
  const rules = { ...allowedFor(policy, tenant), providers: [provider] };
  const kept = new Set(refusedFields(rules, has).map(keyOf));
  const aws = provider === 'aws' ? { aws: { ...has.aws, ...change.aws } } : {};
  const refused = refusedFields(rules, { ...has, ...change, provider, ...aws }).filter((one) => !kept.has(keyOf(one)));
  if (refused.length > 0) throw notAllowed(tenant, refused);
}

function keyOf({ field, value }: Named): string {
  // A list that is reordered names nothing new.
  return JSON.stringify([field.replace(/\[\d+\]$/, ''), value]);
}

/** A field and what it names. */
export interface Named {
  readonly field: string;
  readonly value: string;
}

/** Fields in one message, and characters of each value. */
const MOST_FIELDS = 20;
const MOST_CHARACTERS = 200;

/** One sentence for whatever is not allowed, whether or not it exists. */
export function notAllowed(tenant: string, refused: readonly Named[]): FleetError {
  const fields = refused.slice(0, MOST_FIELDS).map(({ field, value }): FieldError => ({
    field,
    detail: `"${value.slice(0, MOST_CHARACTERS)}" is not allowed to tenant "${tenant}"`,
  }));
  const said = fields.map(({ field, detail }) => `${field}: ${detail}`).join('; ');
  return new FleetError(
    'NotAllowed',
    `${said}. The operator of the fleet allows it in the file that FLEET_TENANT_POLICY names; it must not carry the tags of another cluster of a fleet.`,
    { fields },
  );
}

/** What the rules do not allow of a request. */
function refusedFields(rules: TenantRules, wanted: Wanted): Named[] {
  const provider = wanted.provider ?? 'kubernetes';
  // The rest of a request for a provider that is not allowed is of no interest.
  if (!rules.providers.includes(provider)) return [{ field: 'provider', value: provider }];
  const onAws = provider === 'aws';
  const isShared = !onAws || wanted.aws?.eksCluster !== undefined;
  return [
    ...(onAws ? refusedOnAws(rules.aws, wanted.aws ?? {}) : []),
    ...(onAws && wanted.network?.internalLoadBalancer === true && !rules.aws.internalLoadBalancer
      ? [{ field: 'network.internalLoadBalancer', value: 'true' }]
      : []),
    // Machines that are made for one cluster are its own to choose from.
    ...(isShared && wanted.placement !== undefined ? refusedPlacement(rules.placement, wanted.placement) : []),
  ];
}

/** Everything of a request that exists already on AWS, as a policy lists it. */
export function namedOnAws(aws: NamedOnAws): { readonly [K in keyof Lists]: readonly Named[] } {
  const one = (field: string, value: string | undefined) => (value === undefined ? [] : [{ field, value }]);
  const many = (field: string, values: readonly string[] = []) =>
    values.map((value, index) => ({ field: `${field}[${index}]`, value }));
  return {
    eksClusters: one('aws.eksCluster', aws.eksCluster),
    vpcIds: one('aws.vpcId', aws.vpcId),
    subnetIds: many('aws.subnetIds', aws.subnetIds),
    roleArns: [...one('aws.roles.cluster', aws.roles?.cluster), ...one('aws.roles.node', aws.roles?.node)],
    kmsKeyArns: one('aws.secretsEncryptionKeyArn', aws.secretsEncryptionKeyArn),
    adminPrincipalArns: many('aws.adminPrincipalArns', aws.adminPrincipalArns),
  };
}

type Lists = Omit<AwsRules, 'regions' | 'internalLoadBalancer'>;

function refusedOnAws(rules: AwsRules, aws: NamedOnAws): Named[] {
  const region = aws.region ?? DEFAULT_REGION;
  const lists = Object.entries(namedOnAws(aws)) as [keyof Lists, readonly Named[]][];
  return [
    ...(rules.regions === undefined || includes(rules.regions, region) ? [] : [{ field: 'aws.region', value: region }]),
    ...lists.flatMap(([list, named]) =>
      named.filter(({ value }) => !includes(rules[list], list === 'eksClusters' ? `${region}/${value}` : value)),
    ),
  ];
}

function includes(list: readonly string[], value: string): boolean {
  return list.includes(value) || list.includes('*');
}

function refusedPlacement(rules: PlacementRules, { nodeSelector = {}, tolerations = [] }: Placement): Named[] {
  const valuesOf = (label: string) =>
    Object.hasOwn(rules.nodeSelector, label) ? rules.nodeSelector[label] : undefined;
  const selectors = Object.entries(nodeSelector)
    .filter(([label, value]) => ![valuesOf(label), valuesOf('*')].some((values) => includes(values ?? [], value)))
    .map(([label, value]) => ({ field: `placement.nodeSelector.${label}`, value }));
  const tolerated = tolerations.flatMap((wanted, index) =>
    rules.tolerations.some((rule) => covers(rule, wanted))
      ? []
      : [{ field: `placement.tolerations[${index}]`, value: JSON.stringify(wanted) }],
  );
  return [...selectors, ...tolerated];
}

/** Whether every taint that a toleration matches is one that the rule is about. What it leaves out matches any. */
function covers(rule: PlacementRules['tolerations'][number], wanted: Toleration): boolean {
  if (rule.key !== undefined && rule.key !== wanted.key) return false;
  if (rule.effect !== undefined && rule.effect !== wanted.effect) return false;
  if (rule.value === undefined) return true;
  return wanted.operator !== 'Exists' && rule.value === (wanted.value ?? '');
}
