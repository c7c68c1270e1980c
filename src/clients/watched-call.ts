/**
 * A call that a node answers only when its work is done, watched by other calls while it is open. Such work may take
 * hours, so no time limit can bound the call itself; what the node says of its work can.
 */
import { FleetError } from '../domain/errors.ts';

export interface Watch {
  /** Whether the node is at work, by a call of its own. */
  readonly running: (signal: AbortSignal) => Promise<boolean>;
  /** Ends everything. */
  readonly signal?: AbortSignal;
  /** Milliseconds between two looks. */
  readonly every?: number;
  /** The call is lost when the node has done nothing for this long, and still has not answered. Milliseconds. */
  readonly idle?: number;
  /** The call is lost when the node has answered no look for this long. Milliseconds. */
  readonly silent?: number;
  /**
   * Milliseconds from the start in which a node that seems idle may be at work all the same, unless it was seen at
   * work before: Qdrant counts a recovery only once the snapshot is downloaded.
   */
  readonly unseen?: number;
}

/** What became of a call: its answer, or why nobody waits for it any longer. The work itself may still be going on. */
export type Watched<T> = { readonly answer: T } | { readonly lost: string };

/**
 * Wait for the answer of a long call, and give it up when the node evidently does not work on it any more.
 *
 * @param call is aborted by its signal when it is given up
 * @throws what the call throws, and the reason of `signal`
 */
export async function watched<T>(call: (signal: AbortSignal) => Promise<T>, watch: Watch): Promise<Watched<T>> {
  const over = new AbortController();
  const signal = watch.signal === undefined ? over.signal : AbortSignal.any([watch.signal, over.signal]);
  const answered = call(signal).then((answer) => ({ answer }));
  try {
    return await Promise.race([answered, losing(watch, signal)]);
  } finally {
    over.abort(new Error('Nobody waits for this any longer.'));
    // It was given up: how it ends now is of no interest.
    answered.catch(() => undefined);
  }
}

/** Resolves when the call is lost; never, when it is over before that. */
async function losing(watch: Watch, signal: AbortSignal): Promise<{ lost: string }> {
  const { running, every = 2000, idle = 10_000, silent = 60_000, unseen = 0 } = watch;
  const start = Date.now();
  let heard = start;
  let idleSince: number | undefined;
  let seen = false;
  for (;;) {
    await pause(every, signal);
    if (signal.aborted) return new Promise(() => undefined);
    const state = await look();
    const now = Date.now();
    if (state === undefined) {
      if (now - heard >= silent) return { lost: `it answered nothing for ${seconds(now - heard)} s` };
      continue;
    }
    heard = now;
    seen ||= state === 'working';
    if (state === 'idle' && (seen || now - start >= unseen)) idleSince ??= now;
    else idleSince = undefined;
    if (idleSince !== undefined && now - idleSince >= idle) {
      return { lost: `it has not answered, and done nothing for ${seconds(now - idleSince)} s` };
    }
  }

  async function look(): Promise<'working' | 'idle' | 'alive' | undefined> {
    try {
      return (await running(signal)) ? 'working' : 'idle';
    } catch (error) {
      // A node that answers and does not tell is let be: what is not known is no reason to give up.
      return FleetError.is(error) && error.code !== 'QdrantUnavailable' ? 'alive' : undefined;
    }
  }
}

function seconds(milliseconds: number): number {
  return Math.round(milliseconds / 1000);
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener('abort', done);
  });
}
