/** A backup schedule in Temporal's terms and back. Temporal keeps and fires it; the API keeps nothing. */
import type { ScheduleDescription, ScheduleOptions, ScheduleSummary } from '@temporalio/client';
import type { Priority } from '@temporalio/common';
import { FleetError } from '../src/domain/errors.ts';
import { FORMATS, formatProblem } from '../src/domain/input/formats.ts';
import { NUMBERS } from '../src/domain/input/limits.ts';
import { Problems } from '../src/domain/input/problems.ts';
import { invalidInput, readInput } from '../src/domain/input/reader.ts';
import { parseBackupInput, type BackupInput } from '../src/domain/input.ts';
import { clusterKey, type ClusterRef } from '../src/domain/naming.ts';
import { OPERATION_KINDS } from '../src/domain/operation.ts';
import { startAttributes } from '../src/temporal-search-attributes.ts';
import { cronProblem, timeZoneProblem } from './cron.ts';

export interface ScheduleRequest {
  readonly name: string;
  readonly cron: string;
  readonly timeZone: string;
  readonly paused: boolean;
  readonly jitterSeconds?: number;
  /** What each run gets. */
  readonly backup: BackupInput;
}

export function isScheduleName(text: string): boolean {
  return formatProblem(FORMATS.schedule, text) === undefined;
}

/** Parts are separated by `--`, which none of them holds: with one hyphen `a-b` + `c` and `a` + `b-c` were the same. */
export function scheduleIdOf(ref: ClusterRef, name: string): string {
  return `${schedulePrefix(ref)}${name}`;
}

export function schedulePrefix(ref: ClusterRef): string {
  return `backup-${clusterKey(ref)}--`;
}

/** @throws FleetError `InvalidInput` listing every bad field */
export function parseSchedule(body: unknown): ScheduleRequest {
  const { tenant, cluster, collections, format, retention, ...own } = body as Record<string, unknown>;
  const problems = new Problems();
  const collect = <T>(parse: () => T): T | undefined => {
    try {
      return parse();
    } catch (error) {
      if (!FleetError.is(error, 'InvalidInput')) throw error;
      problems.merge(error);
      return undefined;
    }
  };
  const backup = collect(() => parseBackupInput({ tenant, cluster, collections, format, retention }));
  const timing = collect(() =>
    readInput(own, (r) => ({
      name: r.text('name', FORMATS.schedule).name ?? 'backup',
      cron: r.required('cron', cronProblem),
      timeZone: r.text('timeZone', timeZoneProblem).timeZone ?? 'UTC',
      paused: r.boolean('paused').paused ?? false,
      ...r.integer('jitterSeconds', NUMBERS.jitterSeconds),
    })),
  );
  if (backup === undefined || timing === undefined) throw invalidInput(problems);
  return { ...timing, backup };
}

export function scheduleOptions(request: ScheduleRequest, taskQueue: string): ScheduleOptions {
  const { tenant, cluster } = request.backup;
  const scheduleId = scheduleIdOf({ tenant, cluster }, request.name);
  const typedSearchAttributes = startAttributes({ tenant, cluster, kind: 'backup' });
  // The client sends the priority of a schedule's action, which its type does not have.
  const fair: { priority: Priority } = { priority: { fairnessKey: tenant } };
  return {
    scheduleId,
    spec: {
      // Temporal keeps only what it compiles the expression to, but also a comment: the expression, to be shown again.
      cronExpressions: [`${request.cron} # ${request.cron}`],
      timezone: request.timeZone,
      ...(request.jitterSeconds !== undefined && { jitter: request.jitterSeconds * 1000 }),
    },
    action: {
      type: 'startWorkflow',
      workflowType: OPERATION_KINDS.backup,
      // Temporal appends the time of the run.
      workflowId: scheduleId,
      taskQueue,
      args: [request.backup],
      typedSearchAttributes,
      ...fair,
      staticSummary: `Back up ${tenant}/${cluster} (schedule ${request.name})`,
    },
    policies: { overlap: 'SKIP', catchupWindow: '24h', pauseOnFailure: false },
    state: { paused: request.paused },
    typedSearchAttributes,
  };
}

/** What a description has, and an entry of a list too. */
export function viewOfSchedule(ref: ClusterRef, schedule: ScheduleDescription | ScheduleSummary) {
  const { spec, state, info, scheduleId } = schedule;
  const cron = spec?.calendars?.[0]?.comment;
  return {
    name: scheduleId.slice(schedulePrefix(ref).length),
    cluster: ref.cluster,
    ...(cron !== undefined && cron !== '' && { cron }),
    timeZone: spec?.timezone ?? 'UTC',
    paused: state.paused,
    ...(state.note !== undefined && state.note !== '' && { note: state.note }),
    ...(spec?.jitter !== undefined && spec.jitter > 0 && { jitterSeconds: spec.jitter / 1000 }),
    ...backupOptions(schedule),
    nextRuns: info.nextActionTimes.map((at) => at.toISOString()),
    recentRuns: info.recentActions.map(({ scheduledAt, takenAt, action }) => ({
      operation: action.workflow.workflowId,
      scheduledAt: scheduledAt.toISOString(),
      startedAt: takenAt.toISOString(),
    })),
  };
}

/** Retention, format and collections stand in the action's argument, which lists leave out. */
function backupOptions({
  action,
}: ScheduleDescription | ScheduleSummary): Pick<BackupInput, 'collections' | 'format' | 'retention'> {
  if (action === undefined || !('args' in action)) return {};
  const [input] = (action.args ?? []) as readonly Partial<BackupInput>[];
  return {
    ...(input?.collections !== undefined && { collections: input.collections }),
    ...(input?.format !== undefined && { format: input.format }),
    ...(input?.retention !== undefined && { retention: input.retention }),
  };
}

/** Selects a cluster's schedules. Both names come from the catalogue, so neither holds a quote. */
export function scheduleQuery({ tenant, cluster }: ClusterRef): string {
  return `FleetTenant = "${tenant}" AND FleetCluster = "${cluster}"`;
}
