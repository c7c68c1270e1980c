import { sleep } from '@temporalio/workflow';
import { FleetError } from '../src/domain/errors.ts';
import { parseRotateInput } from '../src/domain/input.ts';
import { compareVersions, parseVersion } from '../src/domain/releases.ts';
import { control, polled } from './shared/activity-proxies.ts';
import { Change } from './shared/change.ts';
import { checked } from './shared/input.ts';
import { runOperation, type Ended } from './shared/operation.ts';

const STEPS = {
  lease: 'Take the lease',
  look: 'Look at the cluster',
  added: 'Add the new key as the second one',
  switched: 'Make the new key the first one',
  grace: 'Let users take up the new key',
  settled: 'Drop the old key',
} as const;

/** The first version with a second key (qdrant#7835). */
const SECOND_KEY_SINCE = '1.17.0';
/** How long users may go on with the old key, once the new one stands in the Secret. */
const GRACE_SECONDS = 300;

/**
 * Give a cluster a new API key without a moment in which a key that was good is refused: every pod knows both keys before
 * users see the new one, and the old one goes only after they had time to take it up. The keys are in the cluster's
 * Secret and nowhere else. Interrupted anywhere, the key in the Secret is good on every pod, and the same again goes on.
 *
 * Point of no return: the last pod has dropped the old key. No stage is ever undone.
 *
 * Input: `{"tenant":"acme","cluster":"docs"}`; see `RotateInput` for the rest.
 */
export async function RotateApiKey(
  input: unknown,
): Promise<Ended<{ tenant: string; cluster: string; restarts: number }>> {
  const { allowDowntime, graceSeconds = GRACE_SECONDS, readyTimeoutSeconds, ...ref } = checked(input, parseRotateInput);
  return runOperation({ kind: 'rotate-key', ref, steps: Object.values(STEPS) }, async (operation) => {
    await operation.step(STEPS.lease, () => control.takeLease({ ...ref, mode: 'exclusive' }));
    const plan = await operation.step(STEPS.look, async () => {
      const request = { restart: true, ...(allowDowntime !== undefined && { allowDowntime }) };
      const found = await control.planClusterUpdate.executeWithOptions(polled(600, 'Look at the cluster'), [
        { ...ref, request },
      ]);
      requireSecondKey(found.oldest);
      return found;
    });
    const change = new Change(ref, plan.spec, readyTimeoutSeconds);
    return change.settle(async () => {
      await change.enter('UPDATING');
      let restarts = await roll('added');
      restarts += await roll('switched');
      await operation.step(STEPS.grace, () => sleep(graceSeconds * 1000));
      restarts += await roll('settled');
      return { ...ref, restarts };
    }, operation);

    function roll(stage: 'added' | 'switched' | 'settled'): Promise<number> {
      return operation.step(
        STEPS[stage],
        async () => {
          const { revision } = await control.stageApiKey({ ...ref, stage });
          await change.apply({ keyRevision: revision });
          return change.roll((done, total) => operation.advance(STEPS[stage], done, total, 'pods restarted'));
        },
        (restarted) => `${restarted} pods restarted`,
      );
    }
  });
}

function requireSecondKey(version: string): void {
  const [found, needed] = [parseVersion(version), parseVersion(SECOND_KEY_SINCE)];
  if (found !== undefined && needed !== undefined && compareVersions(found, needed) >= 0) return;
  throw new FleetError(
    'UpdateRefused',
    `Qdrant ${version} knows one API key only, so it cannot be changed without refusing somebody. Upgrade to ${SECOND_KEY_SINCE} or newer first.`,
  );
}
