/** Reading ahead: several reads under way, their results in order. */

/**
 * Up to `lanes` tasks are under way; a result belongs to the consumer until it asks for the next one, and then a further
 * task begins. However it ends, no task is left running.
 *
 * @param begin starts the next task, or says that there is none; the signal ends tasks that nobody waits for any more
 * @param drop gets the results that nobody took, and those that were taken when the consumer is done with them
 */
export async function* readAhead<T>(
  lanes: number,
  begin: (signal: AbortSignal) => Promise<T> | undefined,
  drop: (result: T) => void,
  signal: AbortSignal,
): AsyncGenerator<T> {
  const ended = new AbortController();
  const abort = AbortSignal.any([signal, ended.signal]);
  const running: Promise<T>[] = [];
  const fill = (): void => {
    while (running.length < lanes) {
      const task = begin(abort);
      if (task === undefined) return;
      // Whoever waits for it sees the failure; before that it must not count as unhandled.
      task.catch(() => undefined);
      running.push(task);
    }
  };
  try {
    fill();
    for (let due = running.shift(); due !== undefined; due = running.shift()) {
      const result = await due;
      try {
        yield result;
      } finally {
        drop(result);
      }
      fill();
    }
  } finally {
    ended.abort(new Error('nobody reads on'));
    for (const outcome of await Promise.allSettled(running)) {
      if (outcome.status === 'fulfilled') drop(outcome.value);
    }
  }
}
