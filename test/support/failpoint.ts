/**
 * Preloaded into a worker process by tests: kills it with SIGKILL at one place, named by `FLEET_TEST_FAILPOINT`.
 *
 * - `<activity>:before` when the first attempt of the activity begins
 * - `<activity>:after` when its work is done and nobody was told
 * - `<activity>:hold` does not kill: the activity says `held` on standard error and waits for SIGWINCH
 * - `uploadPart:<n>` when the n-th part was sent
 */
import { Context } from '@temporalio/activity';
import { FleetActivityInterceptor } from '../../activities/interceptor.ts';
import { BackupStore } from '../../src/clients/s3.ts';

const [place = '', when = ''] = (process.env['FLEET_TEST_FAILPOINT'] ?? '').split(':');

let held = false;

/** Once in the life of the process. Not by SIGUSR2, at which Temporal's worker shuts down. */
async function hold(): Promise<void> {
  if (held) return;
  held = true;
  const released = new Promise<void>((resolve) => process.once('SIGWINCH', () => resolve()));
  process.stderr.write('held\n');
  await released;
}

function die(): void {
  process.kill(process.pid, 'SIGKILL');
}

// Called with the instance below.
// oxlint-disable-next-line typescript/unbound-method
const execute = FleetActivityInterceptor.prototype.execute;
FleetActivityInterceptor.prototype.execute = async function patched(input, next) {
  const here = Context.current().info.activityType === place;
  if (here && when === 'before') die();
  return execute.call(this, input, async (inner) => {
    if (here && when === 'hold') await hold();
    const result = await next(inner);
    if (here && when === 'after') die();
    return result;
  });
};

if (place === 'uploadPart') {
  // oxlint-disable-next-line typescript/unbound-method -- called with the instance below
  const uploadPart = BackupStore.prototype.uploadPart;
  let sent = 0;
  BackupStore.prototype.uploadPart = async function patched(...args) {
    const part = await uploadPart.apply(this, args);
    sent += 1;
    if (sent === Number(when)) die();
    return part;
  };
}
