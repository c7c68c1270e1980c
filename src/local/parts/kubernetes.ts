import { X509Certificate } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { request } from 'node:https';
import { join } from 'node:path';
import { stringify } from 'yaml';
import type { Ports } from '../ports.ts';
import { writeSecret, type Secrets } from '../secrets.ts';
import type { Part } from '../supervisor.ts';
import { kineSocket } from './kine.ts';
import { applyRights, WORKER } from './rights.ts';

interface Options {
  programs: { kubeApiserver: string; kubeControllerManager: string; kubeScheduler: string };
  dataDir: string;
  ports: Ports;
  secrets: Secrets;
}

/**
 * The control plane of a Kubernetes cluster that has no nodes yet. The administrator's kubeconfig is at
 * {@link kubeconfigPath}, the worker's, which has the rights of deploy/rbac and no others, at
 * {@link workerKubeconfigPath}.
 */
export function kubernetesParts(options: Options): Part[] {
  return [apiserver(options), controllerManager(options), scheduler(options)];
}

export function kubeconfigPath(dataDir: string): string {
  return join(dataDir, 'kubeconfig');
}

export function workerKubeconfigPath(dataDir: string): string {
  return join(dataDir, 'worker-kubeconfig');
}

function apiserver({ programs, dataDir, ports, secrets }: Options): Part {
  const files = filesIn(dataDir);
  const server = `https://127.0.0.1:${ports.kubernetes}`;
  return {
    name: 'kube-apiserver',
    address: server,
    command: programs.kubeApiserver,
    args: [
      `--etcd-servers=unix://${kineSocket(dataDir)}`,
      '--bind-address=127.0.0.1',
      '--advertise-address=127.0.0.1',
      `--secure-port=${ports.kubernetes}`,
      `--cert-dir=${files.certificates}`,
      `--token-auth-file=${files.tokens}`,
      // Asked about tokens that are not in the file: those of EKS. Nobody listens there unless AWS is emulated.
      `--authentication-token-webhook-config-file=${files.tokenWebhook}`,
      '--authentication-token-webhook-version=v1',
      '--authentication-token-webhook-cache-ttl=1s',
      '--authorization-mode=Node,RBAC',
      '--service-cluster-ip-range=10.96.0.0/16',
      '--service-account-issuer=https://kubernetes.default.svc',
      `--service-account-key-file=${files.serviceAccountKey}`,
      `--service-account-signing-key-file=${files.serviceAccountKey}`,
      // Pods here are processes of this machine: there is nothing to mount a service account's token into.
      '--disable-admission-plugins=ServiceAccount',
      // An endpoint of the `kubernetes` service would have to be an address that is not a loopback one.
      '--endpoint-reconciler-type=none',
      '--profiling=false',
      '--shutdown-delay-duration=0s',
    ],
    needs: ['kine'],
    readyWithinMs: 60_000,
    prepare: async () => {
      await mkdir(files.certificates, { recursive: true, mode: 0o700 });
      await discardOldCertificate(files);
      writeSecret(files.serviceAccountKey, secrets.serviceAccountKey);
      writeSecret(files.tokenWebhook, webhookConfig(`http://127.0.0.1:${ports.tokenWebhook}`));
      const groups = WORKER.groups.join(',');
      writeSecret(
        files.tokens,
        `${secrets.kubernetesToken},admin,admin,system:masters\n` +
          `${secrets.workerToken},${WORKER.user},worker,"${groups}"\n`,
      );
    },
    isReady: async () => isReady(server, await readFile(files.certificate, 'utf8'), secrets.kubernetesToken),
    afterReady: async () => {
      const authority = await readFile(files.certificate, 'utf8');
      writeSecret(kubeconfigPath(dataDir), kubeconfig(server, authority, secrets.kubernetesToken));
      writeSecret(workerKubeconfigPath(dataDir), kubeconfig(server, authority, secrets.workerToken));
      await applyRights(kubeconfigPath(dataDir));
    },
  };
}

