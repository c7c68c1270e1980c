/** The configuration: one schema over the environment. `TEMPORAL_*` is read by Temporal's own configuration library. */
import { readFileSync } from 'node:fs';
import { getCACertificates } from 'node:tls';
import { z } from 'zod';
import type { MacKey } from './clients/backup-mac.ts';
import { DEFAULT_PRESETS, DISTANCES, INDEX_TYPES, PROVIDERS, type CollectionPresets } from './domain/cluster.ts';
import { messageOf } from './domain/errors.ts';
import { FORMATS, formatProblem } from './domain/input/formats.ts';
import { NUMBERS } from './domain/input/limits.ts';
import { isReservedName } from './domain/input/names.ts';
import { MAX_TENANT_LENGTH, nameProblem } from './domain/naming.ts';
import { PRIVATE_CIDRS } from './domain/network-policy.ts';
import type { TenantPolicy } from './domain/tenant-policy.ts';
import { DEFAULT_QUOTAS, QUOTAS, type Quotas } from './domain/quota.ts';
import { isLoopback, isPlaintextDatabase, isPlaintextUrl, PLAINTEXT_ADVICE } from './domain/plaintext.ts';
import { RESTORE_VIA } from './domain/restore-via.ts';
import { DEFAULT_RELEASES, parseVersion } from './domain/releases.ts';

const flagOf = (fallback: 'true' | 'false') =>
  z
    .enum(['true', 'false'])
    .default(fallback)
    .transform((text) => text === 'true');
const flag = flagOf('false');
const port = (fallback: number) => z.coerce.number().int().min(1).max(65_535).default(fallback);
const bytes = (fallback: number, min: number, max: number) =>
  z.coerce.number().int().min(min).max(max).default(fallback);
const MiB = 1024 * 1024;

/** `10.0.0.0/16,10.1.0.0/16` */
const cidrs = z.string().transform((text, context): readonly string[] => {
  const items = text.split(',').map((item) => item.trim());
  for (const item of items) {
    const problem = formatProblem(FORMATS.cidr, item);
    if (problem !== undefined) context.addIssue(`"${item}" ${problem}`);
  }
  return items;
});

/** `8080,9000` */
const ports = z.string().transform((text, context): readonly number[] => {
  const items = text.split(',').map((item) => Number(item.trim()));
  for (const item of items) {
    if (!Number.isInteger(item) || item < 1 || item > 65_535) context.addIssue('must be ports from 1 to 65535');
  }
  return items;
});

