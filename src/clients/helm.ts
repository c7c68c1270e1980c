/** The Helm binary, called with argument lists and never through a shell. Values travel by standard input. */
import { execa, ExecaError } from 'execa';
import { FleetError } from '../domain/errors.ts';
import { helmEnv } from './child-env.ts';

export interface HelmOptions {
  /** Path or name of the binary. */
  readonly binary: string;
  readonly kubeconfig?: string;
  /** Names of further variables that reach Helm, for the credential plugins of a kubeconfig. */
  readonly env?: readonly string[];
}

/** Which chart to install: a name in a repository, an `oci://` reference, or a folder. */
export interface ChartRef {
  readonly chart: string;
  readonly repository?: string;
  readonly version?: string;
}

/** Status words of Helm releases that matter here. */
export interface ReleaseInfo {
  readonly revision: number;
  readonly status: string;
  /** When the last Helm began to work on it, milliseconds since the epoch. */
  readonly since: number;
}

interface InstallOptions {
  readonly namespace: string;
  readonly release: string;
  readonly chart: ChartRef;
  /** Never holds a secret: values end up in a Secret of the release and in `helm get values`. */
  readonly values: Record<string, unknown>;
  readonly signal?: AbortSignal;
}

export class Helm {
  readonly #binary: string;
  readonly #kubeconfig: string | undefined;
  readonly #passed: readonly string[];

  constructor({ binary, kubeconfig, env = [] }: HelmOptions) {
    this.#binary = binary;
    this.#kubeconfig = kubeconfig;
    this.#passed = env;
  }

  /** The release, or `undefined` when there is none. */
  async status(namespace: string, release: string): Promise<ReleaseInfo | undefined> {
    try {
      const { stdout } = await this.#run(['status', release, '--namespace', namespace, '--output', 'json']);
      const { version, info } = JSON.parse(stdout) as {
        version: number;
        info: { status: string; last_deployed?: string };
      };
      return { revision: version, status: info.status, since: Date.parse(info.last_deployed ?? '') || 0 };
    } catch (error) {
      if (stderrOf(error).includes('release: not found')) return undefined;
      throw mapError(error, `read release ${namespace}/${release}`);
    }
  }

  /**
   * Install or upgrade, without waiting for pods: whether they come up is observed, not believed from an exit code.
   *
   * @returns the new revision
   */
  async upgradeInstall({ namespace, release, chart, values, signal }: InstallOptions): Promise<number> {
    const args = [
      'upgrade',
      release,
      chart.chart,
      '--install',
      '--namespace',
      namespace,
      '--output',
      'json',
      '--history-max',
      '10',
      ...chartArguments(chart),
    ];
    try {
      const { stdout } = await this.#run(args, JSON.stringify(values), signal);
      return (JSON.parse(stdout) as { version: number }).version;
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      throw mapError(error, `apply chart ${chart.chart} to ${namespace}/${release}`);
    }
  }

  /** The objects that the chart comes to, as YAML documents. Nothing is applied. */
  async template({ namespace, release, chart, values, signal }: InstallOptions): Promise<string> {
    const args = ['template', release, chart.chart, '--is-upgrade', '--namespace', namespace, ...chartArguments(chart)];
    try {
      return (await this.#run(args, JSON.stringify(values), signal)).stdout;
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      throw mapError(error, `render chart ${chart.chart} for ${namespace}/${release}`);
    }
  }

  async rollback(namespace: string, release: string, revision: number): Promise<void> {
    try {
      await this.#run(['rollback', release, String(revision), '--namespace', namespace]);
    } catch (error) {
      throw mapError(error, `roll ${namespace}/${release} back to revision ${revision}`);
    }
  }

  /** Succeeds when there is no such release. */
  async uninstall(namespace: string, release: string, signal?: AbortSignal): Promise<void> {
    try {
      await this.#run(['uninstall', release, '--namespace', namespace, '--ignore-not-found'], undefined, signal);
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      throw mapError(error, `uninstall ${namespace}/${release}`);
    }
  }

  /** Revision that was deployed last, by history. */
  async lastDeployed(namespace: string, release: string): Promise<number | undefined> {
    try {
      const { stdout } = await this.#run(['history', release, '--namespace', namespace, '--output', 'json']);
      const history = JSON.parse(stdout) as { revision: number; status: string }[];
      return history.findLast(({ status }) => status === 'deployed' || status === 'superseded')?.revision;
    } catch (error) {
      throw mapError(error, `read the history of ${namespace}/${release}`);
    }
  }

  async #run(args: string[], input?: string, signal?: AbortSignal): Promise<{ stdout: string }> {
    return execa(this.#binary, args, {
      // The worker's environment holds the keys of the store, the catalogue and Temporal; a chart has no business with them.
      env: helmEnv(this.#kubeconfig, this.#passed),
      extendEnv: false,
      ...(input !== undefined && { input }),
      ...(signal !== undefined && { cancelSignal: signal }),
      // Helm leaves a release in pending-install when it is killed, so give it time to finish its writes.
      forceKillAfterDelay: 10_000,
      timeout: 300_000,
      maxBuffer: 16 * 1024 * 1024,
    });
  }
}

/** Values come by standard input. */
function chartArguments({ repository, version }: ChartRef): string[] {
  return [
    ...['--values', '-'],
    ...(repository === undefined ? [] : ['--repo', repository]),
    ...(version === undefined ? [] : ['--version', version]),
  ];
}

function stderrOf(error: unknown): string {
  return error instanceof ExecaError && typeof error.stderr === 'string' ? error.stderr : '';
}

const UNREACHABLE = /cluster unreachable|connection refused|i\/o timeout|TLS handshake timeout|EOF$/i;

function mapError(error: unknown, what: string): FleetError {
  const stderr = stderrOf(error).trim();
  if (stderr === '' && error instanceof ExecaError && error.code === 'ENOENT') {
    return new FleetError('ChartFailed', `Helm could not ${what}: no such program "${error.command.split(' ')[0]}".`);
  }
  const reason = (stderr || (error instanceof Error ? error.message : String(error))).slice(0, 1000);
  if (UNREACHABLE.test(reason)) {
    return new FleetError('KubernetesUnavailable', `Helm could not ${what}: ${reason}`, { cause: error });
  }
  return new FleetError('ChartFailed', `Helm could not ${what}: ${reason}`, { cause: error });
}