function controllerManager({ programs, dataDir, ports }: Options): Part {
  const files = filesIn(dataDir);
  return {
    name: 'kube-controller-manager',
    address: `127.0.0.1:${ports.controllerManager}`,
    command: programs.kubeControllerManager,
    args: [
      ...component(dataDir, ports.controllerManager, 'controller-manager'),
      `--service-account-private-key-file=${files.serviceAccountKey}`,
      `--root-ca-file=${files.certificate}`,
    ],
    needs: ['kube-apiserver'],
    isReady: () => answersHealthz(ports.controllerManager),
  };
}

function scheduler({ programs, dataDir, ports }: Options): Part {
  return {
    name: 'kube-scheduler',
    address: `127.0.0.1:${ports.scheduler}`,
    command: programs.kubeScheduler,
    args: component(dataDir, ports.scheduler, 'scheduler'),
    needs: ['kube-apiserver'],
    isReady: () => answersHealthz(ports.scheduler),
  };
}

/** What the two components around the API server have in common. There is one of each, so nobody to elect. */
function component(dataDir: string, port: number, name: string): string[] {
  return [
    `--kubeconfig=${kubeconfigPath(dataDir)}`,
    '--leader-elect=false',
    '--bind-address=127.0.0.1',
    `--secure-port=${port}`,
    `--cert-dir=${join(dataDir, 'kubernetes', name)}`,
    '--profiling=false',
  ];
}

function filesIn(dataDir: string) {
  const folder = join(dataDir, 'kubernetes');
  const certificates = join(folder, 'apiserver');
  return {
    certificates,
    // The API server makes these itself: its own certificate, followed by that of the authority it made for it.
    certificate: join(certificates, 'apiserver.crt'),
    key: join(certificates, 'apiserver.key'),
    serviceAccountKey: join(folder, 'service-account.key'),
    tokens: join(folder, 'tokens.csv'),
    tokenWebhook: join(folder, 'token-webhook.yaml'),
  };
}

/** The API server's own certificate is good for a year and is never renewed by it: without it, it makes a new one. */
async function discardOldCertificate(files: ReturnType<typeof filesIn>): Promise<void> {
  if (!existsSync(files.certificate)) return;
  const certificate = new X509Certificate(await readFile(files.certificate));
  const daysLeft = (certificate.validToDate.getTime() - Date.now()) / 86_400_000;
  if (daysLeft < 30) await Promise.all([rm(files.certificate), rm(files.key, { force: true })]);
}

function isReady(server: string, ca: string, token: string): Promise<boolean> {
  return answersOk(`${server}/readyz`, { ca, headers: { authorization: `Bearer ${token}` } });
}

/** Their certificates are made at every start and known to nobody; the answer is a bare "ok" on loopback. */
function answersHealthz(port: number): Promise<boolean> {
  return answersOk(`https://127.0.0.1:${port}/healthz`, { rejectUnauthorized: false });
}

function answersOk(url: string, options: Parameters<typeof request>[1] & object): Promise<boolean> {
  return new Promise((resolve) => {
    const outgoing = request(url, { ...options, timeout: 2000, agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    outgoing.once('timeout', () => outgoing.destroy());
    outgoing.once('error', () => resolve(false));
    outgoing.end();
  });
}

function kubeconfig(server: string, authority: string, token: string): string {
  const name = 'qdrant-fleet-local';
  return stringify({
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': name,
    clusters: [{ name, cluster: { server, 'certificate-authority-data': Buffer.from(authority).toString('base64') } }],
    users: [{ name, user: { token } }],
    contexts: [{ name, context: { cluster: name, user: name, namespace: 'default' } }],
  });
}

/** In the form of a kubeconfig, as the API server wants it. */
function webhookConfig(server: string): string {
  return stringify({
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'webhook',
    clusters: [{ name: 'webhook', cluster: { server } }],
    users: [{ name: 'api-server', user: {} }],
    contexts: [{ name: 'webhook', context: { cluster: 'webhook', user: 'api-server' } }],
  });
}
