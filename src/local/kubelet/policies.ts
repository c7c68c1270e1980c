/** Holds the pods of this kubelet to the NetworkPolicies of the API server, by the kernel's own packet filter. */
import type { KubernetesListObject, KubernetesObject, V1Namespace, V1Pod } from '@kubernetes/client-node';
import { execa } from 'execa';
import { type Api, type Log } from './api.ts';
import type { KubeletConfig } from './config.ts';
import { groupOf, policyScript, type Endpoint, type PolicyObject } from './policy-rules.ts';
import { Reflector } from './reflector.ts';
import { Workqueue } from './workqueue.ts';

const POLICIES = { group: 'networking.k8s.io', version: 'v1', plural: 'networkpolicies' } as const;
const KEY = 'network policies';

/** Why policies cannot be enforced on this machine, in words; nothing when they can. */
export async function whyNotEnforced(): Promise<string | undefined> {
  if (process.platform !== 'linux') return 'network policies are enforced on Linux only';
  if (process.getuid?.() !== 0) return 'network policies are enforced by root only';
  try {
    await execa('nft', ['list', 'tables']);
    return undefined;
  } catch (error) {
    const { code, stderr } = error as { code?: string; stderr?: string };
    if (code === 'ENOENT') return 'network policies are enforced by nft, which is not installed (package nftables)';
    return `nft cannot be used here: ${stderr ?? String(error)}`;
  }
}

export class PolicyEnforcer {
  readonly #table: string;
  readonly #kubelet: number;
  readonly #log: Log;
  readonly #queue: Workqueue;
  readonly #policies = new Map<string, PolicyObject>();
  readonly #namespaces = new Map<string, Readonly<Record<string, string>>>();
  readonly #pods = new Map<string, Endpoint>();
  readonly #reflectors: readonly { start(): Promise<void>; stop(): Promise<void> }[];
  #loaded = '';

  private constructor(api: Api, config: KubeletConfig, log: Log) {
    const [base = ''] = config.podCidr.split('/');
    this.#table = tableOf(config);
    // No pod has the first address of the range.
    this.#kubelet = groupOf(base);
    this.#log = log;
    this.#queue = new Workqueue(log);
    this.#reflectors = [
      new Reflector<PolicyObject & KubernetesObject>({
        config: api.config,
        log,
        path: `/apis/${POLICIES.group}/${POLICIES.version}/${POLICIES.plural}`,
        list: async () => (await api.custom.listClusterCustomObject(POLICIES)) as KubernetesListObject<PolicyObject>,
        onChange: (policy) => {
          this.#policies.set(keyOf(policy), policy);
          this.#changed();
        },
        onGone: (policy) => {
          this.#policies.delete(keyOf(policy));
          this.#changed();
        },
      }),
      new Reflector<V1Namespace>({
        config: api.config,
        log,
        path: '/api/v1/namespaces',
        list: () => api.core.listNamespace(),
        onChange: ({ metadata }) => {
          this.#namespaces.set(metadata?.name ?? '', metadata?.labels ?? {});
          this.#changed();
        },
        onGone: ({ metadata }) => {
          this.#namespaces.delete(metadata?.name ?? '');
        },
      }),
    ];
  }

  /**
   * Begin to enforce. From here on this process runs as a group of its own, by which the rules know it as the kubelet.
   *
   * @throws Error that says what is missing on this machine
   */
  static async start(api: Api, config: KubeletConfig, log: Log): Promise<PolicyEnforcer> {
    const problem = await whyNotEnforced();
    if (problem !== undefined) throw new Error(`The policies were to be enforced: ${problem}.`);
    const enforcer = new PolicyEnforcer(api, config, log);
    process.setgid?.(enforcer.#kubelet);
    await Promise.all(enforcer.#reflectors.map((reflector) => reflector.start()));
    await enforcer.#settle();
    return enforcer;
  }

  /**
   * Hold a pod to the policies from its first packet on.
   *
   * @returns the group that its process has to run as
   */
  async admit(pod: V1Pod, ip: string): Promise<number> {
    const { namespace = '', name = '', labels = {} } = pod.metadata ?? {};
    this.#pods.set(`${namespace}/${name}`, { namespace, labels, ip });
    await this.#settle();
    return groupOf(ip);
  }

  /** The pod is gone. */
  release(namespace: string, name: string): void {
    if (this.#pods.delete(`${namespace}/${name}`)) this.#changed();
  }

  async stop(): Promise<void> {
    await Promise.all(this.#reflectors.map((reflector) => reflector.stop()));
    await this.#queue.close();
    await execa('nft', ['delete', 'table', 'inet', this.#table], { reject: false });
  }

  async #settle(): Promise<void> {
    this.#changed();
    await this.#queue.idle(KEY);
  }

  #changed(): void {
    this.#queue.add(KEY, async () => {
      const script = policyScript(this.#table, {
        policies: [...this.#policies.values()],
        pods: [...this.#pods.values()],
        namespaces: Object.fromEntries(this.#namespaces),
        kubelet: this.#kubelet,
      });
      if (script === this.#loaded) return;
      await execa('nft', ['-f', '-'], { input: script });
      this.#loaded = script;
      this.#log(`network policies: ${this.#policies.size} in force for ${this.#pods.size} pods`);
    });
  }
}

/** Rules that a kubelet left which was killed would bind the pods of this one. */
export async function removeLeftoverRules(config: KubeletConfig): Promise<void> {
  if (process.getuid?.() !== 0) return;
  // No nft, or no such table: nothing is left.
  await execa('nft', ['delete', 'table', 'inet', tableOf(config)], { reject: false });
}

/** One for each range of pod addresses, as kubelets beside each other have. */
function tableOf({ podCidr }: KubeletConfig): string {
  return `qdrant_fleet_${podCidr.replace(/[^0-9]/g, '_')}`;
}

function keyOf({ metadata }: PolicyObject): string {
  return `${metadata?.namespace}/${metadata?.name}`;
}
