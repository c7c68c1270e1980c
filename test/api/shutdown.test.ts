import { describe, expect, test, vi } from 'vitest';
import { shutdownOnSignal } from '../../src/shutdown.ts';

describe('shutdown', () => {
  const logger = { info: vi.fn<() => void>(), warn: vi.fn<() => void>(), error: vi.fn<() => void>() };
  async function run(steps: (() => unknown)[], code?: number) {
    const exit = vi.fn<(code: number) => void>();
    const named = steps.map((step, index) => ({ name: String(index), run: step }));
    const shutdown = shutdownOnSignal({ steps: named, timeoutMs: 50, logger, exit });
    await Promise.all([shutdown('test', code), shutdown('twice', code)]);
    return exit.mock.calls;
  }

  test('runs the steps in order and once', async () => {
    const done: number[] = [];
    expect(await run([() => done.push(1), () => done.push(2)])).toEqual([[0]]);
    expect(done).toEqual([1, 2]);
  });

  test('goes on after a step that fails, and says so by the exit code', async () => {
    const last = vi.fn<() => void>();
    expect((await run([() => Promise.reject(new Error('no')), last]))[0]).toEqual([1]);
    expect(last).toHaveBeenCalledOnce();
  });

  test('ends even when a step never does', async () => {
    expect((await run([() => new Promise(() => undefined)]))[0]).toEqual([1]);
  });

  test('keeps the exit code of whoever called it', async () => {
    expect((await run([], 3))[0]).toEqual([3]);
  });
});