/** `app=prometheus,team=ops` */
const labels = z.string().transform((text, context): Readonly<Record<string, string>> => {
  const pairs = text.split(',').map((pair) => pair.trim().split('='));
  for (const [key = '', value = '', ...rest] of pairs) {
    const legal = LABEL_KEY.test(key) && LABEL_VALUE.test(value) && rest.length === 0;
    if (!legal) context.addIssue('must be labels such as "app.kubernetes.io/name=prometheus", by commas');
  }
  return Object.fromEntries(pairs) as Record<string, string>;
});
const LABEL_KEY = /^(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?\/)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;
const LABEL_VALUE = /^(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$/;

/** `acme=secret,beta=secret2`: which token speaks for which tenant. */
const tokens = z
  .string()
  .min(1, 'is needed, such as "acme=<token of 24 characters or more>"')
  .transform((text, context) => {
    const byTenant = new Map<string, string>();
    for (const [index, pair] of text.split(',').entries()) {
      const at = pair.indexOf('=');
      const tenant = pair.slice(0, Math.max(at, 0)).trim();
      const token = pair.slice(at + 1).trim();
      const problem = at < 0 ? 'has no "="' : nameProblem(tenant, MAX_TENANT_LENGTH);
      // The token itself must never be repeated in a message.
      if (problem !== undefined) context.addIssue(`entry ${index + 1}: tenant ${problem}`);
      else if (token.length < 24) context.addIssue(`entry ${index + 1}: the token needs at least 24 characters`);
      else byTenant.set(token, tenant);
    }
    return byTenant;
  });

/** `2026a:<base64>,2025b:<base64>`: keys by which the records of backups are signed; the first signs, all verify. */
const macKeys = z.string().transform((text, context): readonly MacKey[] => {
  const keys: MacKey[] = [];
  for (const [index, pair] of text.split(',').entries()) {
    const [, id, base64] = /^([A-Za-z0-9][A-Za-z0-9_-]{0,31}):([A-Za-z0-9+/]+={0,2})$/.exec(pair.trim()) ?? [];
    const key = Buffer.from(base64 ?? '', 'base64');
    // The key itself must never be repeated in a message.
    if (id === undefined) context.addIssue(`entry ${index + 1} is not "<key id>:<base64>"`);
    else if (key.length < 32) context.addIssue(`entry ${index + 1}: the key needs at least 32 bytes`);
    else if (keys.some((other) => other.id === id)) context.addIssue(`entry ${index + 1}: the key id is there twice`);
    else keys.push({ id, key });
  }
  return keys;
});

/** `v1.17.1,v1.18.3` */
const releases = z.string().transform((text, context) => {
  const tags = text.split(',').map((tag) => tag.trim());
  for (const tag of tags) {
    if (parseVersion(tag) === undefined) context.addIssue(`"${tag}" is no version such as "v1.18.3"`);
  }
  return tags;
});

const fieldName = z.string().refine((name) => !isReservedName(name), 'must not be used as a name');
/** A preset's name is a collection's where a request names no other, and requests name presets. */
const presetName = z.string().max(FORMATS.preset.maxLength).regex(FORMATS.preset.pattern, FORMATS.preset.problem);

const preset = z.strictObject({
  vectorSize: z.int().min(NUMBERS.vectorSize.min).max(NUMBERS.vectorSize.max),
  distance: z.enum(DISTANCES).default('Cosine'),
  onDiskPayload: z.boolean().default(true),
  hnsw: z
    .strictObject({ m: z.int().min(0), efConstruct: z.int().min(4), onDisk: z.boolean().optional() })
    .default({ m: 16, efConstruct: 100 }),
  shardNumber: z.int().min(NUMBERS.shardNumber.min).max(NUMBERS.shardNumber.max).optional(),
  indexes: z.record(fieldName, z.enum(INDEX_TYPES)).default({}),
});

/** A JSON file `{"<preset>": {"vectorSize": 1536, ...}}` that replaces the built-in presets. */
const presetsFile = z.string().transform((path, context): CollectionPresets => {
  try {
    const parsed = z.record(presetName, preset).safeParse(JSON.parse(readFileSync(path, 'utf8')));
    if (parsed.success) return parsed.data as CollectionPresets;
    for (const { path: at, message } of parsed.error.issues) context.addIssue(`${path}: ${at.join('.')}: ${message}`);
  } catch (error) {
    context.addIssue(`${path} cannot be read as JSON: ${messageOf(error)}`);
  }
  return {};
});

const names = z.array(z.string().min(1).max(2048)).max(10_000).default([]);
const policyEntry = z.strictObject({
  providers: z.array(z.enum(PROVIDERS)).default(['kubernetes']),
  aws: z
    .strictObject({
      regions: z.array(z.string().min(1)).optional(),
      eksClusters: z
        .array(z.string().regex(/^(?:\*|[a-z0-9-]+\/[\w-]+)$/, 'must be "<region>/<name>", or "*"'))
        .default([]),
      vpcIds: names,
      subnetIds: names,
      roleArns: names,
      kmsKeyArns: names,
      adminPrincipalArns: names,
      internalLoadBalancer: z.boolean().default(false),
    })
    .prefault({}),
  placement: z
    .strictObject({
      nodeSelector: z.record(z.string().min(1), z.array(z.string())).default({}),
      tolerations: z
        .array(
          z.strictObject({
            key: z.string().min(1).optional(),
            value: z.string().optional(),
            effect: z.enum(['NoSchedule', 'PreferNoSchedule', 'NoExecute']).optional(),
          }),
        )
        .default([]),
    })
    .prefault({}),
});

const policyTenant = (name: string) => (name === '*' ? undefined : nameProblem(name, MAX_TENANT_LENGTH));

/** A JSON file `{"<tenant>": {"providers": ["aws"], "aws": {"vpcIds": [...]}}, "*": {...}}`. */
const policyFile = z.string().transform((path, context): TenantPolicy => {
  try {
    const parsed = z.record(z.string(), policyEntry).safeParse(JSON.parse(readFileSync(path, 'utf8')));
    if (parsed.success) {
      for (const tenant of Object.keys(parsed.data)) {
        const problem = policyTenant(tenant);
        if (problem !== undefined) context.addIssue(`${path}: tenant "${tenant}" ${problem}`);
      }
      return new Map(Object.entries(parsed.data));
    }
    for (const { path: at, message } of parsed.error.issues) context.addIssue(`${path}: ${at.join('.')}: ${message}`);
  } catch (error) {
    context.addIssue(`${path} cannot be read as JSON: ${messageOf(error)}`);
  }
  return new Map();
});

/** `vpc-0a1b2c3d,vpc-0b1c2d3e` */
const vpcs = z.string().transform((text, context): readonly string[] => {
  const ids = text.split(',').map((id) => id.trim());
  for (const id of ids) if (!/^vpc-[0-9a-f]{8,17}$/.test(id)) context.addIssue(`"${id}" is no id of a VPC`);
  return ids;
});

/** `fleet-system/qdrant-fleet-stats` */
const serviceAccount = z.string().transform((text, context) => {
  const [namespace = '', name = '', ...rest] = text.split('/');
  const legal = [namespace, name].every((part) => /^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$/.test(part));
  if (!legal || rest.length > 0) context.addIssue('must be a namespace and a service account, such as "fleet/stats"');
  return { namespace, name };
});

const QUOTA_VALUE = z.number().min(0).max(1_000_000_000);

/** `{"clusters": 50, "machineTypes": ["m6i.*"]}`: what applies to tenants for whom the catalogue says nothing else. */
const quotas = z.string().transform((text, context): Quotas => {
  const shape = z
    .strictObject({
      ...(Object.fromEntries(Object.keys(QUOTAS).map((name) => [name, QUOTA_VALUE])) as Record<
        keyof typeof QUOTAS,
        typeof QUOTA_VALUE
      >),
      machineTypes: z.array(z.string().regex(/^[a-z0-9.*-]{1,64}$/, 'must be EC2 types such as "m6i.large"')).max(100),
    })
    .partial();
  try {
    const parsed = shape.safeParse(JSON.parse(text));
    if (parsed.success) return { ...DEFAULT_QUOTAS, ...(parsed.data as Partial<Quotas>) };
    for (const { path, message } of parsed.error.issues) context.addIssue(`${path.map(String).join('.')}: ${message}`);
  } catch (error) {
    context.addIssue(`is no JSON object such as {"clusters": 50}: ${messageOf(error)}`);
  }
  return DEFAULT_QUOTAS;
});

/** A file of certificates in PEM. */
const pemFile = z.string().transform((path, context): string => {
  try {
    const text = readFileSync(path, 'utf8');
    if (text.includes('-----BEGIN CERTIFICATE-----')) return text;
    context.addIssue(`${path} holds no certificate in PEM ("-----BEGIN CERTIFICATE-----")`);
  } catch (error) {
    context.addIssue(`${path} cannot be read: ${messageOf(error)}`);
  }
  return '';
});

/** A PEM file of authorities that are trusted beside the ones that Node trusts. */
const certificates = pemFile.transform((text): readonly string[] => [...getCACertificates('default'), text]);
/** `AWS_PROFILE,HOME`: names of variables that Helm gets as well. Never those of the fleet itself. */
const variableNames = z.string().transform((text, context): readonly string[] => {
  const names = text.split(',').map((name) => name.trim());
  for (const name of names) {
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) context.addIssue(`"${name}" is no name of a variable`);
    else if (/^(FLEET_|TEMPORAL_|DATABASE_URL$|PG)/.test(name)) context.addIssue(`${name} is the worker's alone`);
  }
  return names;
});

