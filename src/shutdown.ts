/** Orderly shutdown with an end: signals run named steps one after another, and nothing may hold the process for ever. */
import type { Logger } from 'pino';
import { messageOf } from './domain/errors.ts';

/** One thing to stop. Steps run in the order given; a step that fails does not keep the later ones from running. */
interface ShutdownStep {
  readonly name: string;
  readonly run: () => unknown;
}

interface ShutdownOptions {
  readonly steps: readonly ShutdownStep[];
  /** For all steps together, milliseconds. Keep it below the grace period of whatever sends the signal. */
  readonly timeoutMs: number;
  readonly logger: Pick<Logger, 'info' | 'warn' | 'error'>;
  /** Replaced in tests. */
  readonly exit?: (code: number) => void;
}

/**
 * Run the steps on the first SIGTERM or SIGINT and exit: 0 when all went well, 1 when one failed or time ran out. A
 * second signal exits at once.
 *
 * @returns the function that the signals call, for a process that ends for another reason and with another exit code;
 *   repeated calls share one run
 */
export function shutdownOnSignal(options: ShutdownOptions): (reason: string, code?: number) => Promise<void> {
  const exit = options.exit ?? ((code: number) => process.exit(code));
  let running: Promise<void> | undefined;
  const shutdown = (reason: string, code = 0): Promise<void> => {
    running ??= runSteps(reason, code, options).then(exit);
    return running;
  };
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (running === undefined) void shutdown(signal);
      else exit(1);
    });
  }
  return shutdown;
}

/** @returns the exit code */
async function runSteps(reason: string, wanted: number, options: ShutdownOptions): Promise<number> {
  const { steps, timeoutMs, logger } = options;
  logger.info({ reason }, 'shutting down');
  const deadline = Promise.withResolvers<'late'>();
  const timer = setTimeout(() => deadline.resolve('late'), timeoutMs);
  let code = wanted;
  for (const { name, run } of steps) {
    const outcome = await Promise.race([attempt(run), deadline.promise]);
    if (outcome === 'late') {
      logger.error({ step: name, timeoutMs }, 'shutdown took too long; leaving the rest');
      code = 1;
      break;
    }
    if (outcome !== 'done') {
      logger.warn({ step: name, reason: outcome.failed }, 'a shutdown step failed');
      code = 1;
    }
  }
  clearTimeout(timer);
  return code;
}

async function attempt(run: () => unknown): Promise<'done' | { failed: string }> {
  try {
    await run();
    return 'done';
  } catch (error) {
    return { failed: messageOf(error) };
  }
}
