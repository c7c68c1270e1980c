import {
  ApiException,
  AuthenticationV1Api,
  AuthorizationV1Api,
  CoordinationV1Api,
  CoreV1Api,
  CustomObjectsApi,
  KubeConfig,
  PatchStrategy,
  setHeaderOptions,
  StorageV1Api,
} from '@kubernetes/client-node';

/** The API clients the kubelet talks through. */
export interface Api {
  config: KubeConfig;
  core: CoreV1Api;
  storage: StorageV1Api;
  coordination: CoordinationV1Api;
  authentication: AuthenticationV1Api;
  authorization: AuthorizationV1Api;
  custom: CustomObjectsApi;
}

/** Connects by KUBECONFIG, as every Kubernetes tool does, unless told otherwise. */
export function connect(config = defaultConfig()): Api {
  return {
    config,
    core: config.makeApiClient(CoreV1Api),
    storage: config.makeApiClient(StorageV1Api),
    coordination: config.makeApiClient(CoordinationV1Api),
    authentication: config.makeApiClient(AuthenticationV1Api),
    authorization: config.makeApiClient(AuthorizationV1Api),
    custom: config.makeApiClient(CustomObjectsApi),
  };
}

function defaultConfig(): KubeConfig {
  const config = new KubeConfig();
  config.loadFromDefault();
  return config;
}

/** Lists such as conditions are merged by their key, so that what other controllers wrote there survives. */
export const strategicMerge = setHeaderOptions('Content-Type', PatchStrategy.StrategicMergePatch);

/** True when the API answered with this HTTP status. */
export function hasStatus(error: unknown, ...codes: number[]): boolean {
  return error instanceof ApiException && codes.includes(error.code);
}

/** Swallows exactly the answers that mean "nothing left to do". */
export async function ignoring<T>(codes: number[], promise: Promise<T>): Promise<T | undefined> {
  try {
    return await promise;
  } catch (error) {
    if (hasStatus(error, ...codes)) return undefined;
    throw error;
  }
}

/** One line for a log: the API's own message when there is one, never headers. */
export function describe(error: unknown): string {
  if (error instanceof ApiException) {
    const body: unknown = error.body;
    const match = typeof body === 'string' ? /"message":"((?:[^"\\]|\\.)*)"/.exec(body) : undefined;
    return `HTTP ${error.code}${match?.[1] ? `: ${match[1].replaceAll('\\"', '"')}` : ''}`;
  }
  if (!(error instanceof Error)) return String(error);
  // fetch says only that it failed; why stands in the cause.
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message;
}

export type Log = (message: string) => void;

/** stdout is kept for `ready`; everything else goes to stderr. */
export const log: Log = (message) => process.stderr.write(`${new Date().toISOString()} kubelet ${message}\n`);
