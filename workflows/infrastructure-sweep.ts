import { isCancellation, patched } from '@temporalio/workflow';
import type { Orphans } from '../src/domain/aws-sweep.ts';
import { parseSweepInput } from '../src/domain/input.ts';
import type { ClusterRef } from '../src/domain/naming.ts';
import { control, patient } from './shared/activity-proxies.ts';
import { isFailure, reasonOf } from './shared/failures.ts';
import { checked } from './shared/input.ts';
import { runOperation, type Ended } from './shared/operation.ts';

const STEPS = { survey: 'Survey the account', remove: 'Remove what belongs to nobody' } as const;

/** Seconds that one room may take to go. */
const REMOVAL_SECONDS = 3600;

/**
 * List what carries our tags in a region of AWS and belongs to no cluster that there is, and remove it when told.
 *
 * Point of no return: of each thing, its removal. Nothing is made again.
 *
 * Input: `{"tenant":"acme","region":"eu-west-1"}`; `"cluster"` looks at one name only, `"dryRun":false` removes.
 */
export async function InfrastructureSweep(
  input: unknown,
): Promise<Ended<{ found: number; orphans: readonly Orphans[]; removed: number; dryRun: boolean }>> {
  const { tenant, region, cluster, dryRun = true } = checked(input, parseSweepInput);
  const ref = { tenant, cluster: cluster ?? '*' };
  return runOperation({ kind: 'sweep', ref, steps: Object.values(STEPS) }, async (operation) => {
    const where = { tenant, region };
    const { found, orphans } = await operation.step(
      STEPS.survey,
      () => control.surveyInfrastructure({ ...where, ...(cluster !== undefined && { cluster }) }),
      ({ found, orphans }) => `${found} resources of ours, ${count(orphans)} of nobody's`,
    );
    if (dryRun || orphans.length === 0) {
      operation.skip(STEPS.remove, dryRun ? 'dry run' : 'nothing to remove');
      return { found, orphans, removed: 0, dryRun };
    }
    let removed = 0;
    await operation.step(
      STEPS.remove,
      async () => {
        for (const name of new Set(orphans.map((orphan) => orphan.cluster))) removed += await sweepCluster(name);
      },
      () => `${removed} removed`,
    );
    operation.pointOfNoReturn();
    return { found, orphans, removed, dryRun };

    /** Nobody makes a cluster of that name meanwhile, and what came to belong to somebody since the survey stays. */
    async function sweepCluster(name: string): Promise<number> {
      const one = { tenant, cluster: name };
      await control.takeLease({ ...one, mode: 'exclusive' });
      const again = await control.surveyInfrastructure({ ...where, cluster: name });
      for (const { operation: of } of again.orphans) {
        const what = { ...one, region, onlyOwn: true, operation: of };
        const options = patient(REMOVAL_SECONDS, `What ${of} left of ${name}`);
        await control.deleteNodeGroups.executeWithOptions(options, [what]);
        await control.deleteControlPlane.executeWithOptions(options, [what]);
        await control.deleteNetwork.executeWithOptions(options, [what]);
        await control.deleteAccess.executeWithOptions(options, [what]);
      }
      await letGo(one);
      return count(again.orphans);
    }

    /** What was removed stays removed; a lease that cannot be let go of goes with the end of the sweep. */
    async function letGo(one: ClusterRef): Promise<void> {
      try {
        await control.releaseLease(one);
      } catch (error) {
        if (!isFailure(error) || isCancellation(error) || !patched('sweep-goes-on-with-lease')) throw error;
        operation.warn(
          `The name ${one.tenant}/${one.cluster} is held until the sweep ends: ${reasonOf(error).message}`,
        );
      }
    }
  });
}

function count(orphans: readonly Orphans[]): number {
  return orphans.reduce((sum, { resources }) => sum + resources.length, 0);
}
