import { rm } from 'node:fs/promises';
import type { V1Container, V1ContainerState, V1Pod } from '@kubernetes/client-node';
import { pause } from '../wait.ts';
import type { AddressBook } from './addresses.ts';
import { type Api, describe, ignoring, type Log, strategicMerge } from './api.ts';
import { type KubeletConfig, layout } from './config.ts';
import { ContainerConfigError } from './container-env.ts';
import { recordWarning } from './events.ts';
import { ImageNotPulled, planPod, qdrantContainer, VolumeNotReady } from './pod-plan.ts';
import { type ContainerView, podStatus } from './pod-status.ts';
import { type Command, type Exit, LocalProcess } from './processes.ts';
import type { PolicyEnforcer } from './policies.ts';
import { followReadiness } from './readiness.ts';
import { followSecrets } from './secret-volumes.ts';
import { Workqueue } from './workqueue.ts';

export interface WorkerDeps {
  api: Api;
  config: KubeletConfig;
  addresses: AddressBook;
  log: Log;
  /** Where policies are enforced. */
  policies?: PolicyEnforcer | undefined;
}

/** Why a pod ends here: its object asks for it, its object is gone, or the kubelet itself goes. */
export type StopReason = 'deleted' | 'gone' | 'shutdown';

const FIRST_BACKOFF_MS = 200;
const MAX_BACKOFF_MS = 10_000;
/** After this long a process counts as healthy and its next crash starts the back-off anew. */
const HEALTHY_MS = 30_000;
const MAX_SHUTDOWN_GRACE_MS = 10_000;
const WAIT_FOR_CONFIG_MS = 500;
const LAST_STATUS_MS = 2_000;
/** Charts let a pod sleep for seconds before it stops, so that load balancers take note. Here nobody needs that long. */
const MAX_PRE_STOP_MS = 300;

/**
 * Runs one incarnation (uid) of a pod from binding to deletion:
 * wait for what it refers to -> start -> follow readiness -> restart when it exits -> stop -> delete the object.
 */
export class PodWorker {
  readonly uid: string;
  /** Resolves when nothing of the pod runs any more. */
  readonly done: Promise<void>;
  readonly #deps: WorkerDeps;
  readonly #container: V1Container | undefined;
  readonly #status: Workqueue;
  readonly #stop = new AbortController();
  #reason: StopReason | undefined;
  #pod: V1Pod;
  #view: ContainerView;
  #ip: string | undefined;
  #process: LocalProcess | undefined;

