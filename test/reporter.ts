import type { Reporter, SerializedError, TestModule } from 'vitest/node';

/** Ends a test run with one plain line, `N passed, N failed`, and `, N skipped` when there are any. */
export default class TallyReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandledErrors: readonly SerializedError[]): void {
    const tests = modules.flatMap((module) => [...module.children.allTests()]);
    const count = (state: string) => tests.filter((test) => test.result().state === state).length;
    // A file that could not be loaded has no tests to fail, and an error outside of any test fails none of them.
    const broken = modules.filter((module) => module.state() === 'failed' && module.errors().length > 0).length;
    const failed = count('failed') + broken + unhandledErrors.length;
    const skipped = count('skipped') === 0 ? '' : `, ${count('skipped')} skipped`;
    // Other reporters and the teardown of the stack still have things to say: this is the very last line.
    process.once('exit', (status) => {
      // A run that failed without a failed test (the stack did not start, say) is not one of no failures.
      const failures = failed === 0 && status !== 0 ? 1 : failed;
      console.log(`${count('passed')} passed, ${failures} failed${skipped}`);
    });
  }
}
