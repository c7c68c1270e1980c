/** Activities over the real parts of the shared stack, run as if a workflow had called them. */
import { randomBytes } from 'node:crypto';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { inject } from 'vitest';
import type { ActivityDeps } from '../../activities/deps.ts';
import { createActivities, type Activities } from '../../activities/index.ts';
import { AwsClients } from '../../src/clients/aws/clients.ts';
import { Catalog } from '../../src/clients/catalog.ts';
import { Helm } from '../../src/clients/helm.ts';
import { Kubernetes } from '../../src/clients/kubernetes.ts';
import type { BackupStore } from '../../src/clients/s3.ts';
import type { BackupStores } from '../../src/clients/stores.ts';
import { loadConfig, type Config } from '../../src/config.ts';
import { openStores } from '../support/fleet.ts';

type Change = Partial<ActivityDeps> & { readonly kubernetes?: Kubernetes };

export class Parts {
  readonly env: Readonly<Record<string, string>>;
  readonly config: Config;
  readonly catalog: Catalog;
  readonly stores: BackupStores;
  /** The fleet's bucket. */
  readonly store: BackupStore;
  readonly kubernetes: Kubernetes;
  readonly tenant = `t${randomBytes(4).toString('hex')}`;
  readonly activities: Activities;
  /** Workflow ids that Temporal would call closed. */
  readonly closed = new Set<string>();

  private constructor(env: Record<string, string>, change: Change) {
    this.env = env;
    // The SDK's own chain of credentials reads the environment of the process.
    for (const name of ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_REGION']) process.env[name] = env[name];
    this.config = loadConfig({ ...env, FLEET_TRANSFER_PART_BYTES: String(5 * 1024 * 1024) });
    this.catalog = new Catalog(env['DATABASE_URL'] ?? '');
    this.stores = openStores(env);
    this.store = this.stores.fleet;
    const { kubernetes = new Kubernetes(env['KUBECONFIG']), ...rest } = change;
    this.kubernetes = kubernetes;
    const access = { kubernetes, helm: new Helm({ binary: 'helm' }) };
    this.activities = createActivities({
      config: this.config,
      catalog: this.catalog,
      stores: this.stores,
      aws: new AwsClients({}),
      clusters: { of: () => Promise.resolve(access) },
      temporal: {
        isOpen: (workflowId) => Promise.resolve(!this.closed.has(workflowId)),
        ending: (workflowId) =>
          Promise.resolve(
            this.closed.has(workflowId)
              ? { state: 'failed', error: { code: 'Terminated', message: 'It was ended.' } }
              : undefined,
          ),
        deleteSchedules: () => Promise.resolve(0),
        pauseSchedules: () => Promise.resolve(0),
        unpauseSchedules: () => Promise.resolve(0),
      },
      ...rest,
    });
  }

  static async open(change: Change = {}): Promise<Parts> {
    const parts = new Parts(inject('localEnv'), change);
    await parts.catalog.migrate();
    return parts;
  }

  /** Run something as an activity of a workflow. */
  as<T>(workflowId: string, run: (activities: Activities) => Promise<T>, attempt = 1, runId?: string): Promise<T> {
    return environment(workflowId, attempt, runId).run(() => run(this.activities));
  }

  async close(): Promise<void> {
    this.stores.close();
    await this.catalog.close();
  }
}

export function environment(workflowId: string, attempt = 1, runId = `run-of-${workflowId}`): MockActivityEnvironment {
  return new MockActivityEnvironment(
    { attempt, workflowExecution: { workflowId, runId } },
    { logger: new DefaultLogger('ERROR', () => undefined) },
  );
}

/** Which of several racers won, and the codes of the others. */
export async function race<T>(racers: readonly Promise<T>[]): Promise<{ won: T[]; lost: string[] }> {
  const outcomes = await Promise.allSettled(racers);
  return {
    won: outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : [])),
    lost: outcomes.flatMap((outcome) =>
      outcome.status === 'rejected' ? [String((outcome.reason as { code?: string }).code ?? outcome.reason)] : [],
    ),
  };
}
