/** An operation that does not end: what it waits for, as Temporal sees it. */
import { WorkflowFailedError, type WorkflowHandle } from '@temporalio/client';
import { CancelledFailure } from '@temporalio/common';
import type { Progress } from '../../src/domain/operation.ts';

/** The end of an operation, or an error that says what it waits for. @param cancelled whether it has to be cancelled */
export async function within(
  seconds: number,
  handle: WorkflowHandle,
  cancelled = false,
): Promise<Record<string, unknown>> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<'late'>((resolve) => {
    timer = setTimeout(() => resolve('late'), seconds * 1000);
  });
  try {
    const result = (await Promise.race([handle.result(), late])) as Record<string, unknown> | 'late';
    if (result === 'late') throw new Error(`no end within ${seconds} s; ${await hangs(handle)}`);
    if (cancelled) throw new Error('it was cancelled, and ended as if it was not');
    return result;
  } catch (error) {
    if (!(error instanceof WorkflowFailedError)) throw error;
    if (cancelled && error.cause instanceof CancelledFailure) return {};
    throw new Error(`it failed: ${error.cause?.message}`, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}

/** The phase of an operation and what it and its children wait for. */
export async function hangs(handle: WorkflowHandle): Promise<string> {
  const phase = await Promise.race([
    handle.query<Progress>('progress').then((progress) => progress.phase),
    new Promise<string>((resolve) => {
      setTimeout(() => resolve('no worker tells the phase'), 5000).unref();
    }),
  ]).catch((error: unknown) => String(error));
  return `phase "${phase}", waits for ${(await waitsFor(handle)).join('; ') || 'nothing that Temporal knows'}`;
}

async function waitsFor(handle: WorkflowHandle): Promise<string[]> {
  const { raw } = await handle.describe();
  const own = (raw.pendingActivities ?? []).map(
    ({ activityType, attempt, lastFailure }) =>
      `${activityType?.name}, attempt ${attempt}${lastFailure?.message ? ` (last: ${lastFailure.message.slice(0, 200)})` : ''}`,
  );
  const children = await Promise.all(
    (raw.pendingChildren ?? []).map(({ workflowId, runId }) =>
      waitsFor(handle.client.getHandle(workflowId ?? '', runId ?? undefined)),
    ),
  );
  return [...own, ...children.flat()];
}