/** `ClusterIssuer/internal-ca` */
const issuer = z
  .string()
  .regex(
    /^(Issuer|ClusterIssuer)\/[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/,
    'must be "ClusterIssuer/<name>" or "Issuer/<name>"',
  )
  .transform((text) => {
    const [kind = '', name = ''] = text.split('/');
    return { kind, name };
  });

const schema = z.object({
  /** PostgreSQL, such as `postgres://user:password@host:5432/fleet`. */
  DATABASE_URL: z.url({ protocol: /^postgres(ql)?$/, error: 'must be a postgres:// URL' }),
  FLEET_BACKUP_BUCKET: z.string().min(3, 'is needed: the bucket that holds the backups'),
  FLEET_BACKUP_PREFIX: z.string().default(''),
  /** Without it nobody can tell a record of the fleet's from another. */
  FLEET_BACKUP_MAC_KEY: macKeys.default([]),
  AWS_REGION: z.string().min(1).default('us-east-1'),
  FLEET_S3_ENDPOINT: z.url().optional(),
  FLEET_S3_NODE_ENDPOINT: z.url().optional(),
  FLEET_S3_FORCE_PATH_STYLE: flag,
  FLEET_S3_CA_FILE: certificates.optional(),
  /** Deletes backups, and nothing else does where it is set: keys, or a role. */
  FLEET_S3_DELETE_ACCESS_KEY_ID: z.string().min(1).optional(),
  FLEET_S3_DELETE_SECRET_ACCESS_KEY: z.string().min(1).optional(),
  FLEET_BACKUP_DELETE_ROLE_ARN: z
    .string()
    .regex(/^arn:aws[a-z-]*:iam::\d{12}:role\/.+$/, 'must be the ARN of an IAM role')
    .optional(),
  FLEET_S3_MAX_PARTS: z.coerce.number().int().min(1000).max(10_000).default(10_000),
  KUBECONFIG: z.string().optional(),
  FLEET_QDRANT_RESOLVER: z.enum(['pod-ip', 'dns']).default('dns'),
  FLEET_QDRANT_HTTP_PORT: port(6333),
  /** Whether a new cluster that does not say gets TLS on all of its ports. */
  FLEET_QDRANT_TLS: flagOf('true'),
  /** Whether connections to other machines may go without TLS. */
  FLEET_ALLOW_PLAINTEXT: flag,
  /** Issuer of cert-manager, where the Kubernetes cluster has cert-manager; else the fleet issues certificates itself. */
  FLEET_CERT_ISSUER: issuer.optional(),
  /** Where the workers are, for the clusters' network policies. */
  FLEET_WORKER_NAMESPACE: z.string().min(1).optional(),
  FLEET_WORKER_CIDRS: cidrs.default([]),
  /** Where the nodes reach the backup store, for the same policies. */
  FLEET_STORE_CIDRS: cidrs.default([]),
  /** Policies see the ports of pods, behind a Service. */
  FLEET_STORE_POD_PORTS: ports.default([]),
  FLEET_PRIVATE_CIDRS: cidrs.default([...PRIVATE_CIDRS]),
  FLEET_DNS_NAMESPACE: z.string().min(1).default('kube-system'),
  FLEET_DNS_CIDRS: cidrs.default([]),
  /** ClusterRole that the worker binds itself to in each namespace it makes. */
  FLEET_NAMESPACE_ROLE: z.string().min(1).optional(),
  /** `namespace/name`; may `get` `nodes/stats` and nothing else. */
  FLEET_STATS_SERVICE_ACCOUNT: serviceAccount.optional(),
  /** Authority of the kubelets' certificates, where it is not the API server's. */
  FLEET_KUBELET_CA_FILE: pemFile.optional(),
  FLEET_SCRAPE_NAMESPACE: z.string().min(1).optional(),
  FLEET_SCRAPE_LABELS: labels.default({}),
  /** Address of another AWS than Amazon's, for EC2, EKS, IAM, STS and the buckets of clusters. */
  FLEET_AWS_ENDPOINT: z.url().optional(),
  /** Which tenant may name what exists already; see src/domain/tenant-policy.ts. Without it: nobody anything. */
  FLEET_TENANT_POLICY: policyFile.optional(),
  /** Public addresses that the workers reach the endpoints of EKS clusters from. */
  FLEET_AWS_WORKER_CIDRS: cidrs.default([]),
  /** VPCs whose private endpoints the workers reach, being inside or connected. */
  FLEET_AWS_WORKER_VPCS: vpcs.default([]),
  /** Policy that bounds every role that is made; needed to make any. */
  FLEET_AWS_PERMISSIONS_BOUNDARY: z
    .string()
    .regex(/^arn:aws[a-z-]*:iam::\d{12}:policy\/.+$/, 'must be the ARN of an IAM policy')
    .optional(),
  /** How long AWS may take to list what it has just made. */
  FLEET_AWS_CONSISTENCY_SECONDS: z.coerce.number().min(0).max(600).default(60),
  FLEET_HELM_BIN: z.string().min(1).default('helm'),
  /** Variables that reach Helm besides the usual ones, for the credential plugins of a kubeconfig. */
  FLEET_HELM_ENV: variableNames.default([]),
  FLEET_HELM_CHART: z.string().min(1).default('qdrant'),
  FLEET_HELM_REPOSITORY: z.string().optional(),
  FLEET_HELM_CHART_VERSION: z.string().optional(),
  FLEET_COLLECTION_PRESETS: presetsFile.default(DEFAULT_PRESETS),
  /** Qdrant image tags that upgrades may pass through; the latest of each minor counts. */
  FLEET_QDRANT_RELEASES: releases.default([...DEFAULT_RELEASES]),
  /** What tenants may have. */
  FLEET_QUOTAS: quotas.default(DEFAULT_QUOTAS),
  FLEET_TASK_QUEUE: z.string().min(1).default('fleet'),
  /** Name of the place the worker is in; streams run on the queue `fleet-transfer-<region>`. */
  FLEET_REGION: z
    .string()
    .regex(/^[a-z0-9-]+$/, 'must be lower-case letters, digits and hyphens')
    .default('local'),
  FLEET_TRANSFER_PART_BYTES: bytes(8 * MiB, 5 * MiB, 5 * 1024 * MiB),
  FLEET_TRANSFER_LANES: z.coerce.number().int().min(1).max(64).default(4),
  FLEET_TRANSFER_STREAMS: z.coerce.number().int().min(1).max(64).default(2),
  FLEET_TRANSFER_BUFFER_BYTES: bytes(40 * MiB, 5 * MiB, Number.MAX_SAFE_INTEGER),
  FLEET_TRANSFER_BYTES_PER_SECOND: z.coerce.number().int().min(MiB).optional(),
  FLEET_RESTORE_VIA: z.enum(RESTORE_VIA).default('bucket'),
  /** Without it this worker serves no shards. */
  FLEET_RELAY_HOST: z
    .string()
    .regex(/^[A-Za-z0-9.:-]+$/, 'must be an IP address or a host name, without a port')
    .optional(),
  FLEET_RELAY_PORT: port(8090),
  /** Certificate for that host, and its private key. */
  FLEET_RELAY_CERT_FILE: z.string().min(1).optional(),
  FLEET_RELAY_KEY_FILE: z.string().min(1).optional(),
  /** Python that has `qdrant-edge-py`, Qdrant's engine as a library; without it backups are re-hashed, not opened. */
  FLEET_ENGINE_PYTHON: z.string().optional(),
  FLEET_SMALL_SHARD_BYTES: bytes(16 * MiB, 0, Number.MAX_SAFE_INTEGER),
  FLEET_ENGINE_MAX_BYTES: bytes(256 * MiB, 0, Number.MAX_SAFE_INTEGER),
  FLEET_API_HOST: z.string().min(1).default('127.0.0.1'),
  FLEET_API_PORT: port(8080),
  FLEET_API_MAX_CONNECTIONS: z.coerce.number().int().min(1).max(100_000).default(2000),
  FLEET_WORKER_HEALTH_HOST: z.string().min(1).default('127.0.0.1'),
  FLEET_WORKER_HEALTH_PORT: port(8081),
  /** Seconds between two looks at all clusters; 0 for none. */
  FLEET_OBSERVE_SECONDS: z.coerce
    .number()
    .int()
    .refine((seconds) => seconds === 0 || (seconds >= 5 && seconds <= 3600), 'must be 0, or 5 to 3600')
    .default(30),
  /** Hours between two looks at the certificates of all clusters; 0 for none. */
  FLEET_RENEW_HOURS: z.coerce.number().int().min(0).max(168).default(24),
  FLEET_WORKFLOW_BUNDLE: z.string().optional(),
  FLEET_LOG_LEVEL: z.enum(['debug', 'info', 'warn', 'error']).default('info'),
});

const apiSchema = schema.extend({ FLEET_API_TOKENS: tokens });

export type Config = z.output<typeof schema>;
export type ApiConfig = z.output<typeof apiSchema>;

/** Names of all variables that the configuration reads, for tests of the documentation and of the containers. */
export const CONFIG_VARIABLES: readonly string[] = Object.keys(apiSchema.shape);

const PRODUCTION_CHART = 'https://qdrant.github.io/qdrant-helm';
const PRODUCTION_CHART_VERSION = '1.19.0';

/**
 * Read the worker's configuration.
 *
 * @throws Error whose message lists every bad variable, and no value
 */
export function loadConfig(env: NodeJS.ProcessEnv): Config {
  const config = parse(schema, env);
  refusePlaintext(config, plaintextHops(config, env));
  return withChart(config);
}

/** The API's configuration: the worker's, and the tokens. */
export function loadApiConfig(env: NodeJS.ProcessEnv): ApiConfig {
  const config = parse(apiSchema, env);
  const { FLEET_API_HOST: host } = config;
  const listens = isLoopback(host) ? [] : [`FLEET_API_HOST: callers would send their tokens to ${host} without TLS`];
  refusePlaintext(config, [...plaintextHops(config, env), ...listens]);
  return withChart(config);
}

/** Each hop without TLS that the configuration leads to, by the variable that it comes from. */
function plaintextHops(config: Config, env: NodeJS.ProcessEnv): string[] {
  const urls = ['FLEET_S3_ENDPOINT', 'FLEET_S3_NODE_ENDPOINT', 'FLEET_AWS_ENDPOINT'] as const;
  const hops = urls.flatMap((name) => {
    const url = config[name];
    return url !== undefined && isPlaintextUrl(url) ? [`${name}: is plain HTTP to ${new URL(url).host}`] : [];
  });
  const { FLEET_RELAY_HOST: relay, FLEET_RELAY_CERT_FILE: cert, FLEET_RELAY_KEY_FILE: key } = config;
  if (relay !== undefined && !isLoopback(relay) && (cert === undefined || key === undefined)) {
    hops.push('FLEET_RELAY_HOST: nodes would read shards from it without TLS; set FLEET_RELAY_CERT_FILE and _KEY_FILE');
  }
  if (isPlaintextDatabase(config.DATABASE_URL, env['PGSSLMODE'], env['PGHOST'])) {
    const { hostname } = new URL(config.DATABASE_URL);
    hops.push(
      `DATABASE_URL: reaches ${hostname || 'the host of PGHOST'} without verified TLS; add "sslmode=verify-full"`,
    );
  }
  if (!config.FLEET_QDRANT_TLS && config.FLEET_QDRANT_RESOLVER === 'dns') {
    hops.push('FLEET_QDRANT_TLS: new clusters would be without TLS');
  }
  return hops;
}

function refusePlaintext({ FLEET_ALLOW_PLAINTEXT: allowed }: Config, hops: readonly string[]): void {
  if (allowed || hops.length === 0) return;
  const lines = hops.map((hop) => `  ${hop}`).join('\n');
  throw new Error(`The configuration has connections without TLS to other machines:\n${lines}\n${PLAINTEXT_ADVICE}`);
}

/**
 * @param connection how Temporal is reached, as Temporal's own configuration says
 * @throws Error when that is another machine, without TLS, and nobody has allowed it
 */
export function refusePlaintextTemporal(
  config: Config,
  { address = '127.0.0.1:7233', tls, apiKey }: { address?: string; tls?: unknown; apiKey?: unknown },
): void {
  const host = address.replace(/:\d+$/, '');
  // With an API key the client turns TLS on by itself.
  const secure = typeof tls === 'boolean' ? tls : Boolean(tls) || apiKey !== undefined;
  if (secure || isLoopback(host)) return;
  refusePlaintext(config, [`TEMPORAL_ADDRESS: ${address} is reached without TLS; set TEMPORAL_TLS=true`]);
}

function parse<S extends z.ZodType>(shape: S, env: NodeJS.ProcessEnv): z.output<S> {
  // An empty variable means "not set", as in a compose file's `${NAME:-}`.
  const present = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== ''));
  const parsed = shape.safeParse(present);
  if (parsed.success) {
    requireOneDeleteIdentity(present);
    return parsed.data;
  }
  const lines = parsed.error.issues.map(({ path, message, code }) => {
    const name = path.map(String).join('.');
    const text = code === 'invalid_type' && present[name] === undefined ? 'is needed' : message;
    return `  ${name}: ${text}`;
  });
  throw new Error(`The configuration is not valid:\n${lines.join('\n')}\nThe README lists all variables.`);
}

