import { type KubeConfig, type KubernetesListObject, type KubernetesObject, Watch } from '@kubernetes/client-node';
import { pause } from '../wait.ts';
import { describe, type Log } from './api.ts';

export interface ReflectorOptions<T extends KubernetesObject> {
  config: KubeConfig;
  /** API path to watch, such as /api/v1/pods. */
  path: string;
  list: () => Promise<KubernetesListObject<T>>;
  /** Called for every object after each list and for every change. Must not throw; repeated calls are normal. */
  onChange: (object: T) => void;
  onGone?: (object: T) => void;
  /** Called with the whole truth after each list. */
  onList?: (objects: T[]) => void;
  log: Log;
}

/** The API server ends a watch after this; the list that follows heals whatever a watch may have lost. */
const WATCH_SECONDS = 60;

/**
 * Follows a collection by list and watch for as long as it runs. client-node's watch ends on silence (30 s), on server close
 * and on a stale resource version alike; the cure for all of them is to list again.
 */
export class Reflector<T extends KubernetesObject> {
  readonly #options: ReflectorOptions<T>;
  readonly #known = new Map<string, T>();
  readonly #stop = new AbortController();
  #loop: Promise<void> | undefined;

  constructor(options: ReflectorOptions<T>) {
    this.#options = options;
  }

  /** Resolves once the first list has been handed over and its watch has been asked for. */
  async start(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#loop = this.#run(resolve);
    });
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#loop;
  }

  async #run(synced: () => void): Promise<void> {
    const { signal } = this.#stop;
    let delay = 100;
    while (!signal.aborted) {
      try {
        const list = await this.#options.list();
        if (signal.aborted) return;
        this.#replace(list.items);
        const watching = this.#watch(list.metadata?.resourceVersion ?? '');
        synced();
        await watching;
        delay = 100;
      } catch (error) {
        if (signal.aborted) return;
        this.#options.log(`watch ${this.#options.path}: ${describe(error)}; listing again in ${delay} ms`);
        delay = Math.min(delay * 2, 5_000);
      }
      await pause(delay, signal);
    }
  }

  #replace(items: T[]): void {
    const seen = new Set(items.map(uidOf));
    for (const [uid, object] of this.#known) {
      if (!seen.has(uid)) this.#forget(object);
    }
    for (const object of items) this.#remember(object);
    this.#options.onList?.(items);
  }

  async #watch(resourceVersion: string): Promise<void> {
    const watch = new Watch(this.#options.config);
    const query = { resourceVersion, allowWatchBookmarks: true, timeoutSeconds: WATCH_SECONDS };
    let abort: AbortController | undefined;
    const onStop = () => abort?.abort();
    this.#stop.signal.addEventListener('abort', onStop);
    try {
      await new Promise<void>((resolve, reject) => {
        const onEvent = (type: string, object: T) => {
          if (type === 'ADDED' || type === 'MODIFIED') this.#remember(object);
          else if (type === 'DELETED') this.#forget(object);
          // ERROR: most often "resource version too old"; only a new list helps.
          else if (type === 'ERROR') resolve();
        };
        const onDone = (error: unknown) => (error && !isEnd(error) ? reject(toError(error)) : resolve());
        watch.watch(this.#options.path, query, onEvent, onDone).then((controller) => {
          abort = controller;
          if (this.#stop.signal.aborted) controller.abort();
        }, reject);
      });
    } finally {
      this.#stop.signal.removeEventListener('abort', onStop);
      abort?.abort();
    }
  }

  #remember(object: T): void {
    if (this.#stop.signal.aborted) return;
    this.#known.set(uidOf(object), object);
    this.#options.onChange(object);
  }

  #forget(object: T): void {
    if (this.#stop.signal.aborted) return;
    this.#known.delete(uidOf(object));
    this.#options.onGone?.(object);
  }
}

function uidOf(object: KubernetesObject): string {
  return object.metadata?.uid ?? `${object.metadata?.namespace}/${object.metadata?.name}`;
}

/** Silence and our own abort end a watch in good order. */
function isEnd(error: unknown): boolean {
  return error instanceof Error && (error.name === 'TimeoutError' || error.name === 'AbortError');
}

function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
