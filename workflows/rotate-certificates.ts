import { sleep } from '@temporalio/workflow';
import { parseRotateCertificatesInput } from '../src/domain/input.ts';
import { control, polled } from './shared/activity-proxies.ts';
import { Change } from './shared/change.ts';
import { checked } from './shared/input.ts';
import { runOperation, type Ended } from './shared/operation.ts';

const STEPS = {
  lease: 'Take the lease',
  look: 'Look at the certificates',
  plan: 'Look at the cluster',
} as const;

/** With the authority that is there. */
const RENEWAL = { renewed: 'Issue a new certificate' } as const;
/** With a new authority. */
const TAKEOVER = {
  trusted: 'Trust a new authority beside the old one',
  grace: 'Let users take up the new authority',
  issued: 'Issue a certificate by the new authority',
  settled: 'Drop the old authority',
} as const;

type Stage = 'renewed' | 'trusted' | 'issued' | 'settled';

/** How long users may go on with the old authority alone. */
const GRACE_SECONDS = 300;
/** Seconds that an issuer, or the cluster before a change, may take. */
const LOOK_SECONDS = 600;

/**
 * Give a cluster a new certificate, and with `authority` a new authority, without a moment in which a certificate is shown
 * that somebody does not trust: every pod and the Secret for users know the new authority before it signs anything, and
 * the old one goes last. Qdrant's REST port takes up a new certificate by itself; gRPC and peers do when they are
 * restarted, one pod after another. Interrupted anywhere, the same again goes on.
 *
 * Point of no return: every pod shows the new certificate. No stage is ever undone.
 *
 * Input: `{"tenant":"acme","cluster":"docs"}`; see `RotateCertificatesInput` for the rest.
 */
export async function RotateCertificates(
  input: unknown,
): Promise<Ended<{ tenant: string; cluster: string; rotated: boolean; restarts: number; notAfter?: string }>> {
  const { authority, newKey, onlyIfDue, allowDowntime, graceSeconds, readyTimeoutSeconds, ...ref } = checked(
    input,
    parseRotateCertificatesInput,
  );
  return runOperation({ kind: 'rotate-certificates', ref, steps: Object.values(STEPS) }, async (operation) => {
    await operation.step(STEPS.lease, () => control.takeLease({ ...ref, mode: 'exclusive' }));
    const found = await operation.step(
      STEPS.look,
      () => control.inspectCertificates(ref),
      ({ notAfter }) => (notAfter === undefined ? 'there is none' : `good until ${notAfter.slice(0, 10)}`),
    );
    const takesOver = authority === true || found.authorityDue || found.stage !== 'settled';
    if (onlyIfDue === true && !found.due && !takesOver) {
      operation.skip(STEPS.plan, 'nothing is due');
      return { ...ref, rotated: false, restarts: 0, ...(found.notAfter !== undefined && { notAfter: found.notAfter }) };
    }
    operation.expect(Object.values(takesOver ? TAKEOVER : RENEWAL));
    // Nobody could look at a cluster whose certificate nobody accepts. And where the pods must not be restarted, the REST
    // port at least gets the new one.
    if (found.expired || found.notAfter === undefined || (onlyIfDue === true && !takesOver)) {
      await control.ensureCertificates(ref);
    }
    const { spec } = await operation.step(STEPS.plan, () =>
      control.planClusterUpdate.executeWithOptions(polled(LOOK_SECONDS, 'Look at the cluster'), [
        { ...ref, request: { restart: true, ...(allowDowntime !== undefined && { allowDowntime }) } },
      ]),
    );
    const change = new Change(ref, spec, readyTimeoutSeconds);
    return change.settle(async () => {
      await change.enter('UPDATING');
      let restarts = 0;
      if (takesOver) {
        restarts += (await roll('trusted', TAKEOVER.trusted)).restarts;
        await operation.step(TAKEOVER.grace, () => sleep((graceSeconds ?? GRACE_SECONDS) * 1000));
        restarts += (await roll('issued', TAKEOVER.issued)).restarts;
      }
      const last = takesOver ? await roll('settled', TAKEOVER.settled) : await roll('renewed', RENEWAL.renewed);
      return { ...ref, rotated: true, restarts: restarts + last.restarts, notAfter: last.notAfter };
    }, operation);

    function roll(stage: Stage, name: string): Promise<{ restarts: number; notAfter: string }> {
      return operation.step(
        name,
        async () => {
          const options = polled(LOOK_SECONDS, `Certificates: ${stage}`);
          const newPair = newKey === true && (stage === 'renewed' || stage === 'issued') && { newKey };
          const staged =
            stage === 'renewed' && onlyIfDue === true
              ? await control.ensureCertificates.executeWithOptions(options, [ref])
              : await control.stageCertificates.executeWithOptions(options, [{ ...ref, stage, ...newPair }]);
          await change.apply({ certificateRevision: staged.revision });
          const restarts = await change.roll((done, total) => operation.advance(name, done, total, 'pods restarted'));
          return { restarts, notAfter: staged.notAfter };
        },
        ({ restarts }) => `${restarts} pods restarted`,
      );
    }
  });
}
