import { join } from 'node:path';

/** One Node object of this kubelet. Several are served by one process. */
export interface LocalNode {
  name: string;
  zone: string;
  /** Somebody else has made its object, and takes it away again. */
  adopted?: true;
}

/** Everything the kubelet reads from its environment. */
export interface KubeletConfig {
  /** State folder: volumes, logs, address book, process records. Belongs to one kubelet at a time. */
  dir: string;
  /** Those it makes itself, and those it has adopted meanwhile. */
  nodes: LocalNode[];
  /** Key of a taint of the nodes that it makes, so that only pods come that tolerate it. */
  taint?: string;
  /** Nodes with one of these values of the pool label are served too, for as long as they exist. */
  adopt?: readonly string[];
  /** Pod addresses, an IPv4 range inside 127.0.0.0/8. Parallel stacks need ranges of their own. */
  podCidr: string;
  /** Hold the pods to the NetworkPolicies; needs root and nft. */
  enforcePolicies?: boolean;
  /** Test hook: run this instead of Qdrant; `--uri` and `--bootstrap` are appended. */
  command?: string[];
}

/**
 * FLEET_KUBELET_DIR (required), FLEET_KUBELET_NODES (how many, 3), FLEET_KUBELET_NODE_PREFIX (`local`),
 * FLEET_KUBELET_ADOPT (pools of nodes that others make, by commas; none), FLEET_KUBELET_POD_CIDR (127.64.0.0/16),
 * FLEET_KUBELET_TAINT (none), FLEET_KUBELET_ENFORCE_POLICIES (`true` or not), FLEET_KUBELET_COMMAND (JSON array, tests
 * only).
 * @throws Error naming the variable that can't be used.
 */
export function readConfig(env: NodeJS.ProcessEnv): KubeletConfig {
  const dir = env['FLEET_KUBELET_DIR'];
  if (!dir) throw new Error('FLEET_KUBELET_DIR must name the state folder of the kubelet');
  const count = Number(env['FLEET_KUBELET_NODES'] ?? 3);
  const adopt = env['FLEET_KUBELET_ADOPT'];
  const least = adopt ? 0 : 1;
  if (!Number.isInteger(count) || count < least || count > 100) {
    throw new Error(`FLEET_KUBELET_NODES must be a number from ${least} to 100, not ${env['FLEET_KUBELET_NODES']}`);
  }
  const prefix = env['FLEET_KUBELET_NODE_PREFIX'] ?? 'local';
  const command = env['FLEET_KUBELET_COMMAND'];
  const taint = env['FLEET_KUBELET_TAINT'];
  return {
    dir,
    nodes: Array.from({ length: count }, (_, i) => ({ name: `${prefix}-${i + 1}`, zone: `local-${'abc'[i % 3]}` })),
    ...(adopt ? { adopt: adopt.split(',') } : {}),
    ...(taint ? { taint } : {}),
    podCidr: env['FLEET_KUBELET_POD_CIDR'] ?? '127.64.0.0/16',
    ...(env['FLEET_KUBELET_ENFORCE_POLICIES'] === 'true' ? { enforcePolicies: true } : {}),
    ...(command ? { command: parseCommand(command) } : {}),
  };
}

function parseCommand(json: string): string[] {
  const value: unknown = JSON.parse(json);
  if (!Array.isArray(value) || value.length === 0 || !value.every((part) => typeof part === 'string')) {
    throw new Error('FLEET_KUBELET_COMMAND must be a JSON array of strings');
  }
  return value;
}

/** Where things lie below the state folder. */
export const layout = {
  lock: (dir: string) => join(dir, 'kubelet.lock'),
  addresses: (dir: string) => join(dir, 'addresses.json'),
  volumes: (dir: string) => join(dir, 'volumes'),
  volume: (dir: string, pv: string) => join(dir, 'volumes', pv),
  log: (dir: string, namespace: string, pod: string) => join(dir, 'pods', `${namespace}_${pod}.log`),
  /** Working folder and emptyDirs of one incarnation of a pod. */
  sandbox: (dir: string, uid: string) => join(dir, 'sandboxes', uid),
  /** Tags that the registry does not have, one a line: there is no registry here, but pods have to see one fail. */
  missingImages: (dir: string) => join(dir, 'missing-images'),
  processes: (dir: string) => join(dir, 'processes'),
  process: (dir: string, namespace: string, pod: string) => join(dir, 'processes', `${namespace}_${pod}.json`),
};
