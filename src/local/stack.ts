import { mkdirSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { emulatorPart, EMULATORS, findEmulators } from './aws/emulators.ts';
import { EKS_POOL } from './aws/machines.ts';
import { MACHINES_POOL } from './kubelet/nodes.ts';
import { tryLock } from './lock.ts';
import { awsEnvironment, awsPart } from './parts/aws.ts';
import { kinePart } from './parts/kine.ts';
import { kubeconfigPath, kubernetesParts, workerKubeconfigPath } from './parts/kubernetes.ts';
import { databaseUrl, postgresPart } from './parts/postgres.ts';
import { apiPart, kubeletPart, workerPart } from './parts/programs.ts';
import { RIGHTS_ENVIRONMENT } from './parts/rights.ts';
import { BACKUP_BUCKET, s3Part } from './parts/s3.ts';
import { temporalPart } from './parts/temporal.ts';
import { REPOSITORY } from './paths.ts';
import { reservePodRange } from './pod-range.ts';
import { choosePorts, type Ports } from './ports.ts';
import { apiTokenPath, loadSecrets, type Secrets } from './secrets.ts';
import { Supervisor, type Part, type PartCrashedError, type ReadyPart } from './supervisor.ts';
import { ensureTools, type Tools } from './toolchain/toolchain.ts';

export interface StackOptions {
  /** Holds everything the stack keeps; made when it is not there. */
  readonly dataDir: string;
  /** `default`: the usual ports or those that the environment names. `free`: any that are free. */
  readonly ports?: 'default' | 'free';
  /** Emulates AWS as well; machines are then those of EKS node groups. Starts about two seconds later. */
  readonly aws?: boolean;
  /** Hold the pods to the network policies; needs root and nft. Default: FLEET_LOCAL_ENFORCE_POLICIES. */
  readonly enforcePolicies?: boolean;
  readonly log?: (line: string) => void;
  /** Aborting it makes a start fail, with nothing left running. It means nothing once the stack has started. */
  readonly signal?: AbortSignal;
}

export interface Links {
  readonly api: string;
  readonly apiDocs: string;
  readonly temporalUi: string;
  readonly s3: string;
  readonly bucket: string;
  readonly kubeconfig: string;
  /** The file that holds the token of the tenant `acme`. */
  readonly apiToken: string;
}

export interface Infrastructure {
  /** What the worker and the API are configured by. Holds secrets. */
  readonly env: Record<string, string>;
  readonly links: Links;
  readonly tools: Tools;
  readonly parts: readonly ReadyPart[];
  /** Stops everything and leaves no process behind. */
  stop(): Promise<void>;
  /** Calls back when a part ends although nobody stopped it. The others still run: stop them. */
  onCrash(listener: (error: PartCrashedError) => void): void;
}

/** Thrown when a stack already runs in the data directory. */
export class AlreadyRunningError extends Error {
  override name = 'AlreadyRunningError';
}

/** Starts everything that the control plane stands on; with `kubelet`, also the nodes that run Qdrant. */
export function startInfrastructure(options: StackOptions & { readonly kubelet?: boolean }): Promise<Infrastructure> {
  return start(options, (context) => (options.kubelet ? [kubelet(context, options)] : []));
}

/** Starts the whole of it: infrastructure, nodes, worker and API. */
export function startStack(options: StackOptions): Promise<Infrastructure> {
  return start(options, (context) => [
    kubelet(context, options),
    workerPart(ofWorker(context.env), context.ports, context.names, realpathSync(options.dataDir)),
    apiPart(ofWorker(context.env), context.ports, context.names),
  ]);
}

/** A worker has its own rights in Kubernetes, and not the administrator's. */
function ofWorker(env: Record<string, string>): Record<string, string> {
  return { ...env, KUBECONFIG: env['FLEET_LOCAL_WORKER_KUBECONFIG'] ?? '' };
}

interface Context {
  readonly env: Record<string, string>;
  readonly ports: Ports;
  readonly tools: Tools;
  readonly names: readonly string[];
  /** Not given: the kubelet's own default, or what the environment names. */
  readonly podCidr: string | undefined;
}

async function start(options: StackOptions, morePartsOf: (context: Context) => Part[]): Promise<Infrastructure> {
  const log = options.log ?? (() => undefined);
  mkdirSync(options.dataDir, { recursive: true, mode: 0o711 });
  const dataDir = realpathSync(options.dataDir);
  const lock = tryLock(join(dataDir, 'stack.lock'));
  if ('holder' in lock) {
    throw new AlreadyRunningError(
      `A stack already runs in ${dataDir} (process ${lock.holder.pid}). Stop it, or set FLEET_LOCAL_DIR to another folder.`,
    );
  }
  const supervisor = new Supervisor(dataDir);
  // Stacks beside each other, as in tests, need pod addresses of their own.
  const podRange = options.ports === 'free' ? reservePodRange() : undefined;
  const stop = async () => {
    await supervisor.stop();
    podRange?.release();
    lock.release();
  };
  // The start below fails by itself then, and that is what the caller sees.
  const stopQuietly = () => void stop().catch(() => undefined);
  options.signal?.addEventListener('abort', stopQuietly);
  try {
    options.signal?.throwIfAborted();
    await supervisor.cleanUp(log);
    const tools = await ensureTools({ log, signal: options.signal });
    log(`Starting a local stack in ${dataDir}.`);
    const ports = await choosePorts(options.ports ?? 'default');
    const secrets = loadSecrets(dataDir);
    const env = {
      ...environment({ dataDir, ports, secrets, tools }),
      ...(options.aws && awsEnvironment(ports)),
    };
    const parts = [
      ...infrastructureParts({ dataDir, ports, secrets, tools }),
      ...(options.aws ? await awsParts(env, ports, { ...options, dataDir }) : []),
    ];
    const names = parts.map((part) => part.name);
    const more = morePartsOf({ env, ports, tools, names, podCidr: podRange?.cidr });
    const ready = await supervisor.startAll([...parts, ...more]);
    options.signal?.removeEventListener('abort', stopQuietly);
    options.signal?.throwIfAborted();
    return {
      env,
      links: linksOf(dataDir, ports),
      tools,
      parts: ready,
      stop,
      onCrash: (listener) => supervisor.onCrash(listener),
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

interface Settings {
  readonly dataDir: string;
  readonly ports: Ports;
  readonly secrets: Secrets;
  readonly tools: Tools;
}

function infrastructureParts({ dataDir, ports, secrets, tools }: Settings): Part[] {
  return [
    kinePart({ program: tools.kine, dataDir }),
    temporalPart({ program: tools.temporal, dataDir, ports }),
    ...(process.env.DATABASE_URL ? [] : [postgresPart({ dataDir, ports, secrets })]),
    s3Part({ program: tools.versitygw, dataDir, ports, secrets }),
    ...kubernetesParts({ programs: tools, dataDir, ports, secrets }),
  ];
}

async function awsParts(env: Record<string, string>, ports: Ports, options: StackOptions): Promise<Part[]> {
  const { dataDir, log, signal } = options;
  const python = await findEmulators({ ...(log && { log }), ...(signal && { signal }) });
  const accessKeyId = env['AWS_ACCESS_KEY_ID'] ?? '';
  const emulators = EMULATORS.map((name) => emulatorPart(name, { python, dataDir, ports, accessKeyId }));
  return [...emulators, awsPart(env, ports)];
}

function kubelet({ env, tools, podCidr }: Context, options: StackOptions): Part {
  return kubeletPart({
    ...env,
    ...('server' in tools.qdrant
      ? { QDRANT_BIN: tools.qdrant.server }
      : { FLEET_QDRANT_NODE_PYTHON: tools.qdrant.python }),
    FLEET_KUBELET_DIR: join(realpathSync(options.dataDir), 'kubelet'),
    FLEET_KUBELET_ADOPT: [EKS_POOL, MACHINES_POOL].join(','),
    ...(options.aws && { FLEET_KUBELET_NODES: '0' }),
    FLEET_KUBELET_ENFORCE_POLICIES: String(
      options.enforcePolicies ?? process.env['FLEET_LOCAL_ENFORCE_POLICIES'] === 'true',
    ),
    ...(podCidr !== undefined && { FLEET_KUBELET_POD_CIDR: podCidr }),
  });
}

function environment({ dataDir, ports, secrets, tools }: Settings): Record<string, string> {
  return {
    TEMPORAL_ADDRESS: `127.0.0.1:${ports.temporal}`,
    TEMPORAL_NAMESPACE: 'default',
    DATABASE_URL: process.env.DATABASE_URL || databaseUrl({ ports, secrets }),
    KUBECONFIG: kubeconfigPath(dataDir),
    AWS_ACCESS_KEY_ID: secrets.s3AccessKey,
    AWS_SECRET_ACCESS_KEY: secrets.s3SecretKey,
    AWS_REGION: 'us-east-1',
    FLEET_REGION: 'local',
    FLEET_S3_ENDPOINT: `http://127.0.0.1:${ports.s3}`,
    FLEET_S3_FORCE_PATH_STYLE: 'true',
    FLEET_BACKUP_BUCKET: BACKUP_BUCKET,
    FLEET_BACKUP_PREFIX: '',
    FLEET_BACKUP_MAC_KEY: `local:${secrets.backupMacKey}`,
    ...RIGHTS_ENVIRONMENT,
    FLEET_LOCAL_WORKER_KUBECONFIG: workerKubeconfigPath(dataDir),
    FLEET_WORKER_CIDRS: '127.0.0.1/32',
    FLEET_RELAY_HOST: '127.0.0.1',
    FLEET_RELAY_PORT: String(ports.relay),
    FLEET_HELM_BIN: tools.helm,
    FLEET_HELM_CHART: join(REPOSITORY, 'src/local/chart/qdrant'),
    FLEET_QDRANT_RESOLVER: 'pod-ip',
    FLEET_TENANT_POLICY: join(REPOSITORY, 'src/local/tenant-policy.json'),
    // The emulators take any.
    FLEET_AWS_PERMISSIONS_BOUNDARY: 'arn:aws:iam::000000000000:policy/qdrant-fleet-boundary',
    FLEET_AWS_WORKER_CIDRS: '127.0.0.1/32',
    // Everything is on loopback; clusters have TLS where somebody asks for it.
    FLEET_QDRANT_TLS: process.env['FLEET_QDRANT_TLS'] || 'false',
    // Where the API server asks about EKS tokens: for tests that answer there.
    FLEET_LOCAL_TOKEN_WEBHOOK_PORT: String(ports.tokenWebhook),
    ...('python' in tools.qdrant && { FLEET_ENGINE_PYTHON: tools.qdrant.python }),
    FLEET_API_TOKENS: `acme=${secrets.apiToken}`,
    FLEET_API_HOST: '127.0.0.1',
    FLEET_API_PORT: String(ports.api),
    FLEET_WORKER_HEALTH_HOST: '127.0.0.1',
    FLEET_WORKER_HEALTH_PORT: String(ports.workerHealth),
  };
}

function linksOf(dataDir: string, ports: Ports): Links {
  const api = `http://127.0.0.1:${ports.api}`;
  return {
    api,
    apiDocs: `${api}/docs`,
    temporalUi: `http://127.0.0.1:${ports.temporalUi}`,
    s3: `http://127.0.0.1:${ports.s3}`,
    bucket: `s3://${BACKUP_BUCKET}`,
    kubeconfig: kubeconfigPath(dataDir),
    apiToken: apiTokenPath(dataDir),
  };
}