/** @throws Error for half a pair of keys, or keys beside a role: one of them would not be used, and nobody would know */
function requireOneDeleteIdentity(env: Readonly<Record<string, string | undefined>>): void {
  const has = (name: keyof Config) => env[name] !== undefined;
  const [id, secret] = [has('FLEET_S3_DELETE_ACCESS_KEY_ID'), has('FLEET_S3_DELETE_SECRET_ACCESS_KEY')];
  if (id === secret && !(id && has('FLEET_BACKUP_DELETE_ROLE_ARN'))) return;
  throw new Error(
    'The configuration is not valid:\n  FLEET_S3_DELETE_ACCESS_KEY_ID: needs FLEET_S3_DELETE_SECRET_ACCESS_KEY, and cannot be combined with FLEET_BACKUP_DELETE_ROLE_ARN\nThe README lists all variables.',
  );
}

/** A bare chart name means the official repository and the version that the fleet was made for. */
function withChart<C extends Config>(config: C): C {
  const isName = /^[a-z0-9-]+$/.test(config.FLEET_HELM_CHART);
  if (!isName) return config;
  return {
    ...config,
    FLEET_HELM_REPOSITORY: config.FLEET_HELM_REPOSITORY ?? PRODUCTION_CHART,
    FLEET_HELM_CHART_VERSION: config.FLEET_HELM_CHART_VERSION ?? PRODUCTION_CHART_VERSION,
  };
}