  /** `previous` is the end of an earlier incarnation under the same name: they share address and folder, so they must not overlap. */
  constructor(deps: WorkerDeps, pod: V1Pod, previous: Promise<void> = Promise.resolve()) {
    this.uid = pod.metadata?.uid ?? '';
    this.#deps = deps;
    this.#pod = pod;
    this.#container = qdrantContainer(pod);
    this.#status = new Workqueue(deps.log);
    this.#view = adoptedView(pod, this.#container);
    this.done = previous.then(() => this.#run());
    this.update(pod);
  }

  get stopping(): boolean {
    return this.#stop.signal.aborted;
  }

  get node(): string | undefined {
    return this.#pod.spec?.nodeName;
  }

  /** Hands over a newer version of the pod's object. */
  update(pod: V1Pod): void {
    this.#pod = pod;
    if (pod.metadata?.deletionTimestamp) this.stop('deleted');
  }

  stop(reason: StopReason): void {
    // Gone overrules a grace period that is still running: the name may be taken again at any moment.
    if (this.#reason !== 'gone') this.#reason = reason;
    this.#stop.abort();
    if (reason === 'gone') this.#process?.kill('SIGKILL');
  }

  async #run(): Promise<void> {
    try {
      if (this.#container) await this.#runContainer(this.#container);
      else await this.#refuse();
    } catch (error) {
      this.#deps.log(`${this.#name}: ${describe(error)}`);
    }
    this.#deps.policies?.release(...this.#key);
    // The last status matters less than an end: the API server may be gone already.
    if (this.#reason === 'shutdown') await Promise.race([this.#status.idle(this.#name), pause(LAST_STATUS_MS)]);
    else await this.#remove();
    await this.#status.close();
  }

  async #runContainer(container: V1Container): Promise<void> {
    const { signal } = this.#stop;
    let backoff = FIRST_BACKOFF_MS;
    while (!signal.aborted) {
      const command = await this.#waitForPlan(container);
      if (!command) return;
      const exit = await this.#runOnce(command, container);
      const state = terminated(exit);
      if (signal.aborted) {
        this.#publish({ ...this.#view, state, ready: false });
        return;
      }
      if (exit.finishedAt.getTime() - exit.startedAt.getTime() > HEALTHY_MS) backoff = FIRST_BACKOFF_MS;
      const waiting = { reason: 'CrashLoopBackOff', message: `back-off ${backoff} ms restarting process` };
      this.#publish({ ...this.#view, state: { waiting }, lastState: state, ready: false });
      const how = exit.signal ? `signal ${exit.signal}` : `code ${exit.exitCode}`;
      const logFile = layout.log(this.#deps.config.dir, ...this.#key);
      await this.#warn('ProcessExited', `process ended with ${how}; its log is ${logFile}`);
      await pause(backoff, signal);
      backoff = Math.min(backoff * 2, MAX_BACKOFF_MS);
      this.#view = { ...this.#view, restartCount: this.#view.restartCount + 1 };
    }
  }

  /** Everything the process needs, asked for again until it is there; undefined when the pod is to stop first. */
  async #waitForPlan(container: V1Container): Promise<Command | undefined> {
    const { api, config, addresses } = this.#deps;
    const { signal } = this.#stop;
    let told = '';
    while (!signal.aborted) {
      try {
        const command = await planPod(api, config, addresses, this.#pod, container);
        this.#ip = addresses.addressOf(...this.#key);
        return command;
      } catch (error) {
        const known =
          error instanceof ContainerConfigError || error instanceof VolumeNotReady || error instanceof ImageNotPulled;
        const reason = known ? error.reason : 'ContainerCreating';
        const message = describe(error);
        this.#publish({ ...this.#view, state: { waiting: { reason, message } }, ready: false });
        if (message !== told) await this.#warn(known ? reason : 'FailedToPrepare', message);
        told = message;
      }
      await pause(WAIT_FOR_CONFIG_MS, signal);
    }
    return undefined;
  }

  /** Starts the process and returns when it has ended, by itself or because the pod stops. */
  async #runOnce(command: Command, container: V1Container): Promise<Exit> {
    const { config } = this.#deps;
    const { signal } = this.#stop;
    const startedAt = new Date();
    let process: LocalProcess;
    try {
      const record = layout.process(config.dir, ...this.#key);
      const gid = await this.#deps.policies?.admit(this.#pod, this.#ip ?? '');
      const bound = gid === undefined ? command : { ...command, gid };
      process = await LocalProcess.start(bound, layout.log(config.dir, ...this.#key), record);
    } catch (error) {
      // 128 is what container runtimes say when the command can't be executed.
      await this.#warn('FailedToStart', `${command.file}: ${describe(error)}`);
      return { exitCode: 128, startedAt, finishedAt: new Date() };
    }
    this.#process = process;
    this.#publish({ ...this.#view, state: { running: { startedAt: process.startedAt } }, ready: false });

    const ended = new AbortController();
    const readiness = followReadiness(
      container,
      this.#ip ?? '',
      AbortSignal.any([ended.signal, signal]),
      (ready, problem) => {
        this.#publish({ ...this.#view, ready });
        if (!ready) void this.#warn('Unhealthy', `readiness probe failed: ${problem}`);
      },
    );
    const until = AbortSignal.any([ended.signal, signal]);
    const secrets = followSecrets(this.#deps.api, config.dir, this.#pod, container, until, this.#deps.log);
    await Promise.race([process.exited, aborted(signal)]);
    if (signal.aborted && this.#reason === 'deleted') {
      await Promise.race([pause(Math.min(preStopMs(container), MAX_PRE_STOP_MS)), process.exited]);
    }
    const exit = signal.aborted ? await process.stop(this.#graceMs) : await process.exited;
    ended.abort();
    await Promise.all([readiness, secrets]);
    this.#process = undefined;
    return exit;
  }

  /** A pod without Qdrant: say so and wait for its deletion, rather than claim that it runs. */
  async #refuse(): Promise<void> {
    const message = 'the local kubelet runs Qdrant containers only';
    this.#publish({ ...this.#view, state: { waiting: { reason: 'ContainerCreating', message } } });
    if (!this.stopping) await this.#warn('UnsupportedByLocalKubelet', message);
    await aborted(this.#stop.signal);
  }

  /** Removes the pod's private folder and, as the last word of a kubelet, its object. */
  async #remove(): Promise<void> {
    const { api, config } = this.#deps;
    const [namespace, name] = this.#key;
    await rm(layout.sandbox(config.dir, this.uid), { recursive: true, force: true });
    if (this.#reason === 'gone') return;
    this.#status.add(this.#name, async () => {
      // With a body the API ignores the query, so the grace period belongs into the body too.
      const body = { preconditions: { uid: this.uid }, gracePeriodSeconds: 0 };
      await ignoring([404, 409], api.core.deleteNamespacedPod({ name, namespace, body }));
    });
    await this.#status.idle(this.#name);
  }

  #publish(view: ContainerView): void {
    this.#view = view;
    this.#status.add(this.#name, async () => {
      const [namespace, name] = this.#key;
      const status = podStatus(this.#pod, this.#container, this.#view, this.#ip);
      // With the uid the API refuses to write this onto a later pod of the same name.
      const body = { metadata: { uid: this.uid }, status };
      const patched = await ignoring(
        [404, 409],
        this.#deps.api.core.patchNamespacedPodStatus({ name, namespace, body }, strategicMerge),
      );
      // The watch may be behind; the next status must build on this one's conditions.
      if (patched && !this.stopping) this.#pod = patched;
    });
  }

  #warn(reason: string, message: string): Promise<void> {
    return recordWarning(this.#deps.api, this.#deps.log, this.#pod, reason, message);
  }

  get #graceMs(): number {
    if (this.#reason === 'gone') return 0;
    const { metadata, spec } = this.#pod;
    const grace = 1000 * (metadata?.deletionGracePeriodSeconds ?? spec?.terminationGracePeriodSeconds ?? 30);
    return this.#reason === 'shutdown' ? Math.min(grace, MAX_SHUTDOWN_GRACE_MS) : grace;
  }

  get #key(): [namespace: string, name: string] {
    return [this.#pod.metadata?.namespace ?? '', this.#pod.metadata?.name ?? ''];
  }

  get #name(): string {
    return this.#key.join('/');
  }
}

/** Where a pod stands when the kubelet meets it: an earlier kubelet may have run it, which makes the coming start a restart. */
function adoptedView(pod: V1Pod, container: V1Container | undefined): ContainerView {
  const before = pod.status?.containerStatuses?.find(({ name }) => name === container?.name);
  const waiting = { state: { waiting: { reason: 'ContainerCreating' } }, ready: false };
  if (!before) return { ...waiting, restartCount: 0 };
  const ran = before.state?.running ?? before.state?.terminated;
  if (!ran)
    return {
      ...waiting,
      restartCount: before.restartCount,
      ...(before.lastState ? { lastState: before.lastState } : {}),
    };
  const lastState = before.state?.terminated ? before.state : lost(before.state?.running?.startedAt);
  return { ...waiting, restartCount: before.restartCount + 1, lastState };
}

/** How long the container wants to sleep before it is told to stop; other hooks are not run. */
function preStopMs({ lifecycle }: V1Container): number {
  const { exec, sleep } = lifecycle?.preStop ?? {};
  const [command, seconds] = exec?.command ?? [];
  return 1000 * (sleep?.seconds ?? (command?.endsWith('sleep') === true ? Number(seconds) || 0 : 0));
}

/** The kubelet was killed and with it the chance to see how the process ended. */
function lost(startedAt: Date | undefined): V1ContainerState {
  return {
    terminated: {
      exitCode: 137,
      reason: 'ContainerStatusUnknown',
      message: 'the kubelet was not there when the process ended',
      ...(startedAt ? { startedAt } : {}),
      finishedAt: new Date(),
    },
  };
}

function terminated({ exitCode, signal, startedAt, finishedAt }: Exit): V1ContainerState {
  const reason = exitCode === 0 ? 'Completed' : 'Error';
  return { terminated: { exitCode, reason, startedAt, finishedAt, ...(signal ? { signal } : {}) } };
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}
