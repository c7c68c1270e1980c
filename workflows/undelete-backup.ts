import { parseUndeleteBackupInput } from '../src/domain/input.ts';
import { backupTimeOf, inBucket, placeOf } from '../src/domain/naming.ts';
import { control } from './shared/activity-proxies.ts';
import { checked } from './shared/input.ts';
import { runOperation, type Ended } from './shared/operation.ts';

const STEPS = { undelete: 'Take the removal back', index: 'List the backup again' } as const;

/**
 * Take the removal of a backup back: DELETING -> what it was before. Retention promises `undoHours` for it, and it works for
 * as long as the data has not begun to go. A backup that is listed already is left as it is.
 *
 * Point of no return: the record says so.
 *
 * Input: `{"tenant":"acme","cluster":"docs","backup":"<id>"}`.
 */
export async function UndeleteBackup(input: unknown): Promise<Ended<{ backup: string; state: string }>> {
  const { tenant, cluster, backup } = checked(input, parseUndeleteBackupInput);
  const ref = { tenant, cluster };
  return runOperation({ kind: 'undelete', ref, steps: Object.values(STEPS) }, async (operation) => {
    const { location, state } = await operation.step(
      STEPS.undelete,
      () => control.undeleteBackup({ ...ref, backup }),
      (back) => `${placeOf(back.location)} is ${back.state}`,
    );
    const at = { ...ref, ...inBucket(location), backup };
    operation.pointOfNoReturn();
    const entry = { ...at, state, createdAt: backupTimeOf(backup).toISOString() };
    const chore = { ...ref, kind: 'backup-index', what: { backup } } as const;
    await operation.step(STEPS.index, () =>
      operation.tidying.now(`entry of backup ${backup} in the list`, chore, (options) =>
        control.indexBackup.executeWithOptions(options, [entry]),
      ),
    );
    return { backup, state };
  });
}
