import { KubeConfig } from '@kubernetes/client-node';
import { localClusterAccess } from './local-cluster.ts';
import { Machines } from './machines.ts';
import { AwsProxy, type ProxyOptions } from './proxy/proxy.ts';
import { bindAccessPolicies, TokenWebhook } from './token-webhook.ts';

interface Options extends Pick<ProxyOptions, 'port' | 'pace' | 'bucketStore'> {
  /** Where the emulators listen. */
  readonly moto: string;
  readonly ministack: string;
  /** The local Kubernetes, as its administrator. */
  readonly kubeconfig: string;
  /** Where its API server asks about tokens. */
  readonly webhookPort: number;
  /** The only identity that there is. */
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string };
  readonly log?: (line: string) => void;
}

export interface AwsFront {
  readonly proxy: AwsProxy;
  close(): Promise<void>;
}

/**
 * AWS as the local stack has it: the proxy in front of both emulators, the webhook by which EKS tokens open the local
 * Kubernetes, and a node for each machine of a node group.
 */
export async function startAwsFront(options: Options): Promise<AwsFront> {
  const { moto, ministack, port, pace, bucketStore, webhookPort, credentials, log = () => undefined } = options;
  // EKS with access entries and Pod Identity is ministack's; its STS says whom these name. moto is the strict one.
  const routes = { eks: ministack, sts: ministack, '*': moto };
  const config = new KubeConfig();
  config.loadFromFile(options.kubeconfig);
  await bindAccessPolicies(config);
  const machines = new Machines(config);
  const proxy: AwsProxy = await AwsProxy.listen({
    routes,
    ...(port !== undefined && { port }),
    ...(pace !== undefined && { pace }),
    ...(bucketStore !== undefined && { bucketStore }),
    clusterAccess: localClusterAccess(config),
    onCall: ({ service, operation }) => {
      if (service === 'eks' && /Nodegroup|Cluster|Update/.test(operation)) void machines.reconcile(proxy, log);
    },
  });
  const webhook = await TokenWebhook.listen({
    routes,
    port: webhookPort,
    stsHosts: [new URL(proxy.url).host],
    secretOf: (key) => (key === credentials.accessKeyId ? credentials.secretAccessKey : undefined),
    log,
  });
  // The emulators begin empty: nodes of an earlier run have no group any more.
  await machines.reconcile(proxy, log);
  return {
    proxy,
    close: async () => {
      await machines.idle();
      await webhook.close();
      await proxy.close();
    },
  };
}
