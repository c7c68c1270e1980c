/** Environments of child processes: only what is named here reaches them, so that no secret of this process does. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';

/** What a program needs to find other programs, the network and its certificates. None of it is a secret of the fleet. */
const COMMON = [
  'PATH',
  'TMPDIR',
  'LANG',
  'LC_ALL',
  'SSL_CERT_FILE',
  'SSL_CERT_DIR',
  'HTTP_PROXY',
  'HTTPS_PROXY',
  'NO_PROXY',
  'http_proxy',
  'https_proxy',
  'no_proxy',
] as const;

/** How a client inside a pod finds the Kubernetes API; the token itself is a file. */
const IN_CLUSTER = ['KUBERNETES_SERVICE_HOST', 'KUBERNETES_SERVICE_PORT'] as const;

/** The variables of these names that are set. */
function pick(names: readonly string[], env: NodeJS.ProcessEnv = process.env): Record<string, string> {
  return Object.fromEntries(
    names.flatMap((name) => {
      const value = env[name];
      return value === undefined ? [] : [[name, value]];
    }),
  );
}

/** For a program that speaks to nobody. */
export function bareEnv(env: NodeJS.ProcessEnv = process.env): Record<string, string> {
  return pick(['PATH', 'TMPDIR', 'LANG', 'LC_ALL', 'LD_LIBRARY_PATH'], env);
}

/**
 * For Helm: a home of its own, so that it reads no configuration, plugin or registry login of the user, and the kubeconfig
 * by name.
 *
 * @param passed names that the operator lets through as well, for the credential plugins of a kubeconfig
 */
export function helmEnv(
  kubeconfig: string | undefined,
  passed: readonly string[] = [],
  env: NodeJS.ProcessEnv = process.env,
): Record<string, string> {
  const home = helmHome();
  const usual = join(env['HOME'] ?? homedir(), '.kube', 'config');
  const file = kubeconfig ?? env['KUBECONFIG'] ?? (existsSync(usual) ? usual : undefined);
  return {
    ...pick([...COMMON, ...IN_CLUSTER], env),
    HOME: home,
    HELM_CACHE_HOME: join(home, 'cache'),
    HELM_CONFIG_HOME: join(home, 'config'),
    HELM_DATA_HOME: join(home, 'data'),
    ...(file !== undefined && { KUBECONFIG: file }),
    ...pick(passed, env),
  };
}

let made: string | undefined;

/** One for all runs of this process, because Helm keeps the index of a repository there. */
function helmHome(): string {
  if (made !== undefined && existsSync(made)) return made;
  const folder = mkdtempSync(join(tmpdir(), 'qdrant-fleet-helm-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  made = folder;
  return folder;
}
