/** A long call and the looks at the node beside it, at a hundredth of the usual pace. */
import { describe, expect, test } from 'vitest';
import { watched, type Watch } from '../../src/clients/watched-call.ts';
import { FleetError } from '../../src/domain/errors.ts';

const PACE = { every: 20, idle: 100, silent: 600 };
const never = (signal: AbortSignal) =>
  new Promise<never>((_, reject) => {
    signal.addEventListener('abort', () => reject(new Error('aborted')));
  });

/** What the node says at each look, the last answer for ever. */
function says(...answers: readonly (boolean | 'nothing' | 'forbidden')[]): Pick<Watch, 'running'> & { looks: number } {
  const node = {
    looks: 0,
    running: () => {
      const answer = answers[Math.min(node.looks, answers.length - 1)];
      node.looks += 1;
      if (answer === 'nothing') return Promise.reject(new FleetError('QdrantUnavailable', 'no answer'));
      if (answer === 'forbidden') return Promise.reject(new FleetError('QdrantRejected', '403'));
      return Promise.resolve(answer === true);
    },
  };
  return node;
}

describe.concurrent('watched', () => {
  test('the answer counts, whatever the node says', async () => {
    expect(await watched(() => Promise.resolve(7), { ...PACE, ...says(false) })).toEqual({ answer: 7 });
  });

  test('what the call throws is thrown', async () => {
    const call = () => Promise.reject(new FleetError('QdrantRejected', 'no'));
    await expect(watched(call, { ...PACE, ...says(true) })).rejects.toMatchObject({ code: 'QdrantRejected' });
  });

  test('a node that is idle for long has lost the call, which is aborted', async () => {
    let aborted = false;
    const call = (signal: AbortSignal) => {
      signal.addEventListener('abort', () => {
        aborted = true;
      });
      return never(signal);
    };
    const outcome = await watched(call, { ...PACE, ...says(true, true, false) });
    expect(outcome).toEqual({ lost: expect.stringContaining('done nothing') });
    expect(aborted).toBe(true);
  });

  test('a node at work may take as long as it takes, and rest between', async () => {
    const { promise, resolve } = Promise.withResolvers<string>();
    const node = says(true, false, true, false, false, true);
    const outcome = watched(() => promise, {
      ...PACE,
      running: async () => {
        // Ten times the patience for an idle node has passed by then.
        if (node.looks === 50) resolve('made');
        return node.running(new AbortController().signal);
      },
    });
    expect(await outcome).toEqual({ answer: 'made' });
  });

  test('a node that answers no look for long has lost the call', async () => {
    const outcome = await watched(never, { ...PACE, ...says(true, 'nothing') });
    expect(outcome).toEqual({ lost: expect.stringContaining('answered nothing') });
  });

  test('a node that answers and does not tell is let be', async () => {
    const { promise, resolve } = Promise.withResolvers<string>();
    const node = says(false, 'forbidden');
    const running = () => {
      if (node.looks === 50) resolve('made');
      return node.running(new AbortController().signal);
    };
    expect(await watched(() => promise, { ...PACE, running })).toEqual({ answer: 'made' });
  });

  test('idle does not count while the work may be unseen, unless it was seen before', async () => {
    const patient = says(false);
    await watched(never, { ...PACE, ...patient, running: patient.running, unseen: 500 });
    // 25 looks while it may be unseen, 5 of patience.
    expect(patient.looks).toBeGreaterThan(20);
    const seen = says(true, false);
    const start = Date.now();
    await watched(never, { ...PACE, running: seen.running, unseen: 60_000 });
    expect(Date.now() - start).toBeLessThan(10_000);
  });

  test('its signal ends it with its reason', async () => {
    const ending = new AbortController();
    const call = (signal: AbortSignal) =>
      new Promise<never>((_, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason as Error));
      });
    const outcome = watched(call, { ...PACE, ...says(true), signal: ending.signal });
    ending.abort(new Error('cancelled by somebody'));
    await expect(outcome).rejects.toThrow('cancelled by somebody');
  });
});
