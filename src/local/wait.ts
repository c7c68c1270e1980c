/** Thrown when a condition did not become true in time. */
export class DeadlineError extends Error {
  override name = 'DeadlineError';
}

/**
 * Waits until `probe` resolves to true, asking again every `everyMs`. A probe that throws counts as "not yet",
 * and the last such error is the cause of the {@link DeadlineError}.
 */
export async function until(
  what: string,
  probe: () => Promise<boolean> | boolean,
  options: { withinMs: number; everyMs?: number; signal?: AbortSignal },
): Promise<void> {
  const deadline = Date.now() + options.withinMs;
  let cause: unknown;
  for (;;) {
    options.signal?.throwIfAborted();
    try {
      if (await probe()) return;
    } catch (error) {
      cause = error;
    }
    if (Date.now() >= deadline) {
      throw new DeadlineError(`${what} did not happen within ${Math.round(options.withinMs / 1000)} s`, { cause });
    }
    await pause(options.everyMs ?? 40, options.signal);
  }
}

/** Resolves after `ms`, or at once when `signal` is aborted. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener('abort', done);
  });
}
